//! Errors of fetches: their format, their counters, and no detail of the internal network.

use crate::support::client::{Download, Fetched, connect, request};
use crate::support::fixture::poll;
use crate::support::origin::{Conversation, Origin};
use crate::support::proxy::{GOTO, Proxy, SECRET, THIS_MACHINE, proxied};
use crate::support::scrape::Scrape;

/// Destinations that fail in each possible way.
struct Troubles {
    proxy: Proxy,
    _origins: Vec<Origin>,
    /// Links, request headers, and the expected error.
    all: Vec<(String, &'static str, u16, &'static str)>,
    /// Holds the only slot.
    held: Option<Download>,
    busy: String,
}

impl Troubles {
    fn meet() -> Self {
        let broken = Origin::sending(SECRET);
        let silent = Origin::start(Conversation::wait_for_end);
        let held = Origin::start(|conversation| {
            conversation.send("HTTP/1.1 200 OK\r\n\r\n1");
            conversation.wait_for_end();
        });
        let ports = [&broken, &silent, &held].map(Origin::port);
        let settings = format!("{THIS_MACHINE}ports = {ports:?}\nfirst_byte_timeout_seconds = 1\nmax_fetches = 1\n");
        let proxy = Proxy::start(&settings);
        let all = vec![
            (proxy.link(&forbidden(&broken)), "", 403, "DESTINATION_FORBIDDEN"),
            (proxy.link(&broken.url("/")), "", 502, "DESTINATION_UNREACHABLE"),
            (proxy.link(&silent.url("/")), "", 504, "DESTINATION_TIMEOUT"),
            (proxy.link(&silent.url("/")), "Via: 1.1 tinyd\r\n", 508, "PROXY_LOOP"),
        ];
        Self {
            busy: proxy.link(&held.url("/")),
            _origins: vec![broken, silent, held],
            held: None,
            all,
            proxy,
        }
    }

    fn ask(&self, base: &str, target: &str, headers: &str) -> Fetched {
        Download::ask(connect(base), &request("GET", target, headers)).finish()
    }

    /// Takes the only slot, so that further fetches are refused.
    fn hold(&mut self) {
        let mut download = None;
        poll("the place is free", || {
            let held = self.proxy.ask(&self.busy, "GET", "");
            let is_held = held.status == 200;
            download = Some(held);
            is_held
        });
        let mut download = download.unwrap();
        assert_eq!(download.read_exactly(1), b"1");
        self.held = Some(download);
        self.all = vec![(self.busy.clone(), "", 503, "TOO_MANY_FETCHES")];
    }
}

/// An address of this machine that is not allowed.
fn forbidden(origin: &Origin) -> String {
    format!("http://0.0.0.0:{}/", origin.port())
}

#[test]
fn fetch_error_has_the_requested_format() {
    let mut troubles = Troubles::meet();
    for is_held in [false, true] {
        if is_held {
            troubles.hold();
        }
        for (id, headers, status, code) in &troubles.all {
            let bases = [&troubles.proxy.appliance.public, &troubles.proxy.appliance.admin];
            // Each takes a second.
            let bases = if *status == 504 { &bases[..1] } else { &bases };
            for &base in bases {
                let ask = |query: &str, more: &str| {
                    let target = format!("{}{query}", proxied(id));
                    let mut fetched = troubles.ask(base, &target, &format!("{headers}{more}"));
                    // The previous slot may be freed a moment later.
                    while !is_held && fetched.status == 503 {
                        fetched = troubles.ask(base, &target, &format!("{headers}{more}"));
                    }
                    assert_eq!(fetched.status, *status, "{code}");
                    assert_eq!(fetched.header("x-kaltura"), format!("error-{code}"));
                    assert!(!fetched.everything().contains(SECRET), "{fetched:?}");
                    fetched
                };
                let json = ask("?format=1", "");
                assert_eq!(json.header("content-type"), "application/json", "{json:?}");
                let exception: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
                assert_eq!(exception["code"], *code);
                assert_eq!(exception["objectType"], "KalturaAPIException");
                let message = exception["message"].as_str().unwrap();
                assert!(
                    !message.is_empty() && json.header("x-kaltura-app").ends_with(message),
                    "{json:?}"
                );
                let xml = ask("?format=2", "");
                assert!(xml.text().contains(&format!("<code>{code}</code>")), "{xml:?}");
                let page = ask("", "Accept: text/html,*/*\r\n");
                assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
                let title = format!("<title>{}</title>", title_of(code));
                assert!(page.text().contains(&title), "{page:?}");
                let text = ask("", "");
                assert_eq!(text.text(), format!("{message} ({code})\n"));
                // HEAD gets the same without a body.
                let target = proxied(id);
                let head = Download::ask(connect(base), &request("HEAD", &target, headers)).finish();
                assert!(
                    head.body.is_empty() && [*status, 503].contains(&head.status),
                    "{head:?}"
                );
            }
        }
    }
    // Plain redirects still work.
    let id = &troubles.busy;
    assert_eq!(
        troubles
            .ask(&troubles.proxy.appliance.public, &format!("{GOTO}{id}"), "")
            .status,
        302
    );
}

