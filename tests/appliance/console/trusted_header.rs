//! Users whom a reverse proxy has signed in.

use crate::support::browser::{Browser, hidden};
use crate::support::fixture::{Appliance, code};
use crate::support::http::{Answer, request};

const USER: &str = "X-Forwarded-User";
const GROUPS: &str = "X-Forwarded-Groups";

fn start(proxy: &str) -> Appliance {
    Appliance::start_with(&format!(
        "[admin]\ntrusted_proxies = \"{proxy}\"\n[console]\ntrusted_header = \"{USER}\"\n\
         trusted_groups_header = \"{GROUPS}\"\nadmin_groups = \"admins\"\npartner = 1234567\n"
    ))
}

fn get(appliance: &Appliance, headers: &[(&str, &str)]) -> Answer {
    request(&appliance.admin, "GET", "/console/links", headers, b"")
}

#[test]
fn proxy_says_who_somebody_is_at_each_request() {
    let appliance = start("127.0.0.1");
    for (groups, is_admin) in [("staff", false), ("staff,admins", true)] {
        let page = get(&appliance, &[(USER, "anna"), (GROUPS, groups)]);
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.text().contains("<bdi>anna</bdi>"), "{}", page.text());
        assert_eq!(page.text().contains("administrator"), is_admin);
        assert!(!page.text().contains("Sign out"), "{}", page.text());
        // Nothing lasts longer than the header.
        assert_eq!(page.header("set-cookie"), "");
    }
    assert_eq!(get(&appliance, &[]).status, 303);
    assert_eq!(get(&appliance, &[(GROUPS, "admins")]).status, 303);
    for ambiguous in [
        &[(USER, "anna"), (USER, "ben")][..],
        &[(USER, "")],
        &[(USER, "ben, anna")],
        &[(USER, &"x".repeat(101))],
        &[(USER, "anna"), (GROUPS, "staff"), (GROUPS, "admins")],
    ] {
        assert_eq!(get(&appliance, ambiguous).status, 400, "{ambiguous:?}");
    }
}

#[test]
fn header_wins_over_a_cookie() {
    let appliance = start("127.0.0.1");
    let browser = Browser::of_admin(&appliance);
    let page = get(&appliance, &[("Cookie", &browser.cookie), (USER, "ben")]);
    assert!(page.text().contains("<bdi>ben</bdi>"), "{}", page.text());
    assert!(!page.text().contains("administrator"));
}

#[test]
fn header_of_a_stranger_is_ignored() {
    let appliance = start("192.0.2.1");
    assert_eq!(get(&appliance, &[(USER, "anna"), (GROUPS, "admins")]).status, 303);
    let mut browser = Browser::of_user(&appliance, "ben");
    let page = browser.send("GET", "/links", &[(USER, "anna"), (GROUPS, "admins")], b"");
    assert!(page.text().contains("<bdi>ben</bdi>"), "{}", page.text());
}

#[test]
fn header_signs_nobody_in_at_the_api() {
    let appliance = start("127.0.0.1");
    let target = "/api_v3/service/shortlink_shortlink/action/list?format=1";
    let answer = request(
        &appliance.admin,
        "GET",
        target,
        &[(USER, "anna"), (GROUPS, "admins")],
        b"",
    );
    assert_ne!(code(&answer.json()), "", "{answer:?}");
}

#[test]
fn forms_belong_to_the_user_of_the_header() {
    let appliance = start("127.0.0.1");
    let page = request(&appliance.admin, "GET", "/console/links/new", &[(USER, "anna")], b"");
    let token = hidden(page.text(), "token");
    let form = format!("token={token}&full_url=https%3A%2F%2Fexample.com%2Fvideo");
    let post = |user: &str, origin: &str| {
        let headers = [
            (USER, user),
            ("Origin", origin),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        request(
            &appliance.admin,
            "POST",
            "/console/links/new",
            &headers,
            form.as_bytes(),
        )
        .status
    };
    assert_eq!(post("anna", &appliance.admin), 303);
    assert_eq!(post("ben", &appliance.admin), 403);
    assert_eq!(post("anna", "https://evil.example"), 403);
}
