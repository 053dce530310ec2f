//! The headers of the console's pages, and what stays apart from the API.

use crate::support::browser::{Browser, FORM, form};
use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET, code};
use crate::support::http::{Answer, request};

/// Every page, and every answer in place of one.
fn answers(appliance: &Appliance) -> Vec<(String, Answer)> {
    let mut jane = Browser::of_user(appliance, "jane");
    let id = jane.create(&[("full_url", "https://www.youtube.com/watch?v=1")]);
    let deleted = jane.create(&[]);
    jane.done(&format!("/links/{deleted}/delete"), &[]);
    let mut nobody = Browser::new(appliance);
    let mut answers = Vec::new();
    for path in [
        "",
        "/",
        "/sign-in",
        "/sign-in?next=links&on=1",
        "/links",
        "/nowhere",
        "/sign-in/link/used",
        "/assets/none.js",
    ] {
        answers.push((format!("nobody's {path}"), nobody.get(path)));
    }
    answers.push(("led on".to_owned(), nobody.send("GET", "/sign-in", &[], b"")));
    answers.push(("wrong secret".to_owned(), nobody.sign_in(PARTNER, "jane", "wrong")));
    for path in [
        "/links".to_owned(),
        "/links?state=deleted".to_owned(),
        format!("/links?deleted={deleted}"),
        "/links/new".to_owned(),
        format!("/links/{id}"),
        format!("/links/{id}/edit"),
        format!("/links/{id}/qr.svg"),
        format!("/links/{id}/qr.png"),
        format!("/links/{deleted}"),
        "/links/none".to_owned(),
        "/nowhere".to_owned(),
    ] {
        answers.push((path.clone(), jane.get(&path)));
    }
    let mut admin = Browser::of_admin(appliance);
    for path in [
        "/all?owner=jane",
        "/clicks",
        "/health",
        "/jobs",
        "/users/jane",
        "/users",
    ] {
        answers.push((format!("admin's {path}"), admin.get(path)));
    }
    let many = [("action", "disable"), ("id", id.as_str())];
    answers.push(("confirm".to_owned(), admin.submit("/bulk/confirm", &many)));
    let progress = admin.done("/bulk", &[&many[..], &[("count", "1")]].concat());
    answers.push(("progress".to_owned(), admin.get(&progress)));
    answers.push(("users' /all".to_owned(), jane.get("/all")));
    answers.push(("wrong form".to_owned(), jane.submit("/links/new", &[])));
    answers.push((
        "wrong times".to_owned(),
        jane.submit(&format!("/links/{id}/playback"), &[]),
    ));
    answers.push(("no token".to_owned(), jane.post("/links/new", &[])));
    answers.push(("other site".to_owned(), jane.post_with("/links/new", &[], &[])));
    answers.push((
        "no form".to_owned(),
        jane.send("POST", "/links/new", &[("Origin", &appliance.admin)], b"{}"),
    ));
    answers.push((
        "switched off".to_owned(),
        jane.submit(&format!("/links/{id}/disable"), &[]),
    ));
    answers.push(("signed out".to_owned(), jane.submit("/sign-out", &[])));
    answers
}

#[test]
fn every_page_is_protected() {
    let appliance = Appliance::start_with_operator();
    for (what, answer) in answers(&appliance) {
        let policy = answer.header("content-security-policy");
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.split("; ").any(|other| other == directive), "{what}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{what}: {policy}");
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "same-origin"),
            ("x-robots-tag", "noindex"),
            // Browsers report it as an error over plain HTTP.
            ("cross-origin-opener-policy", ""),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{what}: {name}");
        }
        let cors = answer.headers.keys().find(|name| name.starts_with("access-control-"));
        assert_eq!(cors, None, "{what}");
        let page = answer.text_if_page();
        for forbidden in ["<style", " style=", "onclick", "onload", "javascript:"] {
            assert!(!page.contains(forbidden), "{what}: {forbidden} in {page}");
        }
        // Nothing comes from elsewhere, and no script stands in a page.
        for source in page.split("<script").skip(1).chain(page.split("<link").skip(1)) {
            let tag = source.split('>').next().unwrap();
            let own = ["\"/console/assets/", "\"/console/theme.css\"", "\"data:"];
            assert!(own.iter().any(|start| tag.contains(start)), "{what}: {tag}");
        }
    }
}

trait Page {
    /// The text, unless it is a file.
    fn text_if_page(&self) -> &str;
}

