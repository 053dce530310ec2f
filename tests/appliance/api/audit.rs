//! The audit log: who sees which entries, how they are found, and that no session is in them.

use serde_json::Value;

use crate::support::fixture::{Appliance, PARTNER, code};
use crate::support::http::Answer;

/// The audit log as the API answers it.
fn answer(appliance: &Appliance, ks: &str, params: &[(&str, &str)]) -> Answer {
    let params = [&[("format", "1"), ("ks", ks)], params].concat();
    appliance.post("tinyd", "audit", &params)
}

fn entries(appliance: &Appliance, ks: &str, params: &[(&str, &str)]) -> Vec<Value> {
    let answer = answer(appliance, ks, params);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What was done to which link.
fn done(entries: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    entries
        .iter()
        .map(|entry| (text(&entry["action"]), text(&entry["id"])))
        .collect()
}

#[test]
fn changes_are_listed_to_administrators_of_the_partner() {
    let mut appliance = Appliance::start_with_operator();
    let (operator, other) = (appliance.admin_ks(), appliance.other_partners_ks());
    let user = appliance.user_ks("me");
    let id = appliance.add(&user, &[]);
    let foreign = appliance.add(&other, &[]);
    let update = [("id", id.as_str()), ("shortLink[fullUrl]", "https://example.com/new")];
    appliance.link("update", &user, &update);
    appliance.link("delete", &operator, &[("id", &id)]);
    appliance.link("restore", &operator, &[("id", &id)]);
    appliance.call("session", "end", &user, &[]);
    let of_partner = entries(&appliance, &operator, &[("partnerId", PARTNER)]);
    let pair = |action: &str, id: &str| (action.to_owned(), id.to_owned());
    let all = [
        pair("endSession", ""),
        pair("restore", &id),
        pair("delete", &id),
        pair("update", &id),
        pair("add", &id),
    ];
    assert_eq!(done(&of_partner), all);
    let changed = &of_partner[3];
    assert_eq!(changed["changes"]["fullUrl"]["new"], "https://example.com/new");
    assert_eq!(changed["by"]["userId"], "me");
    assert_eq!(
        (&changed["by"]["kind"], &changed["by"]["way"]),
        (&"user".into(), &"api".into())
    );
    assert_eq!(of_partner[2]["by"]["kind"], "admin");
    // An operator sees all, others their own.
    assert_eq!(entries(&appliance, &operator, &[]).len(), 6);
    assert_eq!(done(&entries(&appliance, &other, &[])), [pair("add", &foreign)]);
    assert_eq!(
        code(&answer(&appliance, &other, &[("partnerId", PARTNER)]).json()),
        "SERVICE_FORBIDDEN"
    );
    let another = appliance.user_ks("you");
    assert_eq!(code(&answer(&appliance, &another, &[]).json()), "SERVICE_FORBIDDEN");
    let found = |params: &[(&str, &str)]| done(&entries(&appliance, &operator, params));
    assert_eq!(found(&[("id", &foreign)]), [pair("add", &foreign)]);
    assert_eq!(found(&[("change", "add"), ("userId", "me")]), [pair("add", &id)]);
    assert_eq!(found(&[("limit", "2")]), all[..2]);
    assert_eq!(found(&[("until", "1000")]), []);
    let before = of_partner[1]["sequence"].to_string();
    assert_eq!(found(&[("before", &before), ("partnerId", PARTNER)]), all[2..]);
    for wrong in [
        ("change", "adds"),
        ("limit", "0"),
        ("limit", "many"),
        ("before", "-1"),
        ("since", "today"),
    ] {
        assert_eq!(
            code(&answer(&appliance, &operator, &[wrong]).json()),
            "INVALID_PARAMETER_VALUE",
            "{wrong:?}"
        );
    }
    let text = answer(&appliance, &operator, &[]).text().to_owned();
    assert!(
        ![&operator, &other, &user]
            .into_iter()
            .any(|ks| text.contains(ks.as_str()))
    );
    appliance.kill();
    appliance.restart();
    assert_eq!(entries(&appliance, &operator, &[]).len(), 6);
}

#[test]
fn command_line_shows_the_log_of_server_and_store() {
    let mut appliance = Appliance::start_with_operator();
    let run = |appliance: &Appliance, args: &[&str]| {
        let output = appliance.tinyd(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let added = run(
        &appliance,
        &[
            "link",
            "add",
            "https://example.com/a",
            "--system-name",
            "NAME",
            "--as",
            "me",
            "--json",
        ],
    );
    let added: Value = serde_json::from_str(&added).unwrap();
    let id = added["id"].as_str().unwrap();
    run(&appliance, &["link", "update", id, "--name", "a\u{202e}b"]);
    let shown = run(&appliance, &["audit"]);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(
        lines[0].contains(&format!("admin (command line)  update {id}  name a\\u{{202e}}b")),
        "{shown}"
    );
    assert!(lines[1].contains("me, admin (command line)") && lines[1].contains("fullUrl https://example.com/a"));
    let json = run(
        &appliance,
        &["audit", "--json", "--change", "add", "--since", "1d", "--id", id],
    );
    let entry: Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&entry["by"]["way"], &entry["id"]), (&"commandLine".into(), &id.into()));
    assert_eq!(run(&appliance, &["audit", "--limit", "1"]).lines().count(), 1);
    assert!(appliance.terminate().success());
    let store = appliance.store();
    let store = store.to_str().unwrap();
    assert_eq!(run(&appliance, &["audit", "--store", store]), shown);
    assert_eq!(
        run(&appliance, &["audit", "--store", store, "--user", "me"])
            .lines()
            .count(),
        1
    );
    // An import without a server is nobody's.
    let line = r#"{"id":"imported1","systemName":"NAME","fullUrl":"https://example.com/b"}"#;
    let file = appliance.folder.path().join("links.jsonl");
    std::fs::write(&file, line).unwrap();
    run(
        &appliance,
        &["import", "--store", store, "--partner", PARTNER, file.to_str().unwrap()],
    );
    let shown = run(&appliance, &["audit", "--store", store, "--limit", "1"]);
    assert!(
        shown.contains("local (command line)  import  added 1; fileFormat jsonl"),
        "{shown}"
    );
}

#[test]
fn switched_off_log_keeps_nothing() {
    let appliance = Appliance::start_with("[links]\naudit_entries = 0\n");
    let ks = appliance.admin_ks();
    appliance.add(&ks, &[]);
    assert_eq!(entries(&appliance, &ks, &[]), Vec::<Value>::new());
}
