//! Which links entries of the log concern: a box that is not of its cluster any more salvages those.

use crate::links::file::ImportOptions;
use crate::links::tests::audit::somebody;
use crate::links::tests::cluster::Cluster;
use crate::links::tests::simulated::import_lines;
use crate::links::tests::{PARTNER, block_on, draft, everybody, imports};
use crate::links::*;
use crate::store::Concerned;

fn link(number: usize) -> ShortLink {
    ShortLink {
        partner_id: PARTNER,
        user_id: Some("me".into()),
        ..imports::link(number)
    }
}

/// The links of a member that its entries from this one on concern.
fn concerned(links: &Links, first: u64) -> Option<Vec<LinkId>> {
    let snapshot = links.store.snapshot().unwrap();
    let concerned = Concerned::since(&snapshot, first).unwrap()?;
    let all = snapshot.iter().unwrap().map(|link| link.unwrap().1.unwrap());
    Some(all.filter(|link| concerned.has(link)).map(|link| link.id).collect())
}

fn ids(numbers: std::ops::Range<usize>) -> Vec<LinkId> {
    let mut ids: Vec<_> = numbers.map(|number| link(number).id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn entries_tell_which_links_they_concern() {
    let cluster = Cluster::new(1);
    let links = &cluster.members[0].links;
    let next = || cluster.members[0].position().sequence + 1;
    let import = |numbers: std::ops::Range<usize>| {
        let lines = numbers.map(|number| Ok(link(number))).collect();
        block_on(import_lines(links, lines, ImportOptions::default())).unwrap();
    };
    cluster.add(0).unwrap();
    // The times of an import are those of its file; its parts come before what puts it in force.
    let first = next();
    import(0..3);
    let last = next() - 1;
    assert!(last > first);
    assert_eq!(concerned(links, last), Some(ids(0..3)));
    assert_eq!(concerned(links, first), Some(ids(0..3)));
    // One change of one link, another not.
    let changed = next();
    block_on(links.renew_id(ids(0..3)[0], everybody(), somebody())).unwrap();
    let renewed = concerned(links, changed).unwrap();
    assert!(renewed.len() == 2 && renewed.contains(&ids(0..3)[0]), "{renewed:?}");
    // The entry of a deletion names no links.
    let deleted = next();
    block_on(links.delete_user(PARTNER, "me".into(), somebody())).unwrap();
    let expected: Vec<_> = ids(1..3);
    let found = concerned(links, deleted).unwrap();
    assert!(expected.iter().all(|id| found.contains(id)), "{found:?}");
    let other = block_on(links.add(draft("https://e.example/"), somebody())).unwrap();
    assert_eq!(concerned(links, next() - 1), Some(vec![other.id]));
    assert_eq!(concerned(links, next()), Some(Vec::new()));
}

#[test]
fn history_that_is_not_kept_tells_nothing() {
    let cluster = Cluster::new(1);
    let links = &cluster.members[0].links;
    let lines = (0..1_000).map(|number| Ok(link(number))).collect();
    block_on(import_lines(links, lines, ImportOptions::default())).unwrap();
    // Of its parts, the first are not kept any more.
    let last = cluster.members[0].position().sequence;
    assert_eq!(concerned(links, last), None);
    assert_eq!(concerned(links, 1), None);
    assert_eq!(concerned(links, last + 1), Some(Vec::new()));
}
