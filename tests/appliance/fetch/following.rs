//! Redirects of the upstream: passed on, or followed by the same rules as the first request.

use crate::support::certificates::Authority;
use crate::support::name_server::{NameServer, at};
use crate::support::origin::{Conversation, Origin};
use crate::support::proxy::{Proxy, assert_fault};

/// `/N` redirects to `/N-1` with this status line, `/0` has the content.
fn countdown(line: &'static str) -> impl Fn(&mut Conversation) + Send + Sync + 'static {
    move |conversation| {
        let number: u32 = conversation.path()[1..].parse().unwrap();
        if number == 0 {
            conversation.answer("Content-Type: text/plain\r\n", "arrived");
        } else {
            let rest = number - 1;
            conversation.send(format!(
                "HTTP/1.1 {line}\r\nLocation: /{rest}\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\nmoved"
            ));
        }
    }
}

fn paths(origin: &Origin) -> Vec<String> {
    origin
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect()
}

#[test]
fn redirects_are_followed_up_to_the_limit_then_passed_on() {
    for follow in 0..=3 {
        for length in 0..=5 {
            let origin = Origin::start(countdown("302 Found"));
            let proxy = Proxy::with(&[&origin], &format!("follow = {follow}\n"));
            let fetched = proxy.fetch(&origin.url(&format!("/{length}")));
            let left = length - length.min(follow);
            let expected: Vec<_> = (left..=length).rev().map(|number| format!("/{number}")).collect();
            assert_eq!(paths(&origin), expected, "{follow} of {length}");
            if left == 0 {
                assert_eq!((fetched.status, fetched.text().as_str()), (200, "arrived"));
                assert_eq!(fetched.header("location"), "");
                assert_eq!(fetched.header("content-type"), "text/plain");
            } else {
                assert_eq!((fetched.status, fetched.text().as_str()), (302, "moved"));
                assert_eq!(fetched.header("location"), origin.url(&format!("/{}", left - 1)));
                assert_eq!(fetched.header("x-kaltura"), "dumpUrl");
            }
            assert!(fetched.all("set-cookie").is_empty());
        }
    }
}

#[test]
fn only_redirect_statuses_are_followed() {
    for (line, is_followed) in [
        ("301 Moved Permanently", true),
        ("302 Found", true),
        ("303 See Other", true),
        ("307 Temporary Redirect", true),
        ("308 Permanent Redirect", true),
        ("200 OK", false),
        ("201 Created", false),
        ("300 Multiple Choices", false),
        ("305 Use Proxy", false),
        ("306 Switch Proxy", false),
        ("404 Not Found", false),
        ("503 Service Unavailable", false),
    ] {
        for method in ["GET", "HEAD"] {
            let origin = Origin::start(countdown(line));
            let proxy = Proxy::with(&[&origin], "follow = 3\n");
            let fetched = proxy.ask(&proxy.link(&origin.url("/1")), method, "").finish();
            let asked = origin.requests();
            let expected: u16 = if is_followed { 200 } else { line[..3].parse().unwrap() };
            assert_eq!(
                (fetched.status, asked.len()),
                (expected, 1 + usize::from(is_followed)),
                "{line}"
            );
            assert!(asked.iter().all(|request| request.method() == method), "{asked:?}");
        }
    }
}

#[test]
fn followed_redirect_repeats_the_request() {
    let names = NameServer::start();
    names.says("*.example", at(&["127.0.0.1"]));
    let second = Origin::start(countdown("302 Found"));
    let there = second.url_by("second.example", "/0");
    let first = Origin::start(move |conversation| {
        conversation.send(format!(
            "HTTP/1.1 302 Found\r\nLocation: {there}\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
        ));
    });
    let proxy = Proxy::with(&[&first, &second], &format!("follow = 1\n{}", names.setting()));
    let headers = "Range: bytes=0-5\r\nAccept: a/b\r\nUser-Agent: me\r\nCookie: c=d\r\nAuthorization: x\r\n";
    let fetched = proxy.fetch_with(&first.url_by("first.example", "/x"), headers);
    assert_eq!((fetched.status, fetched.text().as_str()), (200, "arrived"));
    let (mut asked, mut asked_next) = (first.take_request().headers(), second.take_request().headers());
    for (headers, host, port) in [
        (&mut asked, "first.example", first.port()),
        (&mut asked_next, "second.example", second.port()),
    ] {
        let expected = ("host".to_owned(), format!("{host}:{port}"));
        assert!(headers.contains(&expected), "{headers:?}");
        headers.retain(|(name, _)| name != "host");
        headers.sort();
    }
    assert_eq!(asked, asked_next);
}

#[test]
fn redirect_loops_and_dead_ends_terminate() {
    let origin = Origin::start(|conversation| {
        let location = match conversation.path().as_str() {
            "/self" => "/self",
            "/ping" => "/pong",
            "/pong" => "/ping",
            "/gone" => "http://127.0.0.1:1/",
            "/script" => "javascript:alert(1)",
            "/ftp" => "ftp://127.0.0.1/",
            "/broken" => "http://[",
            _ => "",
        };
        let lines = if location.is_empty() {
            String::new()
        } else {
            format!("Location: {location}\r\n")
        };
        conversation.send(format!("HTTP/1.1 302 Found\r\n{lines}Content-Length: 0\r\n\r\n"));
    });
    let nobody = Origin::sending("");
    let settings = format!(
        "{}ports = [{}, 1]\nfollow = 3\n",
        crate::support::proxy::THIS_MACHINE,
        origin.port()
    );
    drop(nobody);
    let proxy = Proxy::start(&settings);
    for (path, asked, location) in [
        ("/self", 4, origin.url("/self")),
        ("/ping", 4, origin.url("/ping")),
        ("/script", 1, String::new()),
        ("/ftp", 1, String::new()),
        ("/broken", 1, String::new()),
        ("/without", 1, String::new()),
    ] {
        let before = origin.requests().len();
        let fetched = proxy.fetch(&origin.url(path));
        assert_eq!(
            (fetched.status, origin.requests().len() - before),
            (302, asked),
            "{path}: {fetched:?}"
        );
        assert_eq!(fetched.header("location"), location, "{path}");
    }
    assert_fault(&proxy.fetch(&origin.url("/gone")), 502, "DESTINATION_UNREACHABLE");
    proxy.assert_redirects();
}

#[test]
fn redirect_from_https_to_http_is_not_followed() {
    let authority = Authority::new();
    let plain = Origin::start(countdown("302 Found"));
    let to_plain = plain.url("/0");
    let secure = Origin::over_tls(authority.certify(&["127.0.0.1"]), move |conversation| {
        if conversation.path() == "/down" {
            conversation.send(format!(
                "HTTP/1.1 302 Found\r\nLocation: {to_plain}\r\nContent-Length: 0\r\n\r\n"
            ));
        } else {
            conversation.answer("", "secure");
        }
    });
    let to_secure = secure.url("/");
    let up = Origin::start(move |conversation| {
        conversation.send(format!(
            "HTTP/1.1 302 Found\r\nLocation: {to_secure}\r\nContent-Length: 0\r\n\r\n"
        ));
    });
    let proxy = Proxy::with(&[&plain, &secure, &up], &format!("follow = 3\n{}", authority.setting()));
    let fetched = proxy.fetch(&secure.url("/down"));
    assert_eq!(
        (fetched.status, fetched.header("location")),
        (302, plain.url("/0").as_str())
    );
    assert_eq!(plain.connections(), 0);
    let fetched = proxy.fetch(&up.url("/"));
    assert_eq!((fetched.status, fetched.text().as_str()), (200, "secure"));
}

#[test]
fn body_of_a_followed_redirect_is_not_awaited() {
    let origin = Origin::start(|conversation| match conversation.path().as_str() {
        "/endless" => {
            conversation.send("HTTP/1.1 302 Found\r\nLocation: /0\r\n\r\n");
            while conversation.send(vec![b'x'; 100_000]) {}
        }
        "/silent" => {
            conversation.send("HTTP/1.1 302 Found\r\nLocation: /0\r\nContent-Length: 100\r\n\r\n");
            conversation.wait_for_end();
        }
        "/large" => {
            conversation.send("HTTP/1.1 302 Found\r\nLocation: /0\r\nContent-Length: 99999999999\r\n\r\n");
            conversation.wait_for_end();
        }
        _ => {
            conversation.answer("", "arrived");
        }
    });
    let settings = "follow = 1\nidle_timeout_seconds = 60\nmax_bytes = 1000\n";
    let proxy = Proxy::with(&[&origin], settings);
    for path in ["/endless", "/silent", "/large"] {
        let fetched = proxy.fetch(&origin.url(path));
        assert_eq!((fetched.status, fetched.text().as_str()), (200, "arrived"), "{path}");
    }
}
