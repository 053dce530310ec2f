//! The start of a link, which Kaltura's API does not have.

use serde_json::{Value, json};

use crate::support::fixture::{Appliance, code};

const WITH: (&str, &str) = ("withStartsAt", "1");

/// Without its execution time.
fn answer(appliance: &Appliance, action: &str, params: &[(&str, &str)]) -> String {
    let text = appliance.post("shortlink_shortlink", action, params).text().to_owned();
    text.split("<executionTime>").next().unwrap().to_owned()
}

#[test]
fn objects_have_a_start_only_on_request() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let plain = appliance.add(&ks, &[]);
    let id = appliance.add(&ks, &[("shortLink[startsAt]", "1000")]);
    for format in ["1", "2", "3"] {
        for (action, id) in [("get", &id), ("get", &plain), ("update", &id), ("list", &id)] {
            let base = [
                ("format", format),
                ("ks", ks.as_str()),
                ("id", id),
                ("shortLink[systemName]", "CODE"),
            ];
            let before = answer(&appliance, action, &base);
            assert!(!before.contains("startsAt"), "{before}");
            for off in ["0", "false", ""] {
                assert_eq!(
                    answer(&appliance, action, &[&base[..], &[("withStartsAt", off)]].concat()),
                    before
                );
            }
            let with = answer(&appliance, action, &[&base[..], &[WITH]].concat());
            // JSON and PHP leave out what is null.
            assert_eq!(with.contains("startsAt"), format == "2" || *id != plain, "{with}");
        }
    }
    let both = appliance.link("get", &ks, &[("id", &id), WITH, ("withClicks", "1")]);
    assert_eq!((&both["startsAt"], &both["clicks"]), (&json!(1000), &json!(0)));
    let listed = appliance.link("list", &ks, &[WITH, ("withClicks", "1"), ("filter[idIn]", &id)]);
    let listed = &listed["objects"][0];
    assert_eq!((&listed["startsAt"], &listed["clicks"]), (&json!(1000), &json!(0)));
    for action in ["delete", "restore"] {
        assert_eq!(
            appliance.link(action, &ks, &[("id", &id), WITH])["startsAt"],
            1000,
            "{action}"
        );
    }
    for action in ["add", "get", "list", "update", "delete", "restore"] {
        let wrong = [
            ("id", id.as_str()),
            ("withStartsAt", "perhaps"),
            ("shortLink[name]", "x"),
        ];
        let wrong = appliance.link(action, &ks, &wrong);
        assert_eq!(wrong["args"]["PARAM_NAME"], "withStartsAt", "{action}: {wrong}");
    }
}

#[test]
fn update_keeps_moves_or_clears_the_start() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[("shortLink[startsAt]", "4000000000")]);
    let update =
        |name: &str, value: &str| -> Value { appliance.link("update", &ks, &[("id", &id), (name, value), WITH]) };
    assert_eq!(update("shortLink[name]", "new")["startsAt"], 4_000_000_000_i64);
    assert_eq!(
        update("shortLink[expiresAt]", "4000000001")["startsAt"],
        4_000_000_000_i64
    );
    for (name, value) in [
        ("shortLink[expiresAt]", "4000000000"),
        ("shortLink[startsAt]", "4000000002"),
    ] {
        let refused = update(name, value);
        assert_eq!(code(&refused), "INVALID_PARAMETER_VALUE", "{refused}");
        assert_eq!(refused["args"]["PARAM_NAME"], "shortLink:startsAt");
        assert!(
            refused["args"]["REASON"]
                .as_str()
                .unwrap()
                .contains("is not before expiresAt"),
            "{refused}"
        );
    }
    // Without WITH, the client does not see the start.
    let ended = appliance.link("update", &ks, &[("id", &id), ("shortLink[expiresAt]", "3999999999")]);
    assert_eq!(ended["expiresAt"], 3_999_999_999_i64, "{ended}");
    assert_eq!(appliance.goto(&id).status, 410);
    assert_eq!(update("shortLink[name]", "newer")["startsAt"], 4_000_000_000_i64);
    assert_eq!(update("shortLink[expiresAt]", "4000000001")["name"], "newer");
    assert_eq!(appliance.goto(&id).status, 404);
    assert_eq!(update("shortLink[startsAt]", "")["startsAt"], 4_000_000_000_i64);
    for (name, value) in [
        ("shortLink[startsAt]", "0"),
        ("shortLink[startsAt]", "-1"),
        ("shortLink[startsAt__null]", ""),
    ] {
        assert_eq!(update("shortLink[startsAt]", "1000")["startsAt"], 1000);
        assert_eq!(update(name, value).get("startsAt"), None, "{name}={value}");
        assert_eq!(appliance.goto(&id).status, 302);
    }
}

#[test]
fn start_that_is_none_is_refused() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for value in ["soon", "4000000000000", "99999999999999999999", "2027-01-31"] {
        let good = [
            ("shortLink[systemName]", "NAME"),
            ("shortLink[fullUrl]", "https://example.com/"),
        ];
        let result = appliance.link("add", &ks, &[&good[..], &[("shortLink[startsAt]", value)]].concat());
        assert_eq!(code(&result), "INVALID_PARAMETER_VALUE", "{value}");
        assert_eq!(result["args"]["PARAM_NAME"], "shortLink:startsAt", "{value}");
        let times = [("shortLink[startsAt]", "2000"), ("shortLink[expiresAt]", "2000")];
        let result = appliance.link("add", &ks, &[good, times].concat());
        assert_eq!(
            result["args"]["REASON"],
            "startsAt 2000 is not before expiresAt 2000: the link would never redirect"
        );
    }
    assert_eq!(appliance.list(&ks, &[]), (vec![], 0));
}
