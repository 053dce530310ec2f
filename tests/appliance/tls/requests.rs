//! Every kind of request over TLS. The gate runs these once more without the fast path.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::support::certificates::Authority;
use crate::support::client::{Download, request};
use crate::support::connections::{connect_with_little_room, goto};
use crate::support::fixture::{Appliance, PARTNER, poll};
use crate::support::http::{encode, request_over};
use crate::support::scrape::{Scrape, refusals};
use crate::support::tls::{Client, NAME, Secured, settings, start_with};
use crate::support::wire::Connection;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";

struct Served {
    authority: Authority,
    appliance: Appliance,
    client: Client,
    id: String,
}

fn served(more: &str) -> Served {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(more));
    Served {
        id: appliance.add(&appliance.admin_ks(), &[]),
        client: Client::new(&authority),
        appliance,
        authority,
    }
}

impl Served {
    fn public(&self) -> Connection<Secured> {
        self.client.open(&self.appliance.public_tls)
    }

    fn admin(&self) -> Connection<Secured> {
        self.client.open(&self.appliance.admin_tls)
    }
}

#[test]
fn connection_serves_requests_one_after_another() {
    let served = served("");
    let mut connection = served.public();
    for number in 0..50 {
        let redirected = connection.get(&format!("{GOTO}{}", served.id), "").unwrap();
        assert_eq!(redirected.status, 302, "{number}: {redirected:?}");
        assert!(redirected.head.contains("location: https://example.com/video\r\n"));
    }
    // From here on, hyper has the connection.
    for target in ["/robots.txt", "/tiny/x/y", "/favicon.ico", "/nothing"] {
        let plain = served.appliance.get_public(target).status;
        assert_eq!(connection.get(target, "").unwrap().status, plain, "{target}");
        let redirected = connection.get(&format!("/tiny/{}", served.id), "").unwrap();
        assert_eq!(redirected.status, 301);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let served = served("");
    let ks = served.appliance.admin_ks();
    let ids: Vec<_> = (0..16)
        .map(|number| {
            let url = format!("https://example.com/{number}");
            served.appliance.add(&ks, &[("shortLink[fullUrl]", url.as_str())])
        })
        .collect();
    let mut connection = served.public();
    let all: String = ids.iter().map(|id| goto(id)).collect();
    for _ in 0..3 {
        connection.send(all.as_bytes());
        for number in 0..16 {
            let head = connection.receive(true).unwrap().head;
            assert!(
                head.contains(&format!("\r\nlocation: https://example.com/{number}\r\n")),
                "{head}"
            );
        }
    }
    // More than the fast path answers at a time, and with hyper's requests among them.
    let many: String = (0..400)
        .map(|number| {
            if number % 100 == 99 {
                "GET /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()
            } else {
                goto(&ids[number % 16])
            }
        })
        .collect();
    connection.send(many.as_bytes());
    for number in 0..400 {
        let received = connection.receive(true).unwrap();
        if number % 100 == 99 {
            assert_eq!(received.status, 200, "{number}");
        } else {
            let location = format!("\r\nlocation: https://example.com/{}\r\n", number % 16);
            assert!(received.head.contains(&location), "{number}: {received:?}");
        }
    }
}

/// Reads until this number of responses without a body is there; returns how many records they took.
fn records_of(connection: &mut Connection<Secured>, responses: usize) -> usize {
    let StreamOwned { conn, sock } = &mut connection.stream;
    let (mut raw, mut text) = (Vec::new(), Vec::new());
    while text.windows(4).filter(|four| four == b"\r\n\r\n").count() < responses {
        let mut buffer = [0; 32 * 1024];
        let length = sock.read(&mut buffer).unwrap();
        raw.extend_from_slice(&buffer[..length]);
        let mut received = &buffer[..length];
        while !received.is_empty() {
            conn.read_tls(&mut received).unwrap();
            conn.process_new_packets().unwrap();
            // It would block once all is read.
            let _ = conn.reader().read_to_end(&mut text);
        }
    }
    let mut records = 0;
    let mut rest = &raw[..];
    while let [_, _, _, high, low, ..] = rest {
        rest = &rest[5 + usize::from(u16::from_be_bytes([*high, *low]))..];
        records += 1;
    }
    records
}

#[test]
fn pipelined_redirects_share_a_record() {
    let served = served("");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client::with_versions(&served.authority, &[version]);
        let mut connection = client.open(&served.appliance.public_tls);
        // After it, nothing of the handshake is left to read.
        let redirect = goto(&served.id);
        assert_eq!(connection.get("/tiny/zzzzzzzz", "").unwrap().status, 301);
        connection.send(redirect.repeat(16).as_bytes());
        let records = records_of(&mut connection, 16);
        let is_hyper = std::env::var_os("TINYD_FAST_PATH").is_some_and(|value| value == "off");
        assert!(records == 1 || is_hyper, "{records}");
    }
}

