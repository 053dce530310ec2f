//! The lists: their orders and filters, which stand in the URL.

use crate::support::browser::{Browser, hidden};
use crate::support::fixture::Appliance;

/// The positions in `ids` of the links that a page shows, in its order.
fn shown(page: &str, ids: &[String]) -> Vec<usize> {
    let boxes = page.split("name=\"id\" value=\"").skip(1);
    let shown = boxes.map(|rest| rest.split('"').next().unwrap());
    shown
        .map(|shown| ids.iter().position(|id| id == shown).unwrap())
        .collect()
}

fn links(appliance: &Appliance) -> Vec<String> {
    let ks = appliance.admin_ks();
    let made = [
        ("banana", "https://c.example/", "zoe", "4102444800"),
        ("Apple", "https://a.example/", "adam", "4070908800"),
        ("", "https://b.example/", "mia", ""),
    ];
    let add = |(name, url, user, expires): (&str, &str, &str, &str)| {
        let mut params = vec![
            ("shortLink[name]", name),
            ("shortLink[systemName]", "CHERRY"),
            ("shortLink[fullUrl]", url),
            ("shortLink[userId]", user),
        ];
        if !expires.is_empty() {
            params.push(("shortLink[expiresAt]", expires));
        }
        appliance.add(&ks, &params)
    };
    made.into_iter().map(add).collect()
}

#[test]
fn list_is_sorted_by_each_column() {
    let appliance = Appliance::start();
    let ids = links(&appliance);
    let mut admin = Browser::of_admin(&appliance);
    for (order, expected, sort) in [
        (
            "name",
            [1, 0, 2],
            "aria-sort=\"ascending\"><a href=\"/console/all?order=-name\">Name",
        ),
        (
            "-name",
            [2, 0, 1],
            "aria-sort=\"descending\"><a href=\"/console/all?order=name\">Name",
        ),
        (
            "host",
            [1, 2, 0],
            "aria-sort=\"ascending\"><a href=\"/console/all?order=-host\">Leads to",
        ),
        ("-host", [0, 2, 1], "aria-sort=\"descending\""),
        (
            "owner",
            [1, 2, 0],
            "aria-sort=\"ascending\"><a href=\"/console/all?order=-owner\">Owner",
        ),
        ("-owner", [0, 2, 1], "aria-sort=\"descending\""),
        // One without an end comes last either way.
        ("expires", [1, 0, 2], "<option value=\"expires\" selected>"),
        ("-expires", [0, 1, 2], "<option value=\"-expires\" selected>"),
    ] {
        let page = admin.get(&format!("/all?order={order}"));
        assert_eq!(shown(page.text(), &ids), expected, "{order}");
        assert!(page.text().contains(sort), "{order}: {}", page.text());
        let sorted = page.text().matches("aria-sort").count();
        assert_eq!(sorted, usize::from(!order.ends_with("expires")), "{order}");
    }
    // What somebody has just opened comes first, once it is written down.
    let page = admin.get("/all?order=-clicks&state=works");
    assert_eq!(page.status, 200);
    // One's own links have one owner.
    let page = admin.get("/links?order=owner");
    assert!(!page.text().contains("value=\"owner\""), "{}", page.text());
}

#[test]
fn list_is_filtered_by_each_date() {
    let appliance = Appliance::start();
    let ids = links(&appliance);
    let mut admin = Browser::of_admin(&appliance);
    for (query, expected) in [
        ("date=expires&from=2099-01-01&to=2099-01-01", &[1][..]),
        ("date=expires&from=2099-01-01&order=expires", &[1, 0]),
        ("date=expires&to=2098-12-31", &[]),
        ("date=starts&from=1970-01-02", &[]),
        ("date=updated&from=2020-01-01&order=name", &[1, 0, 2]),
        ("date=updated&to=2020-01-01", &[]),
        ("from=2020-01-01&order=name", &[1, 0, 2]),
        ("to=2020-01-01", &[]),
    ] {
        let page = admin.get(&format!("/all?{query}"));
        assert_eq!(shown(page.text(), &ids), expected, "{query}");
    }
    // A change of all that it finds concerns the same.
    let fields = [
        ("action", "disable"),
        ("select", "all"),
        ("for_all", "1"),
        ("date", "expires"),
        ("from", "2099-01-01"),
        ("to", "2099-01-01"),
    ];
    let confirm = admin.submit("/bulk/confirm", &fields);
    assert_eq!(hidden(confirm.text(), "count"), "1");
    assert_eq!(hidden(confirm.text(), "date"), "expires");
}

#[test]
fn lists_without_counted_clicks_say_so() {
    let appliance = Appliance::start_with("[links]\ncount_clicks = false\n");
    links(&appliance);
    let mut admin = Browser::of_admin(&appliance);
    for query in ["unused=1", "order=clicks", "order=-clicks&q=a"] {
        let refused = admin.get(&format!("/all?{query}"));
        assert_eq!(refused.status, 422, "{query}");
        assert!(refused.text().contains("links.count_clicks"), "{}", refused.text());
    }
    let fields = [
        ("action", "delete"),
        ("select", "all"),
        ("for_all", "1"),
        ("unused", "1"),
    ];
    assert_eq!(admin.submit("/bulk/confirm", &fields).status, 422);
    let page = admin.get("/all");
    assert!(page.text().contains("does not count clicks"), "{}", page.text());
    for absent in ["name=\"unused\"", "-clicks", "data-label=\"Clicks\""] {
        assert!(!page.text().contains(absent), "{absent}: {}", page.text());
    }
}
