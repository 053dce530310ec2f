//! Clicks by day: that days are those of the clicks, show what is pending, and end after ninety.

use crate::links::tests::audit::somebody;
use crate::links::tests::simulated::open;
use crate::links::tests::{PARTNER, block_on, draft, everybody};
use crate::links::*;
use crate::model::{DailyUsage, Day, Visit};
use crate::store::testing::simulated::Disk;

const TODAY: Day = Day(20_000);

fn used_on(day: Day, clicks: u64, previews: u64) -> DailyUsage {
    DailyUsage { day, clicks, previews }
}

fn noon(day: Day) -> Timestamp {
    day.start().plus(12 * 60 * 60)
}

fn links_on(disk: &Disk, clock: &Clock) -> (Links, LinkId, LinkId) {
    let links = open(disk, clock, 1).unwrap();
    let owned = Draft {
        user_id: Some("me".into()),
        ..draft("https://e.example/owned")
    };
    let [owned, other] =
        [owned, draft("https://e.example/other")].map(|draft| block_on(links.add(draft, somebody())).unwrap().id);
    (links, owned, other)
}

#[test]
fn days_are_those_of_the_clicks_and_show_pending_ones() {
    let disk = Disk::with_store();
    let clock = Clock::manual(noon(TODAY));
    let (links, id, other) = links_on(&disk, &clock);
    let recorder = links.recorder();
    let days = |id| block_on(links.clicks_by_day(id, everybody())).unwrap();
    let of_partner = || block_on(links.clicks_of_partner_by_day(PARTNER)).unwrap();
    assert_eq!((days(id), of_partner()), (vec![], vec![]));
    let (yesterday, tomorrow) = (TODAY.minus(1), Day(TODAY.0 + 1));
    // Before midnight, and not written yet.
    recorder.record(id, Visit::Click, TODAY.start().plus(-1));
    assert_eq!((days(id), of_partner()), (vec![used_on(yesterday, 1, 0)], vec![]));
    block_on(links.flush_clicks()).unwrap();
    assert_eq!(
        (days(id), of_partner()),
        (vec![used_on(yesterday, 1, 0)], vec![used_on(yesterday, 1, 0)])
    );
    // Previews leave no time.
    recorder.record(id, Visit::Preview, noon(TODAY));
    recorder.record(other, Visit::Click, noon(TODAY));
    let expected = [used_on(yesterday, 1, 0), used_on(TODAY, 0, 1)];
    assert_eq!(days(id), expected);
    block_on(links.flush_clicks()).unwrap();
    assert_eq!(days(id), expected);
    recorder.record(id, Visit::Click, noon(TODAY));
    assert_eq!(days(id), [used_on(yesterday, 1, 0), used_on(TODAY, 1, 1)]);
    assert_eq!(days(other), [used_on(TODAY, 1, 0)]);
    assert_eq!(of_partner(), [used_on(yesterday, 1, 0), used_on(TODAY, 1, 1)]);
    clock.set(noon(tomorrow));
    recorder.record(id, Visit::Preview, noon(tomorrow));
    block_on(links.flush_all_clicks(Duration::from_secs(60)));
    // The click was pending, and so was the preview: one flush, which is of one day.
    assert_eq!(days(id), [used_on(yesterday, 1, 0), used_on(TODAY, 1, 2)]);
    drop(links);
    let links = open(&disk, &clock, 2).unwrap();
    let stored = block_on(links.clicks_by_day(id, everybody())).unwrap();
    assert_eq!(stored, [used_on(yesterday, 1, 0), used_on(TODAY, 1, 2)]);
}

#[test]
fn days_of_a_link_outside_the_scope_are_not_shown() {
    let disk = Disk::with_store();
    let (links, owned, other) = links_on(&disk, &Clock::manual(noon(TODAY)));
    let own = |owner: &str| Scope {
        owner: Some(owner.into()),
        ..everybody()
    };
    let another = Scope {
        partner: PartnerId(8),
        owner: None,
    };
    let days = |id, scope| block_on(links.clicks_by_day(id, scope));
    assert_eq!(days(owned, own("me")).unwrap(), []);
    block_on(links.delete(other, everybody(), somebody())).unwrap();
    for (id, scope) in [
        (owned, own("you")),
        (other, own("me")),
        (owned, another),
        (other, everybody()),
    ] {
        assert!(matches!(days(id, scope), Err(LinkError::NotFound)));
    }
}

#[test]
fn only_the_last_ninety_days_are_shown_and_kept() {
    let disk = Disk::with_store();
    let clock = Clock::manual(noon(TODAY.minus(100)));
    let (links, id, _) = links_on(&disk, &clock);
    let recorder = links.recorder();
    for ago in (0..=100).rev() {
        let day = TODAY.minus(ago);
        clock.set(noon(day));
        recorder.record(id, Visit::Click, noon(day));
        block_on(links.flush_clicks()).unwrap();
    }
    let shown = || block_on(links.clicks_by_day(id, everybody())).unwrap();
    let expected: Vec<_> = (0..90).rev().map(|ago| used_on(TODAY.minus(ago), 1, 0)).collect();
    assert_eq!(shown(), expected);
    let entries = || links.store.snapshot().unwrap().days().unwrap().len();
    // A link and its partner.
    // Nothing but the clock says that so much time has passed.
    block_on(links.sweep_days()).unwrap();
    assert_eq!(entries(), 2 * 101);
    block_on(links.add(draft("https://e.example/today"), somebody())).unwrap();
    drop(links);
    // At a start that a link of that day precedes; later ones are no proof.
    for ahead in [0, 200] {
        clock.set(noon(Day(TODAY.0 + ahead)));
        let links = open(&disk, &clock, 2).unwrap();
        block_on(links.sweep_days()).unwrap();
        assert_eq!(links.store.snapshot().unwrap().days().unwrap().len(), 2 * 90, "{ahead}");
    }
    clock.set(noon(TODAY));
    let links = open(&disk, &clock, 3).unwrap();
    assert_eq!(block_on(links.clicks_by_day(id, everybody())).unwrap(), expected);
    assert_eq!(block_on(links.clicks_of_partner_by_day(PARTNER)).unwrap(), expected);
    let (_, usage) = block_on(links.get_with_usage(id, everybody())).unwrap();
    assert_eq!(usage.clicks, 101);
}