#[test]
fn fetches_are_counted_by_outcome() {
    let origin = Origin::start(|conversation| {
        match conversation.path().as_str() {
            "/whole" => conversation.answer("", "0123456789"),
            "/short" => conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789"),
            "/large" => conversation.send(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2000))),
            "/too-large" => conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n"),
            "/stopping" => conversation.send("HTTP/1.1 200 OK\r\n\r\n0123456789"),
            _ => true,
        };
        if ["/stopping", "/silent"].contains(&conversation.path().as_str()) {
            conversation.wait_for_end();
        }
    });
    let settings = "first_byte_timeout_seconds = 1\nidle_timeout_seconds = 1\nmax_bytes = 1000\nmax_fetches = 1\n";
    let proxy = Proxy::with(&[&origin], settings);
    let count =
        |outcome: &str| Scrape::of(&proxy.appliance).get(&format!("tinyd_fetches_total{{outcome=\"{outcome}\"}}"));
    let open = || Scrape::of(&proxy.appliance).get("tinyd_fetches_open");
    let outcomes = [
        "complete",
        "forbidden",
        "unreachable",
        "broken",
        "too_large",
        "timed_out",
        "loop",
        "busy",
        "abandoned",
    ];
    assert!(outcomes.iter().all(|outcome| count(outcome) == 0.0));
    let mut expected = std::collections::BTreeMap::new();
    for (path, headers, outcome) in [
        ("/whole", "", "complete"),
        ("/whole", "Range: bytes=5-\r\n", "complete"),
        ("/whole", "Via: 1.1 tinyd\r\n", "loop"),
        ("/short", "", "broken"),
        ("/garbage", "", "broken"),
        ("/large", "", "too_large"),
        ("/too-large", "", "too_large"),
        ("/stopping", "", "timed_out"),
        ("/silent", "", "timed_out"),
        (&forbidden(&origin), "", "forbidden"),
        ("http://127.0.0.1:22/", "", "forbidden"),
    ] {
        let url = if path.starts_with('/') {
            origin.url(path)
        } else {
            path.to_owned()
        };
        let id = proxy.link(&url);
        proxy.ask(&id, "GET", headers).finish();
        *expected.entry(outcome).or_insert(0.0) += 1.0;
        poll(path, || count(outcome) == expected[outcome] && open() == 0.0);
    }
    // A fetch without a free slot, and a client that disconnects.
    let id = proxy.link(&origin.url("/stopping"));
    let held = proxy.ask(&id, "GET", "");
    assert_eq!(open(), 1.0);
    assert_eq!(proxy.fetch(&origin.url("/whole")).status, 503);
    drop(held);
    poll("both are counted", || count("busy") == 1.0 && open() == 0.0);
    assert_eq!(count("unreachable"), 0.0);
    let ended: f64 = outcomes.iter().map(|outcome| count(outcome)).sum();
    assert_eq!(ended, expected.values().sum::<f64>() + 2.0);
    // Body bytes that were passed on.
    let bytes = Scrape::of(&proxy.appliance).get("tinyd_fetched_bytes_total");
    assert!((40.0..=1100.0).contains(&bytes), "{bytes}");
}

/// The page that a browser gets.
fn title_of(code: &str) -> &'static str {
    match code {
        "DESTINATION_FORBIDDEN" => "Page not available here",
        "DESTINATION_UNREACHABLE" => "Page unavailable",
        "DESTINATION_TIMEOUT" => "Page not responding",
        "PROXY_LOOP" => "Redirect loop",
        "TOO_MANY_FETCHES" => "Server busy",
        other => panic!("{other}"),
    }
}
