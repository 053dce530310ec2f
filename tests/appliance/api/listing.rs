//! Lists: filters, pages, order.

use crate::support::fixture::{Appliance, code};

#[test]
fn list_filters_pages_and_orders_as_specified() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let expiries = ["0", "4102444800", "4102444700", "1000", "0", "4102444900"];
    let ids: Vec<_> = expiries
        .iter()
        .enumerate()
        .map(|(number, expiry)| {
            let (name, user) = (format!("NAME-{}", number % 2), format!("user{}", number % 3));
            appliance.add(
                &ks,
                &[
                    ("shortLink[systemName]", &name),
                    ("shortLink[userId]", &user),
                    ("shortLink[expiresAt]", expiry),
                ],
            )
        })
        .collect();
    let set = |numbers: &[usize]| {
        let mut set: Vec<_> = numbers.iter().map(|&number| ids[number].clone()).collect();
        set.sort();
        set
    };
    let listed = |params: &[(&str, &str)]| {
        let (mut ids, total) = appliance.list(&ks, params);
        assert_eq!(ids.len() as u64, total);
        ids.sort();
        ids
    };
    let all = [0, 1, 2, 3, 4, 5];
    let (in_ids, now) = (
        format!(" {} ,{},zzzz, ,", ids[1], ids[2]),
        appliance.call("system", "getTime", "", &[]),
    );
    let (now, later) = (now.to_string(), (now.as_i64().unwrap() + 400_000_000).to_string());
    for (params, expected) in [
        (vec![], set(&all)),
        (vec![("filter[idEqual]", ids[3].as_str())], set(&[3])),
        (vec![("filter[idEqual]", "NO SUCH ID")], vec![]),
        (vec![("filter[idEqual]", "")], set(&all)),
        (vec![("filter[idIn]", &in_ids)], set(&[1, 2])),
        (vec![("filter[systemNameEqual]", "NAME-1")], set(&[1, 3, 5])),
        (vec![("filter[systemNameIn]", "NAME-1,NAME-2")], set(&[1, 3, 5])),
        (vec![("filter[userIdEqual]", "user0")], set(&[0, 3])),
        (vec![("filter[userIdIn]", "user0, user1")], set(&[0, 1, 3, 4])),
        (
            vec![("filter[userIdEqual]", "user0"), ("filter[userIdIn]", "user1,user2")],
            vec![],
        ),
        (
            vec![("filter[userIdEqual]", "user0"), ("filter[systemNameEqual]", "NAME-1")],
            set(&[3]),
        ),
        (vec![("filter[partnerIdEqual]", "1234567")], set(&all)),
        (vec![("filter[partnerIdIn]", "7654321,1234567")], set(&all)),
        (vec![("filter[partnerIdIn]", "7654321")], vec![]),
        (vec![("filter[statusEqual]", "2")], set(&all)),
        (vec![("filter[statusEqual]", "1")], vec![]),
        (vec![("filter[statusIn]", "1,2,77")], set(&all)),
        (vec![("filter[statusIn]", "77")], vec![]),
        (
            vec![
                ("filter[expiresAtLessThanOrEqual]", &now),
                ("filter[expiresAtGreaterThanOrEqual]", "1"),
            ],
            set(&[3]),
        ),
        (
            vec![("filter[expiresAtLessThanOrEqual]", "9223372036854775807")],
            set(&[1, 2, 3, 5]),
        ),
        (
            vec![
                ("filter[expiresAtLessThanOrEqual]", "9223372036854775807"),
                ("filter[orderBy]", "+expiresAt"),
            ],
            set(&[1, 2, 3, 5]),
        ),
        (
            vec![("filter[expiresAtGreaterThanOrEqual]", "4102444800")],
            set(&[1, 5]),
        ),
        // Small values are relative to now, but only for createdAt and updatedAt.
        (vec![("filter[createdAtGreaterThanOrEqual]", "-3600")], set(&all)),
        (vec![("filter[createdAtLessThanOrEqual]", "-3600")], vec![]),
        (vec![("filter[updatedAtLessThanOrEqual]", "3600")], set(&all)),
        (vec![("filter[createdAtGreaterThanOrEqual]", &later)], vec![]),
        (vec![("filter", "")], set(&all)),
        (
            vec![("filter[unknown]", "x"), ("filter[orderBy]", "sideways")],
            set(&all),
        ),
    ] {
        assert_eq!(listed(&params), expected, "{params:?}");
    }

    let by_expiry = |order| appliance.list(&ks, &[("filter[orderBy]", order)]).0;
    let mut never = [ids[0].clone(), ids[4].clone()];
    never.sort();
    let ascending = [&ids[3], &ids[2], &ids[1], &ids[5], &never[0], &never[1]].map(Clone::clone);
    let descending = [&ids[5], &ids[1], &ids[2], &ids[3], &never[1], &never[0]].map(Clone::clone);
    assert_eq!(by_expiry("+expiresAt"), ascending);
    assert_eq!(by_expiry(" expiresAt"), ascending);
    assert_eq!(by_expiry("-expiresAt"), descending);

    let page = |size: &str, index: &str| {
        let params = [
            ("filter[orderBy]", "+expiresAt"),
            ("pager[pageSize]", size),
            ("pager[pageIndex]", index),
        ];
        appliance.list(&ks, &params)
    };
    assert_eq!(page("4", "1"), (ascending[..4].to_vec(), 6));
    assert_eq!(page("4", "2"), (ascending[4..].to_vec(), 6));
    assert_eq!(page("4", "3"), (vec![], 6));
    assert_eq!(page("0", "1"), (vec![], 6));
    assert_eq!(page("-5", "1"), (vec![], 6));
    assert_eq!(page("100000", "0"), (ascending.to_vec(), 6));
    assert_eq!(page("", "-7"), (ascending.to_vec(), 6));
    assert_eq!(page("500", "9223372036854775807"), (vec![], 6));
}

