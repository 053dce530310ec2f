//! What people see and change: the same as with a KS.

use crate::support::browser::Browser;
use crate::support::fixture::Appliance;
use crate::support::http::Answer;

const OTHER_PARTNER: &str = "7654321";

/// Every page and every write of a link, as somebody sends them.
fn everything(browser: &mut Browser, id: &str) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for page in ["", "/edit", "/qr.svg", "/qr.png"] {
        let path = format!("/links/{id}{page}");
        answers.push((format!("GET {path}"), browser.get(&path)));
    }
    for action in ["edit", "playback", "disable", "enable", "restore", "delete", "restore"] {
        let path = format!("/links/{id}/{action}");
        let fields = [
            ("full_url", "https://evil.test/taken"),
            ("start", "1:00"),
            ("name", "taken"),
        ];
        answers.push((format!("POST {path}"), browser.submit(&path, &fields)));
    }
    answers
}

#[test]
fn users_see_and_change_their_own_links_only() {
    let appliance = Appliance::start();
    let mut john = Browser::of_user(&appliance, "john");
    let id = john.create(&[("full_url", "https://www.youtube.com/watch?v=1"), ("name", "of john")]);
    let deleted = john.create(&[("name", "deleted of john")]);
    john.done(&format!("/links/{deleted}/delete"), &[]);
    let nobodys = appliance.add(
        &appliance.admin_ks(),
        &[("shortLink[name]", "of nobody"), ("shortLink[userId]", "")],
    );
    let mut jane = Browser::of_user(&appliance, "jane");
    let mut other = Browser::of(&appliance, OTHER_PARTNER, "john", "of another partner");
    let unknown = jane.get("/links/abcdabcd");
    assert_eq!(unknown.status, 404);
    for (who, browser) in [("jane", &mut jane), ("another partner's john", &mut other)] {
        for id in [&id, &deleted, &nobodys] {
            for (what, answer) in everything(browser, id) {
                assert_eq!(answer.status, 404, "{who} {what}: {}", answer.text());
                // Not even that it exists.
                assert!(
                    answer.text().contains("No such link"),
                    "{who} {what}: {}",
                    answer.text()
                );
                assert!(
                    !answer.text().contains("john\"") && !answer.text().contains("youtube"),
                    "{who} {what}"
                );
            }
        }
        for show in ["", "on", "off", "deleted", "x"] {
            let page = browser.get(&format!("/links?state={show}&user=john&partner=1234567"));
            assert!(
                !page.text().contains(&id) && !page.text().contains(&deleted),
                "{who} {show}"
            );
        }
    }
    let link = appliance.link("get", &appliance.admin_ks(), &[("id", &id)]);
    assert_eq!((&link["name"], &link["status"]), (&"of john".into(), &2.into()));
    assert_eq!(appliance.list(&appliance.admin_ks(), &[]).1, 2);
}

#[test]
fn administrators_change_links_of_their_partner_only() {
    let appliance = Appliance::start();
    let mut john = Browser::of_user(&appliance, "john");
    let id = john.create(&[("full_url", "https://www.youtube.com/watch?v=1")]);
    let mut other = Browser::of(&appliance, OTHER_PARTNER, "admin", "of another partner");
    for (what, answer) in everything(&mut other, &id) {
        assert_eq!(answer.status, 404, "{what}");
    }
    let mut admin = Browser::of_admin(&appliance);
    for (what, answer) in everything(&mut admin, &id) {
        // A link is restored only after it has been deleted, which is the last but one; the playback of it is no page.
        assert!(matches!(answer.status, 200 | 303 | 404), "{what}: {}", answer.text());
    }
    let link = appliance.link("get", &appliance.admin_ks(), &[("id", &id)]);
    assert_eq!(
        (&link["name"], &link["fullUrl"]),
        (&"taken".into(), &"https://evil.test/taken".into())
    );
    // Its form has left the owner's field out, so nobody owns it.
    assert_eq!(john.get(&format!("/links/{id}")).status, 404);
}

#[test]
fn users_cannot_give_links_away() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[("user", "john"), ("partner", OTHER_PARTNER)]);
    jane.done(
        &format!("/links/{id}/edit"),
        &[("full_url", "https://example.com/2"), ("user", "john"), ("id", "other")],
    );
    let link = appliance.link("get", &appliance.admin_ks(), &[("id", &id)]);
    assert_eq!(
        (&link["userId"], &link["fullUrl"]),
        (&"jane".into(), &"https://example.com/2".into())
    );
}

#[test]
fn users_names_are_compared_to_the_letter() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    for name in ["Jane", "jane@", "j\u{430}ne", "jane\u{200b}", "*", "%"] {
        let mut other = Browser::of_user(&appliance, name);
        assert_eq!(other.get(&format!("/links/{id}")).status, 404, "{name}");
        assert!(!other.get("/links").text().contains(&id), "{name}");
    }
}
