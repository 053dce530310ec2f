//! Actions on links: results, errors and permissions.

use serde_json::json;

use crate::support::fixture::{Appliance, code};

#[test]
fn added_link_matches_the_guide() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let params = [
        ("shortLink[objectType]", "KalturaShortLink"),
        ("shortLink[systemName]", "PREVIEW-ENTRY-1_abc123"),
        ("shortLink[fullUrl]", "https://www.kaltura.com/x"),
    ];
    let added = appliance.post(
        "shortlink_shortlink",
        "add",
        &[&[("format", "1"), ("ks", ks.as_str())], params.as_slice()].concat(),
    );
    let link = added.json();
    let id = link["id"].as_str().unwrap();
    assert_eq!(id.len(), 8);
    assert!(
        id.bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()),
        "{id}"
    );
    let created = link["createdAt"].as_i64().unwrap();
    let now = appliance.call("system", "getTime", "", &[]).as_i64().unwrap();
    assert!((now - 60..=now).contains(&created));
    let expected = format!(
        "{{\"id\":\"{id}\",\"createdAt\":{created},\"updatedAt\":{created},\"partnerId\":1234567,\"userId\":\"admin\",\
         \"systemName\":\"PREVIEW-ENTRY-1_abc123\",\"fullUrl\":\"https://www.kaltura.com/x\",\"status\":2,\
         \"objectType\":\"KalturaShortLink\"}}"
    );
    assert_eq!(added.text(), expected);
    assert_eq!(appliance.link("get", &ks, &[("id", id)]), link);
}

#[test]
fn add_stores_every_given_field() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(
        &ks,
        &[
            ("shortLink[userId]", "someone@example.com"),
            ("shortLink[name]", "Übung – 日本 <&\"'>"),
            ("shortLink[uniqueId]", "key-1"),
            ("shortLink[expiresAt]", "4102444800"),
            ("shortLink[status]", "1"),
        ],
    );
    let link = appliance.link("get", &ks, &[("id", &id)]);
    assert_eq!(link["userId"], "someone@example.com");
    assert_eq!(link["name"], "Übung – 日本 <&\"'>");
    assert_eq!(link["uniqueId"], "key-1");
    assert_eq!(link["expiresAt"], 4_102_444_800_i64);
    assert_eq!(link["status"], 1);
}