#[test]
fn client_that_reads_late_gets_every_answer() {
    const REQUESTS: usize = 4_000;
    let served = served("");
    let address = served.appliance.public_tls.parse().unwrap();
    let stream = connect_with_little_room(address);
    let mut connection = Connection {
        stream: StreamOwned::new(served.client.session(), stream),
    };
    assert_eq!(connection.get("/tiny/zzzzzzzz", "").unwrap().status, 301);
    let StreamOwned { conn, sock } = &mut connection.stream;
    conn.set_buffer_limit(None);
    conn.writer()
        .write_all(goto(&served.id).repeat(REQUESTS).as_bytes())
        .unwrap();
    let mut records = Vec::new();
    while conn.wants_write() {
        conn.write_tls(&mut records).unwrap();
    }
    let mut sender = sock.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&records).unwrap());
    let found = || Scrape::of(&served.appliance).get("tinyd_redirects_total{outcome=\"found\"}");
    let mut before = 0.0;
    poll("it waits for its client", || {
        let now = found();
        std::mem::replace(&mut before, now) == now && now > 0.0
    });
    assert!(before < REQUESTS as f64, "it does not wait");
    for number in 0..REQUESTS {
        assert_eq!(connection.receive(true).unwrap().status, 302, "{number}");
    }
    sending.join().unwrap();
    assert_eq!(found(), REQUESTS as f64);
}

#[test]
fn requests_in_pieces_are_answered() {
    let served = served("");
    let requests = [
        goto(&served.id),
        goto("zzzzzzzz"),
        format!("HEAD /tiny/{} HTTP/1.1\r\nHost: a\r\n\r\n", served.id),
        "GET /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        goto(&served.id),
    ];
    for size in [1, 3, 50] {
        let mut connection = served.public();
        connection.stream.sock.set_nodelay(true).unwrap();
        // A record each.
        for piece in requests.concat().as_bytes().chunks(size) {
            connection.send(piece);
        }
        for (status, has_body) in [(302, true), (404, true), (301, false), (200, true), (302, true)] {
            assert_eq!(connection.receive(has_body).unwrap().status, status, "{size}");
        }
    }
    // A record in pieces: the bytes below TLS come one by one.
    let mut connection = served.public();
    assert_eq!(connection.get("/nothing", "").unwrap().status, 404);
    let StreamOwned { conn, sock } = &mut connection.stream;
    sock.set_nodelay(true).unwrap();
    conn.writer().write_all(requests.concat().as_bytes()).unwrap();
    let mut record = Vec::new();
    while conn.wants_write() {
        conn.write_tls(&mut record).unwrap();
    }
    for byte in record {
        sock.write_all(&[byte]).unwrap();
    }
    for (status, has_body) in [(302, true), (404, true), (301, false), (200, true), (302, true)] {
        assert_eq!(connection.receive(has_body).unwrap().status, status);
    }
}

