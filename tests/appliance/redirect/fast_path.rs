//! The fast path responds like hyper, and hands over to it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::fixture::Appliance;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";

/// The test fails when the server takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(base: &str) -> TcpStream {
    let stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A request after which the server closes the connection.
const LAST: &str = "GET /robots.txt HTTP/1.1\r\nHost: tinyd\r\nConnection: close\r\n\r\n";

/// Sends requests in pieces of this size and returns the responses.
fn exchange_in_pieces(base: &str, requests: &str, size: usize) -> String {
    let mut stream = connect(base);
    stream.set_nodelay(true).unwrap();
    for piece in format!("{requests}{LAST}").as_bytes().chunks(size) {
        stream.write_all(piece).unwrap();
    }
    let mut received = String::new();
    stream.read_to_string(&mut received).unwrap();
    let end = received.rfind("HTTP/1.1 200 OK").unwrap_or(received.len());
    received.truncate(end);
    received
}

fn exchange(base: &str, requests: &str) -> String {
    exchange_in_pieces(base, requests, usize::MAX)
}

/// A response without the parts that change each second.
fn undated(text: &str) -> String {
    let lines = text
        .split("\r\n")
        .map(|line| if line.starts_with("date: ") { "date" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// A response with sorted header lines: their order has no meaning.
fn sorted(answer: &str) -> (Vec<String>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = undated(head).lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("HTTP/1.1 "), "{answer}");
    lines.sort();
    (lines, body.to_owned())
}

/// A link in each state, and an unknown ID of each length.
fn ids(appliance: &Appliance) -> Vec<String> {
    let ks = appliance.admin_ks();
    let mut ids = vec![
        appliance.add(&ks, &[]),
        appliance.add(&ks, &[("shortLink[fullUrl]", "https://münchen.example/ü?a=\"b\"#c")]),
        appliance.add(&ks, &[("shortLink[expiresAt]", "4000000000")]),
        appliance.add(&ks, &[("shortLink[expiresAt]", "1000")]),
        appliance.add(&ks, &[("shortLink[status]", "1")]),
        appliance.add(&ks, &[("shortLink[startsAt]", "4000000000")]),
        appliance.add(
            &ks,
            &[("shortLink[startsAt]", "1000"), ("shortLink[expiresAt]", "4000000000")],
        ),
    ];
    let deleted = appliance.add(&ks, &[]);
    appliance.link("delete", &ks, &[("id", &deleted)]);
    ids.push(deleted);
    ids.extend((4..=20).map(|length| "z".repeat(length)));
    ids
}

#[test]
fn fast_path_and_hyper_respond_alike() {
    for tiny in ["hop", "direct"] {
        let settings = format!("[console]\nname = \"Université\"\n[public]\ntiny = \"{tiny}\"\n");
        let appliance = Appliance::start_with(&settings);
        for id in ids(&appliance) {
            for path in [GOTO, "/tiny/"] {
                for method in ["GET", "HEAD"] {
                    for more in [
                        "",
                        "Connection: close\r\n",
                        "connection: Keep-Alive\r\nAccept: application/xhtml+xml, text/html;q=0.9\r\n",
                        "ACCEPT: text/plain\r\nAccept: text/html\r\n",
                        "User-Agent: \u{fc}\r\nAccept: */*\r\nCookie: a=b\r\n",
                        "Accept: text/html\r\nACCEPT-LANGUAGE: de-AT,en;q=0.5\r\n",
                        "accept-language:  nl \r\nAccept: text/html\r\nAccept-Language: he;q=0.2,fr;q=0.1\r\n",
                    ] {
                        let request = format!("{method} {path}{id} HTTP/1.1\r\nHost: tinyd\r\n{more}\r\n");
                        // The admin listener has no fast path.
                        let general = sorted(&exchange(&appliance.admin, &request));
                        let fast = sorted(&exchange(&appliance.public, &request));
                        assert_eq!(fast, general, "{request}");
                    }
                }
            }
        }
    }
}

#[test]
fn mixed_pipelined_requests_are_answered_in_order() {
    let appliance = Appliance::start();
    let ids = ids(&appliance);
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: tinyd\r\n\r\n");
    let mut requests: Vec<String> = ids.iter().map(|id| get(&format!("{GOTO}{id}"))).collect();
    // From here on, hyper has the connection.
    requests.push(get("/robots.txt"));
    requests.push(get(&format!("{GOTO}{}?format=1", ids[5])));
    requests.extend(ids.iter().map(|id| get(&format!("/tiny/{id}"))));
    let apart: String = requests
        .iter()
        .map(|request| exchange(&appliance.public, request))
        .collect();
    let all = requests.concat();
    let together = exchange(&appliance.public, &all);
    assert_eq!(undated(&together), undated(&apart));

    // In pieces of every size.
    for size in [1, 7, 60, 200] {
        let received = exchange_in_pieces(&appliance.public, &all, size);
        assert_eq!(undated(&received), undated(&apart), "in pieces of {size}");
    }
}

#[test]
fn request_after_connection_close_is_not_answered() {
    let appliance = Appliance::start();
    let request = |more: &str| format!("GET {GOTO}zzzz HTTP/1.1\r\nHost: tinyd\r\n{more}\r\n");
    let both = format!("{}{}", request("Connection: close\r\n"), request(""));
    let answers = exchange(&appliance.public, &both);
    assert_eq!(answers.matches("HTTP/1.1 404").count(), 1, "{answers}");
    assert!(answers.contains("connection: close\r\n"), "{answers}");
}

#[test]
fn unusual_request_is_left_to_hyper() {
    let appliance = Appliance::start_with("[public]\nmax_headers = 100\n");
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let long = "x".repeat(20_000);
    for (request, status) in [
        (format!("GET {GOTO}{id} HTTP/1.0\r\n\r\n"), "HTTP/1.0 302"),
        (
            format!("GET {GOTO}{id}?x=y HTTP/1.1\r\nHost: a\r\n\r\n"),
            "HTTP/1.1 302",
        ),
        (
            format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy"),
            "HTTP/1.1 302",
        ),
        (
            format!("POST {GOTO}{id} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
            "HTTP/1.1 302",
        ),
        (format!("PUT /tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"), "HTTP/1.1 405"),
        (
            format!("GET /tiny/{id}x\u{1} HTTP/1.1\r\nHost: a\r\n\r\n"),
            "HTTP/1.1 400",
        ),
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (
            format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            "HTTP/1.1 431",
        ),
        (
            format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(90)),
            "HTTP/1.1 302",
        ),
    ] {
        let mut stream = connect(&appliance.public);
        // The fast path answers the first, so it must hand over the bytes of the second.
        let first = format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\n\r\n");
        // A server that rejects a request may close before everything is sent.
        let _ = stream.write_all(format!("{first}{request}{LAST}").as_bytes());
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        let received = String::from_utf8(received).unwrap();
        let (_, second) = received.split_once("\r\n\r\n").unwrap();
        assert!(received.starts_with("HTTP/1.1 302"), "{received}");
        assert!(second.starts_with(status), "{request}\n{received}");
    }
}

#[test]
fn client_that_reads_late_gets_every_response() {
    let appliance = Appliance::start_with("[public]\nthreads = 1\n");
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let request = format!("GET {GOTO}{id} HTTP/1.1\r\nHost: tinyd\r\n\r\n");
    // Far more than the buffers of both sockets hold.
    let count = 100_000;
    let mut stream = connect(&appliance.public);
    let mut sending = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        sending.write_all(request.repeat(count).as_bytes()).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    // The same thread serves others meanwhile.
    assert_eq!(appliance.goto(&id).status, 302);
    let mut received = String::new();
    stream.read_to_string(&mut received).unwrap();
    sender.join().unwrap();
    assert_eq!(received.matches("HTTP/1.1 302 Found\r\n").count(), count);
}

#[test]
fn idle_connections_do_not_delay_the_drain() {
    let mut appliance = Appliance::start();
    let mut idle = connect(&appliance.public);
    let mut begun = connect(&appliance.public);
    begun.write_all(b"GET /tiny/").unwrap();
    let mut used = connect(&appliance.public);
    used.write_all(format!("GET {GOTO}zzzz HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = [0; 12];
    used.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    assert!(appliance.terminate().success());
    assert!(!appliance.log().contains("aborted requests"), "{}", appliance.log());
    assert_eq!(begun.read(&mut answer).unwrap(), 0);
    // It may not have been accepted: then the kernel resets it when it sends something.
    let _ = idle.write_all(b"G");
    assert!(matches!(idle.read(&mut answer), Ok(0) | Err(_)));
}

#[test]
fn client_that_stops_reading_delays_but_ends_the_drain() {
    let mut appliance = Appliance::start();
    let id = appliance.add(&appliance.admin_ks(), &[]);
    // On the fast path, and on hyper.
    let stuck = ["", "?x=y"].map(|query| {
        let request = format!("GET {GOTO}{id}{query} HTTP/1.1\r\nHost: tinyd\r\n\r\n");
        let mut stream = connect(&appliance.public);
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        // Until the server cannot send and stops reading.
        while stream.write_all(request.repeat(1_000).as_bytes()).is_ok() {}
        stream
    });
    let journal = appliance.store().with_extension("redb.journal");
    assert!(journal.exists());
    assert!(appliance.terminate().success());
    assert!(appliance.log().contains("aborted requests"), "{}", appliance.log());
    assert!(!journal.exists(), "the store was not closed");
    drop(stuck);
}
