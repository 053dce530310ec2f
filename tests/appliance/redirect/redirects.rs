//! `/tiny`, goto and the rest of the public listener.

use crate::support::fixture::Appliance;
use crate::support::http::{encode, request};

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto";

#[test]
fn short_url_hops_to_goto_which_redirects() {
    let appliance = Appliance::start();
    let id = appliance.add(&appliance.admin_ks(), &[]);
    for base in [&appliance.public, &appliance.admin] {
        for method in ["GET", "HEAD"] {
            let hop = request(base, method, &format!("/tiny/{id}"), &[], b"");
            assert_eq!(hop.status, 301);
            assert_eq!(hop.header("location"), format!("{GOTO}/id/{id}"));
            let goto = request(base, method, hop.header("location"), &[], b"");
            assert_eq!(goto.status, 302);
            assert_eq!(goto.header("location"), "https://example.com/video");
            assert_eq!(goto.header("cache-control"), "no-store");
            assert_eq!(goto.header("x-robots-tag"), "noindex");
            assert_eq!(goto.header("content-length"), "0");
        }
    }
}

#[test]
fn direct_mode_answers_like_goto() {
    let appliance = Appliance::start_with("[public]\ntiny = \"direct\"\n");
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    let expired = appliance.add(&ks, &[("shortLink[expiresAt]", "1000")]);
    let answer = appliance.get_public(&format!("/tiny/{id}"));
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, "https://example.com/video")
    );
    assert_eq!(appliance.get_public(&format!("/tiny/{expired}")).status, 410);
    assert_eq!(appliance.get_public("/tiny/zzzzzzzz").status, 404);
}

#[test]
fn goto_works_in_every_form() {
    // With fetching disabled, goto redirects proxied requests too.
    let appliance = Appliance::start_with("[fetch]\nenabled = false");
    let id = appliance.add(&appliance.admin_ks(), &[]);
    for base in [&appliance.public, &appliance.admin] {
        for target in [
            format!("{GOTO}/id/{id}"),
            format!("/api_v3/service/shortLink_shortLink/action/GOTO/id/{id}"),
            format!("/api_v3/index.php?service=shortLink_shortLink&action=goto&id={id}"),
            format!("/api_v3/?service=shortlink_shortlink&action=goto&id={id}"),
            format!("/api_v3?service=shortlink_shortlink&action=goto&id={id}"),
            format!("{GOTO}?id={id}&format=2&clientTag=python:23&ks=djJ8&kalsig=0123&apiVersion=21"),
            format!("{GOTO}/id/{id}/proxy/true/ks/djJ8"),
            format!("{GOTO}?format=77&callback=alert(1)&id={}&broken=%zz&%=%", encode(&id)),
        ] {
            for method in ["GET", "HEAD", "POST"] {
                let answer = request(base, method, &target, &[], b"");
                assert_eq!(
                    (answer.status, answer.header("location")),
                    (302, "https://example.com/video"),
                    "{target}"
                );
            }
        }
    }
    // By POST, the ID may be in the body; the public listener reads none.
    let form = format!("id={id}");
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(
        request(&appliance.admin, "POST", GOTO, &headers, form.as_bytes()).status,
        302
    );
    let refused = request(&appliance.public, "POST", GOTO, &headers, form.as_bytes());
    assert_eq!(refused.header("x-kaltura"), "error-MISSING_MANDATORY_PARAMETER");
    assert_eq!(refused.header("connection"), "close");
    assert_eq!(appliance.get_public(GOTO).status, 400);
}

#[test]
fn failed_redirect_tells_the_reason() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let now = appliance.call("system", "getTime", "", &[]).as_i64().unwrap();
    let (past, future) = ((now - 1000).to_string(), (now + 1000).to_string());
    let status = "shortLink[status]";
    for (params, http, code) in [
        (vec![(status, "1")], 404, "INVALID_SHORT_LINK"),
        (vec![(status, "3")], 410, "INVALID_SHORT_LINK"),
        (vec![("shortLink[expiresAt]", past.as_str())], 410, "EXPIRED_SHORT_LINK"),
        (
            vec![(status, "1"), ("shortLink[expiresAt]", past.as_str())],
            404,
            "INVALID_SHORT_LINK",
        ),
        (vec![("shortLink[expiresAt]", future.as_str())], 302, ""),
        (vec![("shortLink[expiresAt]", "0")], 302, ""),
        (vec![("shortLink[expiresAt]", "-1")], 302, ""),
    ] {
        let id = appliance.add(&ks, &params);
        let answer = appliance.goto(&id);
        assert_eq!(answer.status, http, "{params:?}");
        assert_eq!(
            answer.header("x-kaltura").trim_start_matches("error-"),
            code,
            "{params:?}"
        );
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    for unknown in ["zzzzzzzz", "ABCD", "abc", "%00%0d%0a", "a b", "..%2f..%2fetc"] {
        let answer = appliance.goto(&unknown.replace(' ', "%20"));
        assert_eq!(
            (answer.status, answer.header("x-kaltura")),
            (404, "error-INVALID_OBJECT_ID"),
            "{unknown}"
        );
    }
}

