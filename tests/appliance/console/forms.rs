//! Forms that no browser sends, and what people mistype.

use serde_json::{Value, json};

use crate::support::browser::{Browser, FORM, form};
use crate::support::fixture::{Appliance, PARTNER};

fn stored(appliance: &Appliance, id: &str) -> Value {
    let params = [("id", id), ("withStartsAt", "1")];
    appliance.link("get", &appliance.admin_ks(), &params)
}

#[test]
fn malformed_forms_are_refused() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let token = jane.token();
    let origin = appliance.admin.clone();
    let fields = form(&[("token", &token), ("full_url", "https://example.com/")]);
    for kind in [
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "",
        "x",
    ] {
        let headers = [("Origin", origin.as_str()), ("Content-Type", kind)];
        let answer = jane.send("POST", "/links/new", &headers, fields.as_bytes());
        assert_eq!(answer.status, 415, "{kind}");
    }
    let headers = [("Origin", origin.as_str()), ("Content-Type", FORM)];
    let long = format!("{fields}&name={}", "x".repeat(64 * 1024));
    assert_eq!(jane.send("POST", "/links/new", &headers, long.as_bytes()).status, 413);
    let chunked = [&headers[..], &[("Transfer-Encoding", "chunked")]].concat();
    let chunk = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    assert_eq!(jane.send("POST", "/links/new", &chunked, chunk.as_bytes()).status, 413);
    for garbage in [&b"%"[..], b"&&&=&=", b"\xff\xfe\x00", b"token=%ff%00", b"a=%zz;b"] {
        assert_eq!(
            jane.send("POST", "/links/new", &headers, garbage).status,
            403,
            "{}",
            garbage.escape_ascii()
        );
    }
    // Of a field that comes twice, the first counts.
    let twice = format!("{fields}&full_url=https://evil.test/&token=x");
    let answer = jane.send("POST", "/links/new", &headers, twice.as_bytes());
    let id = answer.header("location").strip_prefix("/console/links/").unwrap();
    let id = id.strip_suffix("?done=created").unwrap();
    assert_eq!(stored(&appliance, id)["fullUrl"], "https://example.com/");
}

#[test]
fn unknown_methods_and_paths_are_refused() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    for method in ["PUT", "DELETE", "PATCH", "PROPFIND", "BREW", "TRACE"] {
        let answer = jane.send(method, &format!("/links/{id}"), &[], b"");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "GET, HEAD, POST"),
            "{method}"
        );
    }
    for path in [
        "/x",
        "/links/new/x",
        "/links/%00",
        "/links/..%2f..%2fstatus",
        "/links/%F0%9F%92%A3",
        "/assets",
        "/assets/",
        "/links/abcd/qr.gif",
        "/sign-in/link",
        "/sign-in/link/a/b",
        "/LINKS",
    ] {
        let answer = jane.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.header("content-type").starts_with("text/html"), "{path}");
    }
    assert_eq!(jane.submit("/nowhere", &[]).status, 404);
    assert_eq!(jane.submit(&format!("/links/{id}/explode"), &[]).status, 404);
    for query in [
        "?page=0",
        "?page=-1",
        "?page=x",
        "?page=18446744073709551615",
        "?page=99999999999999999999",
        "?page=9223372036854775808",
        "?show=%00",
        "?deleted=%3Cb%3E",
        "?done=%3Cb%3E",
        "?a&&=&%",
        "?page=1&page=2",
    ] {
        assert_eq!(jane.get(&format!("/links{query}")).status, 200, "{query}");
    }
    for query in [
        "?size=0",
        "?size=-1",
        "?size=99999999999",
        "?level=X",
        "?size=64&level=H",
        "?size=%00",
    ] {
        for file in ["qr.svg", "qr.png"] {
            assert_eq!(
                jane.get(&format!("/links/{id}/{file}{query}")).status,
                200,
                "{file} {query}"
            );
        }
    }
}

#[test]
fn head_is_answered_like_get() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    for (path, status) in [("/links", 200), ("/links/new", 200), ("/nowhere", 404)] {
        let [head, get] = ["HEAD", "GET"].map(|method| jane.send(method, path, &[], b""));
        assert_eq!((head.status, get.status), (status, status), "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
    }
}

/// The errors of a form, without markup.
fn errors(page: &str) -> String {
    let (_, rest) = page.split_once("id=\"errors\"").unwrap_or_else(|| panic!("{page}"));
    rest.split("</div>").next().unwrap().to_owned()
}

