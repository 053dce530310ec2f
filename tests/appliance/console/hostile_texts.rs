//! Texts of strangers on every page: they show as text, and turn nothing around.

use crate::support::browser::Browser;
use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER};
use crate::support::http::Answer;

const MARKUP: &str = "\"><script>alert(1)</script><img src=x onerror=alert(2)>";
const ATTRIBUTE: &str = "' onmouseover='alert(1)' x=\" autofocus onfocus=\"alert(2)";
const CLOSING: &str = "</title></textarea></style></bdi></main><h1>Owned</h1>";
const TEMPLATE: &str = "{{ 1337*1337 }}{% raw %}${1337*1337}<!--";
/// Turns what follows: `gpj.exe` looks like `exe.jpg`.
const OVERRIDE: &str = "pay\u{202e}gpj.exe\u{2066}x\u{200f}";
const TEXTS: [&str; 5] = [MARKUP, ATTRIBUTE, CLOSING, TEMPLATE, OVERRIDE];

/// What strangers wrote must be text: no tag of theirs is in the page, no attribute ends early, no letter turns.
fn assert_is_text(what: &str, answer: &Answer, text: &str) {
    let page = answer.text();
    for markup in [
        "<script>",
        "<img",
        "<h1>Owned",
        "' onmouseover",
        "\" autofocus onfocus",
        "</textarea>",
        "</style>",
        "<!--",
    ] {
        assert!(!page.contains(markup), "{what}: {markup} of {text:?} in {page}");
    }
    assert!(!page.contains("1787569"), "{what}: {page}");
    // In a field of a form it stays as it is, so that saving the form keeps it.
    let without_fields = page
        .split('<')
        .filter(|tag| !tag.starts_with("input "))
        .collect::<String>();
    for turning in ['\u{202e}', '\u{2066}', '\u{200f}'] {
        assert!(!without_fields.contains(turning), "{what}: {turning:?} in {page}");
    }
}

#[test]
fn hostile_names_are_text_on_every_page() {
    let appliance = Appliance::start();
    for text in TEXTS {
        let name: String = text.chars().take(63).collect();
        let mut browser = Browser::of(&appliance, PARTNER, text, ADMIN_SECRET);
        let fields = [("name", name.as_str()), ("system_name", &name), ("user", text)];
        let with_player = [&fields[..], &[("full_url", "https://www.youtube.com/watch?v=1")]].concat();
        let (id, deleted) = (browser.create(&with_player), browser.create(&fields));
        let link = appliance.link("get", &appliance.admin_ks(), &[("id", &id)]);
        assert_eq!((&link["name"], &link["userId"]), (&name.as_str().into(), &text.into()));
        browser.done(&format!("/links/{deleted}/delete"), &[]);
        let encoded = crate::support::http::encode(text);
        let mut pages = Vec::new();
        for path in [
            "/links".to_owned(),
            "/links?state=deleted".to_owned(),
            format!("/links/{id}"),
            format!("/links/{id}/edit"),
            format!("/links/{deleted}"),
            format!("/links?deleted={deleted}"),
            "/nowhere".to_owned(),
            "/all".to_owned(),
            format!("/users/{encoded}"),
            "/clicks".to_owned(),
        ] {
            pages.push((path.clone(), browser.get(&path)));
        }
        for (path, answer) in &pages[..5] {
            let shown: String = name.chars().take(2).collect();
            assert!(answer.status == 200 && !shown.is_empty(), "{path}");
        }
        let wrong = [
            &fields[..],
            &[
                ("full_url", text),
                ("starts", text),
                ("ends", text),
                ("validity", "window"),
            ],
        ]
        .concat();
        pages.push(("new".to_owned(), browser.submit("/links/new", &wrong)));
        pages.push(("edit".to_owned(), browser.submit(&format!("/links/{id}/edit"), &wrong)));
        let times = [("start", text), ("end", text)];
        pages.push((
            "times".to_owned(),
            browser.submit(&format!("/links/{id}/playback"), &times),
        ));
        let sign_in = [("partner", text), ("user", text), ("secret", "wrong"), ("next", text)];
        pages.push(("sign-in".to_owned(), browser.post("/sign-in", &sign_in)));
        let many = ["q", "state", "owner", "from", "to", "unused", "order", "end", "select"].map(|name| (name, text));
        let of_user = [("for_all", "1"), ("action", "delete"), ("id", &id)];
        pages.push((
            "bulk".to_owned(),
            browser.submit("/bulk/confirm", &[&of_user[..], &many].concat()),
        ));
        pages.push(("jobs".to_owned(), browser.get("/jobs")));
        for path in [
            format!("/sign-in?next={encoded}"),
            format!("/links?show={encoded}&deleted={encoded}&done={encoded}&page={encoded}"),
            format!("/all?q={encoded}&state={encoded}&owner={encoded}&from={encoded}&to={encoded}&order={encoded}"),
            format!("/links/{encoded}"),
            format!("/{encoded}"),
        ] {
            pages.push((path.clone(), browser.get(&path)));
        }
        let made = super::make_sign_in_link(&appliance, &appliance.admin_ks(), text, "0");
        pages.push((
            "link".to_owned(),
            browser.get(&format!("/{}", made["path"].as_str().unwrap())),
        ));
        for (what, answer) in &pages {
            assert_is_text(what, answer, text);
        }
    }
}