#[test]
fn error_body_suits_the_client() {
    let appliance = Appliance::start();
    let target = format!("{GOTO}/id/zzzzzzzz");
    let with = |query: &str, accept: &str| {
        request(
            &appliance.public,
            "GET",
            &format!("{target}{query}"),
            &[("Accept", accept)],
            b"",
        )
    };
    let plain = with("", "*/*");
    assert_eq!(plain.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(plain.text(), "Invalid object id [zzzzzzzz] (INVALID_OBJECT_ID)\n");
    let page = with("", "text/html,application/xhtml+xml,*/*;q=0.8");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text().contains("Link not found") && !page.text().contains("zzzzzzzz"));
    assert_eq!(page.header("vary"), "Accept, Accept-Language");
    assert_eq!(plain.header("vary"), "Accept");
    let json = with("?format=1", "text/html");
    assert_eq!(json.json()["code"], "INVALID_OBJECT_ID");
    assert_eq!(
        with("?format=2", "*/*").header("content-type"),
        "text/xml; charset=utf-8"
    );
    assert!(
        with("?format=3", "*/*")
            .text()
            .starts_with("a:4:{s:4:\"code\";s:17:\"INVALID_OBJECT_ID\";")
    );
    assert!(with("?format=9&callback=f", "*/*").text().starts_with("f({\"code\""));
    assert!(
        with("?format=9&callback=alert(1)", "*/*")
            .text()
            .starts_with("Invalid object id")
    );
}

#[test]
fn destination_is_encoded_in_location_but_stored_as_given() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for (url, location) in [
        (
            "https://example.com/ü?q=日本 x",
            "https://example.com/%C3%BC?q=%E6%97%A5%E6%9C%AC%20x",
        ),
        (
            "https://example.com/a%20b?c=%2f&d[]=1#e|f",
            "https://example.com/a%20b?c=%2f&d[]=1#e%7Cf",
        ),
        ("HTTP://EXAMPLE.com:80/\\x", "HTTP://EXAMPLE.com:80/%5Cx"),
    ] {
        let id = appliance.add(&ks, &[("shortLink[fullUrl]", url)]);
        assert_eq!(appliance.goto(&id).header("location"), location);
        assert_eq!(appliance.link("get", &ks, &[("id", &id)])["fullUrl"], url);
    }
}

#[test]
fn public_listener_serves_redirects_only() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for target in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/tinyx",
        "/api_v3x",
        "/index.php",
        "/.well-known/x",
    ] {
        assert_eq!(appliance.get_public(target).status, 404, "{target}");
    }
    for (method, target) in [
        (
            "GET",
            format!("/api_v3/service/shortlink_shortlink/action/list?format=1&ks={ks}"),
        ),
        ("POST", "/api_v3/service/session/action/start?format=1".to_owned()),
        ("POST", "/api_v3/service/multirequest?format=1".to_owned()),
        (
            "GET",
            "/api_v3/index.php?service=system&action=ping&format=1".to_owned(),
        ),
        ("POST", "/api_v3/?format=1".to_owned()),
    ] {
        // A body of a gigabyte is rejected before any of it is sent.
        let length = [("Content-Length", "1000000000")];
        let headers: &[(&str, &str)] = if method == "POST" { &length } else { &[] };
        let answer = request(&appliance.public, method, &target, headers, b"");
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (200, &"SERVICE_FORBIDDEN".into()),
            "{target}"
        );
        assert_eq!(answer.header("x-kaltura"), "error-SERVICE_FORBIDDEN");
    }
    let target = "/api_v3/service/shortlink_shortlink/action/delete";
    let answer = request(&appliance.public, "DELETE", target, &[], b"");
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, "POST, GET, HEAD, OPTIONS")
    );
    let robots = appliance.get_public("/robots.txt");
    assert_eq!(robots.text(), "User-agent: *\nDisallow: /tiny/\nDisallow: /api_v3/\n");
}

#[test]
fn methods_follow_the_http_specification() {
    let appliance = Appliance::start();
    let id = appliance.add(&appliance.admin_ks(), &[]);
    for target in [format!("/tiny/{id}"), "/robots.txt".to_owned()] {
        for (method, status) in [("OPTIONS", 204), ("POST", 405), ("PUT", 405), ("DELETE", 405)] {
            let answer = request(&appliance.public, method, &target, &[], b"");
            assert_eq!(
                (answer.status, answer.header("allow")),
                (status, "GET, HEAD, OPTIONS"),
                "{method} {target}"
            );
        }
    }
    let preflight = request(&appliance.public, "OPTIONS", &format!("{GOTO}/id/{id}"), &[], b"");
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
}

#[test]
fn links_of_every_partner_redirect() {
    let appliance = Appliance::start();
    let id = appliance.add(&appliance.other_partners_ks(), &[]);
    let with_ks_of_another = format!("{GOTO}/id/{id}?ks={}", encode(&appliance.admin_ks()));
    assert_eq!(appliance.get_public(&with_ks_of_another).status, 302);
    assert_eq!(appliance.get_admin(&with_ks_of_another).status, 302);
}
