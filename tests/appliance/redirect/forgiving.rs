//! Changes that people and chat programs make to links: a trailing full stop, capitals, blanks.

use crate::support::fixture::Appliance;
use crate::support::http::{Answer, request};
use crate::support::scrape::Scrape;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
const GOTO_BY_QUERY: &str = "/api_v3/index.php?service=shortLink_shortLink&action=goto&id=";

/// Variants of an ID from a chat, a printed page or a phone keyboard.
fn written(id: &str) -> Vec<String> {
    let around = [
        ("", "."),
        ("", ","),
        ("", ")"),
        ("", ")."),
        ("", "]"),
        ("", "*"),
        ("", "_"),
        ("", "!"),
        ("", "'"),
        ("", ";"),
        ("", ":"),
        ("", "~"),
        ("", "%22"),
        ("", "%3E"),
        ("", ">"),
        ("", "<"),
        ("", "`"),
        ("", "%20"),
        ("", "%0A"),
        ("", "%C2%A0"),
        ("", "%E2%80%9D"),
        ("", "%E2%80%A6"),
        ("", "%E2%80%8B"),
        ("", "%FF"),
        ("", "/"),
        ("", "//"),
        ("", "%2520"),
        ("%20", ""),
        ("%20", "%20"),
        ("(", ")"),
        ("%E2%80%9C", "%E2%80%9D"),
        ("%3C", "%3E."),
    ];
    let mut all: Vec<_> = around
        .iter()
        .map(|(before, after)| format!("{before}{id}{after}"))
        .collect();
    all.push(id.to_ascii_uppercase());
    all.push(format!("{}).", id.to_ascii_uppercase()));
    all
}

/// A response without the parts that change each second.
fn said(mut answer: Answer) -> Answer {
    answer.headers.remove("date");
    answer
}

fn assert_same(answer: Answer, expected: &Answer, what: &str) {
    let answer = said(answer);
    assert_eq!(
        (answer.status, &answer.headers, &answer.body),
        (expected.status, &expected.headers, &expected.body),
        "{what}"
    );
}

#[test]
fn foreign_characters_are_stripped_after_a_miss() {
    for tiny in ["hop", "direct"] {
        let appliance = Appliance::start_with(&format!("[public]\ntiny = \"{tiny}\"\n"));
        let ks = appliance.admin_ks();
        let deleted = appliance.add(&ks, &[]);
        appliance.link("delete", &ks, &[("id", &deleted)]);
        let ids = [
            appliance.add(&ks, &[("shortLink[fullUrl]", "https://example.com/one")]),
            appliance.add(&ks, &[("shortLink[status]", "1")]),
            appliance.add(&ks, &[("shortLink[expiresAt]", "1000")]),
            deleted,
        ];
        for id in &ids {
            for path in ["/tiny/", GOTO, GOTO_BY_QUERY] {
                for method in ["GET", "HEAD"] {
                    for accept in ["*/*", "text/html"] {
                        let headers = [("Accept", accept)];
                        let ask = |base, id: &str| request(base, method, &format!("{path}{id}"), &headers, b"");
                        let expected = said(ask(&appliance.public, id));
                        for id in written(id) {
                            let what = format!("{tiny}: {method} {path}{id}");
                            assert_same(ask(&appliance.public, &id), &expected, &what);
                            // The admin listener has no fast path.
                            assert_same(ask(&appliance.admin, &id), &expected, &what);
                        }
                    }
                }
            }
            let form = [("id", format!("{}.", id.to_ascii_uppercase()))];
            let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let expected = said(appliance.post("shortlink_shortlink", "goto", &[("id", id)]));
            assert_same(appliance.post("shortlink_shortlink", "goto", &form), &expected, id);
        }
    }
}

#[test]
fn forgiving_changes_no_response_of_an_unknown_id() {
    let forgiving = Appliance::start();
    let strict = Appliance::start_with("[public]\nforgiving = false\n");
    let ks = [forgiving.admin_ks(), strict.admin_ks()];
    let line = r#"{"id":"abcdefgh","systemName":"NAME","fullUrl":"https://example.com/"}"#;
    for (appliance, ks) in [&forgiving, &strict].into_iter().zip(&ks) {
        let file = appliance.folder.path().join("links.jsonl");
        std::fs::write(&file, line).unwrap();
        assert!(
            appliance
                .tinyd(&[
                    "import",
                    "--partner",
                    crate::support::fixture::PARTNER,
                    file.to_str().unwrap()
                ])
                .status
                .success()
        );
        assert_eq!(appliance.goto("abcdefgh").status, 302, "{ks}");
    }
    for id in [
        "zzzzzzzz.",
        "ZZZZZZZZ",
        "abcdefgh/extra",
        "extra/abcdefgh",
        "abcdefgh.html",
        "abcd%20efgh",
        "abcdefg.",
        "abc.",
        "....",
        "%20",
        "abcdefghi)",
        "abcdefghabcdefghabcdefgh.",
    ] {
        for path in ["/tiny/", GOTO_BY_QUERY] {
            let target = format!("{path}{id}");
            let expected = said(strict.get_public(&target));
            assert_eq!(expected.status, 404, "{target}");
            assert_same(forgiving.get_public(&target), &expected, &target);
            assert_same(forgiving.get_admin(&target), &expected, &target);
        }
    }
    // When off, an unknown ID is looked up once.
    for target in [
        "/tiny/abcdefgh.",
        "/tiny/ABCDEFGH",
        "/tiny/abcdefgh%20",
        "/tiny/abcdefgh/",
        "/tiny/abcdefgh&gt;",
        "/TINY/ABCDEFGH",
        "/Tiny/abcdefgh",
    ] {
        assert_eq!(strict.get_public(target).status, 404, "{target}");
        let found = forgiving.get_public(target);
        assert_eq!(
            (found.status, found.header("location")),
            (301, &*format!("{GOTO}abcdefgh")),
            "{target}"
        );
    }
}

#[test]
fn forgiving_lookup_is_one_guess() {
    for (tiny, path) in [("hop", "/tiny/"), ("direct", "/tiny/"), ("hop", GOTO)] {
        let appliance = Appliance::start_with(&format!(
            "[public]\ntiny = \"{tiny}\"\nmax_guesses_per_minute = 10\ntrusted_proxies = \"127.0.0.1\"\n"
        ));
        let id = appliance.add(&appliance.admin_ks(), &[]);
        let ask = |id: &str, client: &str| {
            let headers = [("X-Forwarded-For", client)];
            request(&appliance.public, "GET", &format!("{path}{id}"), &headers, b"").status
        };
        // All variants of one ID are one guess.
        for number in 0..100 {
            let client = "203.0.113.7";
            assert_eq!(ask(&format!("MISPRINT{}", ".".repeat(number % 5 + 1)), client), 404);
        }
        let statuses: Vec<_> = (0..20)
            .map(|number| ask(&format!("GUESS{number}."), "203.0.113.8"))
            .collect();
        let allowed = statuses.iter().take_while(|status| **status == 404).count();
        assert_eq!(allowed, 10, "{statuses:?}");
        assert!(statuses[10..].iter().all(|status| *status == 429), "{statuses:?}");
        // A client that is shut out finds no variant either; others do.
        assert_eq!(ask(&format!("{id}."), "203.0.113.8"), 429, "{tiny} {path}");
        assert!(
            matches!(ask(&format!("{id}."), "203.0.113.9"), 301 | 302),
            "{tiny} {path}"
        );
        let refused = Scrape::of(&appliance).get("tinyd_redirects_total{outcome=\"refused\"}");
        assert!(refused >= 11.0, "{refused}");
    }
}
