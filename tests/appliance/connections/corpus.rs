//! Raw requests, the response to each, and whether the connection stays open.

use crate::support::fixture::Appliance;
use crate::support::wire::Connection;

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It takes the next request.
    Open,
    /// It closes after the response.
    Closed,
}
use Fate::{Closed, Open};

/// The listeners that get a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listeners {
    Public,
    Admin,
    Both,
}
use Listeners::{Admin, Both, Public};

/// `{id}` is replaced by a link's ID. A head ends in CR LF CR LF unless its end is what the row tests.
const CORPUS: &[(Listeners, u16, Fate, &str)] = &[
    // Valid requests.
    (Both, 302, Open, "GET {goto} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 301, Open, "GET /tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 302, Open, "\r\nGET {goto} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 302, Open, "GET {goto} HTTP/1.1\r\nHost:\r\n\r\n"),
    (Both, 302, Open, "GET {goto} HTTP/1.1\r\nhOST: [::1]:8080\r\n\r\n"),
    (Both, 302, Open, "GET {goto} HTTP/1.1\r\nHost:   a\t \r\nX:\r\n\r\n"),
    (Both, 302, Open, "GET {goto} HTTP/1.1\r\nHost: a\r\nX: \u{fc}\r\n\r\n"),
    (Both, 302, Open, "GET {goto}?q=[a]{b}|c HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        Both,
        302,
        Open,
        "GET {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        Both,
        302,
        Open,
        "GET {goto} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ),
    (Both, 200, Open, "HEAD /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Absolute-form targets: the path decides, whatever the host (RFC 9112, section 3.2.2).
    (
        Both,
        302,
        Open,
        "GET http://elsewhere.example{goto} HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        Both,
        301,
        Open,
        "GET HTTPS://a:443/tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        Both,
        404,
        Open,
        "GET http://elsewhere.example HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (Both, 204, Open, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 204, Open, "OPTIONS /tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 405, Open, "DELETE /tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 405, Open, "TRACE /tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 405, Open, "get /tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    // The client closes the connection.
    (
        Both,
        302,
        Closed,
        "GET {goto} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ),
    (Both, 302, Closed, "GET {goto} HTTP/1.0\r\n\r\n"),
    (Both, 302, Open, "GET {goto} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    // Hosts (RFC 9112, section 3.2).
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    (Both, 400, Closed, "GET http:///tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET http://user@a{goto} HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Line endings.
    (Both, 400, Closed, "GET {goto} HTTP/1.1\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\n\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\nHost: a\n\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost:  a\nX:  b\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\rHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
    (Both, 400, Closed, "\nGET {goto} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "\r\n\r\nGET {goto} HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Header lines.
    (
        Both,
        400,
        Closed,
        "GET {goto} HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    ),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\n Host: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost : a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\nX: \u{1b}\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\n\u{fc}: b\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"),
    // Lengths (RFC 9112, sections 6.1 and 6.3).
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Both,
        501,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Both,
        501,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    (
        Both,
        501,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Both,
        400,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Both,
        417,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
    ),
    // Bodies. The public listener reads none and closes after one. The admin listener reads those of the API, also of a
    // GET; the reader of a chunked body finds its end.
    (
        Public,
        302,
        Closed,
        "GET {goto} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        Public,
        302,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        Public,
        302,
        Closed,
        "POST {goto} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        Admin,
        200,
        Open,
        "GET {ping} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        Admin,
        200,
        Open,
        "POST {ping} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        Admin,
        200,
        Closed,
        "POST {ping} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    // Targets.
    (Both, 400, Closed, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET ftp://a/tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET /tiny/{id}#x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET /tiny/{id}\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET /tiny/{id}\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET /tiny\\{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET /tiny/../tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET /tiny/./{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET /x/%2e%2E/tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET /tiny/{id}/.. HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        Both,
        400,
        Closed,
        "GET http://a/../tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // An encoded slash is neither a separator nor part of an ID.
    (Both, 404, Open, "GET /tiny%2F{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 404, Open, "GET /tiny/%2F{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 404, Open, "GET /tiny/{id}%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 301, Open, "GET /tiny/{id}/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 301, Open, "GET //tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 404, Open, "GET /tiny/\u{c3}\u{bc} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 404, Open, "GET /tiny/\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 301, Open, "GET /tiny/<{id}> HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Request lines.
    (Both, 400, Closed, "GET  {goto} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto}  HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} HTTP/1.1 \r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET\t{goto}\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto}\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto} http/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "G@T {goto} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 505, Closed, "GET {goto} HTTP/2.0\r\nHost: a\r\n\r\n"),
    (Both, 505, Closed, "GET {goto} HTTP/3.0\r\nHost: a\r\n\r\n"),
    (Both, 505, Closed, "GET {goto} HTTP/0.9\r\nHost: a\r\n\r\n"),
    (Both, 505, Closed, "GET {goto} HTTP/1.10\r\nHost: a\r\n\r\n"),
    (Both, 505, Closed, "GET {goto} HTTP/1.\r\nHost: a\r\n\r\n"),
    // A later minor version is served by the rules of 1.1.
    (Both, 302, Open, "GET {goto} HTTP/1.2\r\nHost: a\r\n\r\n"),
    (Both, 302, Open, "\r\nGET {goto} HTTP/1.9\r\nHost: a\r\n\r\n"),
    (Both, 301, Open, "GET /tiny/{id} HTTP/1.2\r\nHost: a\r\n\r\n"),
    (
        Both,
        302,
        Closed,
        "GET {goto} HTTP/1.2\r\nHost: a\r\nConnection: close\r\n\r\n",
    ),
    (Both, 400, Closed, "GET {goto} HTTP/1.2\r\n\r\n"),
    (
        Admin,
        200,
        Closed,
        "POST {ping} HTTP/1.2\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    // Unused query text is accepted, unless it could be parsed as something other than a query.
    (Both, 302, Open, "GET {goto}?q=\"x\" HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 302, Open, "GET {goto}?<q> HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        Both,
        302,
        Open,
        "GET {goto}?{|}^`\\[]'=%zz&\u{c3}\u{bc} HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (Both, 302, Open, "GET {goto}?q=\u{fc}\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        Both,
        302,
        Open,
        "GET http://a{goto}?\"\u{fc}\" HTTP/1.2\r\nHost: a\r\n\r\n",
    ),
    (
        Both,
        301,
        Open,
        "GET /tiny/{id}?q=\"\u{fc}\" HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        Both,
        200,
        Open,
        "GET /robots.txt?\"<\u{fc}>\" HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        Admin,
        200,
        Open,
        "GET /healthz?\"<\u{fc}>\" HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (Both, 400, Closed, "GET {goto}?q=# HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto}?q=\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto}?q=\u{1b} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 400, Closed, "GET {goto}?q=\" \" HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 414, Closed, "GET {goto}?{quotes} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        Both,
        501,
        Closed,
        "METHODSMETHODSMETHODSMETHODSMETHODS {goto} HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (Both, 505, Closed, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    // Not HTTP: TLS, another protocol, an unexpected PROXY header.
    (Both, 400, Closed, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}"),
    (Both, 400, Closed, "SSH-2.0-OpenSSH_9.2\r\n"),
    (
        Both,
        400,
        Closed,
        "PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\nGET {goto} HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (Both, 400, Closed, "\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}\0\u{c}aaaabbbbccdd"),
    // Sizes.
    (Both, 414, Closed, "GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Both, 414, Closed, "GET /{long}"),
    (Both, 431, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
    (Both, 431, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\nX: {long}"),
    (Both, 431, Closed, "GET {goto} HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
];

/// Whether the connection takes one more request.
fn fate_of(connection: &mut Connection) -> Fate {
    match connection.get("/robots.txt", "") {
        Some(received) => {
            assert_eq!(received.status, 200);
            Open
        }
        None => Closed,
    }
}

#[test]
fn raw_request_gets_its_response_and_connection_end() {
    let appliance = Appliance::start();
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let goto = format!("/api_v3/service/shortlink_shortlink/action/goto/id/{id}");
    // Longer than the limits of the admin listener, which are the larger ones.
    let (long, many) = ("x".repeat(70_000), "X: y\r\n".repeat(101));
    for &(listeners, status, fate, template) in CORPUS {
        let request = template
            .replace("{goto}", &goto)
            .replace("{id}", &id)
            .replace("{ping}", "/api_v3/service/system/action/ping?format=1")
            .replace("{long}", &long)
            // Each takes three bytes once encoded.
            .replace("{quotes}", &"\"".repeat(30_000))
            .replace("{many}", &many);
        // Latin letters are single bytes.
        let request: Vec<u8> = request.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        for (base, is_tried) in [
            (&appliance.public, listeners != Admin),
            (&appliance.admin, listeners != Public),
        ] {
            if !is_tried {
                continue;
            }
            // As the first request of a connection, and after others.
            for before in [0, 1, 3] {
                let what = format!("{template:?} after {before} on {base}");
                let mut connection = Connection::open(base);
                let plain = format!("GET {goto} HTTP/1.1\r\nHost: a\r\n\r\n");
                connection.send(&[plain.repeat(before).as_bytes(), &request].concat());
                for _ in 0..before {
                    assert_eq!(connection.receive(true).expect(&what).status, 302, "{what}");
                }
                let has_body = !template.starts_with("HEAD");
                let received = connection.receive(has_body).expect(&what);
                let (answered, head) = (received.status, &received.head);
                assert_eq!(answered, status, "{what}\n{head}");
                assert!(head.contains("\r\ndate: "), "{what}\n{head}");
                let is_told = answered == 405 || answered == 204;
                assert_eq!(head.contains("\r\nallow: "), is_told, "{what}\n{head}");
                if fate == Closed && !template.contains("HTTP/1.0") {
                    assert!(received.is_last(), "{what}\n{head}");
                }
                assert_eq!(fate_of(&mut connection), fate, "{what}\n{head}");
            }
        }
    }
}

#[test]
fn fragmented_request_is_rejected_like_a_whole_one() {
    let appliance = Appliance::start();
    let smuggling = "POST /tiny/abcd HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    for base in [&appliance.public, &appliance.admin] {
        for size in [1, 7, 30] {
            let mut connection = Connection::open(base);
            for piece in smuggling.as_bytes().chunks(size) {
                connection.send(piece);
            }
            let received = connection.receive(true).unwrap();
            assert_eq!((received.status, received.is_last()), (400, true));
            connection.assert_closed();
        }
    }
}

/// hyper's handling of `Upgrade` would take control of the connection from tinyd.
#[test]
fn upgrade_header_changes_no_response() {
    let appliance = Appliance::start();
    for base in [&appliance.public, &appliance.admin] {
        let mut connection = Connection::open(base);
        let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n";
        assert_eq!(connection.get("/robots.txt", upgrade).unwrap().status, 200);
        connection.send(b"GET / HTTP/1.1\r\n\r\n");
        let refused = connection.receive(true).expect("an answer");
        assert_eq!((refused.status, refused.is_last()), (400, true));
        connection.assert_closed();
        // An unread body does not affect the response.
        let mut connection = Connection::open(base);
        connection.send(
            format!("POST /robots.txt HTTP/1.1\r\nHost: a\r\n{upgrade}Content-Length: 500000\r\n\r\n").as_bytes(),
        );
        connection.send(&vec![b'x'; 500_000]);
        assert_eq!(connection.receive(true).expect("an answer").status, 405);
    }
}