#[test]
fn form_with_an_error_keeps_what_was_entered() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let long_url = format!("https://example.com/{}", "x".repeat(8200));
    let long_name = "x".repeat(64);
    let public = format!("{}/tiny/abcd", appliance.public);
    for (field, value, label) in [
        ("full_url", "", "Destination"),
        ("full_url", "example.com", "Destination"),
        ("full_url", "javascript:alert(1)//aaaaaaaa", "Destination"),
        ("full_url", "data:text/html,<script>alert(1)</script>", "Destination"),
        ("full_url", "file:///etc/passwd", "Destination"),
        ("full_url", "//evil.test/protocol", "Destination"),
        ("full_url", "https://", "Destination"),
        ("full_url", "http://a/", "Destination"),
        ("full_url", "https://example.com/\u{fffe}", "Destination"),
        ("full_url", "https://example.com\\@evil.test/", "Destination"),
        ("full_url", "https://user@example.com@evil.test/", "Destination"),
        ("full_url", "https://example.com/\r\nSet-Cookie: a=b", "Destination"),
        ("full_url", &public, "Destination"),
        ("full_url", &long_url, "Destination"),
        ("name", &long_name, "Name"),
        ("name", "a\u{0}b", "Name"),
        ("name", "a\u{1b}[2Jb", "Name"),
        ("system_name", "ab", "System name"),
        ("system_name", &long_name, "System name"),
        ("system_name", "a\u{7}bc", "System name"),
        ("starts", "soon", "Works from"),
        ("ends", "2026-13-01T00:00", "Works until"),
        ("ends", "-009999-01-01T00:00", "Works until"),
        ("ends_unix", "99999999999999", "Works until"),
        ("ends_unix", "-99999999999999", "Works until"),
        ("ends", "2026-01-01T00:00", "Works until"),
    ] {
        let mut fields = vec![
            ("full_url", "https://example.com/"),
            ("name", "kept name"),
            ("system_name", "KEPT-SYSTEM"),
            ("validity", "window"),
            ("starts", "2027-01-01T00:00"),
            ("ends", "2027-02-01T00:00"),
        ];
        fields.retain(|(name, _)| *name != field);
        fields.push((field, value));
        let answer = jane.submit("/links/new", &fields);
        assert_eq!(answer.status, 422, "{field} {value}");
        let page = answer.text();
        let errors = errors(page);
        assert!(errors.contains(&format!(">{label}</a>")), "{field} {value}: {errors}");
        for kept in [
            "kept name",
            "KEPT-SYSTEM",
            "https://example.com/",
            "2027-01-01T00:00",
            "2027-02-01T00:00",
        ] {
            let is_other = fields.iter().any(|(name, value)| *value == kept && *name != field);
            assert!(
                !is_other || page.contains(&format!("value=\"{kept}\"")),
                "{field} {value}: {kept}"
            );
        }
    }
    assert_eq!(appliance.list(&appliance.admin_ks(), &[]).1, 0);
}

