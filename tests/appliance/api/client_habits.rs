//! Requests of real clients that the guide does not mention and Kaltura's server accepts.

use serde_json::json;

use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, code};
use crate::support::http::{encode, exchange, request};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const ADD: &str = "/api_v3/service/shortlink_shortlink/action/add";
const PING: &str = "/api_v3/service/system/action/ping?format=1";

#[test]
fn integer_parameters_drop_their_fraction() {
    let appliance = Appliance::start();
    let params = [
        ("format", "1.0"),
        ("secret", ADMIN_SECRET),
        ("partnerId", "1234567.0"),
        ("type", "2.0"),
        ("expiry", "3600.75"),
        ("privileges", "actionslimit:30.5"),
    ];
    let ks = appliance.post("session", "start", &params).json();
    let ks = ks.as_str().unwrap_or_else(|| panic!("{ks}"));
    let link = appliance.link(
        "add",
        ks,
        &[
            ("shortLink[systemName]", "NAME"),
            ("shortLink[fullUrl]", "https://example.com/video"),
            ("shortLink[status]", "1.0"),
            ("shortLink[expiresAt]", "1900000000.987"),
        ],
    );
    assert_eq!(
        (&link["status"], &link["expiresAt"]),
        (&json!(1), &json!(1_900_000_000))
    );
    let id = link["id"].as_str().unwrap();

    let sent = [
        ("shortLink[partnerId]", "1234567.0"),
        ("shortLink[expiresAt]", "-1.0"),
        ("id", id),
    ];
    assert_eq!(appliance.link("update", ks, &sent)["expiresAt"], json!(null));
    let body = json!({
        "format": 1, "ks": ks, "id": id,
        "shortLink": {"expiresAt": 1.9e9, "createdAt": link["createdAt"].as_f64().unwrap()},
    });
    let target = "/api_v3/service/shortlink_shortlink/action/update";
    let updated = request(&appliance.admin, "POST", target, &[JSON], body.to_string().as_bytes()).json();
    assert_eq!(updated["expiresAt"], json!(1_900_000_000), "{updated}");

    for filter in [
        [("filter[statusEqual]", "1.0"), ("filter[partnerIdEqual]", "1234567.5")],
        [("filter[statusIn]", "1.0,2.0"), ("filter[partnerIdIn]", "7, 1234567.0")],
        [
            ("filter[createdAtGreaterThanOrEqual]", "-60.5"),
            ("filter[createdAtLessThanOrEqual]", "0.9"),
        ],
        [
            ("filter[expiresAtLessThanOrEqual]", "1900000000.0"),
            ("pager[pageSize]", "10.5"),
        ],
        [("pager[pageIndex]", "1.9"), ("filter[partnerIdIn]", PARTNER)],
    ] {
        assert_eq!(appliance.list(ks, &filter), (vec![id.to_owned()], 1), "{filter:?}");
    }
    assert_eq!(
        appliance
            .list(ks, &[("filter[statusIn]", "2.9"), ("pager[pageSize]", "0.5")])
            .1,
        0
    );
    for wrong in ["abc", "12abc", "0x10", "1.2.3", "99999999999999999999", "1e30"] {
        for name in ["shortLink[expiresAt]", "shortLink[createdAt]"] {
            let refused = appliance.link("update", ks, &[("id", id), (name, wrong)]);
            assert_eq!(code(&refused), "INVALID_PARAMETER_VALUE", "{name}={wrong}");
        }
    }
}

#[test]
fn session_may_contain_spaces_and_line_breaks() {
    let appliance = Appliance::start();
    let ks = appliance.start_session(ADMIN_SECRET, "me", "2", "actionslimit:3");
    let (front, back) = ks.split_at(20);
    let list = |ks: &str| code(&appliance.link("list", ks, &[])).to_owned();
    // Each spelling is the same session, with one count of actions.
    assert_eq!(list(&format!(" {front}\r\n{back}\n")), "");
    assert_eq!(list(&format!("{front} \t {back}====")), "INVALID_KS");
    assert_eq!(list(&format!("{front} \t {back}")), "");
    assert_eq!(list(&ks.replace('-', "+").replace('_', "/").replace('=', "")), "");
    for spelling in [
        format!("{front}\n{back}"),
        ks.replace('=', "%3D"),
        ks.clone(),
        format!("\t{ks}"),
    ] {
        let refused = appliance.link("list", &spelling, &[]);
        assert_eq!(refused["args"]["ERR_DESC"], "EXCEEDED_ACTIONS_LIMIT", "{refused}");
    }
    let ks = appliance.admin_ks();
    let (front, back) = ks.split_at(30);
    assert_eq!(
        appliance.call("session", "end", &format!("{front} {back}"), &[]),
        json!(null)
    );
    for spelling in [
        ks.clone(),
        format!("{front}\r\n{back}"),
        ks.trim_end_matches('=').to_owned(),
    ] {
        let refused = appliance.link("list", &spelling, &[]);
        assert_eq!(refused["args"]["ERR_DESC"], "LOGOUT", "{refused}");
    }
}

