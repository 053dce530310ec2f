//! When a link redirects.

use crate::links::tests::audit::somebody;
use crate::links::tests::{block_on, draft, everybody, open};
use crate::links::*;

#[test]
fn link_works_from_its_start_to_its_expiry() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_unix(1_000));
    let links = open(folder.path(), &clock);
    let start = Timestamp::from_unix(1_500);
    let limited = Draft {
        starts_at: Some(start),
        expires_at: Some(Timestamp::from_unix(2_000)),
        ..draft("https://e.example/x")
    };
    let id = block_on(links.add(limited, somebody())).unwrap().id;
    let at = |second| links.index().look_up(id, Timestamp::from_unix(second));
    assert_eq!(at(1_499), Verdict::NotYet(start));
    assert!(matches!(at(1_500), Verdict::Redirect(_)));
    assert!(matches!(at(2_000), Verdict::Redirect(_)));
    assert_eq!(at(2_001), Verdict::Expired);
    assert_eq!(block_on(links.look_up(id)), Verdict::NotYet(start));
    let disable = |link: &ShortLink| {
        Ok::<_, ()>(ShortLink {
            status: Status::Disabled,
            ..link.clone()
        })
    };
    block_on(links.update(id, everybody(), somebody(), disable)).unwrap();
    assert_eq!(at(1_499), Verdict::Disabled);
}

/// Clients of Kaltura do not see the start.
#[test]
fn link_that_ends_before_its_start_never_works() {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::manual(Timestamp::from_unix(1_000)));
    let waiting = Draft {
        starts_at: Some(Timestamp::from_unix(2_000)),
        ..draft("https://e.example/x")
    };
    let id = block_on(links.add(waiting, somebody())).unwrap().id;
    let set = |times: [Option<i64>; 2], name: &'static str| {
        let [starts_at, expires_at] = times.map(|time| time.map(Timestamp::from_unix));
        let edit = move |link: &ShortLink| {
            Ok::<_, ()>(ShortLink {
                starts_at,
                expires_at,
                name: Some(name.to_owned()),
                ..link.clone()
            })
        };
        block_on(links.update(id, everybody(), somebody(), edit))
    };
    set([Some(2_000), Some(1_500)], "ended").unwrap();
    for second in [1_000, 1_500, 1_501, 2_000, 2_001] {
        let verdict = links.index().look_up(id, Timestamp::from_unix(second));
        assert_eq!(verdict, Verdict::Expired, "{second}");
    }
    // It can still be changed, but not to a start that is too late.
    set([Some(2_000), Some(1_500)], "renamed").unwrap();
    let refused = set([Some(2_001), Some(1_500)], "moved");
    assert!(
        matches!(refused, Err(UpdateError::Link(LinkError::Validity(_)))),
        "{refused:?}"
    );
    let change = BulkChange::Disable;
    let counts = block_on(links.change_together(vec![id], everybody(), change, somebody())).unwrap();
    assert_eq!((counts.changed, counts.refused), (1, 0));
    let late = BulkChange::Extend(Some(Timestamp::from_unix(1_600)));
    let counts = block_on(links.change_together(vec![id], everybody(), late, somebody())).unwrap();
    assert_eq!((counts.changed, counts.refused), (0, 1));
    block_on(links.delete(id, everybody(), somebody())).unwrap();
}