#[test]
fn request_with_the_end_of_the_handshake_is_answered() {
    let served = served("");
    let mut connection = served.public();
    let StreamOwned { conn, sock } = &mut connection.stream;
    // It waits until the handshake is over.
    conn.writer().write_all(goto(&served.id).as_bytes()).unwrap();
    let mut bytes = Vec::new();
    while conn.is_handshaking() {
        conn.write_tls(&mut bytes).unwrap();
        sock.write_all(&std::mem::take(&mut bytes)).unwrap();
        conn.read_tls(sock).unwrap();
        conn.process_new_packets().unwrap();
    }
    while conn.wants_write() {
        conn.write_tls(&mut bytes).unwrap();
    }
    sock.write_all(&bytes).unwrap();
    assert_eq!(connection.receive(true).unwrap().status, 302);
    assert_eq!(connection.get("/robots.txt", "").unwrap().status, 200);
}

#[test]
fn answers_are_alike_with_and_without_tls() {
    let served = served("");
    let capitals = served.id.to_ascii_uppercase();
    for (method, target) in [
        ("GET", format!("{GOTO}{}", served.id)),
        ("HEAD", format!("{GOTO}{}", served.id)),
        ("HEAD", format!("/tiny/{}", served.id)),
        ("HEAD", "/robots.txt".to_owned()),
        ("GET", "/tiny/zzzzzzzz".to_owned()),
        ("GET", format!("/tiny/{}.", served.id)),
        ("GET", format!("/tiny/{capitals}")),
        ("GET", format!("{GOTO}{}%20", served.id)),
        ("OPTIONS", format!("/tiny/{}", served.id)),
        ("POST", format!("/tiny/{}", served.id)),
        ("GET", format!("/{}", "x".repeat(40))),
    ] {
        let address = served.appliance.public.strip_prefix("http://").unwrap();
        let plain = request_over(TcpStream::connect(address).unwrap(), NAME, method, &target, &[], b"");
        let secured = served.client.open(&served.appliance.public_tls).stream;
        let secured = request_over(secured, NAME, method, &target, &[], b"");
        assert_eq!(
            (secured.status, &secured.body),
            (plain.status, &plain.body),
            "{method} {target}"
        );
        let undated = |mut headers: std::collections::BTreeMap<String, String>| {
            headers.remove("date");
            headers
        };
        assert_eq!(undated(secured.headers), undated(plain.headers), "{method} {target}");
    }
}

