//! Sessions: secrets, restrictions, expiry.

use std::fs;

use serde_json::{Value, json};

use rustix::process::Signal;

use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET, code, configuration};
use crate::support::http::request;

fn ks_error(result: &Value) -> String {
    assert_eq!(code(result), "INVALID_KS", "{result}");
    format!(
        "{} {}",
        result["args"]["ERR_CODE"].as_str().unwrap(),
        result["args"]["ERR_DESC"].as_str().unwrap()
    )
}

#[test]
fn each_secret_starts_only_its_session_types() {
    let appliance = Appliance::start();
    let start = |params: &[(&str, &str)]| {
        let params = [&[("format", "1")], params].concat();
        appliance.post("session", "start", &params).json()
    };
    for (secret, kind, starts) in [
        (ADMIN_SECRET, "2", true),
        (ADMIN_SECRET, "0", true),
        (ADMIN_SECRET, "", true),
        (USER_SECRET, "0", true),
        (USER_SECRET, "2", false),
        (ADMIN_SECRET, "1", false),
        (ADMIN_SECRET, "x", false),
        ("wrong", "2", false),
    ] {
        let result = start(&[("secret", secret), ("partnerId", PARTNER), ("type", kind)]);
        if starts {
            assert!(result.as_str().unwrap().starts_with("djJ8"), "{kind}");
        } else {
            assert_eq!(
                result["message"], "Error while starting session for partner [1234567]",
                "{kind}"
            );
        }
    }
    for partner in ["1", "99999999999", "-1", "x"] {
        assert_eq!(
            code(&start(&[("secret", ADMIN_SECRET), ("partnerId", partner)])),
            "START_SESSION_ERROR"
        );
    }
    assert_eq!(
        start(&[("partnerId", PARTNER)])["args"],
        json!({ "PARAM_NAME": "secret" })
    );
    assert_eq!(
        start(&[("secret", ADMIN_SECRET)])["args"],
        json!({ "PARAM_NAME": "partnerId" })
    );
    for expiry in ["0", "-1", "soon", "315360001"] {
        let params = [("secret", ADMIN_SECRET), ("partnerId", PARTNER), ("expiry", expiry)];
        assert_eq!(code(&start(&params)), "INVALID_PARAMETER_VALUE", "{expiry}");
    }
}

#[test]
fn guessing_secrets_is_rate_limited() {
    let appliance = Appliance::start();
    let start = |secret: &str| {
        let params = [
            ("format", "1"),
            ("secret", secret),
            ("partnerId", PARTNER),
            ("type", "2"),
        ];
        appliance.post("session", "start", &params).json()
    };
    for _ in 0..10 {
        assert_eq!(code(&start("wrong")), "START_SESSION_ERROR");
    }
    assert_eq!(
        code(&start(ADMIN_SECRET)),
        "START_SESSION_ERROR",
        "the right secret helps only after a minute"
    );
    let other = [
        ("format", "1"),
        ("secret", "of another partner"),
        ("partnerId", "7654321"),
        ("type", "2"),
    ];
    assert!(appliance.post("session", "start", &other).json().is_string());
}

#[test]
fn invalid_session_is_rejected_with_its_error_code() {
    let appliance = Appliance::start();
    let list = |ks: &str| appliance.link("list", ks, &[]);
    assert_eq!(code(&list("")), "MISSING_KS");
    let ks = appliance.admin_ks();
    let mut forged = ks.clone();
    let position = forged.len() / 2;
    let other = if forged.as_bytes()[position] == b'A' { "B" } else { "A" };
    forged.replace_range(position..=position, other);
    for bad in [
        forged.as_str(),
        "nonsense",
        "!!!!",
        "djJ8MTIzNDU2N3w",
        "ü",
        &"A".repeat(9000),
    ] {
        let result = list(bad);
        assert_eq!(ks_error(&result), "-1 INVALID_STR", "{bad}");
        let end = result["args"]["KSID"].as_str().unwrap();
        assert!(end.chars().count() <= 6 && bad.ends_with(end), "{end}");
    }
    let expired = appliance.tinyd(&["ks", "--partner", PARTNER, "--type", "admin", "--expiry", "1"]);
    let expired = String::from_utf8(expired.stdout).unwrap();
    crate::support::fixture::poll("the session's end", || code(&list(expired.trim())) == "INVALID_KS");
    assert_eq!(ks_error(&list(expired.trim())), "-5 EXPIRED");
}

