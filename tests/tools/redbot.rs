//! redbot (`tests/redbot`) checks responses against the HTTP specifications.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::clients::python_installed;
use crate::support::fixture::Appliance;
use crate::support::http::encode;

const ACTION: &str = "/api_v3/service/shortlink_shortlink/action";

/// Accepted findings: the start of the request's name, the note, the reason.
const EXCEPTIONS: [(&str, &str, &str); 2] = [
    (
        "no id",
        "STATUS_BAD_REQUEST",
        "that the request makes no sense is what the answer says",
    ),
    (
        "plain OPTIONS",
        "CORS_PREFLIGHT_ONLY",
        "Kaltura's server answers every OPTIONS on the API as a preflight, and tools that ask without \
         Origin compare the two; browsers ignore the headers where they did not ask for them",
    ),
];

/// A request, and the expected status.
struct Probe {
    name: String,
    status: u64,
    request: Value,
}

/// The requests to both listeners.
#[derive(Default)]
struct Probes(Vec<Probe>);

impl Probes {
    fn ask(&mut self, name: &str, status: u64, method: &str, url: String, headers: &[(&str, &str)]) {
        let body = if method == "POST" { "a=b" } else { "" };
        let mut headers = headers.to_vec();
        if method == "POST" {
            headers.push(("Content-Type", "application/x-www-form-urlencoded"));
            headers.push(("Content-Length", "3"));
        }
        self.0.push(Probe {
            name: format!("{name} ({method} {url})"),
            status,
            request: json!({ "method": method, "url": url, "headers": headers, "body": body }),
        });
    }

    fn get(&mut self, name: &str, status: u64, url: String) {
        self.ask(name, status, "GET", url, &[]);
    }

    /// Requests that both listeners answer.
    fn of_redirects(&mut self, base: &str, ids: &Ids) {
        let goto = |id: &str| format!("{base}{ACTION}/goto/id/{id}");
        self.get("found", 302, goto(&ids.found));
        self.ask("found", 302, "HEAD", goto(&ids.found), &[]);
        self.get("hop", 301, format!("{base}/tiny/{}", ids.found));
        for (name, status, id) in [
            ("unknown", 404, "zzzzzzzz"),
            ("disabled", 404, &ids.disabled),
            ("deleted", 410, &ids.deleted),
            ("expired", 410, &ids.expired),
            ("not yet", 404, &ids.not_yet),
        ] {
            self.get(name, status, goto(id));
            self.ask(name, status, "HEAD", goto(id), &[]);
            self.ask(name, status, "GET", goto(id), &[("Accept", "text/html")]);
            self.get(name, status, format!("{}?format=1", goto(id)));
        }
        self.get("no id", 400, format!("{base}{ACTION}/goto"));
        self.get("robots", 200, format!("{base}/robots.txt"));
        self.get("nothing", 404, format!("{base}/nothing"));
        for (target, method) in [
            (format!("/tiny/{}", ids.found), "DELETE"),
            ("/robots.txt".to_owned(), "POST"),
            (format!("{ACTION}/goto/id/{}", ids.found), "PUT"),
        ] {
            self.ask("method", 405, method, format!("{base}{target}"), &[]);
        }
        self.ask("OPTIONS", 204, "OPTIONS", format!("{base}/tiny/{}", ids.found), &[]);
        self.ask("OPTIONS", 204, "OPTIONS", format!("{base}/robots.txt"), &[]);
        self.ask("plain OPTIONS", 204, "OPTIONS", goto(&ids.found), &[]);
        let preflight = [
            ("Origin", "https://kmc.example.com"),
            ("Access-Control-Request-Method", "POST"),
        ];
        self.ask("preflight", 204, "OPTIONS", goto(&ids.found), &preflight);
    }
}

struct Ids {
    found: String,
    disabled: String,
    deleted: String,
    expired: String,
    not_yet: String,
}

