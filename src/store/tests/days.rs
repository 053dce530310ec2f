//! How links were used by day: that days add up, come back after a crash, travel with copies, and are dropped.

use std::path::Path;

use redb::Builder;

use crate::model::{DailyUsage, Day, PartnerId};
use crate::store::format::tables::DAYS;
use crate::store::format::{clicks, days};
use crate::store::journal::redo::Redo;
use crate::store::journal::replay::{self, Source};
use crate::store::tests::journals::{crashed, file_in};
use crate::store::tests::usage::{add, id, usage, used};
use crate::store::tests::{block_on, open};
use crate::store::*;

const DAY: i64 = 24 * 60 * 60;
const PARTNER: PartnerId = PartnerId(1_234_567);

fn used_on(day: u32, clicks: u64, previews: u64) -> DailyUsage {
    DailyUsage {
        day: Day(day),
        clicks,
        previews,
    }
}

fn days_of(snapshot: &Snapshot, name: &str) -> Vec<DailyUsage> {
    snapshot.usage_by_day(id(name), Day(0)..=Day(99)).unwrap()
}

fn days_of_partner(snapshot: &Snapshot) -> Vec<DailyUsage> {
    snapshot.usage_of_partner_by_day(PARTNER, Day(0)..=Day(99)).unwrap()
}

/// As [`used`], and used on two later days.
fn used_for_days() -> (tempfile::TempDir, Store) {
    let (folder, store) = used();
    block_on(async {
        add(&store, &[("aaaa", usage(2, 1, DAY)), ("cccc", usage(1, 0, DAY + 9))]).await;
        add(
            &store,
            &[("aaaa", usage(1, 0, 2 * DAY - 1)), ("bbbb", usage(4, 0, 7 * DAY))],
        )
        .await;
        // Previews have no time: they are of today, which is the first day.
        add(&store, &[("cccc", usage(0, 5, 0))]).await;
    });
    (folder, store)
}

fn assert_used(path: &Path) {
    let store = Store::open_read_only(path).unwrap();
    let snapshot = store.snapshot().unwrap();
    let found = snapshot.verify(|| {}).unwrap();
    assert!(found.is_clean(), "{found:#?}");
    assert_eq!(days_of(&snapshot, "aaaa"), [used_on(0, 3, 3), used_on(1, 3, 1)]);
    assert_eq!(days_of(&snapshot, "bbbb"), [used_on(0, 7, 1), used_on(7, 4, 0)]);
    assert_eq!(days_of(&snapshot, "cccc"), [used_on(0, 0, 5), used_on(1, 1, 0)]);
    let all = [used_on(0, 10, 9), used_on(1, 4, 1), used_on(7, 4, 0)];
    assert_eq!(days_of_partner(&snapshot), all);
    let some = snapshot.usage_of_partner_by_day(PARTNER, Day(1)..=Day(6)).unwrap();
    assert_eq!(some, all[1..2]);
    let others = snapshot.usage_of_partner_by_day(PartnerId(1), Day(0)..=Day(99));
    assert_eq!(others.unwrap(), []);
}

#[test]
fn days_add_up_and_come_back_from_the_journal() {
    let (folder, store) = used_for_days();
    let after_crash = crashed(&folder);
    assert_used(&file_in(&after_crash));
    drop(open(after_crash.path()));
    assert_used(&file_in(&after_crash));
    drop(store);
    assert_used(&file_in(&folder));
}

#[test]
fn replayed_clicks_of_a_day_are_not_counted_again() {
    let (_folder, store) = used();
    let mut redo = Redo::kept();
    redo.used(id("aaaa"), &clicks::encode(&usage(9, 9, 90)), Day(3));
    // What an earlier version has left is of no day.
    redo.used_without_day(id("aaaa"), &clicks::encode(&usage(10, 9, 90)));
    let payload = redo.into_bytes().unwrap();
    for _ in 0..3 {
        let payload = payload.clone();
        block_on(store.write(move |transaction| replay::apply(transaction, &payload, Source::Journal))).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.usage(id("aaaa")).unwrap(), usage(10, 9, 90));
    let of_day = days_of(&snapshot, "aaaa");
    assert_eq!(of_day.first(), Some(&used_on(0, 3, 3)));
    assert_eq!(of_day.get(1), Some(&used_on(3, 6, 6)));
}

#[test]
fn copies_dumps_and_compaction_keep_days() {
    let (folder, store) = used_for_days();
    let path = file_in(&folder);
    let (copied, restored) = (folder.path().join("copied"), folder.path().join("restored"));
    let snapshot = store.snapshot().unwrap();
    snapshot.copy_to(&copied, &mut ()).unwrap();
    let mut dump = Vec::new();
    snapshot.dump(&mut dump).unwrap();
    restore_dump(dump.as_slice(), &restored, &mut ()).unwrap();
    drop((snapshot, store));
    compact(&path, &mut ()).unwrap();
    for path in [copied, restored, path] {
        assert_used(&path);
    }
}

