//! Records that decode, and are damaged all the same.

use crate::links::file::ImportReport;
use crate::links::tests::audit::somebody;
use crate::links::tests::imports::link;
use crate::links::tests::{block_on, draft, lines_of, open};
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

/// A store can have such links: see `link_that_ends_before_its_start_never_works`.
#[test]
fn import_warns_of_what_add_would_refuse() {
    let times = |starts_at, expires_at| ShortLink {
        starts_at: Some(Timestamp::from_unix(starts_at)),
        expires_at: Some(Timestamp::from_unix(expires_at)),
        ..link(1)
    };
    let elsewhere = ShortLink {
        full_url: "https://a.example\\@b.example/".into(),
        ..link(1)
    };
    let lines = lines_of([times(10, 20), times(20, 20), link(1), elsewhere]);
    let rules = NewDestinations::new(8_192, None, &[]);
    let (lines, warnings) = rules.watch(Some(Arc::default()), lines);
    assert!(lines.into_iter().all(|line| line.unwrap().link.is_ok()));
    let mut report = ImportReport::default();
    warnings.add_to(&mut report);
    let beginnings = [(2, "startsAt 20 is not before expiresAt 20"), (4, "fullUrl: ")];
    assert_eq!(report.warned, 2);
    for (warning, (line, beginning)) in report.warnings.iter().zip(beginnings) {
        assert_eq!(warning.line, line);
        assert!(warning.reason.starts_with(beginning), "{warning:?}");
        assert!(warning.reason.ends_with("; add would refuse it, the import keeps it"));
    }
}
