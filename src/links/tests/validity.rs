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
