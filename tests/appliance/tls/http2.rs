//! HTTP/2: the answers are those of HTTP/1.1, and so are the rules and limits.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, poll};
use crate::support::http2::{
    CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, flood, frame, get_block, kinds, raw, read_until_end, request,
};
use crate::support::scrape::{Scrape, refusals};
use crate::support::tls::{Client, settings, start_with};

fn start(more: &str) -> (Appliance, Client) {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(more));
    let client = Client::new(&authority);
    (appliance, client)
}

#[test]
fn answers_are_those_of_http_1() {
    let (appliance, client) = start("hsts_seconds = 60");
    let ks = appliance.admin_ks();
    let (id, gone) = (appliance.add(&ks, &[]), appliance.add(&ks, &[]));
    appliance.link("delete", &ks, &[("id", &gone)]);
    let mut connection = Connection::open(&client, &appliance.public_tls);
    let unlike = ["content-length", "connection", "date"];
    for target in [
        &*format!("/tiny/{id}"),
        &*format!("/tiny/{id}."),
        &*format!("/api_v3/service/shortlink_shortlink/action/goto/id/{id}"),
        &*format!("/tiny/{gone}"),
        "/tiny/unknown1",
        "/robots.txt",
        "/",
        "/tiny/a?b=%3C&c=\u{fc}",
        "/api_v3/service/shortlink_shortlink/action/list",
    ] {
        let (mut two, mut one) = (connection.get(target), client.get(&appliance.public_tls, target));
        for name in unlike {
            two.headers.remove(name);
            one.headers.remove(name);
        }
        assert_eq!((two.status, &two.headers), (one.status, &one.headers), "{target}");
        assert_eq!(two.text(), one.text(), "{target}");
    }
    let head = connection.ask(request("HEAD", "/robots.txt"), b"").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    // A body that nobody reads does not end the connection.
    for _ in 0..3 {
        let refused = connection.ask(request("POST", "/"), b"x").unwrap();
        assert_eq!(refused.status, client.get(&appliance.public_tls, "/").status);
    }
    assert_eq!(connection.get(&format!("/tiny/{id}")).status, 301);
}

#[test]
fn the_api_is_called_with_bodies() {
    let (appliance, client) = start("");
    let ks = appliance.admin_ks();
    let mut connection = Connection::open(&client, &appliance.admin_tls);
    let mut add = |name: &str| {
        let call = request("POST", "/api_v3/service/shortlink_shortlink/action/add?format=1");
        let destination = format!("https://example.com/{}", "x".repeat(3_000));
        let body = format!(r#"{{"ks":"{ks}","shortLink":{{"systemName":"{name}","fullUrl":"{destination}"}}}}"#);
        let (mut head, ()) = call.into_parts();
        head.headers.insert("content-type", "application/json".parse().unwrap());
        let answer = connection
            .ask(hyper::Request::from_parts(head, ()), body.as_bytes())
            .unwrap();
        answer.json()["systemName"].as_str().unwrap().to_owned()
    };
    assert_eq!(["ONE", "TWO"].map(&mut add), ["ONE", "TWO"]);
    assert_eq!(connection.get("/healthz").text(), "ok\n");
}

#[test]
fn requests_that_are_ambiguous_or_too_large_are_refused() {
    let (appliance, client) = start("");
    let mut connection = Connection::open(&client, &appliance.public_tls);
    let with = |name: &'static str, value: &str| {
        let mut request = request("GET", "/robots.txt");
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let mut many = request("GET", "/robots.txt");
    for number in 0..65 {
        let name: hyper::header::HeaderName = format!("x-{number}").parse().unwrap();
        many.headers_mut().insert(name, "1".parse().unwrap());
    }
    for (request, status) in [
        (with("host", "go.example.org"), 200),
        (with("host", "other.example.org"), 400),
        (request("GET", &format!("/{}", "x".repeat(8_200))), 414),
        (many, 431),
        (with("x", &"x".repeat(16_400)), 431),
    ] {
        let uri = request.uri().clone();
        let answer = connection.ask(request, b"").unwrap();
        assert_eq!(answer.status, status, "{uri} {answer:?}");
    }
    assert!(refusals(&appliance, "public", "malformed") >= 1);
    assert!(refusals(&appliance, "public", "head_too_large") >= 2);
    assert_eq!(connection.get("/robots.txt").status, 200);
}

#[test]
fn floods_of_frames_end_the_connection() {
    let (appliance, client) = start("");
    let request = |stream: u32| frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block("/robots.txt"));
    let resets: Vec<u8> = (0..5_000)
        .flat_map(|number| {
            [
                request(2 * number + 1),
                frame(RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8]),
            ]
            .concat()
        })
        .collect();
    let open = frame(HEADERS, END_HEADERS, 1, &get_block("/robots.txt"));
    let unfinished = frame(HEADERS, 0, 1, &get_block("/robots.txt"));
    let control = |frame: Vec<u8>| (Vec::new(), frame.repeat(20_000), true);
    for (name, (first, flood_of, is_ours)) in [
        ("settings", control(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]))),
        ("pings", control(frame(PING, 0, 0, &[7; 8]))),
        ("windows", control(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("unknown frames", control(frame(0x42, 0, 0, b"x"))),
        // hyper ends these before we do.
        ("empty data", (open, frame(DATA, 0, 1, b"").repeat(20_000), false)),
        (
            "continuations",
            (unfinished, frame(CONTINUATION, 0, 1, b"").repeat(20_000), false),
        ),
        ("resets", (Vec::new(), resets, false)),
    ] {
        let before = refusals(&appliance, "public", "frame_flood");
        let mut stream = raw(&client, &appliance.public_tls);
        // A connection that does not end would be a timeout of minutes.
        let received = flood(&mut stream, &[first, flood_of].concat());
        let answered = kinds(&received).into_iter().filter(|kind| *kind == HEADERS).count();
        assert!(answered <= 200, "{name}: {answered}");
        let ended = refusals(&appliance, "public", "frame_flood") - before;
        assert!(!is_ours || ended == 1, "{name}");
    }
    poll("closed", || {
        Scrape::of(&appliance).get("tinyd_connections_open{listener=\"public\"}") == 0.0
    });
    assert_eq!(
        Connection::open(&client, &appliance.public_tls)
            .get("/robots.txt")
            .status,
        200
    );
}

