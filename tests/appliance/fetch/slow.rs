//! Slow and endless upstreams: each has its timeout or limit.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::certificates::Authority;
use crate::support::client::{Part, connect};
use crate::support::origin::{Conversation, Origin, Server};
use crate::support::proxy::{Proxy, THIS_MACHINE, assert_fault};

/// The pace of slow upstreams: no message ever arrives.
fn tick() {
    let (_sender, moment) = mpsc::channel::<()>();
    let _ = moment.recv_timeout(Duration::from_millis(100));
}

/// Sends a byte now and then until the peer disconnects.
fn trickle(conversation: &mut Conversation) {
    while conversation.send("x") {
        tick();
    }
}

#[test]
fn silent_upstream_is_504() {
    let authority = Authority::new();
    let silent = |conversation: &mut Conversation| conversation.wait_for_end();
    let plain = Origin::start(silent);
    let secure = Origin::over_tls(authority.certify(&["127.0.0.1"]), silent);
    // It accepts and does not begin the handshake.
    let mute = Server::start("127.0.0.1:0", |mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    // It begins the handshake.
    let stuck = Server::start("127.0.0.1:0", |mut stream| {
        use std::io::Write as _;
        let _ = stream.write_all(b"\x16\x03\x03\x00\x7a\x02\x00");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let ports = [plain.port(), secure.port(), mute.address.port(), stuck.address.port()];
    let settings = format!(
        "{THIS_MACHINE}ports = {ports:?}\nfirst_byte_timeout_seconds = 1\n{}",
        authority.setting()
    );
    let proxy = Proxy::start(&settings);
    for url in [
        plain.url("/"),
        secure.url("/"),
        format!("https://{}/", mute.address),
        format!("http://{}/", mute.address),
        format!("https://{}/", stuck.address),
    ] {
        assert_fault(&proxy.fetch(&url), 504, "DESTINATION_TIMEOUT");
        proxy.assert_redirects();
    }
    assert_eq!((mute.connections(), stuck.connections()), (2, 1));
}

#[test]
fn trickling_upstream_head_is_504() {
    let origin = Origin::start(|conversation| {
        let path = conversation.path();
        conversation.send(match path.as_str() {
            "/status" => "HTTP/1.1 200 ",
            "/header" => "HTTP/1.1 200 OK\r\nX-Slow: ",
            _ => "HTTP/1.1 103 Early Hints\r\n\r\n",
        });
        if path == "/announcements" {
            while conversation.send("HTTP/1.1 100 Continue\r\n\r\n") {
                tick();
            }
        }
        trickle(conversation);
    });
    let proxy = Proxy::with(&[&origin], "first_byte_timeout_seconds = 1\n");
    for path in ["/status", "/header", "/announcements"] {
        assert_fault(&proxy.fetch(&origin.url(path)), 504, "DESTINATION_TIMEOUT");
    }
    proxy.assert_redirects();
}

#[test]
fn connect_timeout_ends_the_fetch() {
    // The accept queue has room for one connection and is never emptied.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        queued.push(stream);
    }
    let settings = format!(
        "{THIS_MACHINE}ports = [{}]\nconnect_timeout_seconds = 1\n",
        address.port()
    );
    let proxy = Proxy::start(&settings);
    assert_fault(&proxy.fetch(&format!("http://{address}/")), 504, "DESTINATION_TIMEOUT");
    proxy.assert_redirects();
}

#[test]
fn stalled_body_is_cut_off() {
    let origin = Origin::start(|conversation| {
        conversation.send(match conversation.path().as_str() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789",
            "/chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n0123456789",
            "/chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n",
            _ => "HTTP/1.1 200 OK\r\n\r\n0123456789",
        });
        conversation.wait_for_end();
    });
    let proxy = Proxy::with(&[&origin], "idle_timeout_seconds = 1\n");
    for path in ["/length", "/chunk", "/chunks", "/close"] {
        let mut download = proxy.ask(&proxy.link(&origin.url(path)), "GET", "");
        assert_eq!(download.status, 200);
        // The bytes were passed on before the stall.
        assert_eq!(download.read_exactly(10), b"0123456789");
        assert_eq!(download.read(&mut [0]), Part::CutOff, "{path}");
        proxy.assert_redirects();
    }
}

#[test]
fn http_1_0_client_sees_a_reset_when_the_body_stalls() {
    let origin = Origin::start(|conversation| {
        conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n");
        if conversation.path() == "/stops" {
            conversation.wait_for_end();
        }
        conversation.send("0\r\n\r\n");
    });
    let proxy = Proxy::with(&[&origin], "idle_timeout_seconds = 1\n");
    for (path, end) in [("/ends", None), ("/stops", Some(ErrorKind::ConnectionReset))] {
        let target = crate::support::proxy::proxied(&proxy.link(&origin.url(path)));
        let mut client = connect(&proxy.appliance.public);
        client
            .write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = Vec::new();
        let read = client.read_to_end(&mut answer);
        assert_eq!(read.err().map(|error| error.kind()), end, "{path}");
        let is_whole = answer.ends_with(b"\r\n\r\n0123456789");
        assert!(is_whole || end.is_some(), "{}", answer.escape_ascii());
    }
}

#[test]
fn trickling_body_ends_at_the_total_timeout() {
    let origin = Origin::start(|conversation| {
        conversation.send(match conversation.path().as_str() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\n\r\n",
        });
        trickle(conversation);
    });
    let proxy = Proxy::with(
        &[&origin],
        "idle_timeout_seconds = 2\nfirst_byte_timeout_seconds = 2\ntotal_timeout_seconds = 2\n",
    );
    for path in ["/length", "/close"] {
        let fetched = proxy.fetch(&origin.url(path));
        assert_eq!((fetched.status, fetched.is_whole), (200, false), "{path}");
        assert!(fetched.text().bytes().all(|byte| byte == b'x'), "{fetched:?}");
    }
    proxy.assert_redirects();
}

