//! The pages of administrators, and changes of many links.

use super::{change_many, statuses};
use crate::support::browser::Browser;
use crate::support::fixture::Appliance;
use crate::support::http::request;

const OTHER_PARTNER: &str = "7654321";

#[test]
fn pages_of_administrators_are_theirs_alone() {
    let appliance = Appliance::start_with_operator();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[("name", "of jane")]);
    let mut admin = Browser::of_admin(&appliance);
    let mut other = Browser::of(&appliance, OTHER_PARTNER, "admin", "of another partner");
    for path in [
        "/all",
        "/clicks",
        "/health",
        "/jobs",
        "/users",
        "/users/jane",
        "/all?owner=jane",
        "/all?q=jane",
    ] {
        assert_eq!(Browser::new(&appliance).get(path).status, 303, "{path}");
        assert_eq!(jane.get(path).status, 403, "{path}");
        assert!(
            !jane.get("/links").text().contains(&format!("href=\"/console{path}\"")),
            "{path}"
        );
        let of_admin = admin.get(path);
        let status = if path == "/users" { 303 } else { 200 };
        assert_eq!(of_admin.status, status, "{path}");
        // It is about the server, which is not the other partner's.
        let of_other = other.get(path);
        assert_eq!(of_other.status, if path == "/health" { 403 } else { status }, "{path}");
        assert!(
            !of_other.text().contains(&id) && !of_other.text().contains("of jane"),
            "{path}"
        );
    }
    assert!(admin.get("/all").text().contains("of jane"));
}

#[test]
fn many_links_are_changed_within_ones_reach_only() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let (own, second) = (jane.create(&[]), jane.create(&[]));
    let johns = Browser::of_user(&appliance, "john").create(&[]);
    let mut other = Browser::of(&appliance, OTHER_PARTNER, "admin", "of another partner");
    let all = [&own, &second, &johns];
    let by_id: Vec<_> = all.iter().map(|id| ("id", id.as_str())).collect();
    let with = |more: &[(&'static str, &'static str)]| [&by_id[..], more].concat();
    for action in ["disable", "delete", "extend"] {
        for select in ["some", "all"] {
            let fields = with(&[
                ("action", action),
                ("select", select),
                ("for_all", "1"),
                ("end", "2020-01-01"),
            ]);
            if let Some(page) = (select == "some").then(|| change_many(&mut other, &fields)) {
                assert!(page.contains("Done. No link was "), "{page}");
            } else {
                assert_eq!(other.submit("/bulk/confirm", &fields).status / 100, 4);
            }
        }
    }
    assert_eq!(statuses(&appliance, &all), [2, 2, 2]);
    // A user reaches their own links, whatever the form says.
    for select in ["some", "all"] {
        let fields = with(&[
            ("action", "disable"),
            ("select", select),
            ("for_all", "1"),
            ("owner", "john"),
        ]);
        change_many(&mut jane, &fields);
        assert_eq!(statuses(&appliance, &all), [1, 1, 2], "{select}");
        change_many(
            &mut jane,
            &with(&[("action", "enable"), ("select", select), ("for_all", "1")]),
        );
        assert_eq!(statuses(&appliance, &all), [2, 2, 2], "{select}");
    }
    let mut admin = Browser::of_admin(&appliance);
    let confirm = admin.submit(
        "/bulk/confirm",
        &[
            ("action", "delete"),
            ("select", "all"),
            ("for_all", "1"),
            ("owner", "jane"),
        ],
    );
    assert!(confirm.text().contains("Delete 2 links"), "{}", confirm.text());
    change_many(
        &mut admin,
        &[
            ("action", "delete"),
            ("select", "all"),
            ("for_all", "1"),
            ("owner", "jane"),
        ],
    );
    assert_eq!(statuses(&appliance, &all), [0, 0, 2]);
    let restore = [
        ("action", "restore"),
        ("select", "all"),
        ("for_all", "1"),
        ("state", "deleted"),
    ];
    change_many(&mut admin, &restore);
    assert_eq!(statuses(&appliance, &all), [2, 2, 2]);
}