#[test]
fn client_that_takes_nothing_is_cut_off() {
    let (appliance, client) = start("[public]\nwrite_timeout_seconds = 1\n");
    let mut stream = raw(&client, &appliance.public_tls);
    // No room for any body.
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    for stream_id in [1, 3, 5] {
        let get = frame(HEADERS, END_STREAM | END_HEADERS, stream_id, &get_block("/robots.txt"));
        stream.write_all(&get).unwrap();
    }
    let (since, mut received) = (Instant::now(), Vec::new());
    // A client whose pings are answered is there, and takes nothing all the same.
    stream.sock.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut is_open = true;
    while is_open && stream.write_all(&frame(PING, 0, 0, &[7; 8])).is_ok() {
        let mut part = [0; 4096];
        loop {
            match stream.read(&mut part) {
                Ok(length) if length > 0 => received.extend(&part[..length]),
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => break,
                _ => {
                    is_open = false;
                    break;
                }
            }
        }
        assert!(since.elapsed() < Duration::from_secs(60));
    }
    let kinds = kinds(&received);
    assert_eq!(kinds.iter().filter(|kind| **kind == HEADERS).count(), 3, "{kinds:?}");
    assert!(!kinds.contains(&DATA));
    assert_eq!(refusals(&appliance, "public", "write_timeout"), 1);
}

#[test]
fn idle_connections_and_open_heads_have_their_timeouts() {
    let (appliance, client) = start("[public]\nhead_timeout_seconds = 1\nidle_timeout_seconds = 1\n");
    let get = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get_block("/robots.txt"));
    let unfinished = frame(HEADERS, 0, 1, &get_block("/robots.txt"));
    for (bytes, reason) in [
        (&b""[..], "head_timeout"),
        (&get, "idle_timeout"),
        (&unfinished, "head_timeout"),
    ] {
        let before = refusals(&appliance, "public", reason);
        let mut stream = raw(&client, &appliance.public_tls);
        stream.write_all(bytes).unwrap();
        let received = read_until_end(&mut stream);
        assert_eq!(refusals(&appliance, "public", reason), before + 1, "{reason}");
        assert_eq!(kinds(&received).contains(&GOAWAY), bytes != unfinished, "{reason}");
    }
}

#[test]
fn connection_ends_after_its_requests_and_at_a_drain() {
    let (mut appliance, client) = start("[public]\nmax_requests_per_connection = 3\n");
    let mut connection = Connection::open(&client, &appliance.public_tls);
    for _ in 0..3 {
        assert_eq!(connection.get("/robots.txt").status, 200);
    }
    poll("ended", || connection.ask(request("GET", "/robots.txt"), b"").is_err());
    assert_eq!(refusals(&appliance, "public", "requests"), 1);
    let mut stream = raw(&client, &appliance.public_tls);
    let get = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get_block("/robots.txt"));
    stream.write_all(&get).unwrap();
    let mut first = [0; 9];
    stream.read_exact(&mut first).unwrap();
    assert!(appliance.terminate().success());
    let received = read_until_end(&mut stream);
    assert!([&first[..], &received].concat().len() > 9 && kinds(&[&first[..], &received].concat()).contains(&GOAWAY));
}
