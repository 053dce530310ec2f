//! Changes of many links that go on by themselves: how they end, who sees them, and those of all links of a user.

use super::{change_many, end_of_change, statuses};
use crate::support::browser::{Browser, hidden};
use crate::support::fixture::{Appliance, serve};

const OTHER_PARTNER: &str = "7654321";

/// The fields of the form on the page of a user.
fn all_of<'f>(user: &'f str, action: &'f str) -> [(&'f str, &'f str); 4] {
    [("select", "all"), ("for_all", "1"), ("owner", user), ("action", action)]
}

#[test]
fn all_links_of_a_user_are_changed_by_a_job() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let add = |user: &str| appliance.add(&ks, &[("shortLink[userId]", user)]);
    let own = [add("jane"), add("jane")];
    let others = [add("john"), add(" jane"), add(" ")];
    let mut admin = Browser::of_admin(&appliance);
    for user in ["jane", "%20jane"] {
        let page = admin.get(&format!("/users/{user}"));
        assert!(
            page.text().contains("action=\"/console/bulk/confirm\""),
            "{}",
            page.text()
        );
        let owner = user.replace("%20", " ");
        assert!(page.text().contains(&format!("name=\"owner\" value=\"{owner}\"")));
    }
    let all: Vec<_> = own.iter().chain(&others).collect();
    let fields = all_of("jane", "disable");
    let confirm = admin.submit("/bulk/confirm", &fields);
    assert!(confirm.text().contains("Switch off 2 links?"), "{}", confirm.text());
    assert_eq!(statuses(&appliance, &all), [2, 2, 2, 2, 2], "not confirmed");
    let page = change_many(&mut admin, &fields);
    assert!(page.contains("Done. 2 links were switched off."), "{page}");
    assert_eq!(statuses(&appliance, &all), [1, 1, 2, 2, 2]);
    let page = change_many(&mut admin, &all_of("jane", "disable"));
    let words = "Done. No link was switched off. 2 links were left alone: already switched off, or gone.";
    assert!(page.contains(words), "{page}");
    // Whoever adds a link meanwhile changes the number, and is asked again.
    let late = add("jane");
    let answer = admin.submit("/bulk", &[&all_of("jane", "delete")[..], &[("count", "2")]].concat());
    assert!(answer.text().contains("Delete 3 links?"), "{}", answer.text());
    change_many(&mut admin, &all_of("jane", "delete"));
    assert_eq!(statuses(&appliance, &[&all[..], &[&late]].concat()), [0, 0, 2, 2, 2, 0]);
    // The blanks belong to the user.
    for user in [" jane", " "] {
        let confirm = admin.submit("/bulk/confirm", &all_of(user, "delete"));
        assert!(
            confirm.text().contains("Delete 1 link?"),
            "{user:?}: {}",
            confirm.text()
        );
    }
    // Each is in the audit log, with who did it.
    let log = admin.get("/audit.jsonl?action=delete&user=admin");
    assert_eq!(log.text().lines().count(), 3, "{log:?}");
}

#[test]
fn administrators_see_the_jobs_of_their_partner() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    let progress = jane.done("/bulk", &[("action", "disable"), ("id", &id), ("count", "1")]);
    end_of_change(&mut jane, &progress);
    let mut admin = Browser::of_admin(&appliance);
    let page = admin.get("/jobs");
    for text in [
        "Switch off 1 link<",
        "<bdi>jane</bdi>",
        "1 link was switched off.",
        &format!("href=\"/console{progress}\""),
    ] {
        assert!(page.text().contains(text), "{text}: {}", page.text());
    }
    let seen = admin.get(&progress);
    assert!(seen.text().contains("Done. 1 link was switched off."), "{seen:?}");
    let mut other = Browser::of(&appliance, OTHER_PARTNER, "admin", "of another partner");
    assert_eq!(other.get(&progress).status, 404);
    assert!(!other.get("/jobs").text().contains("jane"));
    assert_eq!(jane.get("/jobs").status, 403);
    // Another session of the same user sees neither.
    assert_eq!(Browser::of_user(&appliance, "jane").get(&progress).status, 404);
}

#[test]
fn stopped_change_says_why_and_can_start_again() {
    let mut appliance = Appliance::start();
    let ids = [(); 2].map(|()| appliance.add(&appliance.admin_ks(), &[("shortLink[userId]", "jane")]));
    assert!(appliance.terminate().success());
    let mut command = serve();
    command.arg("--read-only");
    appliance.restart_by(command);
    let mut admin = Browser::of_admin(&appliance);
    let page = change_many(&mut admin, &all_of("jane", "delete"));
    for text in [
        "Stopped before the end: this server is read-only.",
        "No link was deleted. 2 links were not reached.",
        "It is safe to start again",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert_eq!(statuses(&appliance, &ids.each_ref()), [2, 2]);
    assert!(admin.get("/jobs").text().contains("Stopped"));
    // The form has what began it.
    assert_eq!(
        ["action", "owner", "select"].map(|name| hidden(&page, name)),
        ["delete", "jane", "all"]
    );
    assert!(!page.contains("name=\"count\""), "{page}");
}

#[test]
fn many_links_get_an_end_by_date() {
    let appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[]);
    let choose = [("action", "extend"), ("end", "date"), ("id", id.as_str())];
    let confirm = jane.submit("/bulk/confirm", &choose);
    assert!(
        confirm.status == 200
            && confirm
                .text()
                .contains("name=\"ends\" type=\"datetime-local\" value=\"\""),
        "{}",
        confirm.text()
    );
    let expires_at = || appliance.link("get", &appliance.admin_ks(), &[("id", &id)])["expiresAt"].clone();
    for (fields, end) in [
        // Without a script, in UTC; with it, as it says.
        (&[("ends", "2040-05-09T16:13")][..], 2_220_192_780_i64),
        (
            &[("ends", "2040-05-09T18:13"), ("ends_unix", "2220192780")],
            2_220_192_780,
        ),
    ] {
        change_many(&mut jane, &[("action", "extend"), ("end", "never"), ("id", &id)]);
        assert_ne!(expires_at(), end);
        let page = change_many(&mut jane, &[&choose[..], fields].concat());
        assert!(page.contains("Done. 1 link was given the new end."), "{page}");
        assert_eq!(expires_at(), end, "{fields:?}");
    }
    for ends in ["", "soon"] {
        let fields = [&choose[..], &[("ends", ends), ("count", "1")]].concat();
        assert_eq!(jane.submit("/bulk", &fields).status, 422, "{ends}");
    }
    // A preset is shown as the date that it means, and may be changed there.
    let confirm = jane.submit("/bulk/confirm", &[("action", "extend"), ("end", "86400"), ("id", &id)]);
    assert_eq!(hidden(confirm.text(), "end"), "date");
    let (_, value) = confirm.text().split_once("datetime-local\" value=\"").unwrap();
    assert_eq!(value.find('"'), Some("2026-01-01T00:00".len()), "{}", confirm.text());
}
