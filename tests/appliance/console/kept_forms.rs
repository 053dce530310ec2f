//! Forms that are sent twice, at the wrong time, or without a session: nothing is made twice, and nothing entered is
//! lost.

use std::fs;

use rustix::process::Signal;

use crate::support::browser::{Browser, hidden};
use crate::support::fixture::{Appliance, PARTNER, configuration, poll};

const ENTERED: [(&str, &str); 8] = [
    ("full_url", "https://youtu.be/x"),
    ("name", "Talk \"one\""),
    ("system_name", "TALKS"),
    ("validity", "window"),
    ("starts", "2099-01-01T05:00"),
    ("starts_unix", "4070944800"),
    ("ends", ""),
    ("preset", "604800"),
];

/// What a form with that has.
const SHOWN: [&str; 6] = [
    "value=\"https://youtu.be/x\"",
    "value=\"Talk &#34;one&#34;\"",
    "value=\"TALKS\"",
    "value=\"window\" checked",
    // In UTC, as in every page.
    "value=\"2099-01-01T10:00\"",
    "<option value=\"604800\" selected>",
];

fn assert_kept(page: &str, shown: &[&str]) {
    for value in shown {
        assert!(page.contains(value), "no {value}: {page}");
    }
}

#[test]
fn ended_session_costs_nothing_that_was_entered() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[("full_url", "https://youtu.be/x"), ("name", "a secret")]);
    let token = jane.token();
    jane.submit("/sign-out", &[]);
    let fields = [&[("token", token.as_str())], &ENTERED[..]].concat();
    let times = [("token", token.as_str()), ("start", "1:30"), ("end", "2:45")];
    let times_shown = ["value=\"1:30\"", "value=\"2:45\""];
    let paths = [
        "/links/new".to_owned(),
        format!("/links/{id}/edit"),
        format!("/links/{id}/playback"),
    ];
    let [new, edit, playback] = &paths;
    for (path, fields, shown) in [
        (new, &fields[..], &SHOWN[..]),
        (edit, &fields, &SHOWN),
        (playback, &times, &times_shown),
    ] {
        let answer = jane.post(path, fields);
        assert_eq!((answer.status, answer.header("location")), (403, ""), "{path}");
        assert_kept(answer.text(), shown);
        assert_kept(
            answer.text(),
            &["Sign in in another tab", "target=\"_blank\"", "role=\"alert\""],
        );
        assert!(!answer.text().contains("a secret"), "{}", answer.text());
        assert!(
            answer.text().contains(&format!("action=\"/console{path}\"")),
            "{}",
            answer.text()
        );
    }
    assert_eq!(appliance.list(&appliance.admin_ks(), &[]).1, 1);
    // In another tab, somebody signs in; the form is of the old session still, and of the new one afterwards.
    let mut jane = Browser::of_user(&appliance, "jane");
    for (path, fields, shown) in [
        (new, &fields[..], &SHOWN[..]),
        (edit, &fields, &SHOWN),
        (playback, &times, &times_shown[..1]),
    ] {
        let answer = jane.post(path, fields);
        assert_eq!(answer.status, 403, "{path}");
        assert_kept(answer.text(), shown);
        let token = hidden(answer.text(), "token");
        let again = [&[("token", token.as_str())], &fields[1..]].concat();
        assert_eq!(jane.post(path, &again).status, 303, "{path}");
    }
    // Of links that are not theirs, nobody sees more.
    let mut john = Browser::of_user(&appliance, "john");
    for (path, fields) in [(edit, &fields[..]), (playback, &times)] {
        let answer = john.post(path, fields);
        assert_eq!(answer.status, 403, "{path}");
        assert!(!answer.text().contains("a secret"), "{}", answer.text());
        let token = hidden(answer.text(), "token");
        let again = [&[("token", token.as_str())], &fields[1..]].concat();
        assert_eq!(john.post(path, &again).status, 404, "{path}");
    }
}