#[test]
fn change_of_many_is_asked_for_properly() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    for fields in [
        &[("action", "explode"), ("id", id.as_str())][..],
        &[("action", "")],
        &[("action", "delete")],
        &[("action", "delete"), ("id", "!"), ("id", "")],
        &[("action", "extend"), ("end", "soon"), ("id", &id)],
        &[("action", "extend"), ("end", "-1"), ("id", &id)],
        &[("action", "extend"), ("end", ""), ("id", &id)],
    ] {
        let answer = jane.submit("/bulk/confirm", fields);
        assert_eq!(answer.status / 100, 4, "{fields:?}");
    }
    // An end that no link can have.
    let end = [
        ("action", "extend"),
        ("end", "9223372036854775807"),
        ("id", id.as_str()),
    ];
    let answer = jane.submit("/bulk/confirm", &end);
    assert_eq!(answer.status / 100, 4, "{}", answer.text());
    // Asking changes nothing.
    let answer = jane.submit("/bulk/confirm", &[("action", "delete"), ("id", &id)]);
    assert!(
        answer.status == 200 && answer.text().contains("Delete 1 link?"),
        "{}",
        answer.text()
    );
    assert_eq!(statuses(&appliance, &[&id]), [2]);
    // Others than have been shown: it asks again.
    for count in ["", "2", "x"] {
        let answer = jane.submit("/bulk", &[("action", "delete"), ("id", &id), ("count", count)]);
        assert!(
            answer.status == 200 && answer.text().contains("Delete 1 link?"),
            "{count}"
        );
    }
    assert_eq!(statuses(&appliance, &[&id]), [2]);
    // The progress belongs to the session that began it.
    let progress = jane.done("/bulk", &[("action", "disable"), ("id", &id), ("count", "1")]);
    assert_eq!(Browser::of_user(&appliance, "jane").get(&progress).status, 404);
    for number in ["0", "x", "ffffffffffffffffff", "%00"] {
        assert_eq!(jane.get(&format!("/bulk/{number}")).status, 404, "{number}");
    }
    let token = jane.token();
    let answer = jane.post_with(
        "/bulk",
        &[("Origin", "http://evil.test")],
        &[("token", &token), ("action", "delete"), ("id", &id)],
    );
    assert_eq!(answer.status, 403);
    assert_eq!(jane.post("/bulk", &[("action", "delete"), ("id", &id)]).status, 403);
}

#[test]
fn new_id_retires_the_old_one() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[("name", "leaked")]);
    for browser in [
        &mut Browser::of_user(&appliance, "john"),
        &mut Browser::of(&appliance, OTHER_PARTNER, "a", "of another partner"),
    ] {
        let answer = browser.submit(&format!("/links/{id}/new-id"), &[("confirm", "yes")]);
        assert_eq!(answer.status, 404);
    }
    assert_eq!(
        jane.submit(&format!("/links/{id}/new-id"), &[]).status / 100,
        4,
        "not confirmed"
    );
    assert_eq!(appliance.goto(&id).status, 302);
    let location = jane.done(&format!("/links/{id}/new-id"), &[("confirm", "yes")]);
    let new = location["/links/".len()..].split('?').next().unwrap();
    assert!(new != id && jane.get(&location).text().contains("leaked"));
    assert_eq!((appliance.goto(&id).status, appliance.goto(new).status), (410, 302));
    let old = jane.get(&format!("/links/{id}"));
    assert!(
        old.text().contains("never works again") && !old.text().contains("Restore it"),
        "{}",
        old.text()
    );
    for action in ["restore", "enable", "new-id"] {
        let answer = jane.submit(&format!("/links/{id}/{action}"), &[("confirm", "yes")]);
        assert_eq!(answer.status / 100, 4, "{action}: {}", answer.text());
    }
    assert_eq!(appliance.goto(&id).status, 410);
}

#[test]
fn console_on_a_listener_of_its_own_is_alone_there() {
    let appliance = Appliance::start_with("[console]\nlisten = [\"127.0.0.1:0\"]\n");
    let base = &appliance.console;
    let get = |path: &str| request(base, "GET", path, &[], b"");
    assert_eq!(get("/console/sign-in").status, 200);
    assert_eq!(get("/console/links").status, 303);
    for path in [
        "/status",
        "/metrics",
        "/healthz",
        "/api_v3/service/session/action/start",
        "/tiny/abcd",
        "/x",
    ] {
        let answer = get(path);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
    // Sessions hold on both listeners.
    let jane = Browser::of_user(&appliance, "jane");
    let answer = request(base, "GET", "/console/links", &[("Cookie", &jane.cookie)], b"");
    assert_eq!(answer.status, 200);
}
