//! Destinations that new links may not have, and existing links that have them.

use std::fs;

use serde_json::Value;

use crate::support::fixture::{Appliance, code, tinyd};

const AMBIGUOUS: &str = "https://example.com\\@evil.example/";

fn add(appliance: &Appliance, ks: &str, url: &str) -> Value {
    let params = [("shortLink[systemName]", "NAME"), ("shortLink[fullUrl]", url)];
    appliance.link("add", ks, &params)
}

/// Imports links to these destinations, with IDs from `aaaa0` on, and returns the command's standard error.
fn import(appliance: &Appliance, urls: &[&str], args: &[&str]) -> String {
    let lines = urls.iter().enumerate().map(|(number, url)| {
        let link = serde_json::json!({ "id": format!("aaaa{number}"), "systemName": "NAME", "fullUrl": url });
        format!("{link}\n")
    });
    let file = appliance.folder.path().join("links.jsonl");
    fs::write(&file, lines.collect::<String>()).unwrap();
    let imported = appliance.tinyd(&[&["import", file.to_str().unwrap(), "--partner", "1234567"], args].concat());
    let complaints = String::from_utf8(imported.stderr).unwrap();
    assert!(imported.status.success(), "{complaints}");
    complaints
}

#[test]
fn destination_with_two_hosts_is_rejected() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    for url in [
        AMBIGUOUS,
        "https://a@example.com@evil.example/",
        "https://ex%61mple.com/",
        "https://example\u{3002}com/",
    ] {
        let refused = add(&appliance, &ks, url);
        assert_eq!(code(&refused), "PROPERTY_VALIDATION_WRONG_FORMAT", "{url}");
        let reason = refused["message"].as_str().unwrap();
        assert!(reason.contains("disagree about which host"), "{reason}");
        let refused = appliance.link("update", &ks, &[("id", &id), ("shortLink[fullUrl]", url)]);
        assert_eq!(code(&refused), "PROPERTY_VALIDATION_WRONG_FORMAT", "{url}");
    }
    assert_eq!(appliance.goto(&id).header("location"), "https://example.com/video");
}

#[test]
fn rendered_location_is_bounded() {
    // Twenty bytes, and three for each encoded byte of a letter.
    let url = |letters: usize| format!("https://example.com/{}", "ü".repeat(letters));
    for (setting, longest) in [("", 1_362), ("[links]\nmax_destination_bytes = 1024\n", 167)] {
        let appliance = Appliance::start_with(setting);
        let ks = appliance.admin_ks();
        let id = appliance.add(&ks, &[("shortLink[fullUrl]", &url(longest))]);
        let location = appliance.goto(&id).header("location").to_owned();
        assert_eq!(location.len(), 20 + 6 * longest);
        let refused = add(&appliance, &ks, &url(longest + 1));
        assert_eq!(code(&refused), "PROPERTY_VALIDATION_MAX_LENGTH");
        let params = [("id", id.as_str()), ("shortLink[fullUrl]", &url(longest + 1))];
        let refused = appliance.link("update", &ks, &params);
        assert_eq!(code(&refused), "PROPERTY_VALIDATION_MAX_LENGTH");
        assert_eq!(appliance.goto(&id).header("location"), location);
    }
}

#[test]
fn destination_that_is_our_own_short_link_is_rejected() {
    let appliance = Appliance::start_with("[public]\nurl = \"https://Go.Example.com\"\n");
    let ks = appliance.admin_ks();
    let goto = "/api_v3/service/shortlink_shortlink/action/goto/id/abcd";
    for (base, is_own) in [
        ("https://go.example.com", true),
        ("http://GO.EXAMPLE.COM", true),
        ("https://go.example.com.", true),
        ("https://go.example.com:443", true),
        ("https://user:pw@go.example.com", true),
        (&appliance.public.replace("127.0.0.1", "go.example.com"), true),
        (&appliance.public, true),
        (&appliance.public.replace("127.0.0.1", "localhost"), true),
        ("https://go.example.com:8443", false),
        ("https://other.example.com", false),
        ("https://go.example.com.example", false),
        (&appliance.admin, false),
    ] {
        for path in [
            "/tiny/abcd",
            "//tiny/abcd",
            "/tiny//abcd/",
            "/x/../tiny/abcd",
            "/x/%2e%2e/tiny/abcd",
            "/%74iny/ab%63d?x=y#z",
            "/\\tiny\\abcd",
            "/TINY/abcd",
            goto,
            &goto.replace('/', "//"),
            &format!("{goto}/proxy/true"),
            "/api_v3/index.php/service/shortlink_shortlink/action/goto/id/abcd",
            "/api_v3/?service=shortlink_shortlink&action=goto&id=abcd",
            "/api_v3/index.php?id=abcd&action=GoTo&service=ShortLink%5fShortLink",
            "/api_v3?%73ervice=shortlink_shortlink&action=goto&id=abcd",
            "/api_v3/service/shortlink%5Fshortlink/action/goto?id=abcd",
        ] {
            let link = add(&appliance, &ks, &format!("{base}{path}"));
            let expected = if is_own { "PROPERTY_VALIDATION_WRONG_FORMAT" } else { "" };
            assert_eq!(code(&link), expected, "{base}{path}");
            let reason = link["message"].as_str().unwrap_or("in a circle");
            assert!(reason.contains("in a circle"), "{reason}");
        }
        // Other pages of the host are allowed.
        for path in [
            "/",
            "/tiny",
            "/tinyx/abcd",
            "/x/tiny/abcd",
            "/api_v3/service/system/action/ping",
        ] {
            assert_eq!(
                code(&add(&appliance, &ks, &format!("{base}{path}"))),
                "",
                "{base}{path}"
            );
        }
    }
}

