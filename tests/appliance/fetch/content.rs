//! Content instead of a redirect.

use crate::support::client::{Download, connect, request};
use crate::support::fixture::{Appliance, configuration, folder, serve};
use crate::support::http::encode;
use crate::support::origin::{Conversation, Origin};
use crate::support::proxy::{GOTO, Proxy, proxied};

const PAGE: &[u8] = b"<p>the content</p>\n";

fn page(conversation: &mut Conversation) {
    conversation.answer("Content-Type: text/html\r\n", PAGE);
}

#[test]
fn proxied_goto_returns_the_content() {
    let origin = Origin::start(page);
    let proxy = Proxy::to(&[&origin]);
    let fetched = proxy.fetch(&origin.url("/page"));
    assert_eq!((fetched.status, &fetched.body[..]), (200, PAGE), "{fetched:?}");
    assert_eq!(fetched.header("content-type"), "text/html");
    assert_eq!(fetched.header("content-length"), PAGE.len().to_string());
    assert_eq!(fetched.header("x-kaltura"), "dumpUrl");
    assert_eq!(fetched.header("via"), "1.1 tinyd");
    assert_eq!(fetched.header("x-robots-tag"), "noindex");
    assert_eq!(fetched.header("x-content-type-options"), "nosniff");
    assert_eq!(fetched.header("content-security-policy"), "sandbox");
    assert_eq!(fetched.header("cache-control"), "no-cache");
    assert!(fetched.all("location").is_empty(), "{fetched:?}");
    assert_eq!(fetched.all("date").len(), 1, "{fetched:?}");
    let asked = origin.take_request();
    assert_eq!((asked.method(), asked.target()), ("GET", "/page"));
    proxy.assert_redirects();
}

#[test]
fn proxy_parameter_accepts_every_spelling_of_true() {
    let origin = Origin::start(page);
    let proxy = Proxy::to(&[&origin]);
    let id = proxy.link(&origin.url("/"));
    let (public, admin) = (&proxy.appliance.public, &proxy.appliance.admin);
    let by_index = format!("/api_v3/index.php?service=shortLink_shortLink&action=goto&id={id}");
    let mut cases = Vec::new();
    for (value, is_yes) in [
        ("true", true),
        ("True", true),
        ("1", true),
        ("false", false),
        ("False", false),
        ("0", false),
    ] {
        for base in [public, admin] {
            for target in [
                format!("{GOTO}{id}/proxy/{value}"),
                format!("{GOTO}{id}?proxy={value}"),
                format!("{GOTO}{id}?format=1&proxy={value}&ks=x"),
                format!("{by_index}&proxy={value}"),
                format!("/api_v3/?proxy={value}&action=goto&id={id}&service=shortlink_shortlink"),
            ] {
                cases.push((base, target, is_yes));
            }
        }
    }
    for base in [public, admin] {
        cases.push((base, format!("{GOTO}{id}?proxy="), false));
        cases.push((base, format!("{GOTO}{id}?proxy"), false));
        cases.push((base, format!("{GOTO}{id}?noproxy=true"), false));
    }
    for (base, target, is_yes) in cases {
        let before = origin.connections();
        for method in ["GET", "HEAD"] {
            let fetched = Download::ask(connect(base), &request(method, &target, "")).finish();
            let expected = if is_yes { 200 } else { 302 };
            assert_eq!(fetched.status, expected, "{method} {base}{target}: {fetched:?}");
        }
        let fetched = origin.connections() - before;
        assert_eq!(fetched, if is_yes { 2 } else { 0 }, "{base}{target}");
    }
}

#[test]
fn goto_by_post_or_multirequest_fetches_by_get() {
    let origin = Origin::start(page);
    let proxy = Proxy::to(&[&origin]);
    let id = proxy.link(&origin.url("/"));
    let form = "application/x-www-form-urlencoded";
    let (goto, multi) = (
        "/api_v3/service/shortlink_shortlink/action/goto",
        "/api_v3/service/multirequest",
    );
    let first = "1:service=system&1:action=ping";
    let second = format!("2:service=shortlink_shortlink&2:action=goto&2:id={id}");
    for (target, kind, body, is_yes) in [
        (proxied(&id), form, String::new(), true),
        (goto.to_owned(), form, format!("id={id}&proxy=true"), true),
        (goto.to_owned(), form, format!("id={id}&proxy=0"), false),
        (format!("{GOTO}{id}"), form, "proxy=True".to_owned(), true),
        (
            goto.to_owned(),
            "application/json",
            format!("{{\"id\":\"{id}\",\"proxy\":true}}"),
            true,
        ),
        (
            goto.to_owned(),
            "application/json",
            format!("{{\"id\":\"{id}\",\"proxy\":\"1\"}}"),
            true,
        ),
        (multi.to_owned(), form, format!("{first}&{second}&2:proxy=true"), true),
        (multi.to_owned(), form, format!("{first}&{second}"), false),
    ] {
        let headers = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        let request = request("POST", &target, &headers) + &body;
        let fetched = Download::ask(connect(&proxy.appliance.admin), &request).finish();
        if is_yes {
            assert_eq!((fetched.status, &fetched.body[..]), (200, PAGE), "{target} {body}");
            assert_eq!(origin.take_request().method(), "GET");
        } else {
            assert_eq!(fetched.status, 302, "{target} {body}");
            assert!(origin.requests().is_empty());
        }
    }
    // The public listener ignores parameters in a body, and reads those in the target.
    let headers = "Content-Length: 10\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let request = request("POST", &proxied(&id), headers) + "proxy=fals";
    let fetched = Download::ask(connect(&proxy.appliance.public), &request).finish();
    assert_eq!((fetched.status, &fetched.body[..]), (200, PAGE), "{fetched:?}");
    let asked = origin.take_request();
    assert_eq!(asked.method(), "GET");
    assert_eq!(asked.header("content-length"), "");
}

