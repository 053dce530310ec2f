//! Deleting a user with more links than one commit deletes.

use std::io;
use std::sync::Arc;

use crate::links::file::Line;
use crate::links::file::{ImportOptions, import};
use crate::links::tests::audit::{import_log, somebody};
use crate::links::tests::{PARTNER, block_on};
use crate::links::{Links, Scope};
use crate::model::{Clock, ShortLink, Status, Timestamp};

const LINKS: usize = 1_200;

/// A store with many links of a user, and one of another.
fn opened(folder: &std::path::Path) -> Links {
    let links = Links::open(folder, Clock::system(), 8).unwrap();
    let lines = (0..=LINKS).map(|number| {
        let owner = if number < LINKS { "me" } else { "other" };
        let link = ShortLink {
            id: format!("link{number}").parse().unwrap(),
            created_at: Timestamp::from_unix(1),
            updated_at: Timestamp::from_unix(1),
            starts_at: None,
            expires_at: None,
            partner_id: PARTNER,
            user_id: Some(owner.into()),
            name: None,
            system_name: "name".into(),
            full_url: "https://e.example/".into(),
            unique_id: Some(format!("key{number}")),
            status: [Status::Enabled, Status::Disabled][number % 2],
        };
        let line = Line {
            number: 1,
            link: Ok(link),
            is_dated: true,
            has_start: true,
        };
        io::Result::Ok(line)
    });
    let imported = import(
        links.store(),
        lines,
        ImportOptions::default(),
        Arc::new(|_| {}),
        import_log(),
    );
    assert_eq!(block_on(imported).unwrap().added, LINKS as u64 + 1);
    links
}

/// How many links there are that are not deleted, and of how many users deletions have begun.
fn left(links: &Links) -> (u64, usize) {
    let snapshot = links.store().snapshot().unwrap();
    assert!(snapshot.verify(|| {}).unwrap().is_clean());
    let [disabled, enabled, _] = snapshot.totals().unwrap();
    (disabled + enabled, snapshot.deletions().unwrap().len())
}

#[test]
fn a_user_with_many_links_is_deleted_in_several_commits() {
    let folder = tempfile::tempdir().unwrap();
    let links = opened(folder.path());
    let before = links.store().metrics().batch_sizes.read().count();
    assert_eq!(
        block_on(links.delete_user(PARTNER, "me".into(), somebody())).unwrap(),
        LINKS
    );
    assert_eq!(left(&links), (1, 0));
    // That it begins, and three times up to five hundred.
    assert_eq!(links.store().metrics().batch_sizes.read().count() - before, 4);
    let everybody = Scope {
        partner: PARTNER,
        owner: None,
    };
    let other = format!("link{LINKS}").parse().unwrap();
    assert!(block_on(links.get(other, &everybody)).is_ok());
}

#[test]
fn a_deletion_that_was_interrupted_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let links = opened(folder.path());
    let at = Timestamp::from_unix(2_000_000_000);
    block_on(links.store().write(move |transaction| {
        let first = transaction.links_of_user(PARTNER, "me", Some(at), 1)?;
        let old = transaction.get(first[0])?.unwrap();
        let new = ShortLink {
            status: Status::Deleted,
            updated_at: at,
            ..old.clone()
        };
        transaction.put(Some(&old), new)?;
        transaction.begin_deletion(PARTNER, "me", at)
    }))
    .unwrap();
    assert_eq!(left(&links), (LINKS as u64, 1));
    // As a crash leaves it: a backup, which has it too.
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let snapshot = links.store().snapshot().unwrap();
    snapshot.copy_to(&copy.join(crate::store::FILE_NAME), &mut ()).unwrap();
    drop((snapshot, links));
    let entering = folder.path().join("entering");
    std::fs::create_dir(&entering).unwrap();
    std::fs::copy(
        copy.join(crate::store::FILE_NAME),
        entering.join(crate::store::FILE_NAME),
    )
    .unwrap();
    let links = Links::open(&entering, Clock::system(), 8).unwrap();
    // A cluster knows none that take several commits.
    let position = crate::store::replication::Position {
        cluster: *b"cluster of tests",
        epoch: 1,
        sequence: 0,
        chain: Default::default(),
        digest: Default::default(),
    };
    block_on(links.store().enter_cluster(position)).unwrap();
    assert_eq!(left(&links), (1, 0));
    drop(links);
    let links = Links::open(&copy, Clock::system(), 8).unwrap();
    block_on(links.finish_deletions()).unwrap();
    assert_eq!(left(&links), (1, 0));
    let deleted = block_on(links.store().read(|snapshot| snapshot.get("link7".parse().unwrap())))
        .unwrap()
        .unwrap();
    assert_eq!((deleted.status, deleted.updated_at), (Status::Deleted, at));
}

#[test]
fn a_damaged_record_keeps_a_deletion_from_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let links = opened(folder.path());
    let damaged = "link1100".parse().unwrap();
    block_on(links.store().write(move |transaction| transaction.damage(damaged))).unwrap();
    assert!(block_on(links.delete_user(PARTNER, "me".into(), somebody())).is_err());
    let snapshot = links.store().snapshot().unwrap();
    assert!(snapshot.deletions().unwrap().is_empty());
    assert_eq!(snapshot.totals().unwrap(), [600, 601, 0]);
}
