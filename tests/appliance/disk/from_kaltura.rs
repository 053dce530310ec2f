//! Imports of Kaltura accounts: docs/backup.md#move-from-kaltura.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, tinyd};
use crate::support::kaltura::{Fault, KALTURA_PARTNER, KALTURA_SECRET, KALTURA_USER_KS, Kaltura, kaltura_link};
use crate::support::transfer::{complained, told};

const START: i64 = 1_600_000_000;
const NUMBERS: [&str; 4] = ["--partner", PARTNER, "--kaltura-partner", "424242"];

/// The command, with the secret of the double.
fn moving(url: &str, args: &[&str]) -> Command {
    let mut command = tinyd();
    command
        .args(["import", "--from-kaltura", url])
        .args(args)
        .env("TINYD_KALTURA_SECRET", KALTURA_SECRET);
    command
}

/// Imports into an appliance.
fn moved(kaltura: &Kaltura, appliance: &Appliance, args: &[&str]) -> Output {
    let output = moving(&kaltura.url(), &[&NUMBERS, args].concat())
        .env("TINYD_CONFIG", appliance.config())
        .env("TINYD_URL", &appliance.admin)
        .output()
        .unwrap();
    let text = [output.stdout.clone(), output.stderr.clone()].concat();
    let text = String::from_utf8(text).unwrap();
    for secret in [KALTURA_SECRET, "kaltura-session", ADMIN_SECRET] {
        assert!(!text.contains(secret), "{text}");
    }
    output
}

fn counts(added: usize, unchanged: usize, refused: usize) -> String {
    format!("{added} added, 0 updated, {unchanged} unchanged, 0 skipped, {refused} refused\n")
}

/// The links of the appliance by their ids, without the partner.
fn stored(appliance: &Appliance) -> BTreeMap<String, Value> {
    let lines = told(&appliance.tinyd(&["export", "-", "--partner", PARTNER]), 0);
    let links = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    links.map(by_id).collect()
}

/// A link without its partner, the type of its object and fields that are null, by its id.
fn by_id(mut link: Value) -> (String, Value) {
    let fields = link.as_object_mut().unwrap();
    fields.retain(|name, value| !["partnerId", "objectType"].contains(&name.as_str()) && !value.is_null());
    (link["id"].as_str().unwrap().to_owned(), link)
}

/// So many links, `per_second` of them of each second.
fn links(count: usize, per_second: usize) -> Vec<Value> {
    let link = |number: usize| kaltura_link(&format!("k{number:05}"), START + (number / per_second) as i64);
    (0..count).map(link).collect()
}

#[test]
fn kaltura_account_moves_whole() {
    // More than Kaltura lists of one filter.
    let mut account = links(10_200, 7);
    // More than a page of one second.
    account.extend((0..1_300).map(|number| kaltura_link(&format!("s{number:04}"), START + 500)));
    for (number, link) in account.iter_mut().enumerate() {
        link["status"] = json!(number % 3 + 1);
    }
    account[3]["expiresAt"] = json!(1_900_000_000);
    account[4]["uniqueId"] = json!("key");
    account[5]["name"] = json!("ünï\u{202e}<b>\"");
    account[6].as_object_mut().unwrap().remove("userId");
    account[7].as_object_mut().unwrap().remove("name");
    // A field of a newer version.
    account[8]["tags"] = json!("a");
    let kaltura = Kaltura::start(account.clone());
    let appliance = Appliance::start();

    let dry = moved(&kaltura, &appliance, &["--dry-run"]);
    let would = format!("nothing was changed; it would be: {}", counts(11_500, 0, 0));
    assert!(told(&dry, 0).starts_with(&would), "{dry:?}");
    assert_eq!(stored(&appliance).len(), 0);

    assert_eq!(told(&moved(&kaltura, &appliance, &[]), 0), counts(11_500, 0, 0));
    account[8].as_object_mut().unwrap().remove("tags");
    let wanted: BTreeMap<_, _> = account.into_iter().map(by_id).collect();
    assert_eq!(stored(&appliance), wanted);
    // Again, nothing changes.
    assert_eq!(told(&moved(&kaltura, &appliance, &[]), 0), counts(0, 11_500, 0));
}

#[test]
fn kaltura_faults_lose_and_double_nothing() {
    let kaltura = Kaltura::start(links(2_600, 800));
    let appliance = Appliance::start();
    let faults = [
        Some(Fault::Status(503)),
        None,
        Some(Fault::Cut),
        None,
        Some(Fault::Status(429)),
        Some(Fault::SessionsEnd),
        Some(Fault::Exception("INTERNAL_DATABASE_ERROR")),
    ];
    kaltura.fail(&faults);
    let output = moved(&kaltura, &appliance, &["--json"]);
    let report: Value = serde_json::from_str(&told(&output, 0)).unwrap();
    assert_eq!((&report["added"], &report["unchanged"]), (&2_600.into(), &0.into()));
    assert_eq!(stored(&appliance).len(), 2_600);
    assert_eq!(kaltura.sessions(), 2);
    let tries = complained(&output, 0);
    assert!(
        tries.contains("answered 503 Service Unavailable; next try in 0 s"),
        "{tries}"
    );
    assert!(
        tries.contains("answered INTERNAL_DATABASE_ERROR; next try in 1 s"),
        "{tries}"
    );
}