#[test]
fn link_that_does_not_redirect_is_not_fetched() {
    let origin = Origin::start(page);
    let proxy = Proxy::to(&[&origin]);
    let url = origin.url("/");
    let link = |more| {
        let params = [&[("shortLink[fullUrl]", url.as_str())], &[more][..]].concat();
        proxy.appliance.add(&proxy.ks, &params)
    };
    for (id, status, code) in [
        (link(("shortLink[status]", "1")), 404, "INVALID_SHORT_LINK"),
        (link(("shortLink[status]", "3")), 410, "INVALID_SHORT_LINK"),
        (link(("shortLink[expiresAt]", "1000")), 410, "EXPIRED_SHORT_LINK"),
        ("zzzzzzzz".to_owned(), 404, "INVALID_OBJECT_ID"),
        ("not-an-id".to_owned(), 404, "INVALID_OBJECT_ID"),
    ] {
        for base in [&proxy.appliance.public, &proxy.appliance.admin] {
            let ask = |target: &str| Download::ask(connect(base), &request("GET", target, "")).finish();
            let mut as_redirect = ask(&format!("{GOTO}{id}"));
            let mut as_content = ask(&proxied(&id));
            assert_eq!(as_content.status, status, "{as_content:?}");
            assert_eq!(as_content.header("x-kaltura"), format!("error-{code}"));
            as_content.headers.retain(|(name, _)| name != "date");
            as_redirect.headers.retain(|(name, _)| name != "date");
            assert_eq!(
                (as_content.headers, as_content.body),
                (as_redirect.headers, as_redirect.body)
            );
        }
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn goto_redirects_when_fetching_is_disabled() {
    let origin = Origin::start(page);
    let proxy = Proxy::with(&[&origin], "enabled = false\n");
    let url = origin.url("/");
    let id = proxy.link(&url);
    for target in [proxied(&id), format!("{GOTO}{id}?proxy=1")] {
        for base in [&proxy.appliance.public, &proxy.appliance.admin] {
            let fetched = Download::ask(connect(base), &request("GET", &target, "")).finish();
            assert_eq!((fetched.status, fetched.header("location")), (302, url.as_str()));
        }
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn path_and_query_are_sent_unchanged_without_fragment() {
    let origin = Origin::start(page);
    let proxy = Proxy::to(&[&origin]);
    for (destination, asked_for) in [
        (
            "/a%2Fb/%7E~/c?x=%20+%2B&&y=a=b;c&x=%c3%a9&z",
            "/a%2Fb/%7E~/c?x=%20+%2B&&y=a=b;c&x=%c3%a9&z",
        ),
        // As a client that follows the redirect would send it.
        ("/?a[0]={b}|c^d`e", "/?a[0]=%7Bb%7D%7Cc%5Ed%60e"),
        ("/path#fragment?not-a-query", "/path"),
        ("/path?query#fragment", "/path?query"),
        ("/path?", "/path?"),
        ("/grüße?straße", "/gr%C3%BC%C3%9Fe?stra%C3%9Fe"),
        ("", "/"),
        ("?only=query", "/?only=query"),
        ("/a//b///c/./d/../e", "/a//b///c/e"),
        ("/'\"<>", "/'%22%3C%3E"),
    ] {
        let fetched = proxy.fetch(&origin.url(destination));
        assert_eq!(fetched.status, 200, "{destination}: {fetched:?}");
        assert_eq!(origin.take_request().target(), asked_for, "{destination}");
    }
    // The query of the goto does not reach the upstream.
    let id = proxy.link(&origin.url("/mine?a=b"));
    let target = format!("{GOTO}{id}?proxy=true&c=d&ks={}", encode("secret"));
    let fetched = Download::ask(connect(&proxy.appliance.public), &request("GET", &target, "")).finish();
    assert_eq!(fetched.status, 200);
    assert_eq!(origin.take_request().target(), "/mine?a=b");
}

#[test]
fn proxy_variables_of_the_environment_are_ignored() {
    let (origin, proxy_of_environment) = (Origin::start(page), Origin::start(page));
    let settings = format!(
        "[fetch]\nallow = [\"127.0.0.0/8\"]\n{}",
        crate::support::proxy::ports(&[&origin])
    );
    let folder = folder(&configuration(&settings));
    let names = [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ];
    let mut command = serve();
    command.envs(names.map(|name| (name, proxy_of_environment.url(""))));
    let proxy = Proxy::of(Appliance::start_by(command, folder));
    assert_eq!(proxy.fetch(&origin.url("/")).body, PAGE);
    assert_eq!(proxy_of_environment.connections(), 0);
}
