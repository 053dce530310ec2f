//! Records that decode, and are damaged all the same.

use crate::links::tests::audit::somebody;
use crate::links::tests::{block_on, draft, open};
use crate::links::*;

/// What a flipped bit can make of a destination, and of no other field.
#[test]
fn location_that_no_version_accepted_is_never_rendered() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_unix(1_000));
    let links = open(folder.path(), &clock);
    let whole = block_on(links.add(draft("https://e.example/whole"), somebody())).unwrap();
    let long = format!("https://e.example/{}", "x".repeat(8_192));
    let broken = [
        "ht4ps://e.example/",
        "https://e.example/\0",
        "https:/we.example/",
        "ittps://e.example/",
        "https://e\u{7f}.example/",
        &long,
    ];
    let ids: Vec<LinkId> = (0..broken.len())
        .map(|number| format!("brk{number}").parse().unwrap())
        .collect();
    for (id, url) in ids.iter().zip(broken) {
        let link = ShortLink {
            id: *id,
            full_url: url.to_owned(),
            ..whole.clone()
        };
        block_on(links.store.write(move |transaction| transaction.put(None, link))).unwrap();
        // As it was published.
        assert_eq!(links.index().look_up(*id, clock.now()), Verdict::Damaged, "{url}");
    }
    drop(links);
    let links = Links::open(folder.path(), clock.clone(), 8).unwrap();
    for id in &ids {
        // As it is looked up while links are loaded.
        assert_eq!(block_on(links.look_up(*id)), Verdict::Damaged);
    }
    drop(links);
    let links = open(folder.path(), &clock);
    assert_eq!((links.index().links(), links.index().damaged()), (1, ids.len()));
    for id in &ids {
        assert_eq!(links.index().look_up(*id, clock.now()), Verdict::Damaged);
    }
    assert!(matches!(
        links.index().look_up(whole.id, clock.now()),
        Verdict::Redirect(_)
    ));
}
