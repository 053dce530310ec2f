//! Malformed responses of the upstream: none of their bytes count as a response, and nothing else is affected.

use std::net::{Shutdown, SocketAddr};

use socket2::{Domain, SockRef, Socket, Type};

use crate::support::client::{Fetched, request};
use crate::support::origin::{Origin, Server};
use crate::support::proxy::{GOTO, Proxy, THIS_MACHINE, assert_fault};

/// The outcome of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Becomes {
    /// 502.
    Unreachable,
    /// This whole body.
    Whole(&'static str),
    /// A beginning of this body, cut off.
    CutOff(&'static str),
    /// Either 502 or this body: parsers differ, and both are safe.
    UnreachableOr(&'static str),
}
use Becomes::{CutOff, Unreachable, UnreachableOr, Whole};

/// The head of a valid response, up to its framing.
const OK: &str = "HTTP/1.1 200 OK\r\n";

fn chunked(chunks: &str) -> String {
    format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}")
}

fn headers(lines: &str, body: &str) -> String {
    format!("{OK}{lines}\r\n{body}")
}

/// Checks the outcome of responses that end with the connection.
fn assert_become(cases: Vec<(String, Becomes)>) {
    let answers: Vec<_> = cases.iter().map(|(answer, _)| answer.clone()).collect();
    let origin = Origin::start(move |conversation| {
        let number: usize = conversation.path()[1..].parse().unwrap();
        conversation.send(&answers[number]);
    });
    let proxy = Proxy::to(&[&origin]);
    for (number, (answer, becomes)) in cases.iter().enumerate() {
        let shown: String = answer.chars().take(300).collect();
        let id = proxy.link(&origin.url(&format!("/{number}")));
        // There is always a head: an empty reply makes a load balancer drop the server.
        let (fetched, kept) = proxy.ask(&id, "GET", "").finish_keeping();
        assert_becomes(&shown, becomes, &fetched);
        for injected in ["x-injected", "set-cookie"] {
            assert!(fetched.all(injected).is_empty(), "{shown:?}: {fetched:?}");
        }
        if fetched.is_whole {
            // The next bytes are the next response, and none that the upstream has added.
            let next = kept.ask(&request("GET", &format!("{GOTO}{id}"), ""));
            assert_eq!(next.status, 302, "{shown:?}");
        } else {
            assert!(kept.has_ended(), "{shown:?}");
        }
    }
    proxy.assert_redirects();
}

fn assert_becomes(shown: &str, becomes: &Becomes, fetched: &Fetched) {
    let body = fetched.text();
    match becomes {
        Whole(expected) | UnreachableOr(expected) if fetched.status == 200 => {
            assert_eq!((body.as_str(), fetched.is_whole), (*expected, true), "{shown:?}");
        }
        Unreachable | UnreachableOr(_) => {
            println!("{shown:?}");
            assert_fault(fetched, 502, "DESTINATION_UNREACHABLE");
        }
        CutOff(most) => {
            assert_eq!(
                (fetched.status, fetched.is_whole),
                (200, false),
                "{shown:?}: {fetched:?}"
            );
            assert!(!body.is_empty() && most.starts_with(&body), "{shown:?}: {body:?}");
        }
        Whole(_) => panic!("{shown:?}: {fetched:?}"),
    }
}

#[test]
fn malformed_status_line_is_502() {
    let cases = [
        "",
        "\r\n\r\n",
        "H",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        "<html>internal-word</html>",
        "internal-word\r\n\r\n",
        "220 internal-word ESMTP\r\n",
        "SSH-2.0-OpenSSH_9.2 internal-word\r\n",
        "-ERR unknown command 'GET' internal-word\r\n",
        "GET / HTTP/1.1\r\nHost: internal-word\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\ninternal-word",
        "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200\r\ncontent-length: 0\r\n\r\n",
        "HTTP/11 200 OK\r\nContent-Length: 0\r\n\r\n",
        "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
        "RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\x40\0\0\0\0\x05\0\x40\0\0",
        "\x15\x03\x03\0\x02\x02\x28",
        "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\ninternal-word",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    ];
    assert_become(cases.map(|answer| (answer.to_owned(), Unreachable)).to_vec());
}

#[test]
fn malformed_headers_are_502() {
    let ok = |lines: &str| headers(&format!("Content-Length: 2\r\n{lines}"), "ok");
    assert_become(vec![
        (ok("X-A: a\0b\r\n"), Unreachable),
        (ok("X\0A: a\r\n"), Unreachable),
        (ok("X-A: a\rSet-Cookie: a=b\r\n"), Unreachable),
        (ok("ETag: \"a\rX-Injected: b\"\r\n"), Unreachable),
        (ok("no colon\r\n"), Unreachable),
        (ok(": no name\r\n"), Unreachable),
        (ok("X A: a\r\n"), Unreachable),
        (ok("X(A): a\r\n"), Unreachable),
        (ok("X-\u{fc}: a\r\n"), Unreachable),
        (ok("ETag : \"a\"\r\n"), Unreachable),
        (ok(" ETag: \"a\"\r\n"), Unreachable),
        (ok("ETag: \"a\"\r\n continued\r\n"), Unreachable),
        (ok("ETag: \"a\"\x7f\r\n"), Unreachable),
        (ok("ETag: \"a\"\x01\r\n"), Unreachable),
        // A bare LF ends a line for some parsers and is an error for others. It is never part of a value.
        (ok("ETag: \"a\"\nX-Injected: b\r\n"), UnreachableOr("ok")),
        (
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok".to_owned(),
            UnreachableOr("ok"),
        ),
        (format!("\r\n\r\n{}", ok("")), UnreachableOr("ok")),
        (
            ok("Content-Disposition: attachment; filename=\"\u{fc}.txt\"\r\n"),
            Whole("ok"),
        ),
        (ok("X-Empty:\r\nETag:\"a\"\r\n"), Whole("ok")),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok".to_owned(), Whole("ok")),
        (
            "HTTP/1.1 200 \u{fc}\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            UnreachableOr("ok"),
        ),
    ]);
}

#[test]
fn conflicting_lengths_are_502() {
    let of = |lines: &str| headers(lines, "0123456789");
    assert_become(vec![
        (of("Content-Length: 10\r\nContent-Length: 5\r\n"), Unreachable),
        (of("Content-Length: 5\r\nContent-Length: 10\r\n"), Unreachable),
        (of("Content-Length: 10, 5\r\n"), Unreachable),
        (of("Content-Length: -1\r\n"), Unreachable),
        (of("Content-Length: +10\r\n"), Unreachable),
        (of("Content-Length: 0xa\r\n"), Unreachable),
        (of("Content-Length: 1 0\r\n"), Unreachable),
        (of("Content-Length: 10.0\r\n"), Unreachable),
        (of("Content-Length:\r\n"), Unreachable),
        (of("Content-Length: 99999999999999999999999\r\n"), Unreachable),
        (of("Content-Length: 18446744073709551615\r\n"), Unreachable),
        (
            of("Content-Length: 10\r\nContent-Length: 10\r\n"),
            UnreachableOr("0123456789"),
        ),
        (of("Content-Length: 10, 10\r\n"), UnreachableOr("0123456789")),
        (of("Content-Length: 010\r\n"), UnreachableOr("0123456789")),
        (of("Transfer-Encoding: gzip\r\n"), Unreachable),
        (of("Transfer-Encoding: identity\r\n"), Unreachable),
        (of("Transfer-Encoding: xchunked\r\n"), Unreachable),
        (of("Transfer-Encoding: chunked, gzip\r\n"), Unreachable),
        (
            of("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            Unreachable,
        ),
        (
            headers("Transfer-Encoding: gzip, chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
            Unreachable,
        ),
        (
            headers("Transfer-Encoding: chunked, chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
            Unreachable,
        ),
        (
            headers(
                "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
                "2\r\nok\r\n0\r\n\r\n",
            ),
            UnreachableOr("ok"),
        ),
        (
            headers(
                "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
                "2\r\nok\r\n0\r\n\r\n",
            ),
            UnreachableOr("ok"),
        ),
    ]);
}

#[test]
fn truncated_body_is_cut_off_and_excess_is_dropped() {
    let split = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Injected: a\r\n\r\nevil";
    assert_become(vec![
        (headers("Content-Length: 11\r\n", "0123456789"), CutOff("0123456789")),
        (
            headers("Content-Length: 4294967295\r\n", "0123456789"),
            CutOff("0123456789"),
        ),
        (headers("Content-Length: 10\r\n", ""), Unreachable),
        (headers("Content-Length: 4\r\n", "0123456789"), Whole("0123")),
        (headers("Content-Length: 0\r\n", "0123456789"), Whole("")),
        (headers("Content-Length: 2\r\n", &format!("ok{split}")), Whole("ok")),
        (chunked(&format!("2\r\nok\r\n0\r\n\r\n{split}")), Whole("ok")),
        (chunked(""), Unreachable),
        (chunked("5"), Unreachable),
        (chunked("5\r\n012"), CutOff("012")),
        (chunked("5\r\n01234"), CutOff("01234")),
        (chunked("5\r\n01234\r\n"), CutOff("01234")),
        (chunked("5\r\n01234\r\n0"), CutOff("01234")),
        (chunked("5\r\n01234\r\n0\r\n"), CutOff("01234")),
        (chunked("5\r\n01234\r\n0\r\nX-Trailer: a\r\n"), CutOff("01234")),
    ]);
}

#[test]
fn malformed_first_chunk_is_502() {
    let cases = [
        "1FFFFFFFFFFFFFFFF\r\nabc",
        "1FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        "internal-word",
        "\r\n",
        "\0",
        "3;a\nb\r\nabc",
        "3",
        "3\r",
        "3\r\n",
        "0",
        "0\r\n",
        "0\r\nX-Trailer",
        "00000000000000000000000000000000000000000",
    ];
    assert_become(cases.map(|chunks| (chunked(chunks), Unreachable)).to_vec());
}

#[test]
fn malformed_later_chunk_cuts_the_response_off() {
    let flood = format!("5;{}\r\n01234\r\n0\r\n\r\n", "x".repeat(1_000_000));
    let small_floods = format!("1;{}\r\n0\r\n", "x".repeat(200)).repeat(1000) + "0\r\n\r\n";
    let trailers = "5\r\n01234\r\n0\r\n".to_owned() + &"X-Trailer: a\r\n".repeat(100_000) + "\r\n";
    let long_trailer = format!("5\r\n01234\r\n0\r\nX-Trailer: {}\r\n\r\n", "x".repeat(1_000_000));
    assert_become(vec![
        (chunked("zz\r\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked("-5\r\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked("+5\r\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked("0x5\r\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked("\r\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked(";a\r\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked("5 5\r\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked("5\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked("5\r01234\r\n0\r\n\r\n"), Unreachable),
        (chunked("5\r\n01234567\r\n0\r\n\r\n"), CutOff("01234")),
        (chunked("5\r\n012\r\n0\r\n\r\n"), CutOff("012\r\n")),
        (chunked("5\r\n01234XX0\r\n\r\n"), CutOff("01234")),
        (chunked("5\r\n01234\n0\r\n\r\n"), CutOff("01234")),
        (chunked("5\r\n01234\r\nGARBAGE"), CutOff("01234")),
        (chunked("FFFFFFFFFFFFFFFFF\r\n01234"), Unreachable),
        (chunked("FFFFFFFFFFFFFFFF\r\n01234"), CutOff("01234")),
        (chunked("10000000000000005\r\n01234\r\n0\r\n\r\n"), Unreachable),
        (chunked(&flood), Unreachable),
        (
            chunked(&small_floods),
            CutOff(Box::leak("0".repeat(1000).into_boxed_str())),
        ),
        (chunked(&trailers), CutOff("01234")),
        (chunked(&long_trailer), CutOff("01234")),
    ]);
}

#[test]
fn response_without_a_body_passes_on_none() {
    let origin = Origin::start(|conversation| {
        let status = conversation.path()[1..].to_owned();
        let body = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        conversation.send(head);
    });
    let proxy = Proxy::to(&[&origin]);
    for (method, status) in [("GET", 204), ("GET", 304), ("HEAD", 200), ("HEAD", 404)] {
        let id = proxy.link(&origin.url(&format!("/{status}")));
        let (fetched, kept) = proxy.ask(&id, method, "").finish_keeping();
        assert_eq!((fetched.status, fetched.body.len()), (status, 0));
        assert_eq!(
            kept.ask(&request("GET", &format!("{GOTO}{id}"), "")).status,
            302,
            "{status}"
        );
    }
}

#[test]
fn upstream_head_size_is_limited() {
    let line = |length| format!("X-Long: {}\r\n", "x".repeat(length));
    let many = |count| {
        (0..count)
            .map(|number| format!("X-{number}: x\r\n"))
            .collect::<String>()
    };
    let ok = |lines: String| headers(&(lines + "Content-Length: 2\r\n"), "ok");
    assert_become(vec![
        (ok(line(20_000)), Whole("ok")),
        (ok(line(1000).repeat(20)), Whole("ok")),
        (ok(many(60)), Whole("ok")),
        (ok(line(200_000)), Unreachable),
        (ok(line(2500).repeat(90)), Unreachable),
        (ok(many(10_000)), Unreachable),
        (ok("x".repeat(200_000) + ": x\r\n"), Unreachable),
        (
            format!("HTTP/1.1 200 {}\r\nContent-Length: 2\r\n\r\nok", "x".repeat(200_000)),
            Unreachable,
        ),
        (ok(format!("ETag: \"{}\"\r\n", "x".repeat(200_000))), Unreachable),
        ("x".repeat(1_000_000), Unreachable),
    ]);
}

#[test]
fn endless_upstream_head_is_502() {
    let origin = Origin::start(|conversation| {
        let path = conversation.path();
        conversation.send(OK);
        let more = match path.as_str() {
            "/headers" => "X-More: internal-word\r\n".repeat(100),
            _ => "x".repeat(2000),
        };
        while conversation.send(&more) {}
    });
    let proxy = Proxy::to(&[&origin]);
    for path in ["/headers", "/one"] {
        assert_fault(&proxy.fetch(&origin.url(path)), 502, "DESTINATION_UNREACHABLE");
    }
    proxy.assert_redirects();
}

#[test]
fn endless_interim_responses_end_the_fetch() {
    let announcement = "HTTP/1.1 103 Early Hints\r\nLink: </internal-word>; rel=preload\r\n\r\n".repeat(100);
    let origin = Origin::start(move |conversation| {
        let is_endless = conversation.path() == "/endless";
        let mut sent = 0;
        while conversation.send(&announcement) && (is_endless || sent < 50) {
            sent += 1;
        }
        conversation.answer("", "ok");
    });
    let proxy = Proxy::with(&[&origin], "first_byte_timeout_seconds = 3\n");
    let fetched = proxy.fetch(&origin.url("/many"));
    match fetched.status {
        200 => assert_eq!(fetched.text(), "ok"),
        _ => assert_fault(&fetched, 502, "DESTINATION_UNREACHABLE"),
    }
    let fetched = proxy.fetch(&origin.url("/endless"));
    match fetched.status {
        504 => assert_fault(&fetched, 504, "DESTINATION_TIMEOUT"),
        _ => assert_fault(&fetched, 502, "DESTINATION_UNREACHABLE"),
    }
    proxy.assert_redirects();
}

#[test]
fn refused_or_reset_upstream_connection_is_502() {
    // A port without a listener that no other process can take.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    deaf.bind(&any.into()).unwrap();
    let deaf_address = deaf.local_addr().unwrap().as_socket().unwrap();
    let reset = Server::start("127.0.0.1:0", |stream| {
        SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    });
    let closing = Server::start("127.0.0.1:0", |stream| {
        let _ = stream.shutdown(Shutdown::Both);
    });
    let addresses = [deaf_address, reset.address, closing.address];
    let ports = addresses.map(|address| address.port());
    let proxy = Proxy::start(&format!("{THIS_MACHINE}ports = {ports:?}\n"));
    for address in addresses {
        let url = format!("http://{address}/");
        assert_fault(&proxy.fetch(&url), 502, "DESTINATION_UNREACHABLE");
        proxy.assert_redirects();
    }
}

#[test]
fn upstream_reset_in_the_body_cuts_the_response_off() {
    let broken = Server::start("127.0.0.1:0", |mut stream| {
        use std::io::{Read as _, Write as _};
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n0123456789");
        // Without a length: a body that ends with a reset is not complete.
        SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    });
    let proxy = Proxy::start(&format!("{THIS_MACHINE}ports = [{}]\n", broken.address.port()));
    let id = proxy.link(&format!("http://{}/", broken.address));
    let fetched = proxy.ask(&id, "GET", "").finish();
    // The reset may overtake the body.
    match fetched.status {
        200 => assert!(!fetched.is_whole, "{fetched:?}"),
        _ => assert_fault(&fetched, 502, "DESTINATION_UNREACHABLE"),
    }
    proxy.assert_redirects();
}

/// Ten megabytes of zeros, compressed by zlib: one zero, then "repeat the last byte 258 times" over and over.
fn bomb() -> Vec<u8> {
    const REPEATS: u32 = 40_000;
    let mut bits: Vec<bool> = Vec::new();
    let mut push = |code: &str| bits.extend(code.bytes().map(|bit| bit == b'1'));
    // The last block, with the fixed codes.
    push("110");
    push("00110000");
    for _ in 0..REPEATS {
        push("11000101");
        push("00000");
    }
    push("0000000");
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    let mut packed = vec![0x78, 0x01];
    packed.extend(bits.chunks(8).map(byte));
    // Adler-32: of zeros, it counts them.
    let length = 1 + 258 * REPEATS;
    packed.extend((((length % 65_521) << 16) | 1).to_be_bytes());
    packed
}

#[test]
fn compressed_body_is_not_decompressed() {
    let bomb = bomb();
    let sent = bomb.clone();
    let origin = Origin::start(move |conversation| {
        conversation.answer("Content-Encoding: deflate\r\nContent-Type: text/html\r\n", &sent);
    });
    // Decompressed, it would exceed the limit.
    let proxy = Proxy::with(&[&origin], "max_bytes = 1000000\n");
    for headers in [
        "",
        "Accept-Encoding: identity\r\n",
        "Accept-Encoding: gzip, deflate\r\n",
    ] {
        let fetched = proxy.fetch_with(&origin.url("/"), headers);
        assert_eq!(fetched.header("content-encoding"), "deflate");
        assert_eq!(fetched.header("content-length"), bomb.len().to_string());
        assert!(fetched.body == bomb, "{headers}");
    }
}