#[test]
fn total_timeout_covers_all_redirects() {
    let origin = Origin::start(|conversation| {
        // Each redirect is fast enough by itself.
        for _ in 0..12 {
            tick();
        }
        let number: u32 = conversation.path()[1..].parse().unwrap();
        let location = format!("Location: /{}\r\n", number + 1);
        conversation.send(format!("HTTP/1.1 302 Found\r\n{location}Content-Length: 0\r\n\r\n"));
    });
    let proxy = Proxy::with(&[&origin], "follow = 3\ntotal_timeout_seconds = 2\n");
    assert_fault(&proxy.fetch(&origin.url("/0")), 504, "DESTINATION_TIMEOUT");
    proxy.assert_redirects();
}

#[test]
fn body_is_cut_off_at_the_byte_limit() {
    const MOST: usize = 1_000_000;
    let origin = Origin::start(|conversation| {
        let path = conversation.path();
        let part = vec![b'x'; 100_000];
        match path.as_str() {
            "/endless" => {
                conversation.send("HTTP/1.1 200 OK\r\n\r\n");
                while conversation.send(&part) {}
            }
            "/chunks" => {
                conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                let chunk = [b"186A0\r\n", &part[..], b"\r\n"].concat();
                while conversation.send(&chunk) {}
            }
            _ => {
                let length: usize = path[1..].parse().unwrap();
                let is_told = conversation.request.target().ends_with("?told");
                let length_line = if is_told {
                    format!("Content-Length: {length}\r\n")
                } else {
                    String::new()
                };
                conversation.send(format!("HTTP/1.1 200 OK\r\n{length_line}\r\n"));
                conversation.send(vec![b'x'; length]);
            }
        }
    });
    let proxy = Proxy::with(&[&origin], &format!("max_bytes = {MOST}\n"));
    for path in ["/endless", "/chunks", "/1000001"] {
        let fetched = proxy.fetch(&origin.url(path));
        assert_eq!((fetched.status, fetched.is_whole), (200, false), "{path}");
        assert!(fetched.body.len() <= MOST, "{path}: {}", fetched.body.len());
        assert!(fetched.body.len() >= MOST / 2, "{path}: {}", fetched.body.len());
        proxy.assert_redirects();
    }
    for path in ["/1000000", "/1000000?told", "/999999?told"] {
        let fetched = proxy.fetch(&origin.url(path));
        assert_eq!((fetched.status, fetched.is_whole), (200, true), "{path}");
        assert!(fetched.body.len() >= MOST - 1, "{path}");
    }
    assert_fault(
        &proxy.fetch(&origin.url("/1000001?told")),
        502,
        "DESTINATION_UNREACHABLE",
    );
    // HEAD shows the full length.
    let id = proxy.link(&origin.url("/1000001?told"));
    let fetched = proxy.ask(&id, "HEAD", "").finish();
    assert!([200, 502].contains(&fetched.status), "{fetched:?}");
}