#[test]
fn old_days_are_dropped_a_few_at_a_time() {
    let (folder, store) = used_for_days();
    let drop_some = |day, most| block_on(store.write(move |t| t.drop_days_before(Day(day), most))).unwrap();
    assert_eq!(drop_some(0, 100), 0);
    // Three links and their partner.
    assert_eq!(drop_some(1, 3), 3);
    let after_crash = crashed(&folder);
    assert_eq!([drop_some(1, 3), drop_some(1, 3)], [1, 0]);
    for (store, partners_days) in [(&open(after_crash.path()), 3), (&store, 2)] {
        let snapshot = store.snapshot().unwrap();
        assert!(snapshot.verify(|| {}).unwrap().is_clean());
        assert_eq!(days_of(&snapshot, "aaaa"), [used_on(1, 3, 1)]);
        assert_eq!(days_of_partner(&snapshot).len(), partners_days);
        // The totals stay.
        assert_eq!(snapshot.usage(id("aaaa")).unwrap().clicks, 6);
    }
    let after_crash = crashed(&folder);
    assert_eq!(days_of_partner(&open(after_crash.path()).snapshot().unwrap()).len(), 2);
    assert_eq!(drop_some(99, 100), 5);
    assert_eq!(
        block_on(add(&store, &[("aaaa", usage(1, 0, DAY))])).unwrap().1.clicks,
        7
    );
    assert_eq!(days_of(&store.snapshot().unwrap(), "aaaa"), [used_on(1, 1, 0)]);
}

fn put_behind_its_back(folder: &tempfile::TempDir, key: &[u8], value: &[u8]) {
    let database = Builder::new().open(file_in(folder)).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut table = transaction.open_table(DAYS).unwrap();
    table.insert(key, value).unwrap();
    drop(table);
    transaction.commit().unwrap();
}

#[test]
fn verification_finds_damaged_and_orphaned_days() {
    let (of_link, of_none) = (
        days::key_of_link(Day(0), id("aaaa")),
        days::key_of_link(Day(3), id("zzzz")),
    );
    let (of_partner, malformed) = (days::key_of_partner(Day(0), PARTNER), b"\0\0\0\0X".to_vec());
    let whole = |key: &[u8]| days::encode(key, &days::Visits::none_of(PARTNER));
    for (key, value, expected) in [
        (&of_link, whole(&of_partner), "wrong checksum"),
        (&of_link, b"what is this".to_vec(), "wrong length"),
        (&of_partner, whole(&of_link), "wrong checksum"),
        (&malformed, whole(&malformed), "malformed key"),
        (
            &of_none,
            whole(&of_none),
            "there are clicks of zzzz on day 3, which has no record",
        ),
    ] {
        let (folder, store) = used();
        drop(store);
        put_behind_its_back(&folder, key, &value);
        let store = open(folder.path());
        let snapshot = store.snapshot().unwrap();
        let found = snapshot.verify(|| {}).unwrap().problems;
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
        let mut inspection = Inspection::default();
        while inspection.step(&store).unwrap() {}
        assert_eq!(inspection.problems, 1);
        let dumped = snapshot.dump(&mut Vec::new());
        let is_of_entry = !expected.contains("no record");
        assert_eq!(matches!(dumped, Err(CopyError::Damaged(_))), is_of_entry, "{dumped:?}");
    }
}

#[test]
fn damaged_day_counts_from_zero() {
    let (folder, store) = used();
    drop(store);
    let keys = [
        days::key_of_link(Day(0), id("aaaa")),
        days::key_of_partner(Day(0), PARTNER),
    ];
    for key in &keys {
        put_behind_its_back(&folder, key, b"what is this");
    }
    let store = open(folder.path());
    let snapshot = store.snapshot().unwrap();
    assert_eq!(
        (days_of(&snapshot, "aaaa"), days_of_partner(&snapshot)),
        (vec![], vec![])
    );
    drop(snapshot);
    block_on(add(&store, &[("aaaa", usage(1, 0, 40)), ("bbbb", usage(2, 0, 40))]));
    let snapshot = store.snapshot().unwrap();
    assert_eq!(days_of(&snapshot, "aaaa"), [used_on(0, 1, 0)]);
    assert_eq!(days_of(&snapshot, "bbbb"), [used_on(0, 9, 1)]);
    assert_eq!(days_of_partner(&snapshot), [used_on(0, 3, 0)]);
    assert!(snapshot.verify(|| {}).unwrap().is_clean());
}

/// Its partner is unknown then; the total does not need it.
#[test]
fn link_with_a_damaged_record_has_a_total_and_no_days() {
    let (_folder, store) = used();
    block_on(async {
        store.write(|t| t.damage(id("cccc"))).await.unwrap();
        add(&store, &[("cccc", usage(1, 0, 40)), ("aaaa", usage(1, 0, 40))]).await;
    });
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.usage(id("cccc")).unwrap(), usage(1, 0, 40));
    assert_eq!(days_of(&snapshot, "cccc"), []);
    assert_eq!(days_of(&snapshot, "aaaa"), [used_on(0, 4, 3)]);
}