#[test]
fn deleted_links_are_listed_only_by_status_filter() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let (kept, gone) = (
        appliance.add(&ks, &[]),
        appliance.add(&ks, &[("shortLink[status]", "3")]),
    );
    assert_eq!(appliance.list(&ks, &[]), (vec![kept.clone()], 1));
    assert_eq!(appliance.list(&ks, &[("filter[idEqual]", &gone)]), (vec![], 0));
    assert_eq!(
        appliance.list(&ks, &[("filter[statusEqual]", "3")]),
        (vec![gone.clone()], 1)
    );
    let (mut both, total) = appliance.list(&ks, &[("filter[statusIn]", "2,3")]);
    both.sort();
    let mut expected = vec![kept, gone];
    expected.sort();
    assert_eq!((both, total), (expected, 2));
}

#[test]
fn page_has_30_links_by_default_and_500_at_most() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for _ in 0..3 {
        let calls = (1..=170).map(|n| format!(
            "{n}:service=shortlink_shortlink&{n}:action=add&{n}:shortLink:systemName=NAME&{n}:shortLink:fullUrl=https://example.com/"
        ));
        let form = format!("format=1&ks={ks}&{}", calls.collect::<Vec<_>>().join("&"));
        let target = "/api_v3/service/multirequest";
        assert_eq!(
            crate::support::http::request(&appliance.admin, "POST", target, &[], form.as_bytes()).status,
            200
        );
    }
    let lengths = |params: &[(&str, &str)]| {
        let (ids, total) = appliance.list(&ks, params);
        (ids.len(), total)
    };
    assert_eq!(lengths(&[]), (30, 510));
    assert_eq!(lengths(&[("pager[pageSize]", "501")]), (500, 510));
    let mut seen: Vec<_> = (1..=6)
        .flat_map(|page| {
            appliance
                .list(
                    &ks,
                    &[("pager[pageSize]", "100"), ("pager[pageIndex]", &page.to_string())],
                )
                .0
        })
        .collect();
    assert_eq!(seen.len(), 510);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 510, "a link stood on two pages");
}

#[test]
fn invalid_filter_is_named() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let thousand_and_one = (0..1001).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    for (name, value, expected) in [
        ("filter[statusEqual]", "9", "INVALID_ENUM_VALUE"),
        (
            "filter[createdAtLessThanOrEqual]",
            "yesterday",
            "INVALID_PARAMETER_VALUE",
        ),
        ("filter[statusIn]", "2,zz", "INVALID_PARAMETER_VALUE"),
        ("filter[partnerIdEqual]", "me", "INVALID_PARAMETER_VALUE"),
        ("filter[idEqual][x]", "y", "INVALID_PARAMETER_VALUE"),
        (
            "filter[systemNameIn]",
            thousand_and_one.as_str(),
            "INVALID_PARAMETER_VALUE",
        ),
        ("pager[pageSize]", "many", "INVALID_PARAMETER_VALUE"),
        ("pager", "30", "INVALID_PARAMETER_VALUE"),
    ] {
        assert_eq!(code(&appliance.link("list", &ks, &[(name, value)])), expected, "{name}");
    }
}
