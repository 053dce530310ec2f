//! Click counts: which requests count, none is lost or counted twice, and which sessions see them.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::fixture::{Appliance, PARTNER, code, poll, tinyd};
use crate::support::http::{Answer, encode, request};

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
const BROWSER: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
const BOT: &str = "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)";

fn with_clicks(appliance: &Appliance, ks: &str, id: &str) -> Value {
    appliance.link("get", ks, &[("id", id), ("withClicks", "true")])
}

/// Clicks and previews, from the API.
fn counted(appliance: &Appliance, ks: &str, id: &str) -> (u64, u64) {
    let link = with_clicks(appliance, ks, id);
    let number = |name: &str| link[name].as_u64().unwrap_or_else(|| panic!("{link}"));
    (number("clicks"), number("previews"))
}

/// A request with these headers.
fn ask(base: &str, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    request(base, method, target, headers, b"")
}

#[test]
fn only_redirects_count_split_by_user_agent() {
    for tiny in ["hop", "direct"] {
        let appliance = Appliance::start_with(&format!("[public]\ntiny = \"{tiny}\"\n"));
        let ks = appliance.admin_ks();
        let id = appliance.add(&ks, &[]);
        let (goto, short) = (format!("{GOTO}{id}"), format!("/tiny/{id}"));
        let mut expected = (0, 0);
        assert_eq!(counted(&appliance, &ks, &id), expected);
        assert_eq!(with_clicks(&appliance, &ks, &id)["lastUsedAt"], Value::Null);
        // hyper: a query, a header, or the admin listener.
        let general = format!("{goto}?utm_source=x");
        let short_counts = u64::from(tiny == "direct");
        for base in [&appliance.public, &appliance.admin] {
            for (method, target, headers, clicks, previews) in [
                ("GET", &goto, &[][..], 1, 0),
                ("GET", &goto, &[("User-Agent", BROWSER)], 1, 0),
                ("GET", &general, &[("User-Agent", BROWSER)], 1, 0),
                ("POST", &goto, &[], 1, 0),
                ("HEAD", &goto, &[("User-Agent", BROWSER)], 0, 1),
                ("HEAD", &general, &[], 0, 1),
                ("GET", &goto, &[("User-Agent", BOT)], 0, 1),
                ("GET", &general, &[("user-agent", BOT)], 0, 1),
                ("POST", &goto, &[("User-Agent", BOT)], 0, 1),
                ("GET", &goto, &[("User-Agent", BROWSER), ("Purpose", "prefetch")], 0, 1),
                (
                    "GET",
                    &goto,
                    &[("User-Agent", BROWSER), ("Sec-Purpose", "prefetch;prerender")],
                    0,
                    1,
                ),
                ("GET", &general, &[("Sec-Purpose", "prefetch")], 0, 1),
                ("GET", &general, &[("Purpose", "prefetch")], 0, 1),
                ("GET", &goto, &[("X-Moz", "prefetch")], 0, 1),
                ("GET", &general, &[("x-moz", "prefetch")], 0, 1),
                ("GET", &goto, &[("X-Purpose", "preview")], 0, 1),
                ("GET", &general, &[("X-Purpose", "preview")], 0, 1),
                ("GET", &goto, &[("Purpose", "navigate"), ("purpose", "prefetch")], 0, 1),
                (
                    "GET",
                    &general,
                    &[("Purpose", "navigate"), ("purpose", "prefetch")],
                    0,
                    1,
                ),
                ("GET", &short, &[("User-Agent", BROWSER)], short_counts, 0),
                ("HEAD", &short, &[("User-Agent", BROWSER)], 0, short_counts),
                ("OPTIONS", &goto, &[], 0, 0),
                ("OPTIONS", &short, &[], 0, 0),
            ] {
                let answer = ask(base, method, target, headers);
                assert!(answer.status < 400, "{method} {target}: {answer:?}");
                expected = (expected.0 + clicks, expected.1 + previews);
                assert_eq!(
                    counted(&appliance, &ks, &id),
                    expected,
                    "{tiny} {base} {method} {target} {headers:?}"
                );
            }
        }
        let form = [("id", id.as_str())];
        assert_eq!(appliance.post("shortlink_shortlink", "goto", &form).status, 302);
        expected.0 += 1;
        assert_eq!(counted(&appliance, &ks, &id), expected);
        let link = with_clicks(&appliance, &ks, &id);
        let now = appliance.call("system", "getTime", "", &[]).as_i64().unwrap();
        let last = link["lastUsedAt"].as_i64().unwrap();
        assert!((link["createdAt"].as_i64().unwrap()..=now).contains(&last), "{link}");

        // A link that does not redirect counts no click, and a restored link keeps its clicks.
        appliance.link("update", &ks, &[("id", &id), ("shortLink[status]", "1")]);
        assert_eq!(ask(&appliance.public, "GET", &goto, &[]).status, 404);
        appliance.link("update", &ks, &[("id", &id), ("shortLink[status]", "2")]);
        appliance.link("delete", &ks, &[("id", &id)]);
        assert_eq!(ask(&appliance.public, "GET", &goto, &[]).status, 410);
        assert_eq!(
            ask(&appliance.public, "GET", &format!("{GOTO}zzzzzzzz"), &[]).status,
            404
        );
        appliance.link("restore", &ks, &[("id", &id)]);
        assert_eq!(counted(&appliance, &ks, &id), expected);
    }
}

