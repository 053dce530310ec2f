//! New ids: that everything moves, and nothing brings a retired id back.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::links::file::{Conflict, ImportOptions, Line, import};
use crate::links::tests::audit::import_log;
use crate::links::tests::audit::somebody;
use crate::links::tests::simulated::open;
use crate::links::tests::{PARTNER, block_on, draft, everybody};
use crate::links::*;
use crate::model::{DailyUsage, Day, Visit};
use crate::store::testing::simulated::{Disk, Failure};

const TODAY: Day = Day(20_000);
const EIO: i32 = 5;

fn owned() -> Draft {
    Draft {
        user_id: Some("me".into()),
        name: Some("the film".into()),
        unique_id: Some("key".into()),
        starts_at: Some(Timestamp::from_unix(5)),
        expires_at: Some(Timestamp::MAX),
        ..draft("https://e.example/film")
    }
}

#[test]
fn a_new_id_takes_everything_with_it() {
    let (disk, clock) = (Disk::with_store(), Clock::manual(TODAY.start()));
    let links = open(&disk, &clock, 1).unwrap();
    let old = block_on(links.add(owned(), somebody())).unwrap();
    let recorder = links.recorder();
    let yesterday = TODAY.minus(1);
    recorder.record(old.id, Visit::Click, yesterday.start());
    block_on(links.flush_clicks()).unwrap();
    // Not written yet.
    recorder.record(old.id, Visit::Click, TODAY.start());
    recorder.record(old.id, Visit::Preview, TODAY.start());
    let now = TODAY.start().plus(60);
    clock.set(now);
    let new = block_on(links.renew_id(old.id, everybody(), somebody())).unwrap();
    assert_ne!(new.id, old.id);
    let expected = ShortLink {
        id: new.id,
        updated_at: now,
        ..old.clone()
    };
    assert_eq!(new, expected);
    let check = |links: &Links| {
        assert_eq!(links.index().look_up(old.id, now), Verdict::Deleted);
        assert!(matches!(links.index().look_up(new.id, now), Verdict::Redirect(_)));
        let (shown, usage) = block_on(links.get_with_usage(new.id, everybody())).unwrap();
        assert_eq!((shown, usage.clicks, usage.previews), (expected.clone(), 2, 1));
        assert_eq!(usage.last_used_at, Some(TODAY.start()));
        let days = block_on(links.clicks_by_day(new.id, everybody())).unwrap();
        let on = |day, clicks, previews| DailyUsage { day, clicks, previews };
        assert_eq!(days, [on(yesterday, 1, 0), on(TODAY, 1, 1)]);
        assert_eq!(block_on(links.clicks_of_partner_by_day(PARTNER)).unwrap(), days);
        let snapshot = links.store.snapshot().unwrap();
        assert_eq!(snapshot.usage(old.id).unwrap().visits(), 0);
        assert_eq!(links.store.metrics().links(), [0, 1, 1]);
        let found = snapshot.verify(|| {}).unwrap();
        assert!(found.is_clean(), "{found:#?}");
    };
    check(&links);
    drop(links);
    check(&open(&disk, &clock, 2).unwrap());
}

#[test]
fn nothing_brings_a_retired_id_back() {
    let (disk, clock) = (Disk::with_store(), Clock::manual(TODAY.start()));
    let links = open(&disk, &clock, 1).unwrap();
    let old = block_on(links.add(owned(), somebody())).unwrap();
    let new = block_on(links.renew_id(old.id, everybody(), somebody())).unwrap();
    let retired = links.store.snapshot().unwrap().get(old.id).unwrap().unwrap();
    assert!(retired.is_retired() && retired.status == Status::Deleted && !new.is_retired());

    let again = block_on(links.renew_id(old.id, everybody(), somebody()));
    assert!(matches!(again, Err(LinkError::Retired)), "{again:?}");
    let restored = block_on(links.restore(old.id, PARTNER, somebody()));
    assert!(matches!(restored, Err(LinkError::Retired)), "{restored:?}");
    let restored = block_on(links.restore_all(vec![old.id], PARTNER, false, somebody())).unwrap();
    assert_eq!(restored, [(old.id, RestoreOutcome::Retired)]);
    let updated = block_on(links.update(old.id, everybody(), somebody(), |link| Ok::<_, ()>(link.clone())));
    assert!(
        matches!(updated, Err(UpdateError::Link(LinkError::Retired))),
        "{updated:?}"
    );
    // A user who may not see it learns nothing of it.
    let other = Scope {
        owner: Some("other".into()),
        ..everybody()
    };
    assert!(matches!(
        block_on(links.renew_id(old.id, other.clone(), somebody())),
        Err(LinkError::NotFound)
    ));
    assert!(matches!(
        block_on(links.renew_id(new.id, other, somebody())),
        Err(LinkError::NotFound)
    ));
    assert!(matches!(
        block_on(links.restore(old.id, PartnerId(8), somebody())),
        Err(LinkError::NotFound)
    ));

    // A file of before, and lines that say less or something else.
    let bare = ShortLink {
        starts_at: None,
        unique_id: None,
        ..retired.clone()
    };
    for (link, has_start) in [(old.clone(), true), (old.clone(), false), (bare, true)] {
        for conflict in [Conflict::Fail, Conflict::Skip, Conflict::Update] {
            let line = Line {
                number: 1,
                link: Ok(link.clone()),
                is_dated: true,
                has_start,
            };
            let options = ImportOptions {
                conflict,
                ..ImportOptions::default()
            };
            let lines = vec![Ok(line)].into_iter();
            let report = block_on(import(links.store(), lines, options, Arc::new(|_| {}), import_log())).unwrap();
            let expected = if conflict == Conflict::Skip { (1, 0) } else { (0, 1) };
            assert_eq!((report.skipped, report.refused), expected, "{conflict:?}");
            let reasons = report.problems.iter().map(|problem| problem.reason.as_str());
            assert!(
                reasons.clone().all(|reason| reason.contains("is retired")),
                "{report:?}"
            );
        }
    }
    assert_eq!(links.store.snapshot().unwrap().get(old.id).unwrap(), Some(retired));
    assert_eq!(links.index().look_up(old.id, clock.now()), Verdict::Deleted);
}

/// Otherwise nobody could tell from the old id where the link went.
#[test]
fn renewal_of_unknown_outcome_names_the_new_id() {
    let (disk, clock) = (Disk::with_store(), Clock::manual(TODAY.start()));
    let links = open(&disk, &clock, 1).unwrap();
    let old = block_on(links.add(owned(), somebody())).unwrap();
    let failure = Failure {
        first: disk.operations() + 1,
        count: u64::MAX / 2,
        errno: EIO,
        reads_too: false,
    };
    disk.fail(failure, StdRng::seed_from_u64(0));
    let failed = block_on(links.renew_id(old.id, everybody(), somebody()));
    let Err(LinkError::RenewalUnknown(new)) = failed else {
        panic!("{failed:?}");
    };
    assert_ne!(new, old.id);
    drop(links);
    let mut rng = StdRng::seed_from_u64(1);
    let links = open(&disk.crashed(&mut rng), &clock, 2).unwrap();
    let get = |id| block_on(links.get(id, &everybody())).ok();
    let now = [get(old.id), get(new)].map(|link| link.is_some());
    assert!(now == [true, false] || now == [false, true], "{now:?}");
}