#[test]
fn long_and_malformed_heads_are_refused() {
    let served = served("");
    let long = format!("GET /tiny/a HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let long_target = format!("GET /tiny/{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET /tiny/a HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    for (bytes, status) in [
        (long.as_str(), 431),
        (&long_target, 414),
        (&many, 431),
        ("GET /tiny/a HTTP/1.1\r\n\r\n", 400),
        ("GET /tiny/a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /tiny/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("\0\0\0\0\r\n\r\n", 400),
    ] {
        // First on a connection, and after a request on each path.
        for before in [
            None,
            Some(format!("{GOTO}{}", served.id)),
            Some("/robots.txt".to_owned()),
        ] {
            let mut connection = served.public();
            if let Some(target) = before {
                assert!(connection.get(&target, "").is_some());
            }
            connection.send(bytes.as_bytes());
            let refused = connection.receive(true).unwrap();
            assert_eq!((refused.status, refused.is_last()), (status, true), "{bytes:.60}");
            connection.assert_says_goodbye();
        }
    }
    assert_eq!(refusals(&served.appliance, "public", "head_too_large"), 9);
    assert_eq!(refusals(&served.appliance, "public", "malformed"), 15);
}

#[test]
fn last_answer_is_followed_by_close_notify() {
    let served = served("");
    for target in [format!("{GOTO}{}", served.id), "/robots.txt".to_owned()] {
        for before in 0..3 {
            let mut connection = served.public();
            for _ in 0..before {
                assert!(!connection.get(&target, "").unwrap().is_last());
            }
            let last = connection.get(&target, "Connection: close\r\n").unwrap();
            assert!(last.is_last(), "{last:?}");
            connection.assert_says_goodbye();
        }
        // Of HTTP/1.0, the end of the connection is the end of the response.
        let mut connection = served.public();
        connection.send(format!("GET {target} HTTP/1.0\r\nHost: a\r\n\r\n").as_bytes());
        assert!(connection.receive(true).is_some());
        connection.assert_says_goodbye();
    }
    let mut admin = served.admin();
    assert!(admin.get("/healthz", "Connection: close\r\n").unwrap().is_last());
    admin.assert_says_goodbye();
}

#[test]
fn timeouts_and_limits_end_with_close_notify() {
    let limits = "idle_timeout_seconds = 1\nmax_requests_per_connection = 2\n";
    let authority = Authority::new();
    let appliance = start_with(
        &authority,
        &format!("[public]\n{limits}[admin]\n{limits}{}", settings("")),
    );
    let client = Client::new(&authority);
    for (address, listener) in [(&appliance.public_tls, "public"), (&appliance.admin_tls, "admin")] {
        for target in ["/tiny/zzzzzzzz", "/robots.txt"] {
            let mut idle = client.open(address);
            assert!(!idle.get(target, "").unwrap().is_last());
            idle.assert_says_goodbye();
            let mut busy = client.open(address);
            assert!(!busy.get(target, "").unwrap().is_last());
            assert!(busy.get(target, "").unwrap().is_last());
            busy.assert_says_goodbye();
        }
        assert_eq!(refusals(&appliance, listener, "idle_timeout"), 2, "{listener}");
        assert_eq!(refusals(&appliance, listener, "requests"), 2, "{listener}");
    }
}

#[test]
fn client_that_closes_gets_close_notify_back() {
    let served = served("");
    for target in [format!("{GOTO}{}", served.id), "/robots.txt".to_owned()] {
        let mut connection = served.public();
        assert!(connection.get(&target, "").is_some());
        connection.stream.conn.send_close_notify();
        connection.stream.flush().unwrap();
        connection.assert_says_goodbye();
    }
}

#[test]
fn body_on_the_public_listener_is_read_past() {
    let served = served("");
    for framing in [
        format!("Content-Length: 20000\r\n\r\n{}", "x".repeat(20_000)),
        format!(
            "Content-Length: 20000\r\nConnection: close\r\n\r\n{}",
            "x".repeat(20_000)
        ),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n4e20\r\n{}\r\n0\r\n\r\n",
            "x".repeat(20_000)
        ),
    ] {
        let head = format!("POST {GOTO}{} HTTP/1.1\r\nHost: a\r\n", served.id);
        let answer = |stream: &mut dyn FnMut(&[u8]) -> u16| stream(format!("{head}{framing}").as_bytes());
        let mut secured = served.public();
        let status = answer(&mut |bytes| {
            secured.send(bytes);
            secured.receive(true).unwrap().status
        });
        let mut plain = Connection::open(&served.appliance.public);
        let of_plain = answer(&mut |bytes| {
            plain.send(bytes);
            plain.receive(true).unwrap().status
        });
        assert_eq!(status, of_plain, "{framing:.60}");
    }
}

#[test]
fn api_calls_with_bodies_work_over_tls() {
    let served = served("");
    let ks = served.appliance.admin_ks();
    let mut connection = served.admin();
    for number in 0..3 {
        let url = format!("https://example.com/{}", "x".repeat(1_000));
        let form = format!(
            "format=1&ks={}&shortLink[systemName]=NAME&shortLink[fullUrl]={}",
            encode(&ks),
            encode(&url)
        );
        let chunks: String = form
            .as_bytes()
            .chunks(700)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()))
            .collect();
        let framed = if number == 2 {
            format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        } else {
            format!("Content-Length: {}\r\n\r\n{form}", form.len())
        };
        let head = "POST /api_v3/service/shortlink_shortlink/action/add HTTP/1.1\r\nHost: a\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\n";
        connection.send(format!("{head}{framed}").as_bytes());
        assert_eq!(connection.receive(true).unwrap().status, 200);
    }
    assert_eq!(served.appliance.list(&ks, &[]).1, 4);
}

