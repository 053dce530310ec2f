//! Responses of the upstream arrive unchanged: methods, ranges, conditions, statuses, bodies in every framing.

use std::net::SocketAddr;

use crate::support::certificates::Authority;
use crate::support::client::{Download, Fetched, connect, request};
use crate::support::connections::address;
use crate::support::origin::{Conversation, Origin, pattern};
use crate::support::proxy::{GOTO, Proxy, proxied};

const BODY: &[u8] = b"0123456789";
/// More than all buffers between client and upstream hold.
const LONG_BYTES: usize = 24 * 1024 * 1024;

/// An upstream with a response for each path.
fn sending(answers: Vec<(&'static str, Vec<u8>)>) -> Origin {
    Origin::start(move |conversation| {
        let path = conversation.path();
        let answer = answers.iter().find(|(of, _)| *of == path).expect("a path of the test");
        conversation.send(&answer.1);
    })
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(size) {
        framed.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}

/// Sends the requested range, as a file server does.
fn file(conversation: &mut Conversation) {
    let asked = &conversation.request;
    let (range, if_none_match) = (asked.header("range"), asked.header("if-none-match"));
    let is_since = !asked.header("if-modified-since").is_empty();
    let head = if if_none_match == "\"a\"" || is_since {
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=5\r\n\r\n".to_owned()
    } else if asked.header("if-match") == "\"b\"" || !asked.header("if-unmodified-since").is_empty() {
        "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n".to_owned()
    } else if range == "bytes=3-6" && asked.header("if-range") != "\"b\"" {
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-6/10\r\nAccept-Ranges: bytes\r\n\
         Content-Length: 4\r\n\r\n3456"
            .to_owned()
    } else if range == "bytes=30-" {
        "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n".to_owned()
    } else {
        "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nLast-Modified: Sun, 22 Nov 2026 10:00:00 GMT\r\n\
         Accept-Ranges: bytes\r\nContent-Length: 10\r\n\r\n"
            .to_owned()
    };
    let is_get = asked.method() == "GET";
    conversation.send(head.as_bytes());
    if head.starts_with("HTTP/1.1 200") && is_get {
        conversation.send(BODY);
    }
}

#[test]
fn head_is_fetched_by_head_and_keeps_the_length() {
    let origin = Origin::start(file);
    let proxy = Proxy::to(&[&origin]);
    let id = proxy.link(&origin.url("/file"));
    let (fetched, kept) = proxy.ask(&id, "HEAD", "").finish_keeping();
    assert_eq!((fetched.status, fetched.header("content-length")), (200, "10"));
    assert_eq!(fetched.header("etag"), "\"a\"");
    assert_eq!(fetched.header("x-kaltura"), "dumpUrl");
    assert_eq!(origin.take_request().method(), "HEAD");
    // No body follows: the next bytes on the connection are the next response.
    let next = kept.ask(&request("GET", &proxied(&id), "")).finish();
    assert_eq!((next.status, &next.body[..]), (200, BODY));
}

#[test]
fn ranges_and_conditions_are_passed_on() {
    let origin = Origin::start(file);
    let proxy = Proxy::to(&[&origin]);
    let id = proxy.link(&origin.url("/file"));
    let date = "Sun, 22 Nov 2026 10:00:00 GMT";
    for (asked, status, expected, body) in [
        ("Range: bytes=3-6", 206, ("content-range", "bytes 3-6/10"), "3456"),
        (
            "Range: bytes=3-6\r\nIf-Range: \"b\"",
            200,
            ("etag", "\"a\""),
            "0123456789",
        ),
        ("Range: bytes=30-", 416, ("content-range", "bytes */10"), ""),
        ("If-None-Match: \"a\"", 304, ("etag", "\"a\""), ""),
        ("If-None-Match: \"c\"", 200, ("last-modified", date), "0123456789"),
        (
            &format!("If-Modified-Since: {date}"),
            304,
            ("cache-control", "max-age=5"),
            "",
        ),
        ("If-Match: \"b\"", 412, ("content-length", "0"), ""),
        (
            &format!("If-Unmodified-Since: {date}"),
            412,
            ("content-length", "0"),
            "",
        ),
    ] {
        let (fetched, kept) = proxy.ask(&id, "GET", &format!("{asked}\r\n")).finish_keeping();
        assert_eq!((fetched.status, fetched.text().as_str()), (status, body), "{asked}");
        assert_eq!(fetched.header(expected.0), expected.1, "{asked}");
        // The connection stays usable.
        assert_eq!(
            kept.ask(&request("GET", &format!("{GOTO}{id}"), "")).status,
            302,
            "{asked}"
        );
    }
}

#[test]
fn upstream_statuses_are_passed_on() {
    let of = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 4\r\n\r\nwhat").into_bytes();
    let origin = sending(vec![
        ("/201", of("201 Created")),
        ("/203", of("203 Non-Authoritative Information")),
        ("/400", of("400 Bad Request")),
        ("/401", of("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"")),
        ("/403", of("403 Forbidden")),
        ("/404", of("404 Not Found")),
        ("/410", of("410 Gone")),
        ("/418", of("418 ")),
        ("/429", of("429 Too Many Requests\r\nRetry-After: 7")),
        ("/451", of("451 Unavailable For Legal Reasons")),
        ("/500", of("500 Internal Server Error")),
        ("/502", of("502 Bad Gateway")),
        ("/503", of("503 Service Unavailable\r\nRetry-After: 7")),
        ("/504", of("504 Gateway Timeout")),
        ("/508", of("508 Loop Detected")),
    ]);
    let proxy = Proxy::to(&[&origin]);
    for status in [
        201, 203, 400, 401, 403, 404, 410, 418, 429, 451, 500, 502, 503, 504, 508,
    ] {
        let fetched = proxy.fetch(&origin.url(&format!("/{status}")));
        assert_eq!((fetched.status, fetched.text().as_str()), (status, "what"));
        assert_eq!(fetched.header("x-kaltura"), "dumpUrl", "{status}");
        assert!(fetched.all("x-kaltura-app").is_empty(), "{status}");
        assert_eq!(fetched.header("www-authenticate"), "");
        let retry_after = if [429, 503].contains(&status) { "7" } else { "" };
        assert_eq!(fetched.header("retry-after"), retry_after);
    }
}

#[test]
fn bodies_arrive_whole_in_every_framing() {
    let long = pattern(3_000_000);
    let with_length = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let chunks = |body: &[u8], size| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        [&head[..], &chunked(body, size)].concat()
    };
    let with_trailers = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                          5;name=value\r\n01234\r\n5 ; a=\"b\"\r\n56789\r\n0\r\nX-Sum: 1\r\n\r\n";
    let until_close = |version: &str, body: &[u8]| [version.as_bytes(), b" 200 OK\r\n\r\n", body].concat();
    let none = |line: &str| format!("HTTP/1.1 {line}\r\n\r\n").into_bytes();
    let cases: Vec<(&str, Vec<u8>, &[u8], u16)> = vec![
        ("/length", with_length(BODY), BODY, 200),
        ("/length/long", with_length(&long), &long, 200),
        ("/length/none", with_length(b""), b"", 200),
        ("/chunked", chunks(BODY, 3), BODY, 200),
        ("/chunked/long", chunks(&long, 10_000), &long, 200),
        ("/chunked/single", chunks(&long[..5000], 1), &long[..5000], 200),
        ("/chunked/none", chunks(b"", 1), b"", 200),
        ("/chunked/trailers", with_trailers.to_vec(), BODY, 200),
        ("/close", until_close("HTTP/1.1", BODY), BODY, 200),
        ("/close/long", until_close("HTTP/1.1", &long), &long, 200),
        ("/close/none", until_close("HTTP/1.1", b""), b"", 200),
        ("/close/old", until_close("HTTP/1.0", &long), &long, 200),
        ("/204", none("204 No Content"), b"", 204),
        ("/304", none("304 Not Modified"), b"", 304),
    ];
    let origin = sending(cases.iter().map(|(path, answer, ..)| (*path, answer.clone())).collect());
    let proxy = Proxy::to(&[&origin]);
    for (path, _, body, status) in &cases {
        let id = proxy.link(&origin.url(path));
        let (fetched, kept) = proxy.ask(&id, "GET", "").finish_keeping();
        assert_eq!((fetched.status, fetched.is_whole), (*status, true), "{path}");
        assert!(fetched.body == *body, "{path}: {} bytes", fetched.body.len());
        assert!(fetched.all("trailer").is_empty(), "{fetched:?}");
        assert_eq!(
            kept.ask(&request("GET", &format!("{GOTO}{id}"), "")).status,
            302,
            "{path}"
        );
        // An HTTP/1.0 client gets no chunks; the end of the connection ends the body.
        let old = format!("GET {} HTTP/1.0\r\nHost: a\r\n\r\n", proxied(&id));
        let fetched = of_old(address(&proxy.appliance.public), &old);
        assert!(fetched.1 == *body, "{path}: {} bytes", fetched.1.len());
        assert!(!fetched.0.contains("transfer-encoding"), "{}", fetched.0);
    }
}

/// The head in lower case, and all bytes after it until the connection ended.
fn of_old(listener: SocketAddr, request: &str) -> (String, Vec<u8>) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(listener).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    let end = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
    (head, received.split_off(end + 4))
}

#[test]
fn fragmented_response_is_one_response() {
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n";
    let origin = Origin::start(|conversation| {
        for byte in WHOLE {
            conversation.send([*byte]);
        }
    });
    let proxy = Proxy::to(&[&origin]);
    let fetched = proxy.fetch(&origin.url("/"));
    assert_eq!((fetched.status, &fetched.body[..], fetched.is_whole), (200, BODY, true));
}

#[test]
fn content_encoding_is_passed_on() {
    // Not even gzip: no hop decodes it.
    let encoded = pattern(100_000);
    let answer = encoded.clone();
    let origin = Origin::start(move |conversation| {
        let coding = conversation.request.header("accept-encoding");
        conversation.answer(
            &format!("Content-Encoding: {coding}\r\nVary: Accept-Encoding\r\n"),
            &answer,
        );
    });
    let proxy = Proxy::to(&[&origin]);
    for coding in ["gzip", "br", "zstd", "deflate"] {
        let fetched = proxy.fetch_with(&origin.url("/"), &format!("Accept-Encoding: {coding}\r\n"));
        assert_eq!(fetched.header("content-encoding"), coding);
        assert_eq!(fetched.header("vary"), "Accept-Encoding");
        assert!(fetched.body == encoded, "{coding}");
    }
}

#[test]
fn interim_responses_are_skipped() {
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    let of = |before: &str| format!("{before}{last}").into_bytes();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: a=b\r\n\r\n";
    let origin = sending(vec![
        ("/100", of("HTTP/1.1 100 Continue\r\n\r\n")),
        ("/102", of("HTTP/1.1 102 Processing\r\n\r\n")),
        ("/103", of(hints)),
        ("/all", of(&format!("HTTP/1.1 100 Continue\r\n\r\n{hints}{hints}"))),
    ]);
    let proxy = Proxy::to(&[&origin]);
    for path in ["/100", "/102", "/103", "/all"] {
        let fetched = proxy.fetch(&origin.url(path));
        assert_eq!((fetched.status, &fetched.body[..]), (200, BODY), "{path}: {fetched:?}");
        assert!(fetched.all("link").is_empty() && fetched.all("set-cookie").is_empty());
    }
}

#[test]
fn connection_serves_several_fetches_in_turn() {
    let origin = Origin::start(|conversation| {
        let path = conversation.path();
        conversation.answer("", path.as_bytes());
    });
    let proxy = Proxy::to(&[&origin]);
    let paths = ["/a", "/b", "/c"];
    let ids = paths.map(|path| proxy.link(&origin.url(path)));
    let mut kept = None;
    for (path, id) in paths.iter().zip(&ids).cycle().take(10) {
        let request = request("GET", &proxied(id), "");
        let download = match kept.take() {
            None => Download::ask(connect(&proxy.appliance.public), &request),
            Some(kept) => crate::support::client::Kept::ask(kept, &request),
        };
        let (fetched, next) = download.finish_keeping();
        assert_eq!((fetched.status, fetched.text().as_str()), (200, *path));
        kept = Some(next);
    }
    // Pipelined.
    let all: String = ids.iter().map(|id| request("GET", &proxied(id), "")).collect();
    let mut download = Download::ask(connect(&proxy.appliance.public), &all);
    for (number, path) in paths.iter().enumerate() {
        let (fetched, next) = download.finish_keeping();
        assert_eq!((fetched.status, fetched.text().as_str()), (200, *path));
        if number + 1 == paths.len() {
            break;
        }
        download = next.ask("");
    }
}

#[test]
fn https_is_fetched_with_a_verified_certificate() {
    let authority = Authority::new();
    let body = pattern(LONG_BYTES);
    let sent = body.clone();
    let origin = Origin::over_tls(authority.certify(&["localhost", "127.0.0.1"]), move |conversation| {
        conversation.answer("", &sent);
    });
    let proxy = Proxy::with(&[&origin], &authority.setting());
    let fetched = proxy.fetch(&origin.url("/secure?a"));
    assert_eq!((fetched.status, fetched.is_whole), (200, true));
    assert!(fetched.body == body, "{} bytes", fetched.body.len());
    let asked = origin.take_request();
    assert_eq!(asked.target(), "/secure?a");
    assert_eq!(asked.header("host"), format!("127.0.0.1:{}", origin.port()));
}

fn clicks(proxy: &Proxy, id: &str) -> (u64, u64) {
    let link = proxy
        .appliance
        .link("get", &proxy.ks, &[("id", id), ("withClicks", "true")]);
    (link["clicks"].as_u64().unwrap(), link["previews"].as_u64().unwrap())
}

#[test]
fn ranges_of_one_download_count_one_click() {
    let origin = Origin::start(file);
    let proxy = Proxy::to(&[&origin]);
    let id = proxy.link(&origin.url("/"));
    for (method, headers, expected) in [
        ("GET", "", (1, 0)),
        ("HEAD", "", (1, 1)),
        ("GET", "User-Agent: Twitterbot/1.0\r\n", (1, 2)),
        ("GET", "Sec-Purpose: prefetch\r\n", (1, 3)),
        ("GET", "Range: bytes=0-\r\n", (2, 3)),
        ("GET", "Range: bytes=0-4\r\n", (3, 3)),
        ("GET", "Range: bytes=3-6\r\n", (3, 3)),
        ("GET", "Range: bytes=30-\r\n", (3, 3)),
        ("GET", "Range: bytes=-5\r\n", (3, 3)),
        ("GET", "If-None-Match: \"a\"\r\n", (4, 3)),
    ] {
        proxy.ask(&id, method, headers).finish();
        assert_eq!(clicks(&proxy, &id), expected, "{method} {headers}");
    }
    // A failed fetch is no click.
    let broken = Origin::sending("");
    let proxy = Proxy::to(&[&origin, &broken]);
    let unreachable = proxy.link(&broken.url("/"));
    let looping = proxy.link(&origin.url("/"));
    for (id, headers) in [(&unreachable, ""), (&looping, "Via: 1.1 tinyd\r\n")] {
        assert_ne!(proxy.ask(id, "GET", headers).finish().status, 200);
        assert_eq!(clicks(&proxy, id), (0, 0), "{headers}");
    }
}

/// The headers that all responses share.
#[test]
fn both_listeners_return_the_same_content() {
    let origin = Origin::start(file);
    let proxy = Proxy::to(&[&origin]);
    let id = proxy.link(&origin.url("/"));
    let of = |base: &str| -> Fetched {
        let mut fetched = Download::ask(connect(base), &request("GET", &proxied(&id), "")).finish();
        fetched.headers.retain(|(name, _)| name != "date");
        fetched.headers.sort();
        fetched
    };
    let (public, admin) = (of(&proxy.appliance.public), of(&proxy.appliance.admin));
    assert_eq!((public.headers, public.body), (admin.headers, admin.body));
}