#[test]
fn links_that_cannot_move_are_named_with_reasons() {
    let mut account = links(8, 2);
    account[0]["fullUrl"] = json!("javascript:alert(1)");
    account[1]["id"] = json!("UPPER");
    account[2]["systemName"] = json!("x".repeat(64));
    account[3]["systemName"] = Value::Null;
    account[4]["fullUrl"] = json!("https://good.example\\@bad.example/");
    account[5]["uniqueId"] = json!("key");
    account[6]["uniqueId"] = json!("key");
    let kaltura = Kaltura::start(account);
    let appliance = Appliance::start();
    let output = moved(&kaltura, &appliance, &[]);
    assert_eq!(told(&output, 8), counts(3, 0, 5));
    let told_links = complained(&output, 8);
    for reason in [
        "link k00000: fullUrl: ",
        "link UPPER: id \"UPPER\": ",
        "link k00002: systemName: at most 63 characters",
        "link k00003: invalid type: null, expected a string",
        "link k00004: warning: fullUrl: ",
        "link k00006: the link k00005 has the unique id \"key\"",
        "tinyd: links that were not imported: 5",
    ] {
        assert!(told_links.contains(reason), "{reason}: {told_links}");
    }
    let ids: Vec<_> = stored(&appliance).into_keys().collect();
    assert_eq!(ids, ["k00004", "k00005", "k00007"]);
}

#[test]
fn interrupted_move_continues_where_it_was() {
    let kaltura = Kaltura::start(links(6_000, 3));
    let appliance = Appliance::start();
    let cursor = appliance.folder.path().join("moving");
    let resumed = |args: &[&str]| {
        moved(
            &kaltura,
            &appliance,
            &[&["--resume", cursor.to_str().unwrap()], args].concat(),
        )
    };

    // Eleven pages of 500 links bring a bit more than one batch.
    let mut faults = vec![None; 11];
    faults.push(Some(Fault::Exception("SERVICE_FORBIDDEN")));
    kaltura.fail(&faults);
    let interrupted = resumed(&[]);
    let error = complained(&interrupted, 4);
    assert!(error.contains("expected an ADMIN session"), "{error}");
    let first = stored(&appliance).len();
    assert!((5_000..6_000).contains(&first), "{first}");
    assert_eq!(told(&interrupted, 4), counts(first, 0, 0));
    kaltura.take_lists();

    assert!(told(&resumed(&["--dry-run"]), 0).contains(&format!("{} added", 6_000 - first)));
    kaltura.take_lists();
    let report = told(&resumed(&[]), 0);
    assert!(
        report.starts_with(&format!("{} added, 0 updated, ", 6_000 - first)),
        "{report}"
    );
    assert_eq!(stored(&appliance).len(), 6_000);
    // What was there is not read again.
    let lists = kaltura.take_lists();
    assert_eq!(lists.len(), 2, "{lists:?}");
    assert!(
        lists[0]["filter"]["createdAtGreaterThanOrEqual"].as_i64() > Some(START + 1_600),
        "{lists:?}"
    );

    // A later run takes what is new.
    kaltura.add([kaltura_link("new1", START + 9_000)]);
    assert!(told(&resumed(&[]), 0).starts_with("1 added, 0 updated, "));
    assert_eq!(kaltura.take_lists().len(), 1);

    let store = appliance.folder.path().join("other.redb");
    let elsewhere = resumed(&["--store", store.to_str().unwrap()]);
    assert!(complained(&elsewhere, 2).contains("belongs to the import of partner 424242"));
    fs::write(&cursor, "{}").unwrap();
    assert!(complained(&resumed(&[]), 2).contains("not a file that --resume has written"));
}