#[test]
fn times_are_stored_to_the_second() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let window = ("validity", "window");
    // Without a script, in UTC.
    let id = jane.create(&[window, ("starts", "2027-01-01T10:00"), ("ends", "2027-02-01T10:30")]);
    let link = stored(&appliance, &id);
    assert_eq!(
        (&link["startsAt"], &link["expiresAt"]),
        (&json!(1_798_797_600), &json!(1_801_477_800))
    );
    // With one, the script says when that is in the visitor's time zone.
    let fields = [
        window,
        ("starts", "2027-01-01T05:00"),
        ("starts_unix", "1798797600"),
        ("ends", "2027-02-01T05:30"),
        ("ends_unix", "1801477800"),
    ];
    let id = jane.create(&fields);
    let link = stored(&appliance, &id);
    assert_eq!(
        (&link["startsAt"], &link["expiresAt"]),
        (&json!(1_798_797_600), &json!(1_801_477_800))
    );
    // A page shows them in UTC again, also where something else was wrong.
    let page = jane.get(&format!("/links/{id}/edit"));
    let wrong = jane.submit("/links/new", &[&fields[..], &[("full_url", "wrong")]].concat());
    for (what, page) in [("edit", page), ("wrong", wrong)] {
        for value in ["2027-01-01T10:00", "2027-02-01T10:30"] {
            assert!(
                page.text().contains(&format!("value=\"{value}\"")),
                "{what}: {}",
                page.text()
            );
        }
    }
    // Always: no times, whatever the fields say.
    let id = jane.create(&[("validity", "always"), ("ends", "2020-01-01T00:00"), ("preset", "3600")]);
    let link = stored(&appliance, &id);
    assert_eq!((&link["startsAt"], &link["expiresAt"]), (&Value::Null, &Value::Null));
    // Presets count from the start.
    let id = jane.create(&[window, ("starts", "2027-01-01T10:00"), ("preset", "86400")]);
    assert_eq!(stored(&appliance, &id)["expiresAt"], 1_798_797_600 + 86_400);
    // Seconds that another program has stored stay.
    let params = [("shortLink[expiresAt]", "1801477831"), ("shortLink[userId]", "jane")];
    let id = appliance.add(&appliance.admin_ks(), &params);
    let fields = [
        window,
        ("full_url", "https://example.com/2"),
        ("ends", "2027-02-01T10:30"),
    ];
    jane.done(&format!("/links/{id}/edit"), &fields);
    let link = stored(&appliance, &id);
    assert_eq!(
        (&link["fullUrl"], &link["expiresAt"]),
        (&json!("https://example.com/2"), &json!(1_801_477_831))
    );
}

#[test]
fn extreme_times_break_nothing() {
    let mut appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let window = ("validity", "window");
    for fields in [
        [("ends", "1970-01-01T00:00"), ("preset", "")],
        [("ends", "1969-12-31T23:59"), ("ends_unix", "-1")],
        [("ends", "0001-01-01T00:00"), ("preset", "")],
        [("ends", "9999-12-31T23:59"), ("preset", "")],
        [("starts", "9999-12-31T23:59"), ("preset", "31536000")],
        [("ends", ""), ("preset", "9223372036854775807")],
        [("ends", ""), ("preset", "-9223372036854775808")],
        [("starts", "9999-12-31T23:59"), ("preset", "9223372036854775807")],
    ] {
        let answer = jane.submit(
            "/links/new",
            &[&[window, ("full_url", "https://example.com/")], &fields[..]].concat(),
        );
        match answer.status {
            303 => {
                let location = answer.header("location").strip_prefix("/console").unwrap();
                assert_eq!(jane.get(location).status, 200, "{fields:?}");
                let id = location["/links/".len()..].split('?').next().unwrap();
                assert_eq!(jane.get(&format!("/links/{id}/edit")).status, 200, "{fields:?}");
                // Clients of Kaltura's read every time.
                let link = stored(&appliance, id);
                assert!(
                    link["expiresAt"].is_null() || link["expiresAt"].as_i64().is_some(),
                    "{link}"
                );
            }
            status => assert_eq!(status, 422, "{fields:?}"),
        }
    }
    assert_eq!(jane.get("/links").status, 200);
    let total = appliance.list(&appliance.admin_ks(), &[]).1;
    // A start finds no damage.
    assert!(appliance.terminate().success());
    appliance.restart();
    assert_eq!(appliance.list(&appliance.admin_ks(), &[]).1, total);
    assert!(!appliance.log().contains("damaged"), "{}", appliance.log());
    let check = appliance.tinyd(&["status"]);
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn what_was_done_is_said_and_can_be_undone() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[("name", "Talk")]);
    let says = |jane: &mut Browser, path: &str, words: &[&str]| {
        let page = jane.get(path);
        assert_eq!(page.status, 200, "{path}");
        for words in words {
            assert!(page.text().contains(words), "{path}: {words}: {}", page.text());
        }
    };
    says(
        &mut jane,
        &format!("/links/{id}?done=created"),
        &["Link created", "Works"],
    );
    assert_eq!(appliance.goto(&id).status, 302);
    let location = jane.done(&format!("/links/{id}/edit"), &[("full_url", "https://example.com/new")]);
    says(
        &mut jane,
        &location,
        &["takes effect at once", "https://example.com/new"],
    );
    assert_eq!(appliance.goto(&id).header("location"), "https://example.com/new");
    let location = jane.done(&format!("/links/{id}/disable"), &[]);
    says(
        &mut jane,
        &location,
        &["stopped working at once", "Switched off", "Switch on"],
    );
    assert_eq!(appliance.goto(&id).status, 404);
    let location = jane.done(&format!("/links/{id}/enable"), &[]);
    says(&mut jane, &location, &["works at once", "Switch off"]);
    let location = jane.done(&format!("/links/{id}/delete"), &[]);
    says(
        &mut jane,
        &location,
        &["stopped working at once", "Undo", &format!("/links/{id}/restore")],
    );
    let (_, undo) = location.split_once("undo=").unwrap();
    assert_eq!(appliance.goto(&id).status / 100, 4);
    says(&mut jane, "/links?state=deleted", &["Deleted", &id]);
    says(
        &mut jane,
        &format!("/links/{id}"),
        &["This link is deleted", "An administrator can restore it"],
    );
    // Nothing else can be done with it.
    for action in ["edit", "disable", "enable", "delete"] {
        let answer = jane.submit(
            &format!("/links/{id}/{action}"),
            &[("full_url", "https://example.com/")],
        );
        assert_eq!(answer.status, 404, "{action}");
    }
    // A user undoes what this session has just deleted, and nothing else.
    let restore = format!("/links/{id}/restore");
    let later = format!("9{undo}");
    for mark in ["", "x", later.as_str(), &undo[..undo.len() - 1]] {
        assert_eq!(jane.submit(&restore, &[("undo", mark)]).status, 403, "{mark}");
    }
    let mut elsewhere = Browser::of_user(&appliance, "jane");
    assert_eq!(elsewhere.submit(&restore, &[("undo", undo)]).status, 403);
    let location = jane.done(&restore, &[("undo", undo)]);
    says(&mut jane, &location, &["Link restored", "Works"]);
    assert_eq!(appliance.goto(&id).header("location"), "https://example.com/new");
}