#[test]
fn large_export_is_whole_for_a_slow_reader() {
    // Together more than the kernel holds for a client.
    const LINKS: usize = 1_500;
    const DESTINATION_BYTES: usize = 8_000;
    let served = served("");
    let file = served.appliance.folder.path().join("links.jsonl");
    let lines: String = (0..LINKS)
        .map(|number| {
            let (id, url) = (format!("id{number:06}"), "x".repeat(DESTINATION_BYTES));
            format!("{{\"id\":\"{id}\",\"systemName\":\"NAME\",\"fullUrl\":\"https://example.com/{url}\"}}\n")
        })
        .collect();
    fs::write(&file, lines).unwrap();
    let imported = served
        .appliance
        .tinyd(&["import", file.to_str().unwrap(), "--partner", PARTNER]);
    assert!(imported.status.success(), "{imported:?}");
    let target = format!(
        "/api_v3/service/tinyd/action/export?ks={}",
        encode(&served.appliance.admin_ks())
    );
    let address = served.appliance.admin_tls.parse().unwrap();
    let session = served.client.session();
    let stream = StreamOwned::new(session, connect_with_little_room(address));
    let mut download = Download::ask(stream, &request("GET", &target, ""));
    assert_eq!(download.status, 200);
    let mut body = download.read_exactly(1_000);
    // The pace of the client under test, not a wait for a condition.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(served.appliance.goto(&served.id).status, 302);
    let rest = download.finish();
    assert!(rest.is_whole);
    body.extend_from_slice(&rest.body);
    let text = String::from_utf8(body).unwrap();
    assert_eq!(text.lines().count(), LINKS + 1);
    assert!(text.len() > LINKS * DESTINATION_BYTES, "{}", text.len());
}

/// Reads nothing of what this number of requests is answered with.
fn without_reading(
    client: &Client,
    address: &str,
    request: &str,
    times: usize,
) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = connect_with_little_room(address.parse().unwrap());
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut stream = StreamOwned::new(client.session(), stream);
    let _ = stream.write_all(request.repeat(times).as_bytes());
    stream
}

#[test]
fn client_that_stops_reading_is_disconnected_over_tls() {
    let authority = Authority::new();
    let limits = "write_timeout_seconds = 1\nidle_timeout_seconds = 1\nmax_guesses_per_minute = 0\n";
    let settings = settings("");
    let appliance = start_with(&authority, &format!("[public]\n{limits}{settings}"));
    let client = Client::new(&authority);
    for target in [format!("{GOTO}zzzzzzzz"), format!("{GOTO}zzzzzzzz?x=y")] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        // So that what is left for TLS to send is sometimes less than a buffer.
        let clients: Vec<_> = (1..=24)
            .map(|number| without_reading(&client, &appliance.public_tls, &request, number * 60))
            .collect();
        poll("none is left", || {
            crate::support::connections::open_connections(&appliance) == 0.0
        });
        drop(clients);
    }
    assert!(refusals(&appliance, "public", "write_timeout") > 0);
}

#[test]
fn torn_answer_is_not_a_whole_one() {
    let served = served("");
    let mut connection = served.public();
    assert_eq!(connection.get("/robots.txt", "").unwrap().status, 200);
    // Bytes that are no record: the server ends the connection with an alert.
    connection.stream.sock.write_all(b"not a record of TLS at all").unwrap();
    let error = connection.stream.read(&mut [0]).unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
}