#[test]
fn sessions_of_both_versions_are_accepted() {
    let appliance = Appliance::start();
    for version in ["1", "2"] {
        let args = [
            "ks",
            "--partner",
            PARTNER,
            "--user",
            "me",
            "--type",
            "user",
            "--ks-version",
            version,
        ];
        let ks = String::from_utf8(appliance.tinyd(&args).stdout).unwrap();
        let id = appliance.add(&ks, &[]);
        assert_eq!(appliance.link("get", ks.trim(), &[("id", &id)])["userId"], "me");
        assert_eq!(
            appliance.link("get", &ks.trim().replace('=', "%3D"), &[("id", &id)])["userId"],
            "me"
        );
    }
}

#[test]
fn ended_session_stays_ended() {
    let mut appliance = Appliance::start();
    let (ended, other) = (appliance.admin_ks(), appliance.admin_ks());
    let session = |user: &str| appliance.start_session(ADMIN_SECRET, user, "2", "sessionid:abc,edit:*");
    let (first, second) = (session("a"), session("b"));
    let answer = appliance.post("session", "end", &[("format", "1"), ("ks", &ended)]);
    assert_eq!(answer.text(), "null");
    appliance.call("session", "end", &first, &[]);
    for restarted in [false, true] {
        if restarted {
            assert!(appliance.terminate().success());
            appliance.restart();
        }
        for ks in [&ended, &first, &second] {
            assert_eq!(ks_error(&appliance.link("list", ks, &[])), "-6 LOGOUT");
        }
        assert_eq!(code(&appliance.link("list", &other, &[])), "");
    }
    // A session started later with the same session ID is ended too.
    let later = appliance.start_session(ADMIN_SECRET, "c", "2", "sessionid:abc");
    assert_eq!(ks_error(&appliance.link("list", &later, &[])), "-6 LOGOUT");
}

#[test]
fn session_restrictions_are_checked_in_specified_order() {
    let mut appliance = Appliance::start();
    let session = |privileges: &str| appliance.start_session(ADMIN_SECRET, "me", "2", privileges);
    let here = session("iprestrict:127.0.0.1");
    let away = session("iprestrict:192.0.2.1,urirestrict:/nowhere,actionslimit:0");
    let elsewhere = session("urirestrict:/nowhere*|/else,actionslimit:0");
    let lists_only = session("urirestrict:/api_v3/service/shortlink_shortlink/action/list*");
    let twice = session("actionslimit:2");
    let list = |appliance: &Appliance, ks: &str| appliance.link("list", ks, &[]);
    assert_eq!(code(&list(&appliance, &here)), "");
    assert_eq!(ks_error(&list(&appliance, &away)), "-9 EXCEEDED_RESTRICTED_IP");
    assert_eq!(ks_error(&list(&appliance, &elsewhere)), "-11 EXCEEDED_RESTRICTED_URI");
    assert_eq!(code(&list(&appliance, &lists_only)), "");
    assert_eq!(
        ks_error(&appliance.link("get", &lists_only, &[("id", "abcd")])),
        "-11 EXCEEDED_RESTRICTED_URI"
    );
    // Text appended to the URI reaches no other action.
    let id = appliance.add(&here, &[]);
    let appended = format!(
        "/api_v3/service/shortlink_shortlink/action/list/action/delete/id/{id}?format=1&action=delete&ks={}",
        crate::support::http::encode(&lists_only)
    );
    assert_eq!(appliance.get_admin(&appended).json()["totalCount"], 1);
    let by_query = session("urirestrict:/api_v3/?service=shortlink_shortlink&action=list*");
    let appended = format!(
        "/api_v3/?service=shortlink_shortlink&action=list&format=1&action=delete&id={id}&ks={}",
        crate::support::http::encode(&by_query)
    );
    assert_eq!(appliance.get_admin(&appended).json()["totalCount"], 1);
    assert_eq!(appliance.goto(&id).status, 302);
    assert_eq!(code(&list(&appliance, &twice)), "");
    // A restart does not reset the count of actions.
    appliance.kill();
    appliance.restart();
    assert_eq!(code(&list(&appliance, &twice)), "");
    assert_eq!(ks_error(&list(&appliance, &twice)), "-8 EXCEEDED_ACTIONS_LIMIT");
}

