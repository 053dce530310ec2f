//! What a partner allows: docs/configuration.md#partners.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::fixture::{Appliance, PARTNER, code, configuration, folder};
use crate::support::transfer::told;

/// A configuration in which the first partner has these keys.
fn configured(keys: &str) -> String {
    let partner = format!("id = {PARTNER}\n");
    configuration("").replacen(&partner, &format!("{partner}{keys}\n"), 1)
}

fn add(appliance: &Appliance, ks: &str, url: &str) -> Value {
    let fields = [("shortLink[systemName]", "NAME"), ("shortLink[fullUrl]", url)];
    appliance.link("add", ks, &fields)
}

#[test]
fn destinations_have_the_hosts_that_a_partner_allows() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let old = appliance.add(&ks, &[]);
    let keys = "destination_hosts = [\"*.example.org\", \"München.example\"]";
    fs::write(appliance.config(), configured(keys)).unwrap();
    appliance.signal(Signal::HUP);
    appliance.wait_for_log("configuration reloaded");

    for ks in [&ks, &appliance.user_ks("me")] {
        let refused = add(&appliance, ks, "https://www.example.org@evil.example/");
        assert_eq!(code(&refused), "DESTINATION_HOST_NOT_ALLOWED");
        assert_eq!(refused["args"]["HOST"], "evil.example");
        assert_eq!(refused["args"]["ALLOWED"], "*.example.org, xn--mnchen-3ya.example");
    }
    let message = "Short links to host [example.com] are not allowed, expected one of \
                   [*.example.org, xn--mnchen-3ya.example]";
    let update = |fields: &[(&str, &str)]| appliance.link("update", &ks, &[&[("id", old.as_str())], fields].concat());
    let refused = update(&[("shortLink[fullUrl]", "https://example.com/other")]);
    assert_eq!(refused["message"], message);
    // The link keeps its own destination.
    let same = update(&[
        ("shortLink[fullUrl]", "https://example.com/video"),
        ("shortLink[name]", "new"),
    ]);
    assert_eq!(same["name"], "new");
    assert_eq!(appliance.goto(&old).status, 302);
    for url in [
        "https://WWW.example.org:8443/",
        "https://xn--mnchen-3ya.example/",
        "https://münchen.example/",
    ] {
        assert_eq!(code(&add(&appliance, &ks, url)), "", "{url}");
    }
    // Another partner allows any.
    assert_eq!(
        code(&add(
            &appliance,
            &appliance.other_partners_ks(),
            "https://evil.example/"
        )),
        ""
    );

    let file = appliance.folder.path().join("links.jsonl");
    let line = "{\"id\":\"abcd\",\"systemName\":\"NAME\",\"fullUrl\":\"https://evil.example/\"}\n";
    fs::write(&file, line).unwrap();
    let reason = "fullUrl: links to host evil.example are not allowed (expected one of \
                  *.example.org, xn--mnchen-3ya.example)";
    let import = ["import", file.to_str().unwrap(), "--partner", PARTNER];
    let refused = appliance.tinyd(&import);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(complaint.contains(&format!("line 1: {reason}\n")), "{complaint}");
    // Whoever may write the file of a store may do anything with it.
    let store = appliance.folder.path().join("offline.redb");
    let imported = appliance.tinyd(&[&import[..], &["--store", store.to_str().unwrap()]].concat());
    assert!(told(&imported, 0).starts_with("1 added"));
    let warning = format!("line 1: warning: {reason}; add would refuse it, the import keeps it\n");
    assert_eq!(String::from_utf8_lossy(&imported.stderr), warning);
    let check = told(&appliance.tinyd(&["check"]), 0);
    let setting = "partner.destination_hosts = *.example.org xn--mnchen-3ya.example";
    assert!(check.contains(setting), "{check}");
}

#[test]
fn users_add_as_many_links_a_day_as_a_partner_allows() {
    let appliance = Appliance::start_in(folder(&configured("links_per_user_and_day = 2")));
    let url = "https://example.com/";
    let ks = appliance.user_ks("me");
    let codes: Vec<_> = (0..3).map(|_| code(&add(&appliance, &ks, url)).to_owned()).collect();
    assert_eq!(codes, ["", "", "LINKS_PER_DAY_EXCEEDED"]);
    let refused = add(&appliance, &ks, url);
    assert_eq!(
        (&refused["args"]["USER_ID"], &refused["args"]["LIMIT"]),
        (&"me".into(), &"2".into())
    );
    let message = "User [me] has added 2 short links today, no more are allowed before midnight (UTC)";
    assert_eq!(refused["message"], message);
    assert_eq!(code(&add(&appliance, &appliance.user_ks("you"), url)), "");
    assert_eq!(code(&add(&appliance, &appliance.user_ks(""), url)), "INVALID_USER_ID");
    let admin = appliance.admin_ks();
    assert_eq!(
        code(&appliance.link(
            "add",
            &admin,
            &[
                ("shortLink[systemName]", "NAME"),
                ("shortLink[fullUrl]", url),
                ("shortLink[userId]", "me"),
            ]
        )),
        ""
    );
}