#[test]
fn playback_times_make_another_link() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[
        ("full_url", "https://video.example.edu/media/t/1_2rc7uxir"),
        ("name", "Talk"),
    ]);
    for (start, end) in [
        ("", ""),
        ("x", ""),
        ("1:60", ""),
        ("2:00", "1:00"),
        ("1:00", "1:00"),
        ("1:00", "\"<b>"),
    ] {
        let answer = jane.submit(&format!("/links/{id}/playback"), &[("start", start), ("end", end)]);
        assert_eq!(answer.status, 422, "{start} {end}");
        assert!(answer.text().contains("role=\"alert\""), "{}", answer.text());
        assert!(!answer.text().contains("\"<b>"), "{}", answer.text());
    }
    let location = jane.done(&format!("/links/{id}/playback"), &[("start", "1:30"), ("end", "2:45")]);
    let new = location["/links/".len()..].split('?').next().unwrap();
    assert_ne!(new, id);
    let link = stored(&appliance, new);
    assert_eq!(
        link["fullUrl"],
        "https://video.example.edu/media/t/1_2rc7uxir?kalturaSeekFrom=90&kalturaClipTo=165&kalturaStartTime=0"
    );
    assert_eq!(
        (&link["name"], &link["userId"]),
        (&json!("Talk (1:30–2:45)"), &json!("jane"))
    );
    assert_eq!(
        stored(&appliance, &id)["fullUrl"],
        "https://video.example.edu/media/t/1_2rc7uxir"
    );
    let plain = jane.create(&[]);
    assert_eq!(
        jane.submit(&format!("/links/{plain}/playback"), &[("start", "1:30")])
            .status,
        404
    );
}

#[test]
fn codes_are_files_of_their_kind() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    let png = jane.get(&format!("/links/{id}/qr.png?size=1024&level=H"));
    assert!(png.body.starts_with(b"\x89PNG"));
    assert_eq!(png.header("content-type"), "image/png");
    assert_eq!(
        png.header("content-disposition"),
        format!("attachment; filename=\"{id}.png\"")
    );
    let svg = jane.get(&format!("/links/{id}/qr.svg"));
    assert!(svg.text().starts_with("<svg ") && !svg.text().contains("script"));
    assert_eq!(svg.header("content-type"), "image/svg+xml");
    assert_eq!(
        svg.header("content-disposition"),
        format!("attachment; filename=\"{id}.svg\"")
    );
}

#[test]
fn partner_is_filled_in_where_there_is_one() {
    let appliance = Appliance::start();
    let page = Browser::new(&appliance).get("/sign-in");
    assert!(!page.text().contains(PARTNER), "there are two: {}", page.text());
}
