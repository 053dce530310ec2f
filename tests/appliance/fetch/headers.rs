//! Headers that reach the upstream, and headers that reach the client.

use crate::support::certificates::Authority;
use crate::support::client::Fetched;
use crate::support::name_server::{NameServer, at};
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, assert_fault, ports};

/// An upstream that sends an empty body with these header lines.
fn with_headers(lines: &str) -> Origin {
    Origin::sending(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nok"))
}

/// The response of tinyd to these header lines of the upstream.
fn pass(lines: &str) -> Fetched {
    let origin = with_headers(lines);
    let fetched = Proxy::to(&[&origin]).fetch(&origin.url("/"));
    assert_eq!((fetched.status, fetched.text().as_str()), (200, "ok"), "{fetched:?}");
    fetched
}

#[test]
fn upstream_gets_only_listed_headers() {
    let origin = with_headers("");
    let proxy = Proxy::to(&[&origin]);
    let passed = [
        ("accept", "text/html, */*;q=0.5"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "de, en;q=0.7"),
        ("user-agent", "Mozilla/5.0 (like a browser)"),
        ("range", "bytes=0-5"),
        ("if-match", "\"x\""),
        ("if-none-match", "\"a\", W/\"b\""),
        ("if-modified-since", "Sun, 22 Nov 2026 10:00:00 GMT"),
        ("if-unmodified-since", "Mon, 23 Nov 2026 10:00:00 GMT"),
        ("if-range", "\"y\""),
        ("cache-control", "max-age=0"),
        ("pragma", "no-cache"),
    ];
    let kept = [
        "Cookie: session=1",
        "Authorization: Bearer x",
        "Proxy-Authorization: Basic x",
        "Proxy-Connection: keep-alive",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Host: a",
        "X-Forwarded-Proto: https",
        "X-Real-IP: 203.0.113.9",
        "Forwarded: for=203.0.113.9",
        "Referer: https://example.com/private",
        "Origin: https://example.com",
        "Sec-Fetch-Site: cross-site",
        "Sec-CH-UA: x",
        "DNT: 1",
        "From: me@example.com",
        "TE: trailers",
        "Trailer: X-Sum",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Keep-Alive: timeout=5",
        "Max-Forwards: 5",
        "Metadata-Flavor: Google",
        "Metadata: true",
        "X-aws-ec2-metadata-token: x",
        "X-Metadata-Token: x",
        "Traceparent: 00-a-b-01",
        "X-Custom: x",
        "Connection: keep-alive",
    ];
    let lines: String = passed
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let lines = lines + &kept.map(|line| format!("{line}\r\n")).concat();
    assert_eq!(proxy.fetch_with(&origin.url("/"), &lines).status, 200);
    let mut expected: Vec<_> = passed.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let added = [
        ("host", format!("127.0.0.1:{}", origin.port())),
        ("x-kaltura-proxy", "dumpUrl".to_owned()),
        ("via", "1.1 tinyd".to_owned()),
        ("connection", "close".to_owned()),
    ];
    expected.extend(added.map(|(name, value)| (name.to_owned(), value)));
    expected.sort();
    let mut headers = origin.take_request().headers();
    headers.sort();
    assert_eq!(headers, expected);
}

#[test]
fn missing_user_agent_is_sent_as_tinyd() {
    let origin = with_headers("");
    let proxy = Proxy::to(&[&origin]);
    proxy.fetch(&origin.url("/"));
    let mut headers = origin.take_request().headers();
    headers.sort();
    let version = concat!("tinyd/", env!("CARGO_PKG_VERSION"));
    let host = format!("127.0.0.1:{}", origin.port());
    let expected = [
        ("connection", "close"),
        ("host", &host),
        ("user-agent", version),
        ("via", "1.1 tinyd"),
        ("x-kaltura-proxy", "dumpUrl"),
    ];
    assert_eq!(
        headers,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn hop_by_hop_request_headers_are_dropped() {
    let origin = with_headers("");
    let proxy = Proxy::to(&[&origin]);
    let url = origin.url("/");
    let lines = "Accept: a/b\r\nAccept-Language: de\r\nRange: bytes=0-5\r\nPragma: x\r\n\
                 Connection: keep-alive, Accept-Language, RANGE\r\nConnection: pragma\r\n";
    proxy.fetch_with(&url, lines);
    let asked = origin.take_request();
    assert_eq!(asked.header("accept"), "a/b");
    for name in ["accept-language", "range", "pragma"] {
        assert_eq!(asked.header(name), "", "{}", asked.head);
    }
    // A header of our own stays even when Connection names it.
    proxy.fetch_with(
        &url,
        "Connection: Host, Via, X-Kaltura-Proxy, User-Agent\r\nUser-Agent: x\r\n",
    );
    let asked = origin.take_request();
    assert_eq!(asked.header("host"), format!("127.0.0.1:{}", origin.port()));
    assert_eq!(
        (asked.header("via"), asked.header("x-kaltura-proxy")),
        ("1.1 tinyd".to_owned(), "dumpUrl".to_owned())
    );
}

#[test]
fn repeated_header_lines_are_all_passed_on() {
    let origin = with_headers("Vary: Accept\r\nVary: Origin\r\nCache-Control: public\r\nCache-Control: max-age=5\r\n");
    let proxy = Proxy::to(&[&origin]);
    let fetched = proxy.fetch_with(&origin.url("/"), "Accept: a/b\r\nAccept: c/d\r\n");
    let joined = |name: &str| fetched.all(name).join(", ");
    assert_eq!(joined("vary"), "Accept, Origin");
    assert_eq!(joined("cache-control"), "public, max-age=5");
    let values = origin.take_request().headers();
    let accept: Vec<_> = values
        .iter()
        .filter(|(name, _)| name == "accept")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(accept.join(", "), "a/b, c/d");
}

#[test]
fn host_header_has_only_a_nondefault_port() {
    let names = NameServer::start();
    names.says("xn--mnchen-3ya.example", at(&["127.0.0.1"]));
    let origin = with_headers("");
    let settings = format!("allow = [\"127.0.0.0/8\"]\n{}{}", ports(&[&origin]), names.setting());
    let proxy = Proxy::start(&settings);
    for host in [
        "MÜNCHEN.example",
        "xn--mnchen-3ya.EXAMPLE",
        "mu\u{308}nchen.example",
        "m%C3%BCnchen.example",
    ] {
        let fetched = proxy.fetch(&origin.url_by(host, "/"));
        assert_eq!(fetched.status, 200, "{host}: {fetched:?}");
        let expected = format!("xn--mnchen-3ya.example:{}", origin.port());
        assert_eq!(origin.take_request().header("host"), expected, "{host}");
    }
}

#[test]
fn client_gets_only_listed_headers() {
    let passed = [
        ("content-type", "video/mp4"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-disposition", "attachment; filename=\"a.mp4\""),
        ("accept-ranges", "bytes"),
        ("etag", "\"a\""),
        ("last-modified", "Sat, 21 Nov 2026 10:00:00 GMT"),
        ("expires", "Sun, 22 Nov 2026 10:00:00 GMT"),
        ("cache-control", "max-age=60, public"),
        ("age", "5"),
        ("date", "Sat, 21 Nov 2026 11:00:00 GMT"),
        ("vary", "Origin"),
        ("access-control-allow-origin", "https://example.com"),
        ("access-control-expose-headers", "ETag"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-site"),
    ];
    let kept = [
        "Set-Cookie: a=b; Path=/",
        "Set-Cookie: c=d; Domain=example.com",
        "Set-Cookie2: e=f",
        "Strict-Transport-Security: max-age=31536000; includeSubDomains",
        "Public-Key-Pins: pin-sha256=\"x\"",
        "Expect-CT: max-age=5",
        "Alt-Svc: h3=\":443\"",
        "Service-Worker-Allowed: /",
        "Clear-Site-Data: \"*\"",
        "Refresh: 0; url=https://evil.example/",
        "Link: <https://evil.example/a.css>; rel=stylesheet",
        "WWW-Authenticate: Basic realm=\"tinyd\"",
        "Proxy-Authenticate: Basic",
        "Authentication-Info: x",
        "Access-Control-Allow-Credentials: true",
        "Content-Security-Policy-Report-Only: default-src 'none'",
        "Report-To: {}",
        "NEL: {}",
        "Origin-Agent-Cluster: ?1",
        "Permissions-Policy: camera=*",
        "Document-Policy: x",
        "SourceMap: /x.map",
        "Server: internal/1.0",
        "X-Powered-By: PHP",
        "X-Kaltura: evil",
        "X-Kaltura-App: evil",
        "X-Kaltura-Session: evil",
        "X-Robots-Tag: all",
        "Via: 1.1 varnish",
        "X-Content-Type-Options: sniff",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Upgrade: h2c",
        "X-Accel-Redirect: /internal",
        "X-Sendfile: /etc/passwd",
        "Connection: close",
        "X-Custom: x",
    ];
    let lines: String = passed
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let fetched = pass(&(lines + &kept.map(|line| format!("{line}\r\n")).concat()));
    let mut expected: Vec<_> = passed.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let added = [
        ("content-length", "2"),
        ("x-kaltura", "dumpUrl"),
        ("via", "1.1 tinyd"),
        ("x-robots-tag", "noindex"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox"),
    ];
    expected.extend(added.map(|(name, value)| (name.to_owned(), value.to_owned())));
    expected.sort();
    let mut headers = fetched.headers;
    headers.sort();
    assert_eq!(headers, expected);
}

#[test]
fn hop_by_hop_response_headers_are_dropped() {
    let fetched = pass(
        "Content-Language: de\r\nETag: \"a\"\r\nAge: 5\r\nVary: Accept\r\nContent-Type: text/plain\r\n\
         Connection: content-language, ETAG\r\nConnection: close, age, content-security-policy, x-kaltura, via\r\n",
    );
    for name in ["content-language", "etag", "age", "connection"] {
        assert!(fetched.all(name).is_empty(), "{fetched:?}");
    }
    assert_eq!(fetched.header("vary"), "Accept");
    assert_eq!(fetched.header("content-security-policy"), "sandbox");
    assert_eq!(fetched.header("x-kaltura"), "dumpUrl");
    assert_eq!(fetched.header("via"), "1.1 tinyd");
}

#[test]
fn missing_cache_control_becomes_no_cache() {
    for (lines, expected) in [
        ("", "no-cache"),
        (
            "ETag: \"a\"\r\nLast-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\n",
            "no-cache",
        ),
        ("Cache-Control: private, max-age=3\r\n", "private, max-age=3"),
        ("Cache-Control: no-store\r\n", "no-store"),
        ("Expires: Sun, 22 Nov 2026 10:00:00 GMT\r\n", ""),
        ("Expires: 0\r\n", ""),
    ] {
        assert_eq!(pass(lines).header("cache-control"), expected, "{lines}");
    }
}

#[test]
fn upstream_content_security_policy_is_kept() {
    let fetched =
        pass("Content-Security-Policy: default-src 'none'\r\nContent-Security-Policy: frame-ancestors 'self'\r\n");
    let mut all = fetched.all("content-security-policy");
    all.sort_unstable();
    assert_eq!(all, ["default-src 'none'", "frame-ancestors 'self'", "sandbox"]);
    // A weaker upstream policy does not weaken ours: browsers enforce both.
    let fetched = pass("Content-Security-Policy: sandbox allow-scripts allow-same-origin\r\n");
    assert!(
        fetched.all("content-security-policy").contains(&"sandbox"),
        "{fetched:?}"
    );
}

#[test]
fn only_trusted_hosts_are_served_without_the_sandbox() {
    let names = NameServer::start();
    names.says("*.example", at(&["127.0.0.1"]));
    let origin = with_headers("Content-Type: text/html\r\n");
    for (trusted, host, is_trusted) in [
        ("[\"www.trusted.example\"]", "www.trusted.example", true),
        ("[\"www.trusted.example\"]", "WWW.Trusted.example", true),
        ("[\"www.trusted.example\"]", "www.trusted.example.", true),
        ("[\"www.trusted.example\"]", "trusted.example", false),
        ("[\"www.trusted.example\"]", "a.www.trusted.example", false),
        ("[\"www.trusted.example\"]", "www.trusted.example.evil.example", false),
        ("[\"*.trusted.example\"]", "a.trusted.example", true),
        ("[\"*.trusted.example\"]", "a.b.trusted.example", true),
        ("[\"*.trusted.example\"]", "trusted.example", false),
        ("[\"*.trusted.example\"]", "untrusted.example", false),
        ("[\"*.trusted.example\"]", "evil-trusted.example", false),
        ("[\"*.trusted.example\", \"127.0.0.1\"]", "127.0.0.1", true),
        ("[\"*.trusted.example\", \"other.example\"]", "other.example", true),
        ("[]", "other.example", false),
    ] {
        let settings = format!("trusted_hosts = {trusted}\n{}", names.setting());
        let proxy = Proxy::with(&[&origin], &settings);
        let fetched = proxy.fetch(&origin.url_by(host, "/"));
        assert_eq!(fetched.status, 200, "{host}: {fetched:?}");
        let expected = if is_trusted { "" } else { "sandbox" };
        assert_eq!(fetched.header("content-security-policy"), expected, "{trusted}: {host}");
        assert_eq!(fetched.header("x-content-type-options"), "nosniff");
        assert_eq!(fetched.header("x-robots-tag"), "noindex");
        assert_eq!(fetched.header("x-kaltura"), "dumpUrl");
        assert!(fetched.all("set-cookie").is_empty());
    }
}

#[test]
fn trust_follows_the_host_of_the_last_redirect() {
    let names = NameServer::start();
    names.says("*.example", at(&["127.0.0.1"]));
    let origin = Origin::start(|conversation| {
        let host = conversation.request.header("host");
        let port = host.rsplit(':').next().unwrap();
        let to = match conversation.path().as_str() {
            "/to-stranger" => "stranger.example",
            "/to-trusted" => "www.trusted.example",
            _ => {
                conversation.answer("Content-Type: text/html\r\n", b"ok");
                return;
            }
        };
        let head = format!("HTTP/1.1 302 Found\r\nLocation: http://{to}:{port}/\r\nContent-Length: 0\r\n\r\n");
        conversation.send(head);
    });
    let settings = format!(
        "follow = 1\ntrusted_hosts = [\"www.trusted.example\"]\n{}",
        names.setting()
    );
    let proxy = Proxy::with(&[&origin], &settings);
    for (host, path, expected) in [
        ("www.trusted.example", "/to-stranger", "sandbox"),
        ("stranger.example", "/to-trusted", ""),
        ("www.trusted.example", "/", ""),
    ] {
        let fetched = proxy.fetch(&origin.url_by(host, path));
        assert_eq!((fetched.status, fetched.text().as_str()), (200, "ok"), "{fetched:?}");
        assert_eq!(fetched.header("content-security-policy"), expected, "{host}{path}");
    }
}

#[test]
fn passed_on_location_is_absolute_and_never_a_script() {
    let authority = Authority::new();
    let plain = Origin::start(redirect);
    let secure = Origin::over_tls(authority.certify(&["127.0.0.1"]), redirect);
    let proxy = Proxy::with(&[&plain, &secure], &authority.setting());
    for origin in [&plain, &secure] {
        let (url, port) = (origin.url(""), origin.port());
        let scheme = url.split(':').next().unwrap();
        for (location, expected) in [
            ("https://example.com/a?b#c", "https://example.com/a?b#c".to_owned()),
            ("http://example.com/", "http://example.com/".to_owned()),
            ("HTTPS://EXAMPLE.com/A", "https://example.com/A".to_owned()),
            ("/absolute", format!("{url}/absolute")),
            ("relative", format!("{url}/folder/relative")),
            ("../up", format!("{url}/up")),
            ("?query", format!("{url}/folder/file?query")),
            ("//other.example/x", format!("{scheme}://other.example/x")),
            (
                "http://169.254.169.254/latest/",
                "http://169.254.169.254/latest/".to_owned(),
            ),
            ("javascript:alert(1)", String::new()),
            ("JavaScript:alert(1)", String::new()),
            ("java\tscript:alert(1)", String::new()),
            ("data:text/html,<script>alert(1)</script>", String::new()),
            ("vbscript:x", String::new()),
            ("file:///etc/passwd", String::new()),
            ("ftp://example.com/", String::new()),
            ("blob:https://example.com/x", String::new()),
            ("tel:123", String::new()),
            ("http://", String::new()),
            ("http://[::1", String::new()),
        ] {
            let target = crate::support::http::encode(location);
            let fetched = proxy.fetch(&origin.url(&format!("/folder/file?{target}")));
            assert_eq!(
                (fetched.status, fetched.text().as_str()),
                (302, "moved"),
                "{location}: {fetched:?}"
            );
            // The upstream reads the query in this test.
            let told = fetched.header("location").to_owned();
            assert_eq!(told, expected, "{location} at port {port}");
        }
    }
}

/// Redirects to the URL in the query.
fn redirect(conversation: &mut crate::support::origin::Conversation) {
    let target = conversation.request.target().to_owned();
    let location = target.split_once('?').unwrap().1;
    let location = percent_encoding::percent_decode_str(location).decode_utf8().unwrap();
    let head = format!("HTTP/1.1 302 Found\r\nContent-Length: 5\r\nLocation: {location}\r\n\r\nmoved");
    conversation.send(head);
}

#[test]
fn every_origin_may_read_unless_upstream_restricts_it() {
    let allowed = |lines: &str| pass(lines).header("access-control-allow-origin").to_owned();
    assert_eq!(allowed(""), "*");
    let one = "https://player.example";
    assert_eq!(allowed(&format!("Access-Control-Allow-Origin: {one}\r\n")), one);
}

#[test]
fn multipart_mixed_replace_becomes_octet_stream() {
    for (kind, passed_on) in [
        ("multipart/x-mixed-replace; boundary=a", "application/octet-stream"),
        ("Multipart/X-Mixed-Replace;boundary=a", "application/octet-stream"),
        ("multipart/byteranges; boundary=a", "multipart/byteranges; boundary=a"),
    ] {
        assert_eq!(
            pass(&format!("Content-Type: {kind}\r\n")).header("content-type"),
            passed_on
        );
    }
}

#[test]
fn service_worker_script_is_not_fetched() {
    let origin = with_headers("Content-Type: text/javascript\r\n");
    let proxy = Proxy::to(&[&origin]);
    let fetched = proxy.fetch_with(&origin.url("/"), "Service-Worker: script\r\n");
    assert_fault(&fetched, 403, "DESTINATION_FORBIDDEN");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn head_beyond_8_kb_is_not_passed_on() {
    let origin = Origin::start(|conversation| {
        let bytes: usize = conversation.path()[1..].parse().unwrap();
        let (one, other) = ("a".repeat(bytes / 2), "b".repeat(bytes - bytes / 2));
        let unseen = "x".repeat(10_000);
        conversation.answer(
            &format!("ETag: \"{one}\"\r\nContent-Language: {other}\r\nX-Unseen: {unseen}\r\n"),
            "ok",
        );
    });
    let proxy = Proxy::to(&[&origin]);
    let fetched = proxy.fetch(&origin.url("/7700"));
    assert_eq!((fetched.status, fetched.text().as_str()), (200, "ok"));
    let head: usize = fetched
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    assert!((7_800..8_192 + 100).contains(&head), "{head}");
    for bytes in [8_192, 20_000] {
        let fetched = proxy.fetch(&origin.url(&format!("/{bytes}")));
        assert_fault(&fetched, 502, "DESTINATION_UNREACHABLE");
    }
}
