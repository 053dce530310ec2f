//! Stores whose files something has changed: no redirect goes anywhere that no version of its link has named.

use std::collections::HashMap;
use std::fs;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::links::file::{Conflict, ImportOptions, import};
use crate::links::tests::audit::{import_log, somebody};
use crate::links::tests::{block_on, draft, everybody, lines_of, open};
use crate::links::*;

const LINKS: usize = 1_500;
/// So many files are damaged, and more until some links of `DAMAGED_MIN` cannot be read, which is left to chance.
const FILES: u64 = 150;
const DAMAGED_MIN: usize = 21;

fn url(number: usize) -> String {
    format!("https://www.kaltura.com/campaign/{number}/landing")
}

/// A store with many links, closed cleanly: its file, and where each link leads.
fn many_links() -> (tempfile::TempDir, HashMap<LinkId, String>) {
    let folder = tempfile::tempdir().unwrap();
    // Damages of the audit log are of no interest here.
    let links = Links::open(folder.path(), Clock::system(), 8).unwrap().auditing(0);
    let added = block_on(futures_util::future::join_all((0..LINKS).map(|number| {
        links.add(
            Draft {
                user_id: Some(format!("user{}", number % 7)),
                ..draft(&url(number))
            },
            somebody(),
        )
    })));
    let ids = added.into_iter().map(|added| {
        let link = added.unwrap();
        (link.id, link.full_url)
    });
    (folder, ids.collect())
}

/// What a look-up after a start came to: redirects that are right, and answers 503.
fn served(folder: &Path, expected: &HashMap<LinkId, String>, seed: u64) -> Option<[usize; 2]> {
    let links = match Links::open(folder, Clock::system(), 8) {
        Ok(links) => links,
        Err(error) => {
            let told = error.to_string();
            assert!(
                told.contains("links.redb") || matches!(error, OpenError::Read(_)),
                "{seed}: {told}"
            );
            return None;
        }
    };
    // A start that fails says so, and is no panic.
    let loaded = links.load();
    if let Err(error) = loaded {
        assert!(!error.to_string().is_empty());
        return None;
    }
    let mut outcomes = [0, 0];
    for (id, url) in expected {
        match block_on(links.look_up(*id)) {
            Verdict::Redirect(location) => {
                assert_eq!(location.to_str().unwrap(), url, "{seed}: a wrong location");
                outcomes[0] += 1;
            }
            Verdict::Damaged | Verdict::Loading => outcomes[1] += 1,
            other => panic!("{seed}: {id} is {other:?}"),
        }
    }
    Some(outcomes)
}

#[test]
fn damaged_bits_never_redirect_to_another_place() {
    let (folder, expected) = many_links();
    let whole = fs::read(folder.path().join(FILE_NAME)).unwrap();
    // Where something is.
    let used: Vec<usize> = (4096..whole.len()).filter(|at| whole[*at] != 0).collect();
    let (mut damaged, mut seed) = (0, 0);
    while seed < FILES || damaged < DAMAGED_MIN {
        seed += 1;
        assert!(seed < 10 * FILES, "the damages must be met: {damaged}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut content = whole.clone();
        let first = used[rng.random_range(0..used.len())];
        for _ in 0..rng.random_range(1..=4) {
            // In one page, as a cell of a disk or of the memory fails.
            let at = (first & !4095) + rng.random_range(0..4096);
            content[at.min(whole.len() - 1)] ^= 1 << rng.random_range(0..8);
        }
        content[first] ^= 1 << rng.random_range(0..8);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), content).unwrap();
        if let Some([right, unavailable]) = served(folder.path(), &expected, seed) {
            assert_eq!(right + unavailable, LINKS, "{seed}");
            damaged += usize::from(unavailable > 0);
        }
    }
}

/// What the log advises for a damaged record.
#[test]
fn an_import_that_updates_repairs_a_damaged_record() {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::system());
    let owned = Draft {
        user_id: Some("me".into()),
        unique_id: Some("key".into()),
        expires_at: Some(Timestamp::MAX),
        ..draft("https://e.example/x")
    };
    let link = block_on(links.add(owned, somebody())).unwrap();
    block_on(links.add(draft("https://e.example/other"), somebody())).unwrap();
    let id = link.id;
    block_on(links.store.write(move |transaction| transaction.damage(id))).unwrap();
    assert!(!links.store.snapshot().unwrap().verify(|| {}).unwrap().is_clean());

    let run = |link: ShortLink, conflict| {
        let options = ImportOptions {
            conflict,
            ..ImportOptions::default()
        };
        block_on(import(
            links.store(),
            lines_of([link]),
            options,
            Arc::new(|_| {}),
            import_log(),
        ))
        .unwrap()
    };
    let backed_up = ShortLink {
        status: Status::Disabled,
        user_id: None,
        ..link
    };
    assert_eq!(run(backed_up.clone(), Conflict::Fail).refused, 1);
    let foreign = ShortLink {
        partner_id: PartnerId(8),
        ..backed_up.clone()
    };
    assert_eq!(run(foreign, Conflict::Update).refused, 1);
    assert_eq!(run(backed_up.clone(), Conflict::Update).updated, 1);
    let snapshot = links.store.snapshot().unwrap();
    assert_eq!(snapshot.get(id).unwrap(), Some(backed_up));
    let found = snapshot.verify(|| {}).unwrap();
    assert!(found.is_clean(), "{found:#?}");
}

/// Nothing of a damaged record says whether its id is retired, but its times do.
#[test]
fn damaged_retired_id_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_unix(1_000));
    let links = open(folder.path(), &clock);
    let add = |expires_at: Option<i64>| {
        let draft = Draft {
            expires_at: expires_at.map(Timestamp::from_unix),
            ..draft("https://e.example/x")
        };
        block_on(links.add(draft, somebody())).unwrap()
    };
    let delete = |link: &ShortLink| block_on(links.delete(link.id, everybody(), somebody())).unwrap();
    let (renewed, deleted, same_second, expiring) = (add(None), add(None), add(None), add(Some(5_000)));
    delete(&same_second);
    delete(&expiring);
    clock.set(Timestamp::from_unix(2_000));
    delete(&deleted);
    block_on(links.renew_id(renewed.id, everybody(), somebody())).unwrap();
    let retired = links.store.snapshot().unwrap().get(renewed.id).unwrap().unwrap();
    for id in [renewed.id, deleted.id, same_second.id, expiring.id] {
        block_on(links.store.write(move |transaction| transaction.damage(id))).unwrap();
    }
    let run = |link: &ShortLink, dry_run| {
        let options = ImportOptions {
            conflict: Conflict::Update,
            dry_run,
            ..ImportOptions::default()
        };
        let lines = lines_of([link.clone()]);
        block_on(import(links.store(), lines, options, Arc::new(|_| {}), import_log())).unwrap()
    };
    for (link, is_refused) in [
        (&renewed, true),
        (&deleted, false),
        (&same_second, true),
        (&expiring, false),
    ] {
        let (would, done) = (run(link, true), run(link, false));
        assert_eq!((would.updated, would.refused), (done.updated, done.refused));
        assert_eq!(
            (done.refused == 1, done.updated == 1),
            (is_refused, !is_refused),
            "{link:?}"
        );
        let reasons = done.problems.iter().map(|problem| problem.reason.as_str());
        assert!(
            reasons.into_iter().all(|reason| reason.contains("may be retired")),
            "{done:?}"
        );
    }
    assert_eq!(run(&retired, false).updated, 1);
    let snapshot = links.store.snapshot().unwrap();
    assert_eq!(snapshot.get(renewed.id).unwrap(), Some(retired));
}