#[test]
fn limits_of_the_partner_keep_what_was_entered() {
    let policy = "links_per_user_and_day = 1\n";
    let appliance = Appliance::start();
    let settings = configuration("");
    let id = format!("id = {PARTNER}\n");
    fs::write(appliance.config(), settings.replacen(&id, &(id.clone() + policy), 1)).unwrap();
    appliance.signal(Signal::HUP);
    let mut jane = Browser::of_user(&appliance, "jane");
    jane.create(&[]);
    poll("the reload", || jane.submit("/links/new", &ENTERED).status == 429);
    let answer = jane.submit("/links/new", &ENTERED);
    assert_kept(answer.text(), &SHOWN);
    assert_kept(answer.text(), &["No more links today"]);
}

#[test]
fn form_that_is_sent_twice_makes_one_link() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let once = |browser: &mut Browser, path: &str| hidden(browser.get(path).text(), "once");
    let first = once(&mut jane, "/links/new");
    let fields = |once, name| {
        let preset = [
            ("validity", "window"),
            ("preset", "3600"),
            ("name", name),
            ("once", once),
        ];
        [&[("full_url", "https://youtu.be/x")][..], &preset].concat()
    };
    let made = jane.done("/links/new", &fields(&first, "Talk"));
    assert_eq!(jane.done("/links/new", &fields(&first, "Talk")), made);
    assert!(jane.get(&made).text().contains("Link created."));
    // Who goes back and changes the form means another link.
    let other = jane.done("/links/new", &fields(&first, "Talk 2"));
    assert_ne!(other, made);
    let second = once(&mut jane, "/links/new");
    assert_ne!(jane.done("/links/new", &fields(&second, "Talk")), made);
    // So does somebody else.
    let mut john = Browser::of_user(&appliance, "john");
    assert_ne!(john.done("/links/new", &fields(&first, "Talk")), made);
    let count = || appliance.list(&appliance.admin_ks(), &[]).1;
    assert_eq!(count(), 4);
    // The forms of its page.
    let id = &made["/links/".len()..made.find('?').unwrap()];
    let once = once(&mut jane, &format!("/links/{id}"));
    let times = [("start", "1:30"), ("once", once.as_str())];
    let playback = format!("/links/{id}/playback");
    assert_eq!(jane.done(&playback, &times), jane.done(&playback, &times));
    assert_eq!(count(), 5);
    let renew = format!("/links/{id}/new-id");
    let confirmed = [("confirm", "yes"), ("once", once.as_str())];
    let renewed = jane.done(&renew, &confirmed);
    assert_eq!(jane.done(&renew, &confirmed), renewed);
    assert!(jane.get(&renewed).text().contains("New ID made."));
    // From a page that was opened before, the old one is said to be gone.
    let answer = jane.submit(&renew, &[("confirm", "yes"), ("once", "another")]);
    assert_eq!(answer.status, 410);
    assert!(answer.text().contains("This link has a new ID"), "{}", answer.text());
    assert_eq!(john.submit(&renew, &confirmed).status, 404);
    assert_eq!(count(), 5);
}

#[test]
fn undo_brings_a_link_back_as_it_was() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    let status = || appliance.link("get", &appliance.admin_ks(), &[("id", &id)])["status"].clone();
    for (action, expected, words) in [
        ("disable", 1, "switched off, as it was before"),
        ("enable", 2, "It works again."),
    ] {
        jane.done(&format!("/links/{id}/{action}"), &[]);
        let deleted = jane.done(&format!("/links/{id}/delete"), &[]);
        let (_, undo) = deleted.split_once("undo=").unwrap();
        let restore = format!("/links/{id}/restore");
        // Nobody chooses the status.
        let other = if expected == 1 {
            undo.replace("disabled", "enabled")
        } else {
            undo.replace("enabled", "disabled")
        };
        assert_ne!(other, undo);
        assert_eq!(jane.submit(&restore, &[("undo", &other)]).status, 403);
        let restored = jane.done(&restore, &[("undo", undo)]);
        assert_eq!(status(), expected, "{action}");
        assert!(jane.get(&restored).text().contains(words), "{action}");
        // Sent twice.
        assert_eq!(jane.done(&restore, &[("undo", undo)]), restored);
    }
}