#[test]
fn objects_without_clicks_are_unchanged() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    for format in ["1", "2", "3"] {
        let get = |more: &[(&str, &str)]| {
            let params = [&[("format", format), ("ks", ks.as_str()), ("id", id.as_str())], more].concat();
            let text = appliance.post("shortlink_shortlink", "get", &params).text().to_owned();
            // XML has the execution time.
            text.split("<executionTime>").next().unwrap().to_owned()
        };
        let list = |more: &[(&str, &str)]| {
            let params = [&[("format", format), ("ks", ks.as_str())], more].concat();
            let text = appliance.post("shortlink_shortlink", "list", &params).text().to_owned();
            text.split("<executionTime>").next().unwrap().to_owned()
        };
        let before = (get(&[]), list(&[]));
        assert_eq!(appliance.goto(&id).status, 302);
        assert_eq!((get(&[]), list(&[])), before);
        for off in ["false", "0", ""] {
            let off = [("withClicks", off)];
            assert_eq!((get(&off), list(&off)), before);
        }
        let on = [("withClicks", "1")];
        for (with, without) in [(get(&on), before.0), (list(&on), before.1)] {
            assert_ne!(with, without);
            for name in ["clicks", "previews", "lastUsedAt"] {
                assert!(with.contains(name) && !without.contains(name), "{with}");
            }
        }
    }
    let wrong = appliance.link("get", &ks, &[("id", &id), ("withClicks", "perhaps")]);
    assert_eq!(code(&wrong), "INVALID_PARAMETER_VALUE");
    // A session that may not see a link does not see its clicks.
    let other = appliance.link(
        "get",
        &appliance.other_partners_ks(),
        &[("id", &id), ("withClicks", "1")],
    );
    assert_eq!(code(&other), "INVALID_OBJECT_ID");
    let none = appliance.link("get", &ks, &[("id", "zzzzzzzz"), ("withClicks", "1")]);
    assert_eq!(code(&none), "INVALID_OBJECT_ID");
}

