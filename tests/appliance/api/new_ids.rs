//! New ids for links whose ids went to the wrong people.

use std::fs;

use crate::support::fixture::{Appliance, code, tinyd};
use crate::support::transfer::{complained, told};

#[test]
fn new_id_takes_the_link_and_the_old_one_stays_gone() {
    let mut appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let fields = [
        ("shortLink[uniqueId]", "key"),
        ("shortLink[name]", "film"),
        ("shortLink[startsAt]", "1000"),
    ];
    let id = appliance.add(&ks, &fields);
    for _ in 0..2 {
        assert_eq!(appliance.goto(&id).status, 302);
    }
    let with = [("withStartsAt", "1"), ("withClicks", "1")];
    let before = appliance.link("get", &ks, &[&[("id", id.as_str())], &with[..]].concat());
    let mut renewed = appliance.link("renewId", &ks, &[("id", &id), ("withStartsAt", "1")]);
    let new = renewed["id"].as_str().unwrap().to_owned();
    assert_ne!(new, id);
    let after = appliance.link("get", &ks, &[&[("id", new.as_str())], &with[..]].concat());
    assert_eq!(
        (&after["clicks"], &after["lastUsedAt"]),
        (&before["clicks"], &before["lastUsedAt"])
    );
    for field in [
        "createdAt",
        "expiresAt",
        "partnerId",
        "userId",
        "name",
        "systemName",
        "fullUrl",
        "uniqueId",
        "status",
        "startsAt",
    ] {
        assert_eq!(renewed[field].take(), before[field], "{field}");
    }
    for restarted in [false, true] {
        if restarted {
            appliance.kill();
            appliance.restart();
        }
        assert_eq!(
            (appliance.goto(&id).status, appliance.goto(&new).status),
            (410, 302),
            "{restarted}"
        );
    }
    for action in ["renewId", "restore", "update", "delete"] {
        let refused = appliance.link(action, &ks, &[("id", &id), ("shortLink[status]", "2")]);
        assert_eq!(code(&refused), "RETIRED_SHORT_LINK", "{action}: {refused}");
        assert_eq!(refused["args"]["ID"], id.as_str());
    }
    let many = appliance.link("restoreMany", &ks, &[("ids", &id)]);
    assert_eq!(
        (&many[0]["outcome"], &many[0]["status"]),
        (&"retired".into(), &3.into())
    );
    let deleted = appliance.list(&ks, &[("filter[statusEqual]", "3")]);
    assert_eq!(deleted, (vec![id], 1));
}

#[test]
fn users_renew_their_own_links_only() {
    let appliance = Appliance::start();
    let own = appliance.add(&appliance.admin_ks(), &[("shortLink[userId]", "me")]);
    let renew = |ks: &str, id: &str| appliance.link("renewId", ks, &[("id", id)]);
    for ks in [appliance.user_ks("somebody"), appliance.other_partners_ks()] {
        assert_eq!(code(&renew(&ks, &own)), "INVALID_OBJECT_ID");
    }
    assert_eq!(appliance.goto(&own).status, 302);
    let renewed = renew(&appliance.user_ks("me"), &own);
    assert!(renewed["id"].is_string(), "{renewed}");
    assert!(!renewed.as_object().unwrap().contains_key("startsAt"));
    assert_eq!(code(&renew(&appliance.user_ks("somebody"), &own)), "INVALID_OBJECT_ID");
    assert_eq!(code(&renew(&appliance.user_ks("me"), &own)), "RETIRED_SHORT_LINK");
    let deleted = appliance.add(&appliance.admin_ks(), &[("shortLink[status]", "3")]);
    assert_eq!(code(&renew(&appliance.admin_ks(), &deleted)), "INVALID_OBJECT_ID");
}

#[test]
fn moved_store_keeps_refusing_retired_ids() {
    let appliance = Appliance::start();
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let partner = ["--partner", "1234567"];
    let folder = appliance.folder.path();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let run = |args: &[&str]| appliance.tinyd(&[args, &partner[..]].concat());
    told(&run(&["export", &path("before.jsonl")]), 0);
    let renewed: serde_json::Value = serde_json::from_str(&told(&run(&["link", "new-id", &id, "--json"]), 0)).unwrap();
    let new = renewed["id"].as_str().unwrap();
    assert!(told(&run(&["link", "get", new]), 0).contains(&format!("/tiny/{new}\n")));
    assert!(complained(&run(&["link", "new-id", &id]), 5).contains("RETIRED_SHORT_LINK"));
    assert!(told(&run(&["link", "restore", &id]), 8).contains("stays deleted: it has a new ID"));
    assert!(told(&run(&["link", "list", "--status", "deleted"]), 0).contains("  never   never "));
    let refused = run(&["import", "--on-conflict", "update", &path("before.jsonl")]);
    assert!(complained(&refused, 5).contains(&format!("the id {id} is retired")));

    for format in ["jsonl", "csv"] {
        let (file, store) = (path(&format!("after.{format}")), path(&format!("{format}.redb")));
        told(&run(&["export", &file]), 0);
        let offline = |args: &[&str]| tinyd().args(args).args(["--store", &store]).output().unwrap();
        told(&offline(&["import", &path("before.jsonl")]), 0);
        assert!(told(&offline(&["import", "--on-conflict", "update", &file]), 0).starts_with("1 added, 1 updated"));
        let before = offline(&["import", "--on-conflict", "update", &path("before.jsonl")]);
        assert!(complained(&before, 5).contains("is retired"));
        assert_eq!(
            told(&offline(&["export", "--format", format, "-"]), 0),
            fs::read_to_string(&file).unwrap()
        );
        let shown = told(&offline(&["link", "get", &id]), 0);
        assert!(shown.contains("status       deleted\nstarts       never\n"), "{shown}");
    }
}