#[test]
fn each_link_rule_has_its_error() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let (long64, long63) = ("ä".repeat(64), "ä".repeat(63));
    let (long_user, long_url) = ("u".repeat(101), format!("https://example.com/{}", "x".repeat(8192)));
    let good = [
        ("shortLink[systemName]", "NAME"),
        ("shortLink[fullUrl]", "https://example.com/"),
    ];
    for (name, value, expected, argument) in [
        (
            "systemName",
            "ab",
            "PROPERTY_VALIDATION_MIN_LENGTH",
            "KalturaShortLink::systemName",
        ),
        (
            "systemName",
            "",
            "PROPERTY_VALIDATION_MIN_LENGTH",
            "KalturaShortLink::systemName",
        ),
        (
            "fullUrl",
            "http://a",
            "PROPERTY_VALIDATION_MIN_LENGTH",
            "KalturaShortLink::fullUrl",
        ),
        (
            "systemName",
            &long64,
            "PROPERTY_VALIDATION_MAX_LENGTH",
            "KalturaShortLink::systemName",
        ),
        (
            "name",
            &long64,
            "PROPERTY_VALIDATION_MAX_LENGTH",
            "KalturaShortLink::name",
        ),
        (
            "uniqueId",
            &long64,
            "PROPERTY_VALIDATION_MAX_LENGTH",
            "KalturaShortLink::uniqueId",
        ),
        (
            "userId",
            &long_user,
            "PROPERTY_VALIDATION_MAX_LENGTH",
            "KalturaShortLink::userId",
        ),
        (
            "fullUrl",
            &long_url,
            "PROPERTY_VALIDATION_MAX_LENGTH",
            "KalturaShortLink::fullUrl",
        ),
        (
            "fullUrl",
            "javascript:alert(document.cookie)",
            "PROPERTY_VALIDATION_WRONG_FORMAT",
            "KalturaShortLink::fullUrl",
        ),
        (
            "fullUrl",
            "data:text/html,<script>x</script>",
            "PROPERTY_VALIDATION_WRONG_FORMAT",
            "KalturaShortLink::fullUrl",
        ),
        (
            "fullUrl",
            "https://example.com/\r\nX: y",
            "PROPERTY_VALIDATION_WRONG_FORMAT",
            "KalturaShortLink::fullUrl",
        ),
        (
            "fullUrl",
            "//example.com/path",
            "PROPERTY_VALIDATION_WRONG_FORMAT",
            "KalturaShortLink::fullUrl",
        ),
        (
            "fullUrl",
            "https://exa\u{7f}mple.com/",
            "PROPERTY_VALIDATION_WRONG_FORMAT",
            "KalturaShortLink::fullUrl",
        ),
        ("name", "a\u{0}b", "INVALID_PARAMETER_CHAR", "shortLink[name]"),
        (
            "id",
            "abcdefgh",
            "PROPERTY_VALIDATION_NOT_UPDATABLE",
            "KalturaShortLink::id",
        ),
        (
            "createdAt",
            "1",
            "PROPERTY_VALIDATION_NOT_UPDATABLE",
            "KalturaShortLink::createdAt",
        ),
        (
            "updatedAt",
            "1",
            "PROPERTY_VALIDATION_NOT_UPDATABLE",
            "KalturaShortLink::updatedAt",
        ),
        (
            "partnerId",
            "1234567",
            "PROPERTY_VALIDATION_NOT_UPDATABLE",
            "KalturaShortLink::partnerId",
        ),
        ("status", "4", "INVALID_ENUM_VALUE", "4"),
        ("status", "enabled", "INVALID_ENUM_VALUE", "enabled"),
        ("expiresAt", "soon", "INVALID_PARAMETER_VALUE", "shortLink:expiresAt"),
        (
            "expiresAt",
            "1778429631000",
            "INVALID_PARAMETER_VALUE",
            "shortLink:expiresAt",
        ),
        (
            "expiresAt",
            "99999999999999999999",
            "INVALID_PARAMETER_VALUE",
            "shortLink:expiresAt",
        ),
    ] {
        let name = format!("shortLink[{name}]");
        let result = appliance.link("add", &ks, &[good.as_slice(), &[(&name, value)]].concat());
        assert_eq!(code(&result), expected, "{name}={value:?}: {result}");
        let args = result["args"].as_object().unwrap();
        assert!(
            args.values().any(|arg| arg == argument),
            "{argument} is not in {result}"
        );
    }
    // No invalid link was stored; the longest valid one was.
    assert_eq!(appliance.list(&ks, &[]), (vec![], 0));
    let longest = appliance.link("add", &ks, &[good.as_slice(), &[("shortLink[name]", &long63)]].concat());
    assert_eq!(longest["name"], long63);
}

#[test]
fn missing_mandatory_field_is_named() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for (params, name) in [
        (vec![], "shortLink"),
        (
            vec![("shortLink[fullUrl]", "https://example.com/")],
            "shortLink:systemName",
        ),
        (vec![("shortLink[systemName]", "NAME")], "shortLink:fullUrl"),
    ] {
        let result = appliance.link("add", &ks, &params);
        assert_eq!(code(&result), "MISSING_MANDATORY_PARAMETER");
        assert_eq!(result["args"], json!({ "PARAM_NAME": name }));
        assert_eq!(result["message"], format!("Missing parameter \"{name}\""));
    }
    for action in ["get", "update", "delete", "restore"] {
        let result = appliance.link(action, &ks, &[]);
        assert_eq!(result["args"], json!({ "PARAM_NAME": "id" }), "{action}");
    }
}