#[test]
fn byte_order_mark_before_a_body_is_skipped() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let body = json!({"format": 1, "ks": ks, "shortLink": {"systemName": "NAME", "fullUrl": "https://example.com/"}});
    let form = format!(
        "format=1&ks={}&shortLink[systemName]=NAME&shortLink[fullUrl]=https://example.com/",
        encode(&ks)
    );
    let part = "--x\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n";
    for (content_type, body) in [
        ("application/json", format!("\u{feff}{body}")),
        ("application/x-www-form-urlencoded", format!("\u{feff}{form}")),
        (
            "multipart/form-data; boundary=x",
            format!("{part}\u{feff}{body}\r\n--x--\r\n"),
        ),
    ] {
        let headers = [("Content-Type", content_type)];
        let added = request(&appliance.admin, "POST", ADD, &headers, body.as_bytes()).json();
        assert_eq!(added["systemName"], "NAME", "{content_type}: {added}");
    }
    let twice = request(&appliance.admin, "POST", PING, &[JSON], "\u{feff}\u{feff}{}".as_bytes()).json();
    assert_eq!(code(&twice), "INVALID_PARAMETER_VALUE");
}

#[test]
fn compressed_body_is_rejected_with_the_reason() {
    let appliance = Appliance::start();
    for (coding, status) in [
        ("gzip", 415),
        ("GZip", 415),
        ("identity, br", 415),
        ("deflate", 415),
        ("identity", 200),
        ("Identity, ", 200),
    ] {
        let headers = [JSON, ("Content-Encoding", coding)];
        let answer = request(&appliance.admin, "POST", PING, &headers, b"{}");
        assert_eq!(answer.status, status, "{coding}");
        if status == 415 {
            let exception = answer.json();
            assert_eq!(exception["args"]["PARAM_NAME"], "Content-Encoding", "{exception}");
            let reason = exception["args"]["REASON"].as_str().unwrap();
            assert!(
                reason.ends_with("is not supported: send the body without compression"),
                "{reason}"
            );
            assert_eq!(answer.header("accept-encoding"), "identity");
        }
        // An empty body needs no decoding.
        let none = request(&appliance.admin, "GET", PING, &[("Content-Encoding", coding)], b"");
        assert_eq!(none.json(), json!(true), "{coding}");
        let target = "/api_v3/service/tinyd/action/import?format=1";
        let headers = [
            ("Content-Type", "multipart/form-data; boundary=x"),
            ("Content-Encoding", coding),
        ];
        let import = request(&appliance.admin, "POST", target, &headers, b"--x--\r\n");
        assert_eq!(import.status, status, "{coding}");
    }
}

/// An import with fields before its file.
fn import(appliance: &Appliance, target: &str, fields: &[(&str, &str)]) -> String {
    let line = "{\"id\":\"abcd\",\"systemName\":\"NAME\",\"fullUrl\":\"https://example.com/\"}\n";
    let file = [("file", line)];
    let fields = fields.iter().chain(&file);
    let part = |(name, value): &(&str, &str)| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{value}\r\n")
    };
    let body = fields.map(part).collect::<String>() + "--x--\r\n";
    let headers = [("Content-Type", "multipart/form-data; boundary=x")];
    let target = format!("/api_v3/service/tinyd/action/import{target}");
    let answer = request(&appliance.admin, "POST", &target, &headers, body.as_bytes());
    String::from_utf8(answer.body).unwrap()
}

