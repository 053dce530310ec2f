//! What one request, or many, can take of the API's time and memory.

use std::fs;
use std::io::Read as _;

use serde_json::{Value, json};

use crate::fixture::{ADMIN_SECRET, Appliance, PARTNER, code, poll};
use crate::http::{Answer, request};
use crate::limits::refusals;
use crate::wire::Connection;

const MULTIREQUEST: &str = "/api_v3/service/multirequest";
const FORM: [(&str, &str); 1] = [("Content-Type", "application/x-www-form-urlencoded")];
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn multirequest(appliance: &Appliance, body: &Value) -> Answer {
    request(
        &appliance.admin,
        "POST",
        MULTIREQUEST,
        &JSON,
        body.to_string().as_bytes(),
    )
}

/// A value of `/proc/PID/status`, in bytes.
fn memory(appliance: &Appliance, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", appliance.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Starts with links on pages of 500, each link a kilobyte or more.
fn start_with_links(settings: &str, links: usize) -> (Appliance, String) {
    let appliance = Appliance::start_with(settings);
    let ks = appliance.admin_ks();
    for _ in 0..links / 100 {
        let mut body = json!({ "format": 1, "ks": ks });
        for number in 1..=100 {
            body[number.to_string()] = json!({
                "service": "shortlink_shortlink", "action": "add",
                "shortLink": { "systemName": "NAME", "fullUrl": format!("https://example.com/{}", "'".repeat(2_000)) },
            });
        }
        let results = multirequest(&appliance, &body).json();
        assert!(results.as_array().unwrap().iter().all(|link| code(link).is_empty()));
    }
    (appliance, ks)
}

#[test]
fn strangers_cannot_keep_the_api_busy_with_braces() {
    let appliance = Appliance::start();
    let calls: String = (0..200)
        .map(|n| format!("{n}:service=system&{n}:action=ping&"))
        .collect();
    for braces in ["{", "{1:result", "{1:result:", "%7b"] {
        for name in ["clientTag", "ks", "partnerId", "0:x", "callback"] {
            let text = braces.repeat(900_000 / braces.len());
            let body = format!("{calls}format=1&{name}={text}");
            let answer = request(&appliance.admin, "POST", MULTIREQUEST, &FORM, body.as_bytes());
            assert!(matches!(answer.status, 200 | 413), "{braces} {name}: {answer:?}");
        }
    }
    let target = format!("{MULTIREQUEST}?format=1&{calls}clientTag={}", "%7B".repeat(1_000));
    let answer = request(&appliance.admin, "GET", &target, &[], b"");
    assert_eq!(answer.json()[199], json!(true));
}

#[test]
fn references_are_resolved_only_for_accepted_sessions() {
    let appliance = Appliance::start();
    let start = json!({
        "service": "session", "action": "start", "secret": ADMIN_SECRET, "type": 2, "partnerId": PARTNER,
    });
    let get = |ks: &str| json!({ "service": "shortlink_shortlink", "action": "get", "ks": ks, "id": "{9:result}" });
    let body = json!({ "format": 1, "0": start, "1": get("none"), "2": get("{1:result}"), "3": get("{2:result}") });
    let results = multirequest(&appliance, &body).json();
    let codes: Vec<_> = results.as_array().unwrap().iter().map(code).collect();
    // A session that is not accepted is what is wrong, not the reference beside it.
    assert_eq!(codes, ["", "INVALID_KS", "INVALID_PARAMETER_VALUE", "INVALID_KS"]);
    // Starting a session needs none, and may refer to earlier results.
    let mut again = start;
    again["userId"] = json!("{1:result}");
    let body = json!({ "format": 1, "0": { "service": "system", "action": "ping" }, "1": again });
    assert!(multirequest(&appliance, &body).json()[1].is_string());
}

#[test]
fn errors_repeat_no_more_than_256_bytes() {
    let appliance = Appliance::start();
    for (service, action, name) in [
        ("session", "start", "partnerId"),
        ("shortlink_shortlink", "get", "id"),
        ("shortlink_shortlink", "goto", "id"),
        ("shortlink_shortlink", "get", "format"),
        ("shortlink_shortlink", "get", "ks"),
        ("shortlink_shortlink", "get", "shortLink[a"),
        ("", "x", "service"),
        ("system", "", "action"),
    ] {
        let long = "'".repeat(900_000);
        let ks = appliance.admin_ks();
        let params = [
            ("secret", "x"),
            ("service", service),
            ("action", action),
            (name, &long),
            ("ks", &ks),
        ];
        let answer = appliance.post(service, action, &params);
        assert!(
            answer.body.len() < 6_000,
            "{service} {action} {name}: {} bytes",
            answer.body.len()
        );
    }
}

#[test]
fn many_large_answers_stay_within_the_budget() {
    const BUDGET: u64 = 64 * 1024 * 1024;
    // What is in flight on the way from one form to another.
    const SLACK: u64 = 48 * 1024 * 1024;
    let (appliance, ks) = start_with_links(&format!("[admin]\nmax_buffered_bytes = {BUDGET}\n"), 500);
    let mut body = json!({ "format": 2, "ks": ks });
    for number in 1..=200 {
        let pager = json!({ "pageSize": 500 });
        body[number.to_string()] = json!({ "service": "shortlink_shortlink", "action": "list", "pager": pager });
    }
    let body = body.to_string();
    let head = format!(
        "POST {MULTIREQUEST} HTTP/1.1\r\nHost: tinyd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let before = memory(&appliance, "VmRSS");
    // They read nothing of their answers.
    let mut clients: Vec<_> = (0..8).map(|_| Connection::open(&appliance.admin)).collect();
    for client in &mut clients {
        client.send(head.as_bytes());
        client.send(body.as_bytes());
    }
    poll("something is refused", || {
        refusals(&appliance, "admin", "buffered_bytes") > 0
    });
    poll("all have answers", || {
        clients
            .iter()
            .all(|client| client.stream.peek(&mut [0; 1]).is_ok_and(|read| read == 1))
    });
    let grown = memory(&appliance, "VmHWM") - before;
    assert!(grown < BUDGET + SLACK, "{grown} bytes");
    // Whoever asks for little is served, and the memory comes back.
    assert_eq!(appliance.get_admin("/readyz").status, 200);
    drop(clients);
    poll("a page", || {
        let page = appliance.post(
            "shortlink_shortlink",
            "list",
            &[("format", "1"), ("ks", &ks), ("pager[pageSize]", "500")],
        );
        page.status == 200
    });
}

#[test]
fn a_write_is_answered_where_reads_are_refused() {
    const BUDGET: u64 = 64 * 1024 * 1024;
    let (appliance, ks) = start_with_links(&format!("[admin]\nmax_buffered_bytes = {BUDGET}\n"), 500);
    // One request whose results together are too many: each call has an answer of its own.
    let mut body = json!({ "format": 2, "ks": ks });
    for number in 1..=100 {
        body[number.to_string()] = json!({
            "service": "shortlink_shortlink", "action": "list", "pager": { "pageSize": 500 },
        });
    }
    let answer = multirequest(&appliance, &body);
    let text = answer.text();
    assert!(text.len() < 40 * 1024 * 1024, "{} bytes", text.len());
    assert_eq!(
        text.matches("<item><objectType>KalturaShortLinkListResponse").count() + text.matches("<item><error>").count(),
        100
    );
    let mut stream = Connection::open(&appliance.admin).stream;
    assert_eq!(
        stream
            .set_nonblocking(true)
            .map(|()| stream.read(&mut [0; 1]).is_err())
            .unwrap(),
        true
    );
    assert_eq!(appliance.add(&ks, &[]).len(), 8);
}