#[test]
fn own_short_link_behind_a_proxy_path_is_rejected() {
    let appliance = Appliance::start_with("[public]\nurl = \"https://example.com/go/\"\n");
    let ks = appliance.admin_ks();
    let refused = add(&appliance, &ks, "https://example.com/go/tiny/abcd");
    assert_eq!(code(&refused), "PROPERTY_VALIDATION_WRONG_FORMAT");
    assert_eq!(code(&add(&appliance, &ks, "https://example.com/other/tiny/abcd")), "");
}

#[test]
fn import_warns_about_destinations_that_add_rejects() {
    let appliance = Appliance::start_with("[public]\nurl = \"https://go.example.com\"\n");
    let ks = appliance.admin_ks();
    let long = format!("https://example.com/{}", "ü".repeat(4_000));
    let urls = [
        "https://example.com/",
        AMBIGUOUS,
        &long,
        "https://a@b@example.com/",
        "https://go.example.com/tiny/abcd",
    ];
    for args in [&["--dry-run"][..], &[]] {
        let complaints = import(&appliance, &urls, args);
        assert!(!complaints.contains("line 1:"), "{complaints}");
        for (line, why) in [
            (2, "disagree about which host"),
            (
                3,
                "24020 bytes is longer than links.max_destination_bytes allows (8192)",
            ),
            (4, "disagree about which host"),
            (5, "in a circle"),
        ] {
            let warning = complaints
                .lines()
                .find(|text| text.starts_with(&format!("line {line}: warning: fullUrl: ")));
            let warning = warning.unwrap_or_else(|| panic!("{line}: {complaints}"));
            assert!(
                warning.contains(why) && warning.ends_with("the import keeps it"),
                "{warning}"
            );
        }
    }
    for (id, location) in [
        ("aaaa1", "https://example.com/@evil.example/".to_owned()),
        ("aaaa2", long.replace('ü', "%C3%BC")),
        ("aaaa3", "https://a%40b@example.com/".to_owned()),
        ("aaaa4", urls[4].to_owned()),
    ] {
        let answer = appliance.goto(id);
        assert_eq!((answer.status, answer.header("location")), (302, location.as_str()));
    }
    // A client may send the whole link back with one field changed.
    for (number, url) in urls.iter().enumerate().take(5).skip(1) {
        let id = format!("aaaa{number}");
        let params = [
            ("id", id.as_str()),
            ("shortLink[fullUrl]", url),
            ("shortLink[name]", "new"),
        ];
        let updated = appliance.link("update", &ks, &params);
        assert_eq!(
            (updated["name"].as_str(), updated["fullUrl"].as_str()),
            (Some("new"), Some(*url))
        );
    }
    // Browsers parse it differently after a round trip.
    let id = "aaaa1";
    let params = [
        ("id", id),
        ("shortLink[fullUrl]", "https://example.com\\@other.example/"),
    ];
    assert_eq!(
        code(&appliance.link("update", &ks, &params)),
        "PROPERTY_VALIDATION_WRONG_FORMAT"
    );
}

#[test]
fn offline_import_warns_about_destinations_too() {
    let folder = tempfile::tempdir().unwrap();
    let (file, store) = (folder.path().join("links.jsonl"), folder.path().join("links.redb"));
    let link = serde_json::json!({ "id": "abcd", "systemName": "NAME", "fullUrl": AMBIGUOUS });
    fs::write(&file, format!("{link}\n")).unwrap();
    let mut command = tinyd();
    command.current_dir(folder.path());
    command.args(["import", "links.jsonl", "--partner", "1", "--json", "--store"]);
    let imported = command.arg(&store).output().unwrap();
    let complaints = String::from_utf8(imported.stderr).unwrap();
    assert!(complaints.contains("line 1: warning: fullUrl: "), "{complaints}");
    let report: Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert_eq!(
        (report["added"].as_u64(), report["warned"].as_u64()),
        (Some(1), Some(1))
    );
}
