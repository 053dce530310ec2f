//! Signing in with a secret.

use std::fs;

use rustix::process::Signal;

use crate::support::browser::Browser;
use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET, code, configuration, poll};

const OTHER_PARTNER: &str = "7654321";

#[test]
fn secret_decides_what_somebody_may_do() {
    let appliance = Appliance::start();
    for (secret, is_admin) in [(USER_SECRET, false), (ADMIN_SECRET, true)] {
        let mut browser = Browser::new(&appliance);
        let answer = browser.sign_in(PARTNER, "jane", secret);
        assert_eq!((answer.status, answer.header("location")), (303, "/console/"));
        let page = browser.get("/links");
        assert_eq!(page.status, 200);
        assert!(page.text().contains("<bdi>jane</bdi>"), "{}", page.text());
        assert_eq!(page.text().contains("administrator"), is_admin);
        // Only an administrator names another owner.
        assert_eq!(browser.get("/links/new").text().contains("name=\"user\""), is_admin);
        let id = browser.create(&[("user", "john")]);
        let owner = if is_admin { "john" } else { "jane" };
        assert_eq!(
            appliance.link("get", &appliance.admin_ks(), &[("id", &id)])["userId"],
            owner
        );
    }
}

#[test]
fn wrong_secret_signs_nobody_in() {
    let appliance = Appliance::start();
    let too_long = "x".repeat(101);
    for (partner, user, secret) in [
        (PARTNER, "jane", "guessed"),
        (PARTNER, "jane", ""),
        (PARTNER, "", USER_SECRET),
        (PARTNER, &too_long, USER_SECRET),
        (PARTNER, "jane", "of another partner"),
        (OTHER_PARTNER, "jane", USER_SECRET),
        ("1", "jane", USER_SECRET),
        ("-1", "jane", USER_SECRET),
        ("99999999999999999999", "jane", USER_SECRET),
        ("", "jane", USER_SECRET),
        ("x", "jane", USER_SECRET),
    ] {
        let mut browser = Browser::new(&appliance);
        let answer = browser.sign_in(partner, user, secret);
        assert_eq!(answer.status, 403, "{partner} {user} {secret}");
        assert_eq!((answer.header("set-cookie"), browser.cookie.as_str()), ("", ""));
        let page = answer.text();
        assert!(page.contains("role=\"alert\""), "{page}");
        // The page shows what was entered, and no secret.
        assert!(page.contains(&format!("value=\"{user}\"")), "{page}");
        assert!(secret.is_empty() || !page.contains(secret), "{page}");
        assert!(!browser.is_signed_in());
    }
}

#[test]
fn guesses_are_limited_together_with_the_api() {
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
    for _ in 0..5 {
        assert_eq!(code(&start("wrong")), "START_SESSION_ERROR");
        assert_eq!(Browser::new(&appliance).sign_in(PARTNER, "jane", "wrong").status, 403);
    }
    let answer = Browser::new(&appliance).sign_in(PARTNER, "jane", USER_SECRET);
    assert_eq!((answer.status, answer.header("set-cookie")), (429, ""));
    assert!(answer.text().contains("Try again in a minute"), "{}", answer.text());
    assert_eq!(code(&start(ADMIN_SECRET)), "START_SESSION_ERROR");
    let answer = Browser::new(&appliance).sign_in(OTHER_PARTNER, "jane", "of another partner");
    assert_eq!(answer.status, 303);
}

#[test]
fn guesses_at_unknown_partners_end_like_others() {
    let appliance = Appliance::start();
    let guesses = |partner: &str| {
        let answers = (0..11).map(|_| {
            let answer = Browser::new(&appliance).sign_in(partner, "jane", "wrong");
            (answer.status, answer.text().replace(partner, "…"))
        });
        answers.collect::<Vec<_>>()
    };
    let of_known = guesses(PARTNER);
    assert_eq!((of_known[9].0, of_known[10].0), (403, 429));
    assert!(guesses("1111111") == of_known);
}

