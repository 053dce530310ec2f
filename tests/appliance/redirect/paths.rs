//! Paths with empty segments and percent-encoded IDs.

use crate::support::fixture::{Appliance, PARTNER};
use crate::support::http::request;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
const ADMIN_SECRET: &str = crate::support::fixture::ADMIN_SECRET;

#[test]
fn empty_path_segments_are_ignored() {
    for tiny in ["hop", "direct"] {
        let appliance = Appliance::start_with(&format!("[public]\ntiny = \"{tiny}\"\n"));
        let id = appliance.add(&appliance.admin_ks(), &[]);
        for base in [&appliance.public, &appliance.admin] {
            for method in ["GET", "HEAD"] {
                let answer = |target: &str| {
                    let answer = request(base, method, target, &[], b"");
                    (answer.status, answer.header("location").to_owned())
                };
                for (plain, others) in [
                    (
                        format!("/tiny/{id}"),
                        [
                            format!("//tiny/{id}"),
                            format!("/tiny//{id}"),
                            format!("///tiny////{id}?utm_source=x"),
                        ],
                    ),
                    (
                        format!("{GOTO}{id}"),
                        [
                            format!("/{GOTO}{id}"),
                            format!("{}//{id}", GOTO.replace("/service", "//service")),
                            format!("//api_v3//index.php?service=shortlink_shortlink&action=goto&id={id}"),
                        ],
                    ),
                ] {
                    let expected = answer(&plain);
                    assert!(matches!(expected.0, 301 | 302), "{expected:?}");
                    for other in others {
                        assert_eq!(answer(&other), expected, "{method} {other}");
                    }
                }
            }
            assert_eq!(request(base, "GET", "//robots.txt", &[], b"").status, 200);
        }
        for target in ["//healthz", "//readyz", "//metrics", "//status"] {
            assert_eq!(appliance.get_admin(target).status, 200, "{target}");
            assert_eq!(appliance.get_public(target).status, 404, "{target}");
        }
    }
}

#[test]
fn service_url_with_a_trailing_slash_works() {
    let appliance = Appliance::start();
    for target in [
        "//api_v3/service/system/action/ping?format=1",
        "///api_v3//service//system///action//ping?format=1",
        "//api_v3/index.php?service=system&action=ping&format=1",
        "//api_v3//index.php//service/system/action/ping/format/1",
    ] {
        assert_eq!(appliance.get_admin(target).text(), "true", "{target}");
        let refused = appliance.get_public(&format!("{target}&ks="));
        assert_eq!(refused.header("x-kaltura"), "error-SERVICE_FORBIDDEN", "{target}");
    }
    // A restriction covers the same URI with any number of slashes.
    let list = "/api_v3/service/shortlink_shortlink/action/list";
    let ks = appliance.start_session(ADMIN_SECRET, "", "2", &format!("urirestrict:{list}*"));
    for (target, is_allowed) in [
        (list.to_owned(), true),
        (format!("/{}", list.replace("/action", "//action")), true),
        (list.replace("list", "get"), false),
        (format!("/{}", list.replace("list", "/get")), false),
    ] {
        let ks = crate::support::http::encode(&ks);
        let answer = appliance.get_admin(&format!("{target}?format=1&id=zzzz&partnerId={PARTNER}&ks={ks}"));
        assert_eq!(
            answer.json()["code"] != "INVALID_KS",
            is_allowed,
            "{target}: {answer:?}"
        );
    }
}

#[test]
fn no_path_redirects_to_another_host() {
    for tiny in ["hop", "direct"] {
        let appliance = Appliance::start_with(&format!("[public]\ntiny = \"{tiny}\"\n"));
        for target in [
            "//evil.example",
            "//evil.example/tiny/abcd",
            "//evil.example/api_v3/service/shortlink_shortlink/action/goto/id/abcd",
            "/tiny//evil.example",
            "/tiny///evil.example/",
            "/tiny/%2F%2Fevil.example",
            "/tiny/abcd/extra",
            "/tiny/extra/abcd",
            "/tiny",
            "//tiny//",
        ] {
            for base in [&appliance.public, &appliance.admin] {
                let answer = request(base, "GET", target, &[], b"");
                assert_eq!((answer.status, answer.header("location")), (404, ""), "{target}");
            }
        }
    }
}

#[test]
fn percent_encoded_ids_are_decoded_everywhere() {
    for tiny in ["hop", "direct"] {
        let appliance = Appliance::start_with(&format!("[public]\ntiny = \"{tiny}\"\nforgiving = false\n"));
        let id = appliance.add(&appliance.admin_ks(), &[]);
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let first = format!("%{:02X}{}", id.as_bytes()[0], &id[1..]);
        for base in [&appliance.public, &appliance.admin] {
            for path in ["/tiny/", GOTO] {
                let plain = request(base, "GET", &format!("{path}{id}"), &[], b"");
                for written in [&encoded, &first] {
                    let answer = request(base, "GET", &format!("{path}{written}"), &[], b"");
                    assert_eq!(answer.status, plain.status, "{path}{written}");
                    assert_eq!(answer.header("location"), plain.header("location"), "{path}{written}");
                }
            }
        }
    }
}
