//! Links that sign in once.

use crate::console::{make_sign_in_link, sign_in_link};
use crate::support::browser::Browser;
use crate::support::fixture::{Appliance, code};

#[test]
fn opening_a_sign_in_link_does_not_spend_it() {
    let appliance = Appliance::start();
    let link = sign_in_link(&appliance, "jane", "0");
    let mut preview = Browser::new(&appliance);
    for method in ["GET", "HEAD", "GET"] {
        let page = preview.send(method, &link, &[], b"");
        assert_eq!((page.status, page.header("set-cookie")), (200, ""), "{method}");
        assert!(
            method == "HEAD" || page.text().contains("Sign in as jane"),
            "{}",
            page.text()
        );
    }
    let mut jane = Browser::new(&appliance);
    let answer = jane.post(&link, &[]);
    assert_eq!((answer.status, answer.header("location")), (303, "/console/"));
    let page = jane.get("/links");
    assert!(page.text().contains("<bdi>jane</bdi>") && !page.text().contains("administrator"));
    // A thief who reads it later finds it used up, and the owner stays signed in.
    for method in ["GET", "POST"] {
        let mut thief = Browser::new(&appliance);
        let answer = if method == "GET" {
            thief.get(&link)
        } else {
            thief.post(&link, &[])
        };
        assert_eq!((answer.status, answer.header("set-cookie")), (410, ""), "{method}");
        assert!(answer.text().contains("used up"), "{}", answer.text());
    }
    assert!(jane.is_signed_in());
}

#[test]
fn unknown_sign_in_link_is_gone() {
    let mut appliance = Appliance::start();
    let link = sign_in_link(&appliance, "jane", "2");
    let mut guessed = link.clone();
    guessed.truncate(link.len() - 1);
    for path in [
        guessed.as_str(),
        "/sign-in/link/x",
        "/sign-in/link/%00",
        "/sign-in/link/%F0%9F%94%91",
    ] {
        let mut browser = Browser::new(&appliance);
        assert_eq!(browser.get(path).status, 410, "{path}");
        let answer = browser.post(path, &[]);
        assert_eq!((answer.status, answer.header("set-cookie")), (410, ""), "{path}");
    }
    // Another site cannot spend it.
    let answer = Browser::new(&appliance).post_with(&link, &[("Origin", "http://evil.test")], &[]);
    assert_eq!(answer.status, 403);
    assert_eq!(Browser::new(&appliance).get(&link).status, 200);
    // It ends with the process.
    assert!(appliance.terminate().success());
    appliance.restart();
    assert_eq!(Browser::new(&appliance).get(&link).status, 410);
    // The token of a link that signs in is nowhere in the log.
    let token = link.rsplit('/').next().unwrap();
    assert!(!appliance.log().contains(token), "{}", appliance.log());
}

#[test]
fn only_administrators_make_sign_in_links() {
    let appliance = Appliance::start();
    let jane = appliance.user_ks("jane");
    assert_eq!(
        code(&make_sign_in_link(&appliance, &jane, "jane", "0")),
        "SERVICE_FORBIDDEN"
    );
    let admin = appliance.admin_ks();
    for (user, kind) in [("", "2"), ("jane", "1"), ("jane", "x"), (&*"x".repeat(101), "2")] {
        assert_ne!(
            code(&make_sign_in_link(&appliance, &admin, user, kind)),
            "",
            "{user} {kind}"
        );
    }
    // A link of another partner signs in there.
    let made = make_sign_in_link(&appliance, &appliance.other_partners_ks(), "admin", "2");
    let mut other = Browser::new(&appliance);
    assert_eq!(
        other.post(&format!("/{}", made["path"].as_str().unwrap()), &[]).status,
        303
    );
    let id = other.create(&[]);
    assert_eq!(
        code(&appliance.link("get", &admin, &[("id", &id)])),
        "INVALID_OBJECT_ID"
    );
}
