//! The cookie of a session.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::console::sign_in_link;
use crate::support::browser::Browser;
use crate::support::certificates::Authority;
use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET};
use crate::support::tls::{Client, NAME, settings, start_with};

#[test]
fn cookie_is_out_of_reach_of_scripts_and_sites() {
    let appliance = Appliance::start();
    let answer = Browser::new(&appliance).sign_in(PARTNER, "jane", USER_SECRET);
    let (pair, attributes) = answer.header("set-cookie").split_once("; ").unwrap();
    assert!(pair.starts_with("tinyd="), "{pair}");
    // No Domain: no other host gets it. No Expires: it ends with the browser.
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
}

#[test]
fn cookie_over_tls_is_bound_to_the_host() {
    let authority = Authority::new();
    let more = format!("[console]\nurl = \"https://{NAME}/console\"\n");
    let appliance = start_with(&authority, &(more + &settings("")));
    let mut browser = Browser::over_tls(&appliance, Client::new(&authority));
    let answer = browser.sign_in(PARTNER, "jane", USER_SECRET);
    assert_eq!((answer.status, answer.header("location")), (303, "/console/"));
    let (pair, attributes) = answer.header("set-cookie").split_once("; ").unwrap();
    assert!(pair.starts_with("__Host-tinyd="), "{pair}");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict; Secure");
    let id = browser.create(&[]);
    let page = browser.get(&format!("/links/{id}"));
    assert_eq!(
        (page.status, page.header("cross-origin-opener-policy")),
        (200, "same-origin")
    );
    // A cookie that plain HTTP could have planted does not count, nor does an origin of plain HTTP.
    let mut planted = browser.clone();
    planted.cookie = browser.cookie.strip_prefix("__Host-").unwrap().to_owned();
    assert!(!planted.is_signed_in());
    let token = browser.token();
    let plain = format!("http://{NAME}");
    let answer = browser.post_with("/links/new", &[("Origin", &plain)], &[("token", &token)]);
    assert_eq!(answer.status, 403);
    // Over plain HTTP, a cookie of HTTPS does not count.
    let mut plain = Browser::new(&appliance);
    plain.cookie.clone_from(&browser.cookie);
    assert!(!plain.is_signed_in());
    let answer = browser.submit("/sign-out", &[]);
    assert_eq!(
        answer.header("set-cookie"),
        "__Host-tinyd=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0"
    );
}

#[test]
fn planted_cookie_is_never_adopted() {
    let appliance = Appliance::start();
    let mut browser = Browser::new(&appliance);
    browser.cookie = "tinyd=planted.session".to_owned();
    assert!(!browser.is_signed_in());
    assert_eq!(
        browser.cookie, "tinyd=planted.session",
        "no cookie before somebody signs in"
    );
    browser.sign_in(PARTNER, "jane", USER_SECRET);
    assert_ne!(browser.cookie, "tinyd=planted.session");
    assert!(browser.is_signed_in());
    // Neither is a session of the attacker's own: whoever signs in gets a new one.
    let attacker = Browser::of_user(&appliance, "mallory");
    let mut victim = attacker.clone();
    victim.sign_in(PARTNER, "jane", USER_SECRET);
    assert_ne!(victim.cookie, attacker.cookie);
    assert!(victim.get("/links").text().contains("<bdi>jane</bdi>"));
    let mut attacker = attacker;
    assert!(attacker.get("/links").text().contains("<bdi>mallory</bdi>"));
    let link = sign_in_link(&appliance, "jane", "0");
    let mut victim = attacker.clone();
    victim.post(&link, &[]);
    assert_ne!(victim.cookie, attacker.cookie);
    assert!(victim.get("/links").text().contains("<bdi>jane</bdi>"));
}

#[test]
fn changed_cookie_signs_nobody_in() {
    let appliance = Appliance::start();
    let browser = Browser::of_user(&appliance, "jane");
    let value = browser.cookie.strip_prefix("tinyd=").unwrap();
    let (text, mark) = value.split_once('.').unwrap();
    let sealed = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    assert!(sealed.contains("\"is_admin\":false"), "{sealed}");
    let promoted = BASE64_URL_SAFE_NO_PAD.encode(sealed.replace("false", "true"));
    let renamed = BASE64_URL_SAFE_NO_PAD.encode(sealed.replace("jane", "john"));
    let mut of_john = Browser::of_user(&appliance, "john");
    let of_john = of_john.token();
    for value in [
        format!("{promoted}.{mark}"),
        format!("{renamed}.{mark}"),
        format!("{promoted}."),
        promoted,
        format!("{text}."),
        format!("{text}.{mark}x"),
        format!("{text}.{of_john}"),
        format!(".{mark}"),
        "\"".to_owned(),
        "x".repeat(4000),
    ] {
        let mut changed = browser.clone();
        changed.cookie = format!("tinyd={value}");
        assert!(!changed.is_signed_in(), "{value}");
    }
    let mut intact = browser.clone();
    intact.cookie = format!("a=b; {}; c=d", browser.cookie);
    assert!(intact.is_signed_in());
}

#[test]
fn signing_out_ends_the_session_everywhere() {
    let mut appliance = Appliance::start();
    let mut here = Browser::of_user(&appliance, "jane");
    let copied = here.clone();
    let elsewhere = Browser::of_user(&appliance, "jane");
    let answer = here.submit("/sign-out", &[]);
    assert_eq!((answer.status, answer.header("location")), (303, "/console/sign-in"));
    assert_eq!(
        answer.header("set-cookie"),
        "tinyd=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"
    );
    assert_eq!(here.cookie, "");
    for is_restarted in [false, true] {
        if is_restarted {
            assert!(appliance.terminate().success());
            appliance.restart();
        }
        assert!(!copied.moved_to(&appliance).is_signed_in(), "restarted: {is_restarted}");
        // Sessions of other browsers survive it, and the restart.
        assert!(
            elsewhere.moved_to(&appliance).is_signed_in(),
            "restarted: {is_restarted}"
        );
    }
}

#[test]
fn deleted_key_ends_all_sessions() {
    let mut appliance = Appliance::start();
    let browser = Browser::of(&appliance, PARTNER, "jane", ADMIN_SECRET);
    assert!(appliance.terminate().success());
    std::fs::remove_file(appliance.folder.path().join("data/console.key")).unwrap();
    appliance.restart();
    assert!(!browser.moved_to(&appliance).is_signed_in());
}

#[test]
fn pages_without_a_session_set_no_cookie() {
    let appliance = Appliance::start();
    for path in [
        "",
        "/",
        "/sign-in",
        "/links",
        "/links/abcd",
        "/nowhere",
        "/assets/none.css",
    ] {
        let answer = Browser::new(&appliance).get(path);
        assert_eq!(answer.header("set-cookie"), "", "{path}");
    }
}