#[test]
fn each_call_of_a_multirequest_counts_as_an_action() {
    let appliance = Appliance::start();
    let twice = appliance.start_session(ADMIN_SECRET, "me", "2", "actionslimit:2");
    let form = (1..=3)
        .map(|n| format!("&{n}:service=shortlink_shortlink&{n}:action=list"))
        .collect::<String>();
    let form = format!("format=1&ks={}{form}", crate::support::http::encode(&twice));
    let answer = request(
        &appliance.admin,
        "POST",
        "/api_v3/service/multirequest",
        &[],
        form.as_bytes(),
    );
    let results = answer.json();
    assert_eq!((code(&results[0]), code(&results[1])), ("", ""));
    assert_eq!(ks_error(&results[2]), "-8 EXCEEDED_ACTIONS_LIMIT");
}

/// Every format must be able to represent the owner of a link.
#[test]
fn session_with_an_unwritable_user_is_rejected() {
    let appliance = Appliance::start();
    let minted = appliance.tinyd(&["ks", "--partner", PARTNER, "--user", "a\u{1}b"]);
    let ks = String::from_utf8(minted.stdout).unwrap();
    let link = [
        ("shortLink[systemName]", "NAME"),
        ("shortLink[fullUrl]", "https://example.com/"),
    ];
    assert_eq!(code(&appliance.link("add", ks.trim(), &link)), "INVALID_PARAMETER_CHAR");
}

#[test]
fn sighup_rotates_secrets_and_ignores_a_bad_file() {
    let appliance = Appliance::start();
    let old = appliance.admin_ks();
    let rotated = configuration("").replace(
        &format!("admin_secret = \"{ADMIN_SECRET}\""),
        &format!("admin_secret = [\"a new secret 0123456789\", \"{ADMIN_SECRET}\"]"),
    );
    fs::write(appliance.config(), &rotated).unwrap();
    appliance.signal(Signal::HUP);
    appliance.wait_for_log("configuration reloaded");
    let new = appliance.start_session("a new secret 0123456789", "admin", "2", "");
    assert_eq!(code(&appliance.link("list", &old, &[])), "");
    assert_eq!(code(&appliance.link("list", &new, &[])), "");

    fs::write(appliance.config(), rotated.replace("id = 1234567", "id = \"x\"")).unwrap();
    appliance.signal(Signal::HUP);
    appliance.wait_for_log("keeping the running settings");
    assert!(appliance.log().contains("partner[0].id"), "{}", appliance.log());
    assert_eq!(code(&appliance.link("list", &new, &[])), "");

    let without_old = rotated.replace(&format!(", \"{ADMIN_SECRET}\""), "");
    fs::write(
        appliance.config(),
        format!("[public]\ntiny = \"direct\"\n{without_old}"),
    )
    .unwrap();
    appliance.signal(Signal::HUP);
    appliance.wait_for_log("restart to apply it");
    crate::support::fixture::poll("the old secret's end", || {
        code(&appliance.link("list", &old, &[])) == "INVALID_KS"
    });
    assert_eq!(ks_error(&appliance.link("list", &old, &[])), "-1 INVALID_STR");
    assert_eq!(code(&appliance.link("list", &new, &[])), "");
}

#[test]
fn log_contains_no_session() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    appliance.add(&ks, &[]);
    appliance.link("list", &format!("{ks}x"), &[]);
    let target = format!("/api_v3/service/shortlink_shortlink/action/list?ks={ks}");
    request(&appliance.admin, "GET", &target, &[], b"");
    request(&appliance.public, "GET", &target, &[], b"");
    request(
        &appliance.admin,
        "GET",
        &format!("/api_v3/service/system/action/{ks}"),
        &[],
        b"",
    );
    let log = appliance.log();
    assert!(log.contains("shortlink_shortlink"), "the log is on");
    assert!(!log.contains(&ks[..ks.len() - 6]), "{log}");
}

#[test]
fn guessing_secrets_does_not_flood_the_log() {
    let appliance = Appliance::start();
    for _ in 0..30 {
        let wrong = [("secret", "wrong"), ("partnerId", PARTNER), ("format", "1")];
        let answer = appliance.post("session", "start", &wrong);
        assert_eq!(code(&answer.json()), "START_SESSION_ERROR");
    }
    let told = appliance
        .log()
        .matches("too many failed attempts to start a session")
        .count();
    assert_eq!(told, 1, "{}", appliance.log());
}