#[test]
fn first_url_parameter_of_an_import_wins() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for target in [
        "/dryRun/1/dryRun/0",
        "/dryRun/1?dryRun=0",
        "?dryRun=1&dryRun=0",
        "/dry%52un/1",
    ] {
        let told = import(&appliance, target, &[("ks", &ks), ("dryRun", "0")]);
        assert!(told.contains("\"added\":1"), "{target}: {told}");
        assert_eq!(appliance.goto("abcd").status, 404, "{target}");
    }
    // A session that permits dry runs only.
    let prefix = "/api_v3/service/tinyd/action/import/dryRun/1";
    let bound = appliance.start_session(ADMIN_SECRET, "me", "2", &format!("urirestrict:{prefix}*"));
    for target in ["/dryRun/1/dryRun/0", "/dryRun/1?dryRun=0", "/dryRun/1"] {
        let told = import(&appliance, target, &[("ks", &bound), ("dryRun", "false")]);
        assert!(told.contains("\"added\":1"), "{target}: {told}");
        assert_eq!(appliance.goto("abcd").status, 404, "{target}");
    }
    let refused = import(&appliance, "?format=1", &[("ks", &bound), ("dryRun", "1")]);
    assert!(refused.contains("EXCEEDED_RESTRICTED_URI"), "{refused}");
    // The session in the URL wins over that in the form, which belongs to the other partner.
    let other = appliance.other_partners_ks();
    let told = import(&appliance, &format!("?ks={}", encode(&ks)), &[("ks", &other)]);
    assert!(told.contains("\"added\":1"), "{told}");
    assert_eq!(appliance.list(&ks, &[]).1, 1);
}

#[test]
fn jsonp_text_cannot_end_a_script_element() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let name = "</script><!--<SCRIPT>";
    let id = appliance.add(&ks, &[("shortLink[name]", name)]);
    let get = |format: &str| {
        let params = [("ks", &*ks), ("id", &id), ("format", format), ("callback", "f")];
        appliance.post("shortlink_shortlink", "get", &params).text().to_owned()
    };
    assert!(
        !get("9").contains('<') && get("9").contains("\\u003c/script>"),
        "{}",
        get("9")
    );
    assert!(get("1").contains(name));
}

#[test]
fn system_version_is_that_of_tinyd() {
    let appliance = Appliance::start();
    let version = appliance.call("system", "getVersion", "", &[]);
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn raw_query_bytes_equal_their_percent_encoding() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let add = |name: &[u8]| {
        let target =
            format!("GET {ADD}?format=1&ks={ks}&shortLink[fullUrl]=https://example.com/&shortLink[systemName]=");
        let rest: &[u8] = b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let host = appliance.admin.strip_prefix("http://").unwrap();
        exchange(host, &[target.as_bytes(), name, rest].concat()).json()
    };
    assert_eq!(add("\"<ü>\"".as_bytes())["systemName"], "\"<ü>\"");
    let refused = add(b"Latin-1:\xfc");
    assert_eq!(code(&refused), "INVALID_PARAMETER_CHAR", "{refused}");
}

#[test]
fn response_profile_selects_link_fields() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[("shortLink[name]", "x")]);
    let include = [
        ("responseProfile[objectType]", "KalturaDetachedResponseProfile"),
        ("responseProfile[type]", "1"),
        ("responseProfile[fields]", "id, fullUrl,nonsense"),
    ];
    let expected = json!({"id": id, "fullUrl": "https://example.com/video", "objectType": "KalturaShortLink"});
    let get = |more: &[(&str, &str)]| appliance.link("get", &ks, &[&[("id", &*id)], more].concat());
    assert_eq!(get(&include), expected);
    let listing = appliance.link("list", &ks, &include);
    assert_eq!(listing["objects"], json!([expected]));
    assert_eq!(listing["totalCount"], json!(1));
    let renamed = [&[("id", &*id), ("shortLink[name]", "y")], &include[..]].concat();
    assert_eq!(appliance.link("update", &ks, &renamed), expected);
    let calls = [("1:service", "shortlink_shortlink"), ("1:action", "get"), ("1:id", &id)];
    let calls = [
        &calls[..],
        &[("1:responseProfile:type", "1"), ("1:responseProfile:fields", "name")],
    ]
    .concat();
    let results = appliance.call("multirequest", "", &ks, &calls);
    assert_eq!(results, json!([{"name": "y", "objectType": "KalturaShortLink"}]));

    let mut rest = get(&[]);
    rest.as_object_mut()
        .unwrap()
        .retain(|name, _| name != "name" && name != "createdAt");
    let exclude = [
        ("responseProfile[type]", "2"),
        ("responseProfile[fields]", "name,createdAt"),
    ];
    assert_eq!(get(&exclude), rest);
    let xml = appliance.post(
        "shortlink_shortlink",
        "get",
        &[&[("ks", &*ks), ("id", &*id)], &exclude[..]].concat(),
    );
    assert!(xml.text().contains("<name></name>"), "{}", xml.text());

    // tinyd has no stored response profiles.
    assert_eq!(get(&[("responseProfile[systemName]", "mine")]), get(&[]));
    assert_eq!(get(&[("responseProfile", "1")]), get(&[]));
    let wrong = [("responseProfile[type]", "3"), ("shortLink[name]", "z"), ("id", &id)];
    assert_eq!(code(&appliance.link("update", &ks, &wrong)), "INVALID_ENUM_VALUE");
    assert_eq!(get(&[])["name"], "y");
}