#[test]
fn update_changes_only_the_named_fields() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(
        &ks,
        &[("shortLink[name]", "old"), ("shortLink[expiresAt]", "4102444800")],
    );
    let before = appliance.link("get", &ks, &[("id", &id)]);
    let update = |params: &[(&str, &str)]| appliance.link("update", &ks, &[&[("id", id.as_str())], params].concat());

    // Sending the stored values, read-only fields included, changes no field.
    let created = before["createdAt"].to_string();
    let same = update(&[
        ("shortLink[id]", &id),
        ("shortLink[createdAt]", &created),
        ("shortLink[partnerId]", "1234567"),
        ("shortLink[name]", "old"),
        ("shortLink[objectType]", "KalturaShortLink"),
    ]);
    assert_eq!(same, before);

    let renamed = update(&[("shortLink[name]", "new")]);
    assert_eq!(
        (&renamed["name"], &renamed["fullUrl"], &renamed["expiresAt"]),
        (&json!("new"), &before["fullUrl"], &before["expiresAt"])
    );
    let cleared = update(&[("shortLink[name__null]", ""), ("shortLink[expiresAt__null]", "1")]);
    assert_eq!((cleared.get("name"), cleared.get("expiresAt")), (None, None));
    let moved = update(&[
        ("shortLink[fullUrl]", "https://example.com/elsewhere"),
        ("shortLink[userId]", "other"),
    ]);
    assert_eq!(moved["userId"], "other");
    assert_eq!(appliance.goto(&id).header("location"), "https://example.com/elsewhere");

    for (params, expected) in [
        (vec![("shortLink[id]", "abcdefgh")], "PROPERTY_VALIDATION_NOT_UPDATABLE"),
        (vec![("shortLink[createdAt]", "1")], "PROPERTY_VALIDATION_NOT_UPDATABLE"),
        (
            vec![("shortLink[partnerId]", "7654321")],
            "PROPERTY_VALIDATION_NOT_UPDATABLE",
        ),
        (vec![("shortLink[uniqueId]", "x")], "PROPERTY_VALIDATION_NOT_UPDATABLE"),
        (vec![("shortLink[systemName]", "ab")], "PROPERTY_VALIDATION_MIN_LENGTH"),
        (
            vec![("shortLink[systemName__null]", "")],
            "PROPERTY_VALIDATION_MIN_LENGTH",
        ),
        (
            vec![("shortLink[fullUrl]", "javascript:alert(1)")],
            "PROPERTY_VALIDATION_WRONG_FORMAT",
        ),
        (vec![("shortLink[status]", "0")], "INVALID_ENUM_VALUE"),
        (vec![], "MISSING_MANDATORY_PARAMETER"),
        (vec![("shortLink", "text")], "INVALID_PARAMETER_VALUE"),
        // An update applies fully or not at all.
        (
            vec![("shortLink[name]", "half"), ("shortLink[status]", "9")],
            "INVALID_ENUM_VALUE",
        ),
    ] {
        assert_eq!(code(&update(&params)), expected, "{params:?}");
    }
    assert_eq!(appliance.link("get", &ks, &[("id", &id)]), moved);
}

#[test]
fn deleted_link_is_gone_until_restored() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for delete in [
        |appliance: &Appliance, ks: &str, id: &str| appliance.link("delete", ks, &[("id", id)]),
        |appliance: &Appliance, ks: &str, id: &str| {
            appliance.link("update", ks, &[("id", id), ("shortLink[status]", "3")])
        },
    ] {
        let id = appliance.add(&ks, &[]);
        let deleted = delete(&appliance, &ks, &id);
        assert_eq!(deleted["status"], 3);
        assert_eq!(appliance.goto(&id).status, 410);
        for action in ["get", "update", "delete"] {
            let result = appliance.link(action, &ks, &[("id", &id), ("shortLink[name]", "x")]);
            assert_eq!(
                (code(&result), &result["args"]["ID"]),
                ("INVALID_OBJECT_ID", &json!(id)),
                "{action}"
            );
        }
        let user_ks = appliance.user_ks("admin");
        assert_eq!(
            code(&appliance.link("restore", &user_ks, &[("id", &id)])),
            "SERVICE_FORBIDDEN"
        );
        assert_eq!(appliance.link("restore", &ks, &[("id", &id)])["status"], 2);
        assert_eq!(appliance.goto(&id).status, 302);
        assert_eq!(
            code(&appliance.link("restore", &ks, &[("id", &id)])),
            "INVALID_OBJECT_ID"
        );
    }
}

#[test]
fn unique_id_is_unique_among_undeleted_links() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let first = appliance.add(&ks, &[("shortLink[uniqueId]", "key")]);
    let link = [
        ("shortLink[systemName]", "NAME"),
        ("shortLink[fullUrl]", "https://example.com/"),
        ("shortLink[uniqueId]", "key"),
    ];
    let refused = appliance.link("add", &ks, &link);
    assert_eq!(code(&refused), "SHORT_LINK_UNIQUE_ID_ALREADY_EXISTS");
    assert_eq!(refused["message"], "Short link unique id [key] already exists");
    appliance.link("delete", &ks, &[("id", &first)]);
    let second = appliance.add(&ks, &link);
    let refused = appliance.link("restore", &ks, &[("id", &first)]);
    assert_eq!(code(&refused), "SHORT_LINK_UNIQUE_ID_ALREADY_EXISTS");
    assert_eq!(
        appliance.list(&ks, &[("filter[uniqueIdEqual]", "key")]),
        (vec![second], 1)
    );
}