impl Page for Answer {
    fn text_if_page(&self) -> &str {
        let is_page = self.header("content-type").starts_with("text/html");
        if is_page { self.text() } else { "" }
    }
}

#[test]
fn assets_are_kept_and_the_same_for_everybody() {
    let appliance = Appliance::start();
    let mut nobody = Browser::new(&appliance);
    let page = nobody.get("/sign-in");
    let names = page
        .text()
        .split("\"/console/assets/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    let names: Vec<_> = names.map(str::to_owned).collect();
    assert_eq!(names.len(), 2, "{}", page.text());
    for name in names {
        let asset = nobody.get(&format!("/assets/{name}"));
        assert_eq!(asset.status, 200, "{name}");
        assert!(asset.header("cache-control").contains("immutable"), "{asset:?}");
        assert_eq!(asset.header("access-control-allow-origin"), "");
        let compressed = nobody.send("GET", &format!("/assets/{name}"), &[("Accept-Encoding", "gzip")], b"");
        assert_eq!(compressed.header("content-encoding"), "gzip");
        assert!(compressed.body.len() < asset.body.len());
    }
}

#[test]
fn api_takes_and_sends_no_cookie() {
    let appliance = Appliance::start();
    let admin = Browser::of_admin(&appliance);
    let cookie = ("Cookie", admin.cookie.as_str());
    let list = "/api_v3/service/shortlink_shortlink/action/list?format=1";
    for (method, target) in [("GET", list), ("POST", list), ("GET", "/status"), ("GET", "/metrics")] {
        let answer = request(&appliance.admin, method, target, &[cookie, ("Content-Type", FORM)], b"");
        assert_eq!(answer.header("set-cookie"), "", "{target}");
        if target == list {
            assert_eq!(code(&answer.json()), "MISSING_KS");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
            assert_eq!(answer.header("access-control-allow-credentials"), "");
        }
    }
    let secret = form(&[
        ("format", "1"),
        ("secret", ADMIN_SECRET),
        ("partnerId", PARTNER),
        ("type", "2"),
    ]);
    let target = "/api_v3/service/session/action/start";
    let answer = request(
        &appliance.admin,
        "POST",
        target,
        &[cookie, ("Content-Type", FORM)],
        secret.as_bytes(),
    );
    assert_eq!((answer.status, answer.header("set-cookie")), (200, ""));
    // Nor does the console take a KS.
    let ks = appliance.admin_ks();
    let mut nobody = Browser::new(&appliance);
    assert_eq!(nobody.get(&format!("/links?ks={ks}")).status, 303);
    assert_eq!(nobody.post("/links/new", &[("ks", &ks), ("token", &ks)]).status, 403);
    nobody.cookie = format!("tinyd={ks}; ks={ks}");
    assert!(!nobody.is_signed_in());
}

#[test]
fn preflight_of_the_console_permits_nothing() {
    let appliance = Appliance::start();
    let asks = [
        ("Origin", "https://evil.test"),
        ("Access-Control-Request-Method", "POST"),
    ];
    let answer = Browser::new(&appliance).send("OPTIONS", "/links/new", &asks, b"");
    let permits = answer.headers.keys().find(|name| name.starts_with("access-control-"));
    assert_eq!(permits, None, "{answer:?}");
    let target = "/api_v3/service/shortlink_shortlink/action/list";
    let answer = request(&appliance.admin, "OPTIONS", target, &asks, b"");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, "*")
    );
}

#[test]
fn public_listener_has_no_console() {
    let appliance = Appliance::start();
    let jane = Browser::of_user(&appliance, "jane");
    let unknown = appliance.get_public("/nowhere/");
    for path in [
        "/console",
        "/console/",
        "/console/sign-in",
        "/console/links",
        "//console/links",
    ] {
        let answer = request(&appliance.public, "GET", path, &[("Cookie", &jane.cookie)], b"");
        assert_eq!((answer.status, &answer.body), (404, &unknown.body), "{path}");
        assert_eq!(answer.header("set-cookie"), "", "{path}");
    }
    let fields = form(&[("partner", PARTNER), ("user", "jane"), ("secret", USER_SECRET)]);
    let headers = [("Origin", appliance.public.as_str()), ("Content-Type", FORM)];
    let answer = request(
        &appliance.public,
        "POST",
        "/console/sign-in",
        &headers,
        fields.as_bytes(),
    );
    assert_eq!((answer.status / 100, answer.header("set-cookie")), (4, ""));
}
