//! What RFC 9113 forbids: the server resets the stream or ends the connection, and goes on serving others.

use std::io::Write as _;

use crate::support::certificates::Authority;
use crate::support::http2::{
    CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, get_block, kinds, raw, read_until_end,
};
use crate::support::tls::{Client, NAME, settings, start_with};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block("/robots.txt"))
}

/// The header block of a GET with other fields after it.
fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", "/robots.txt"),
    ];
    let block = block(&[&fields, more].concat());
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
}

fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields))
}

#[test]
fn errors_of_a_connection_end_it() {
    let authority = Authority::new();
    // So that a connection that does not end would soon end by its timeout, without GOAWAY.
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    for (name, bytes) in [
        ("data without a stream", frame(DATA, 0, 0, b"x")),
        ("head without a stream", frame(HEADERS, END_HEADERS, 0, &get_block("/"))),
        ("head of an even stream", get(2)),
        ("head of an older stream", [get(5), get(3)].concat()),
        ("data of an idle stream", frame(DATA, 0, 1, b"x")),
        ("reset of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4])),
        ("settings of a stream", frame(SETTINGS, 0, 1, b"")),
        ("settings of a wrong size", frame(SETTINGS, 0, 0, b"12345")),
        ("acknowledgement with settings", frame(SETTINGS, 1, 0, &[0; 6])),
        (
            "window beyond its most",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("frame size below its least", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])),
        ("ping of a stream", frame(PING, 0, 1, &[0; 8])),
        ("ping of a wrong size", frame(PING, 0, 0, b"1234567")),
        ("window update of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("window update of a wrong size", frame(WINDOW_UPDATE, 0, 0, b"123")),
        ("window overflow", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, b"")),
        (
            "frame inside a head",
            [frame(HEADERS, 0, 1, &get_block("/")), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("push by a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("frame above the size", frame(DATA, 0, 1, &[0; 16_385])),
        (
            "broken compression",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 20]),
        ),
        (
            "padding beyond the frame",
            frame(HEADERS, END_STREAM | END_HEADERS | 8, 1, &[200, 0x82]),
        ),
    ] {
        let mut stream = raw(&client, &appliance.public_tls);
        let _ = stream.write_all(&bytes);
        let received = read_until_end(&mut stream);
        assert!(kinds(&received).contains(&GOAWAY), "{name}: {:?}", kinds(&received));
    }
    assert_eq!(
        Connection::open(&client, &appliance.public_tls)
            .get("/robots.txt")
            .status,
        200
    );
}

#[test]
fn malformed_requests_get_no_response() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    for (name, bytes) in [
        ("capitals in a name", get_with(&[("X-Capital", "1")])),
        ("header of a connection", get_with(&[("connection", "keep-alive")])),
        ("transfer coding", get_with(&[("transfer-encoding", "chunked")])),
        ("te", get_with(&[("te", "gzip")])),
        ("pseudo header after others", get_with(&[("a", "1"), (":path", "/")])),
        ("unknown pseudo header", get_with(&[(":unknown", "1")])),
        ("status in a request", get_with(&[(":status", "200")])),
        ("two paths", get_with(&[(":path", "/")])),
        (
            "no path",
            headers(&[(":method", "GET"), (":scheme", "https"), (":authority", NAME)]),
        ),
        (
            "no method",
            headers(&[(":scheme", "https"), (":path", "/"), (":authority", NAME)]),
        ),
        (
            "no scheme",
            headers(&[(":method", "GET"), (":path", "/"), (":authority", NAME)]),
        ),
        ("length of a body that is none", get_with(&[("content-length", "5")])),
        ("its own dependency", {
            let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 10]);
            [frame(HEADERS, END_HEADERS, 1, &get_block("/")), priority].concat()
        }),
    ] {
        let mut stream = raw(&client, &appliance.public_tls);
        stream.write_all(&bytes).unwrap();
        stream.write_all(&get(3)).unwrap();
        // Whoever does not ask for more says so, and gets all that is due.
        stream.write_all(&frame(GOAWAY, 0, 0, &[0; 8])).unwrap();
        let received = read_until_end(&mut stream);
        let kinds = kinds(&received);
        let answered = kinds.iter().filter(|kind| **kind == HEADERS).count();
        // Either the connection ends, or the stream does and the other request has its response.
        let is_refused = kinds.contains(&GOAWAY) && answered == 0 || kinds.contains(&RST_STREAM) && answered == 1;
        assert!(is_refused, "{name}: {kinds:?}");
    }
}

#[test]
fn what_is_allowed_is_served() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    for (name, bytes) in [
        (
            "unknown settings",
            [frame(SETTINGS, 0, 0, &[0xff, 0xff, 0, 0, 0, 1]), get(1)].concat(),
        ),
        ("unknown frame", [frame(0xfa, 0xff, 0, b"x"), get(1)].concat()),
        (
            "priority of an idle stream",
            [frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 10]), get(1)].concat(),
        ),
        ("head in pieces", {
            let block = get_block("/robots.txt");
            let (one, two) = block.split_at(10);
            [
                frame(HEADERS, END_STREAM, 1, one),
                frame(CONTINUATION, END_HEADERS, 1, two),
            ]
            .concat()
        }),
        ("padding", {
            let padded = [&[3][..], &get_block("/robots.txt"), &[0; 3]].concat();
            frame(HEADERS, END_STREAM | END_HEADERS | 8, 1, &padded)
        }),
        ("trailers", get_with(&[("te", "trailers")])),
        ("cookies in pieces", get_with(&[("cookie", "a=1"), ("cookie", "b=2")])),
    ] {
        let mut stream = raw(&client, &appliance.public_tls);
        stream.write_all(&bytes).unwrap();
        stream.write_all(&frame(GOAWAY, 0, 0, &[0; 8])).unwrap();
        let kinds = kinds(&read_until_end(&mut stream));
        assert_eq!(
            kinds.iter().filter(|kind| **kind == HEADERS).count(),
            1,
            "{name}: {kinds:?}"
        );
        assert!(!kinds.contains(&RST_STREAM), "{name}: {kinds:?}");
    }
}