impl Ids {
    fn of(appliance: &Appliance, ks: &str) -> Self {
        Self {
            found: appliance.add(ks, &[]),
            disabled: appliance.add(ks, &[("shortLink[status]", "1")]),
            deleted: appliance.add(ks, &[("shortLink[status]", "3")]),
            expired: appliance.add(ks, &[("shortLink[expiresAt]", "1000")]),
            not_yet: appliance.add(ks, &[("shortLink[startsAt]", "4000000000")]),
        }
    }
}

/// Runs redbot; returns a line for each note without an exception, and records the exceptions used.
fn complaints(probes: &[Probe], excepted: &mut Vec<&str>) -> Vec<String> {
    let folder = python_installed("redbot");
    let child = Command::new(folder.join("venv/bin/python"))
        .arg("-B")
        .arg(folder.join("lint.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let lines = probes.iter().map(|probe| format!("{}\n", probe.request));
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.collect::<String>().as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let found = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), probes.len(), "{found:?}");
    let mut complaints = Vec::new();
    for (Probe { name, status, .. }, found) in probes.iter().zip(found) {
        if !found["error"].is_null() || found["status"] != *status {
            complaints.push(format!("{name}: {status} was expected: {found}"));
        }
        let notes = found["notes"].as_array().unwrap();
        // redbot has a note about every response that it has seen.
        assert!(!notes.is_empty(), "{name}");
        for note in notes {
            if !["bad", "warning"].contains(&note["level"].as_str().unwrap()) {
                continue;
            }
            let is_excepted = |(of, what, _): &&(&str, &str, &str)| name.starts_with(of) && note["name"] == *what;
            match EXCEPTIONS.iter().find(is_excepted) {
                Some((_, what, _)) => excepted.push(what),
                None => complaints.push(format!("{name}: {note}")),
            }
        }
    }
    complaints
}

pub fn redbot_finds_no_unexpected_problem() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let ids = Ids::of(&appliance, &ks);
    let mut probes = Probes::default();
    for base in [&appliance.public, &appliance.admin] {
        probes.of_redirects(base, &ids);
    }
    probes.get("forbidden", 200, format!("{}{ACTION}/list?format=1", appliance.public));
    let ks = encode(&ks);
    for format in ["1", "2", "3", "9&callback=f"] {
        let list = format!("{}{ACTION}/list?format={format}", appliance.admin);
        probes.get("list", 200, format!("{list}&ks={ks}"));
        probes.ask("list", 200, "HEAD", format!("{list}&ks={ks}"), &[]);
        probes.ask("list", 200, "POST", format!("{list}&ks={ks}"), &[]);
        probes.get("exception", 200, format!("{list}&ks=djJ8nonsense"));
    }
    for target in ["/healthz", "/readyz", "/metrics"] {
        let url = format!("{}{target}", appliance.admin);
        probes.get("operations", 200, url.clone());
        probes.ask("operations", 200, "HEAD", url.clone(), &[]);
        probes.ask("operations", 405, "POST", url.clone(), &[]);
        probes.ask("operations", 204, "OPTIONS", url, &[]);
    }
    let open_metrics = [("Accept", "application/openmetrics-text")];
    let metrics = format!("{}/metrics", appliance.admin);
    probes.ask("operations", 200, "GET", metrics, &open_metrics);
    let mut excepted = Vec::new();
    let mut complaints = complaints(&probes.0, &mut excepted);

    let direct = Appliance::start_with("[public]\ntiny = \"direct\"\n");
    let ids = Ids::of(&direct, &direct.admin_ks());
    let mut probes = Probes::default();
    for (status, id) in [
        (302, ids.found.as_str()),
        (404, &ids.disabled),
        (410, &ids.expired),
        (404, "zzzzzzzz"),
    ] {
        probes.get("direct", status, format!("{}/tiny/{id}", direct.public));
    }
    complaints.extend(self::complaints(&probes.0, &mut excepted));
    assert!(complaints.is_empty(), "{complaints:#?}");
    for (of, what, _) in EXCEPTIONS {
        assert!(excepted.contains(&what), "{of} needs no exception any more: {what}");
    }
}