#[test]
fn user_accesses_only_their_own_links() {
    let appliance = Appliance::start();
    let (admin, me, you) = (appliance.admin_ks(), appliance.user_ks("me"), appliance.user_ks("you"));
    let mine = appliance.add(&me, &[]);
    let yours = appliance.add(&you, &[("shortLink[userId]", "you")]);
    assert_eq!(appliance.link("get", &me, &[("id", &mine)])["userId"], "me");

    let base = [
        ("shortLink[systemName]", "NAME"),
        ("shortLink[fullUrl]", "https://example.com/"),
    ];
    let for_you = appliance.link("add", &me, &[base.as_slice(), &[("shortLink[userId]", "you")]].concat());
    assert_eq!(code(&for_you), "PROPERTY_VALIDATION_ADMIN_PROPERTY");
    let give_away = appliance.link("update", &me, &[("id", &mine), ("shortLink[userId]", "you")]);
    assert_eq!(code(&give_away), "PROPERTY_VALIDATION_ADMIN_PROPERTY");

    // A link of another user looks like an unknown one.
    for action in ["get", "update", "delete"] {
        let params = |id| [("id", id), ("shortLink[name]", "x")];
        let theirs = appliance.link(action, &me, &params(&yours));
        let nobodys = appliance.link(action, &me, &params("zzzzzzzz"));
        assert_eq!(
            theirs.to_string().replace(&yours, "zzzzzzzz"),
            nobodys.to_string(),
            "{action}"
        );
    }
    assert_eq!(appliance.list(&me, &[]), (vec![mine.clone()], 1));
    assert_eq!(appliance.list(&me, &[("filter[userIdIn]", "me,you")]), (vec![mine], 1));
    let theirs = appliance.link("list", &me, &[("filter[userIdEqual]", "you")]);
    assert_eq!(code(&theirs), "CANNOT_RETRIEVE_ANOTHER_USERS_SHORT_LINK");
    assert_eq!(
        theirs["message"],
        "cannot retrieve another user's [\"you\"] short link using non-admin session"
    );
    assert_eq!(
        code(&appliance.link("list", &appliance.user_ks(""), &[])),
        "INVALID_USER_ID"
    );
    assert_eq!(appliance.list(&admin, &[]).1, 2);
    assert_eq!(
        appliance.list(&admin, &[("filter[userIdEqual]", "you")]),
        (vec![yours], 1)
    );
}

#[test]
fn partner_sees_no_links_of_another_partner() {
    let appliance = Appliance::start();
    let id = appliance.add(&appliance.admin_ks(), &[("shortLink[uniqueId]", "key")]);
    let other = &appliance.other_partners_ks();
    for action in ["get", "update", "delete", "restore"] {
        let result = appliance.link(action, other, &[("id", &id), ("shortLink[name]", "x")]);
        assert_eq!(code(&result), "INVALID_OBJECT_ID", "{action}");
    }
    assert_eq!(appliance.list(other, &[]), (vec![], 0));
    assert_eq!(
        appliance.list(other, &[("filter[partnerIdEqual]", "1234567")]),
        (vec![], 0)
    );
    assert_eq!(appliance.list(other, &[("filter[idEqual]", &id)]), (vec![], 0));
    appliance.add(other, &[("shortLink[uniqueId]", "key")]);
}

#[test]
fn deleting_a_user_deletes_their_links() {
    let appliance = Appliance::start();
    let (admin, me) = (appliance.admin_ks(), appliance.user_ks("me"));
    let mine: Vec<_> = (0..5).map(|_| appliance.add(&me, &[])).collect();
    let yours = appliance.add(&appliance.user_ks("you"), &[]);
    assert_eq!(
        code(&appliance.call("user", "delete", &me, &[("userId", "me")])),
        "SERVICE_FORBIDDEN"
    );
    let deleted = appliance.post("user", "delete", &[("format", "1"), ("ks", &admin), ("userId", "me")]);
    assert_eq!(
        deleted.text(),
        r#"{"id":"me","partnerId":1234567,"status":2,"objectType":"KalturaUser"}"#
    );
    for id in &mine {
        assert_eq!(appliance.goto(id).status, 410);
    }
    assert_eq!(appliance.goto(&yours).status, 302);
    assert_eq!(appliance.list(&admin, &[("filter[statusEqual]", "3")]).1, 5);
    assert_eq!(
        code(&appliance.call("user", "delete", &admin, &[])),
        "MISSING_MANDATORY_PARAMETER"
    );
}