#[test]
fn what_is_wrong_with_kaltura_access_is_said() {
    let kaltura = Kaltura::start(links(3, 1));
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("links.redb");
    let secret = folder.path().join("secret");
    let import = |change: &dyn Fn(&mut Command), url: &str, args: &[&str]| {
        let mut command = moving(url, &[&["--store", store.to_str().unwrap()], args].concat());
        change(&mut command);
        command.output().unwrap()
    };
    let (url, numbers) = (kaltura.url(), &NUMBERS);
    let as_it_is = |_: &mut Command| {};
    let unknown = import(&as_it_is, &url, &["--partner", PARTNER]);
    assert!(complained(&unknown, 4).contains("no session for partner 1234567: wrong partner ID, or not its admin"));
    let with = |name: &'static str, value: &'static str| {
        move |command: &mut Command| {
            command.env(name, value);
        }
    };
    let wrong = import(&with("TINYD_KALTURA_SECRET", "wrong"), &url, numbers);
    assert!(complained(&wrong, 4).contains("START_SESSION_ERROR"));
    let of_user = import(&with("TINYD_KALTURA_KS", KALTURA_USER_KS), &url, numbers);
    assert!(complained(&of_user, 4).contains("expected an ADMIN session"));
    let ended = complained(&import(&with("TINYD_KALTURA_KS", "ended-session"), &url, numbers), 4);
    assert!(
        ended.contains("EXPIRED (INVALID_KS)") && !ended.contains("ended-session"),
        "{ended}"
    );
    let none = import(&with("TINYD_KALTURA_SECRET", ""), &url, numbers);
    assert!(complained(&none, 2).contains("name a --kaltura-secret-file, or set TINYD_KALTURA_SECRET or"));
    fs::write(&secret, "two words\n").unwrap();
    let of_file = ["--kaltura-secret-file", secret.to_str().unwrap()];
    let words = import(&as_it_is, &url, &[&numbers[..], &of_file].concat());
    assert!(complained(&words, 2).contains("expected the admin secret, and nothing else"));

    let elsewhere = import(&as_it_is, &url.replace("api_v3", "other"), numbers);
    assert!(complained(&elsewhere, 6).contains("answered 404 Not Found, and not as Kaltura's API does"));
    let absent = import(&as_it_is, "http://127.0.0.1:1/api_v3", numbers);
    assert!(complained(&absent, 6).contains("cannot reach http://127.0.0.1:1/api_v3"));
    let no_url = import(&as_it_is, "kaltura.example", numbers);
    assert!(complained(&no_url, 2).contains("expected the address of api_v3"));
    let both = import(&as_it_is, &url, &[&numbers[..], &["links.jsonl"]].concat());
    assert!(complained(&both, 2).contains("cannot be used with"));
    assert!(complained(&import(&as_it_is, &url, &[]), 2).contains("--partner <ID>"));
    assert!(!store.exists());

    // And what is right: into a store, with the secret in a file.
    fs::write(&secret, format!("{KALTURA_SECRET}\n")).unwrap();
    let right = import(
        &with("TINYD_KALTURA_SECRET", "wrong"),
        &url,
        &[&numbers[..], &of_file].concat(),
    );
    assert_eq!(told(&right, 0), counts(3, 0, 0));
    let found = tinyd()
        .args(["export", "-", "--store", store.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(told(&found, 0).matches("\"partnerId\":1234567").count(), 3);
}

/// tinyd speaks the same protocol, so it is a source too.
#[test]
fn another_appliance_is_a_source() {
    let (old, new) = (Appliance::start(), Appliance::start());
    let ks = old.admin_ks();
    let ids: Vec<_> = (0..5).map(|_| old.add(&ks, &[("shortLink[userId]", "me")])).collect();
    old.link("delete", &ks, &[("id", &ids[0])]);
    old.link("update", &ks, &[("id", &ids[1]), ("shortLink[startsAt]", "1900000000")]);
    let import = |change: &[(&str, &str)]| {
        let mut command = moving(&old.admin, &["--partner", "7654321", "--kaltura-partner", PARTNER]);
        command
            .env("TINYD_CONFIG", new.config())
            .env("TINYD_URL", &new.admin)
            .envs(change.iter().copied());
        command.output().unwrap()
    };
    assert_eq!(
        told(&import(&[("TINYD_KALTURA_SECRET", ADMIN_SECRET)]), 0),
        counts(5, 0, 0)
    );
    assert_eq!(
        new.list(&new.other_partners_ks(), &[("filter[statusIn]", "1,2,3")]).1,
        5
    );
    let lines = told(&new.tinyd(&["export", "-", "--partner", "7654321"]), 0);
    let links = lines.lines().map(|line| by_id(serde_json::from_str(line).unwrap()));
    let moved = links.collect::<BTreeMap<_, _>>();
    assert_eq!(moved, stored(&old));
    assert_eq!(moved[&ids[1]]["startsAt"], 1_900_000_000);
    // A session instead of the secret; of a user, and of another partner.
    assert_eq!(told(&import(&[("TINYD_KALTURA_KS", &ks)]), 0), counts(0, 5, 0));
    let of_user = import(&[("TINYD_KALTURA_KS", &old.user_ks("me"))]);
    assert!(complained(&of_user, 4).contains("expected an ADMIN session"));
    old.call(
        "shortlink_shortlink",
        "add",
        &old.other_partners_ks(),
        &[
            ("shortLink[systemName]", "NAME"),
            ("shortLink[fullUrl]", "https://example.com/"),
        ],
    );
    let of_other = import(&[("TINYD_KALTURA_KS", &old.other_partners_ks())]);
    assert!(complained(&of_other, 4).contains("the session is one of partner 7654321, not of 1234567"));
    assert_eq!(KALTURA_PARTNER.to_string(), NUMBERS[3]);
}