#[test]
fn hostile_texts_in_error_pages_are_text() {
    let appliance = Appliance::start();
    let mut admin = Browser::of_admin(&appliance);
    let ks = appliance.admin_ks();
    for text in TEXTS {
        let unique: String = text.chars().take(63).collect();
        let params = [("shortLink[uniqueId]", unique.as_str()), ("shortLink[name]", "x")];
        let old = appliance.add(&ks, &params);
        let page = admin.get(&format!("/links/{old}"));
        assert!(page.text().contains("Unique ID"), "{}", page.text());
        assert_is_text("unique ID", &page, text);
        admin.done(&format!("/links/{old}/delete"), &[]);
        appliance.add(&ks, &params);
        let answer = admin.submit(&format!("/links/{old}/restore"), &[]);
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert_is_text("restore", &answer, text);
    }
}

#[test]
fn hostile_destinations_are_text_and_show_their_host() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    for (full_url, host) in [
        ("https://example.com/\"><script>alert(1)</script>", "example.com"),
        ("https://example.com/' onmouseover='alert(1)", "example.com"),
        ("https://example.com/#\"><img src=x onerror=alert(1)>", "example.com"),
        ("https://example.com/pay\u{202e}gpj.exe", "example.com"),
        // A Cyrillic a, and a host that looks like a path.
        ("https://www.k\u{430}ltura.com/login", "www.xn--kltura-3nf.com"),
        ("https://www.kaltura.com.evil.test/login", "www.kaltura.com.evil.test"),
        ("https://www.kaltura.com:x@evil.test/", "evil.test"),
        ("https://evil.test/https://www.kaltura.com/", "evil.test"),
        ("https://\u{ff0e}evil.test/", ""),
    ] {
        let answer = jane.submit("/links/new", &[("full_url", full_url), ("name", "x")]);
        if answer.status == 422 {
            assert_is_text("form", &answer, full_url);
            assert!(["", "evil.test"].contains(&host), "{full_url}: {}", answer.text());
            continue;
        }
        let id = answer.header("location")["/console/links/".len()..]
            .split('?')
            .next()
            .unwrap()
            .to_owned();
        for path in ["/links".to_owned(), format!("/links/{id}"), format!("/links/{id}/edit")] {
            assert_is_text(&path, &jane.get(&path), full_url);
        }
        let page = jane.get(&format!("/links/{id}"));
        assert!(
            page.text().contains(&format!("<strong class=\"host\">{host}</strong>")),
            "{}",
            page.text()
        );
        let list = jane.get("/links");
        assert!(list.text().contains(&format!(">{host}</span>")), "{}", list.text());
        // The form shows the destination as it is stored.
        let stored = appliance.link("get", &appliance.admin_ks(), &[("id", &id)]);
        assert_eq!(stored["fullUrl"], full_url);
        jane.done(&format!("/links/{id}/delete"), &[]);
    }
}

#[test]
fn mail_with_a_hostile_name_has_one_subject() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[("name", "a&bcc=evil@evil.test?body=\"x\u{202e}")]);
    let page = jane.get(&format!("/links/{id}"));
    let (_, mail) = page.text().split_once("href=\"mailto:").unwrap();
    let mail = mail.split('"').next().unwrap();
    let mail = mail.replace("&#38;", "&");
    let (subject, body) = mail.split_once('&').unwrap();
    assert!(subject.starts_with("?subject=a%26bcc%3Devil%40evil%2Etest"), "{mail}");
    assert!(body.starts_with("body=http") && !body.contains('&'), "{mail}");
}