#[test]
fn signing_in_leads_to_pages_of_the_console_only() {
    let appliance = Appliance::start();
    let mut browser = Browser::new(&appliance);
    let asked = browser.get("/links/abcd");
    assert_eq!(
        (asked.status, asked.header("location")),
        (303, "/console/sign-in?next=links%2Fabcd")
    );
    let asked = browser.get("/all?q=a,b:c&state=off");
    assert_eq!(
        asked.header("location"),
        "/console/sign-in?next=all%3Fq%3Da%252Cb%253Ac%26state%3Doff"
    );
    for (next, leads_to) in [
        ("links/abcd", "/console/links/abcd"),
        ("all?q=a%2Cb%3Ac&state=off", "/console/all?q=a%2Cb%3Ac&state=off"),
        ("", "/console/"),
        ("//evil.test", "/console/"),
        ("/\\evil.test", "/console/"),
        ("https://evil.test/", "/console/"),
        ("javascript:alert(1)", "/console/"),
        ("../../evil", "/console/"),
        ("links/%2e%2e/%2E./evil", "/console/"),
        ("links?q=a..b", "/console/links?q=a..b"),
        ("@evil.test", "/console/"),
        ("links\r\nSet-Cookie: a=b", "/console/"),
        ("sign-out", "/console/"),
    ] {
        let fields = [
            ("partner", PARTNER),
            ("user", "jane"),
            ("secret", USER_SECRET),
            ("next", next),
        ];
        let answer = Browser::new(&appliance).post("/sign-in", &fields);
        assert_eq!((answer.status, answer.header("location")), (303, leads_to), "{next:?}");
    }
}

#[test]
fn sessions_of_a_removed_partner_end_at_reload() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let mut other = Browser::of(&appliance, OTHER_PARTNER, "john", "of another partner");
    assert!(jane.is_signed_in() && other.is_signed_in());
    let configured = configuration("");
    let (kept, _) = configured.split_once("[[partner]]\nid = 7654321").unwrap();
    fs::write(appliance.config(), kept).unwrap();
    appliance.signal(Signal::HUP);
    poll("the reload", || !other.is_signed_in());
    assert!(jane.is_signed_in());
    assert_eq!(
        Browser::new(&appliance)
            .sign_in(OTHER_PARTNER, "john", "of another partner")
            .status,
        403
    );
}

/// Where a page goes on by itself.
fn goes_on_to(page: &str) -> String {
    let (_, rest) = page
        .split_once("http-equiv=\"refresh\" content=\"0; url=")
        .unwrap_or_else(|| panic!("does not go on: {page}"));
    let url = rest.split('"').next().unwrap();
    assert!(page.contains(&format!("href=\"{url}\"")), "no link: {page}");
    url.replace("&amp;", "&").replace("&#38;", "&")
}

#[test]
fn page_opened_from_another_site_needs_no_new_sign_in() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    // Browsers keep the cookie back, also from where a redirect of that request leads. Over plain HTTP they do not say
    // why.
    for site in [&[("Sec-Fetch-Site", "cross-site")][..], &[]] {
        let mut nobody = Browser::new(&appliance);
        let path = format!("/links/{id}?a=1&b=%22%3Cx%3E");
        let asked = nobody.send("GET", &path, site, b"");
        let sign_in = asked.header("location").strip_prefix("/console").unwrap().to_owned();
        let page = nobody.send("GET", &sign_in, site, b"");
        assert_eq!((page.status, page.header("set-cookie")), (200, ""), "{site:?}");
        assert!(!page.text().contains("Secret"), "{}", page.text());
        // That page is of this site, so its browser sends the cookie.
        let next = goes_on_to(page.text());
        let next = next.strip_prefix("/console").unwrap();
        let site = [("Sec-Fetch-Site", "same-origin")];
        let led = jane.send("GET", next, &site, b"");
        assert_eq!(
            (led.status, led.header("location")),
            (303, format!("/console{path}").as_str())
        );
        // Without one, it ends there, whatever browsers say.
        for site in [&site[..], &[("Sec-Fetch-Site", "cross-site")], &[]] {
            let form = nobody.send("GET", next, site, b"");
            assert_eq!(form.status, 200, "{site:?}");
            assert!(form.text().contains("Secret"), "{site:?}: {}", form.text());
            assert!(!form.text().contains("http-equiv"), "{site:?}: {}", form.text());
        }
    }
    // Nobody leads people away with it.
    let page = Browser::new(&appliance).send("GET", "/sign-in?next=https://evil.test/", &[], b"");
    let next = goes_on_to(page.text());
    let led = jane.get(next.strip_prefix("/console").unwrap());
    assert_eq!((led.status, led.header("location")), (303, "/console/"));
}