#[test]
fn cli_shows_clicks() {
    let appliance = Appliance::start_with_operator();
    let ks = appliance.admin_ks();
    let (used, unused) = (appliance.add(&ks, &[]), appliance.add(&ks, &[]));
    for _ in 0..12 {
        assert_eq!(appliance.goto(&used).status, 302);
    }
    let out = |args: &[&str]| {
        let output = appliance.tinyd(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let of = |text: &str, name: &str| {
        let line = lines(text).into_iter().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{text}"))[name.len()..].trim().to_owned()
    };
    let shown = out(&["link", "get", &used]);
    assert_eq!(of(&shown, "clicks"), "12");
    assert!(of(&shown, "last used").ends_with('Z'), "{shown}");
    for previews in 1..=3 {
        ask(&appliance.public, "HEAD", &format!("{GOTO}{used}"), &[]);
        let plural = if previews == 1 { "" } else { "s" };
        let shown = out(&["link", "get", &used]);
        assert_eq!(of(&shown, "clicks"), format!("12 ({previews} preview{plural})"));
    }
    let shown = out(&["link", "get", &unused]);
    assert_eq!(
        (of(&shown, "clicks"), of(&shown, "last used")),
        ("0".into(), "never".into())
    );
    let json: Value = serde_json::from_str(&out(&["link", "get", &used, "--json"])).unwrap();
    assert_eq!((&json["clicks"], &json["previews"]), (&12.into(), &3.into()));
    let last = json["lastUsedAt"].as_i64().unwrap();

    let listed = lines(&out(&["link", "list", "--order", "+createdAt"]));
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(
        listed[0].starts_with("ID        STATUS   CLICKS  LAST USED "),
        "{listed:?}"
    );
    for (id, clicks, is_used) in [(&used, "12", true), (&unused, "0", false)] {
        let line = listed.iter().find(|line| line.starts_with(id.as_str())).unwrap();
        assert_eq!(columns(line)[2], clicks, "{listed:?}");
        assert_eq!(columns(line)[3] != "never", is_used, "{listed:?}");
    }
    let json: Value = serde_json::from_str(&out(&["link", "list", "--json"])).unwrap();
    let clicks: Vec<_> = json["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link["clicks"].as_u64())
        .collect();
    assert!(clicks.contains(&Some(12)) && clicks.contains(&Some(0)), "{json}");

    // From the offline store.
    let mut appliance = appliance;
    assert!(appliance.terminate().success());
    let store = appliance.store();
    let output = tinyd()
        .args(["link", "get", &used, "--json", "--store"])
        .arg(&store)
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(
        (&json["clicks"], &json["previews"], &json["lastUsedAt"]),
        (&12.into(), &3.into(), &last.into())
    );
}

/// Follows each link this often, on several connections, and returns the counts by ID.
/// Every fifth request is a HEAD, and every third goes through hyper.
fn follow(appliance: &Appliance, ids: &[String], connections: usize, rounds: usize) -> BTreeMap<String, (u64, u64)> {
    let all = Mutex::new(BTreeMap::<String, (u64, u64)>::new());
    std::thread::scope(|scope| {
        for connection in 0..connections {
            let all = &all;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(appliance.public.strip_prefix("http://").unwrap()).unwrap();
                let (mut requests, mut sent) = (String::new(), BTreeMap::<String, (u64, u64)>::new());
                let total = rounds * ids.len();
                for number in 0..total {
                    let id = &ids[(number * 7 + connection) % ids.len()];
                    let is_head = number % 5 == 0;
                    let method = if is_head { "HEAD" } else { "GET" };
                    // From here on, hyper has the connection.
                    let query = if connection % 3 == 0 && number > total / 2 {
                        "?a=b"
                    } else {
                        ""
                    };
                    let last = if number + 1 == total {
                        "Connection: close\r\n"
                    } else {
                        ""
                    };
                    requests.push_str(&format!("{method} {GOTO}{id}{query} HTTP/1.1\r\nHost: a\r\n{last}\r\n"));
                    let counts = sent.entry(id.clone()).or_default();
                    if is_head {
                        counts.1 += 1;
                    } else {
                        counts.0 += 1;
                    }
                }
                let mut sending = stream.try_clone().unwrap();
                let sender = std::thread::spawn(move || sending.write_all(requests.as_bytes()).unwrap());
                let mut received = String::new();
                stream.read_to_string(&mut received).unwrap();
                sender.join().unwrap();
                assert_eq!(received.matches("HTTP/1.1 302").count(), total);
                let mut all = all.lock();
                for (id, counts) in sent {
                    let sum = all.entry(id).or_default();
                    *sum = (sum.0 + counts.0, sum.1 + counts.1);
                }
            });
        }
    });
    all.into_inner()
}

fn add_links(appliance: &Appliance, ks: &str, count: usize) -> Vec<String> {
    (0..count).map(|_| appliance.add(ks, &[])).collect()
}

fn assert_counted(appliance: &Appliance, ks: &str, expected: &BTreeMap<String, (u64, u64)>) {
    for (id, counts) in expected {
        assert_eq!(counted(appliance, ks, id), *counts, "{id}");
    }
}

#[test]
fn drain_loses_no_click() {
    let mut appliance = Appliance::start_with("[public]\nthreads = 3\n");
    let ks = appliance.admin_ks();
    let ids = add_links(&appliance, &ks, 40);
    let mut expected = BTreeMap::<String, (u64, u64)>::new();
    for _ in 0..3 {
        for (id, counts) in follow(&appliance, &ids, 6, 10) {
            let sum = expected.entry(id).or_default();
            *sum = (sum.0 + counts.0, sum.1 + counts.1);
        }
        // The drain must not wait for the next flush.
        assert!(appliance.terminate().success());
        appliance.restart();
        assert_counted(&appliance, &ks, &expected);
    }
    assert!(appliance.terminate().success());
    let verified = tinyd()
        .arg("verify")
        .arg("--store")
        .arg(appliance.store())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn crash_loses_only_unwritten_clicks() {
    let mut appliance = Appliance::start_with("[public]\nthreads = 2\n");
    let ks = appliance.admin_ks();
    let ids = add_links(&appliance, &ks, 20);
    let expected = follow(&appliance, &ids, 4, 10);
    let visits: u64 = expected.values().map(|(clicks, previews)| clicks + previews).sum();
    let written = || {
        let log = appliance.log();
        let lines = log.lines().filter(|line| line.contains("clicks written"));
        let numbers = lines.map(|line| {
            let (_, number) = line.split_once("visits=").unwrap();
            number.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        });
        numbers.sum::<u64>()
    };
    poll("what was counted is written", || written() == visits);
    appliance.kill();
    appliance.restart();
    assert_counted(&appliance, &ks, &expected);
    // After a kill at any moment, the count is at most the number of responses.
    let more = follow(&appliance, &ids, 4, 5);
    appliance.kill();
    appliance.restart();
    for (id, before) in &expected {
        let (now, more) = (counted(&appliance, &ks, id), more[id]);
        assert!((before.0..=before.0 + more.0).contains(&now.0), "{now:?}");
        assert!((before.1..=before.1 + more.1).contains(&now.1), "{now:?}");
    }
}

#[test]
fn backup_keeps_clicks_and_read_only_counts_none() {
    let appliance = Appliance::start_with_operator();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    for _ in 0..5 {
        assert_eq!(appliance.goto(&id).status, 302);
    }
    // Pending clicks may be missing from the backup; written ones are in it.
    appliance.wait_for_log("clicks written");
    poll("all five are in a backup", || {
        let backup = appliance.folder.path().join("backup.redb");
        let _ = std::fs::remove_file(&backup);
        let made = appliance.tinyd(&["backup", backup.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        let output = tinyd()
            .args(["link", "get", &id, "--json", "--store"])
            .arg(&backup)
            .output()
            .unwrap();
        let link: Value = serde_json::from_slice(&output.stdout).unwrap();
        link["clicks"] == 5
    });
}

#[test]
fn disabled_counting_counts_no_click() {
    let mut appliance = Appliance::start_with("[links]\ncount_clicks = false\n");
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    assert_eq!(appliance.goto(&id).status, 302);
    let target = format!("/api_v3/?service=shortlink_shortlink&action=goto&id={}", encode(&id));
    assert_eq!(appliance.get_admin(&target).status, 302);
    assert_eq!(counted(&appliance, &ks, &id), (0, 0));
    assert!(appliance.terminate().success());
    appliance.restart();
    assert_eq!(counted(&appliance, &ks, &id), (0, 0));
}

#[test]
fn clicks_by_day_are_of_the_link_or_the_partner() {
    let mut appliance = Appliance::start_with_operator();
    let (operator, other) = (appliance.admin_ks(), appliance.other_partners_ks());
    let user = appliance.user_ks("me");
    let (own, shared) = (appliance.add(&user, &[]), appliance.add(&operator, &[]));
    let foreign = appliance.add(&other, &[]);
    fn days(appliance: &Appliance, ks: &str, params: &[(&str, &str)]) -> Value {
        appliance.call("tinyd", "clicksByDay", ks, params)
    }
    assert_eq!(days(&appliance, &user, &[("id", &own)]), Value::Array(vec![]));
    let now = || appliance.call("system", "getTime", "", &[]).as_i64().unwrap();
    let before = now();
    for _ in 0..3 {
        assert_eq!(appliance.goto(&own).status, 302);
    }
    for id in [&shared, &foreign] {
        assert_eq!(ask(&appliance.public, "HEAD", &format!("{GOTO}{id}"), &[]).status, 302);
    }
    // Pending ones show, and are of today.
    let of_link = days(&appliance, &user, &[("id", &own)]);
    let day = of_link[0]["day"].as_i64().unwrap();
    assert!(
        day % 86_400 == 0 && (before - 86_400..=now()).contains(&day),
        "{of_link}"
    );
    assert_eq!(of_link[0]["objectType"], "TinydDailyUsage");
    assert_eq!((&of_link[0]["clicks"], &of_link[0]["previews"]), (&3.into(), &0.into()));
    for (session, id) in [
        (&user, shared.as_str()),
        (&other, &own),
        (&operator, "zzzzzzzz"),
        (&operator, "No id"),
    ] {
        assert_eq!(code(&days(&appliance, session, &[("id", id)])), "INVALID_OBJECT_ID");
    }
    assert_eq!(code(&days(&appliance, &user, &[])), "SERVICE_FORBIDDEN");
    assert_eq!(
        code(&days(&appliance, &other, &[("partnerId", PARTNER)])),
        "SERVICE_FORBIDDEN"
    );
    // They are written at the end.
    assert!(appliance.terminate().success());
    appliance.restart();
    let sums = |params: &[(&str, &str)]| {
        let days = days(&appliance, &operator, params);
        let days = days.as_array().unwrap().clone();
        let sum = |name: &str| days.iter().map(|day| day[name].as_u64().unwrap()).sum::<u64>();
        (sum("clicks"), sum("previews"))
    };
    assert_eq!(sums(&[]), (3, 1));
    assert_eq!(sums(&[("partnerId", "7654321")]), (0, 1));
    assert_eq!(sums(&[("id", &own)]), (3, 0));
}