#[test]
fn list_accepts_several_order_keys() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let add = |expires: &str| appliance.add(&ks, &[("shortLink[expiresAt]", expires)]);
    let mut soon = [add("1900000000"), add("1900000000"), add("1900000000")];
    let (late, never) = (add("2000000000"), add(""));
    soon.sort();
    let [a, b, c] = soon;
    let order = |keys: &str| appliance.list(&ks, &[("filter[orderBy]", keys)]).0;
    let ascending = vec![a.clone(), b.clone(), c.clone(), late.clone(), never.clone()];
    let descending = vec![late.clone(), c.clone(), b.clone(), a.clone(), never.clone()];
    let mixed = vec![late.clone(), a.clone(), b.clone(), c.clone(), never.clone()];
    assert_eq!(order("expiresAt"), ascending);
    assert_eq!(order("-expiresAt"), descending);
    assert_eq!(order("-expiresAt,+id"), mixed);
    assert_eq!(order("-expiresAt,name,id,-expiresAt"), mixed);
    let mut by_id = ascending.clone();
    by_id.sort();
    assert_eq!(order("id"), by_id);
    by_id.reverse();
    assert_eq!(order("-id"), by_id);
    // Pages do not overlap.
    let page = |index: &str, size: &str| {
        let pager = [("pager[pageIndex]", index), ("pager[pageSize]", size)];
        appliance.link(
            "list",
            &ks,
            &[&[("filter[orderBy]", "-expiresAt,id")], &pager[..]].concat(),
        )
    };
    let (first, second) = (page("1", "3"), page("2", "3"));
    let ids = |listing: &serde_json::Value| {
        let links = listing["objects"].as_array().unwrap().iter();
        links
            .map(|link| link["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!([ids(&first), ids(&second)].concat(), mixed);
    assert_eq!(page("200", "500")["totalCount"], json!(5));
    let beyond = page("201", "500");
    assert_eq!(beyond["args"]["PARAM_NAME"], "pager:pageIndex", "{beyond}");
}

#[test]
fn unused_url_parameters_never_fail_a_call() {
    let appliance = Appliance::start();
    for ignored in [
        "q=\u{fc}",
        "q=%FC",
        "q=%00",
        "q=%01",
        "q=%zz",
        "q=%",
        "clientTag=%zz",
        "%FC=1",
        "a[b]=%zz",
        "q=\"<x>\"",
        &format!("{}=1", "x".repeat(300)),
    ] {
        let target = format!("/api_v3/service/system/action/ping?format=1&{ignored}");
        assert_eq!(appliance.get_admin(&target).text(), "true", "{ignored}");
        let target = format!("/api_v3/?service=system&action=ping&{ignored}&format=1");
        assert_eq!(appliance.get_admin(&target).text(), "true", "{ignored}");
    }
    let path = appliance.get_admin("/api_v3/service/system/action/ping/x/%FC/format/1");
    assert_eq!(path.text(), "true");
    // An action that reads the parameter rejects it.
    for (used, code_of_it) in [
        ("id=%FC", "INVALID_PARAMETER_CHAR"),
        ("id=%zz", "INVALID_PARAMETER_VALUE"),
    ] {
        let ks = appliance.admin_ks();
        let target = format!("/api_v3/service/shortlink_shortlink/action/get?format=1&ks={ks}&{used}");
        assert_eq!(code(&appliance.get_admin(&target).json()), code_of_it, "{used}");
    }
}
