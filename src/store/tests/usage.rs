//! How links have been used: that counts add up, come back after a crash, and travel with copies of the store.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redb::Builder;
use tempfile::TempDir;

use crate::model::{Day, LinkId, ShortLink, Status, Timestamp, Usage};
use crate::store::format::tables::CLICKS;
use crate::store::format::{checksum, clicks};
use crate::store::journal::redo::Redo;
use crate::store::journal::replay::{self, Source};
use crate::store::tests::copies::at;
use crate::store::tests::journals::{crashed, file_in};
use crate::store::tests::{block_on, golden_link, open, put};
use crate::store::*;

pub fn id(name: &str) -> LinkId {
    name.parse().unwrap()
}

pub fn usage(clicks: u64, previews: u64, last: i64) -> Usage {
    Usage {
        clicks,
        previews,
        last_used_at: (clicks > 0).then(|| Timestamp::from_unix(last)),
    }
}

pub async fn add(store: &Store, counted: &[(&str, Usage)]) -> Option<(LinkId, Usage)> {
    let counted: Vec<_> = counted.iter().map(|(name, usage)| (id(name), *usage)).collect();
    store.write(move |t| t.add_usage(&counted, at(0))).await.unwrap()
}

fn usage_in(path: &Path, name: &str) -> Usage {
    let store = Store::open_read_only(path).unwrap();
    let snapshot = store.snapshot().unwrap();
    let found = snapshot.verify(|| {}).unwrap();
    assert!(found.is_clean(), "{found:#?}");
    snapshot.usage(id(name)).unwrap()
}

/// A store with two links that have been used, one of them deleted, and one that has not.
pub fn used() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        for (name, status) in [
            ("aaaa", Status::Enabled),
            ("bbbb", Status::Deleted),
            ("cccc", Status::Enabled),
        ] {
            let link = ShortLink {
                id: id(name),
                unique_id: None,
                status,
                ..golden_link()
            };
            put(&store, link).await;
        }
        add(&store, &[("aaaa", usage(1, 0, 10)), ("bbbb", usage(7, 1, 30))]).await;
        add(&store, &[("aaaa", usage(2, 3, 20))]).await;
    });
    (folder, store)
}

fn assert_used(path: &Path) {
    assert_eq!(usage_in(path, "aaaa"), usage(3, 3, 20));
    assert_eq!(usage_in(path, "bbbb"), usage(7, 1, 30));
    assert_eq!(usage_in(path, "cccc"), Usage::default());
}

#[test]
fn counts_add_up_and_come_back_from_the_journal() {
    let (folder, store) = used();
    let after_crash = crashed(&folder);
    assert_used(&file_in(&after_crash));
    drop(open(after_crash.path()));
    assert_used(&file_in(&after_crash));
    // An older time is not the last one, and a preview has none.
    block_on(add(&store, &[("aaaa", usage(1, 0, 5)), ("cccc", usage(0, 1, 0))]));
    drop(store);
    assert_eq!(usage_in(&file_in(&folder), "aaaa"), usage(4, 3, 20));
    assert_eq!(usage_in(&file_in(&folder), "cccc"), usage(0, 1, 0));
}

#[test]
fn replayed_clicks_are_not_counted_again() {
    let (folder, store) = used();
    let mut redo = Redo::kept();
    redo.used(id("aaaa"), &clicks::encode(&usage(9, 9, 90)), Day(0));
    // There is no such link.
    redo.used(id("zzzz"), &clicks::encode(&usage(9, 9, 90)), Day(0));
    let payload = redo.into_bytes().unwrap();
    for _ in 0..3 {
        let payload = payload.clone();
        block_on(store.write(move |transaction| replay::apply(transaction, &payload, Source::Journal))).unwrap();
    }
    drop(store);
    assert_eq!(usage_in(&file_in(&folder), "aaaa"), usage(9, 9, 90));
    assert_eq!(usage_in(&file_in(&folder), "zzzz"), Usage::default());
}

#[test]
fn copies_dumps_and_compaction_keep_clicks() {
    let (folder, store) = used();
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
fn old_store_has_no_clicks_until_one_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(file_in(&folder), include_bytes!("../testdata/format_1.redb")).unwrap();
    let name = golden_link().id.to_string();
    assert_eq!(usage_in(&file_in(&folder), &name), Usage::default());
    let store = open(folder.path());
    block_on(add(&store, &[(&name, usage(1, 0, 10))]));
    drop(store);
    assert_eq!(usage_in(&file_in(&folder), &name), usage(1, 0, 10));
}

#[test]
fn clicks_of_no_link_are_not_written() {
    let (folder, store) = used();
    let first = block_on(add(&store, &[("aaab", usage(1, 1, 1)), ("bbbb", usage(1, 0, 1))]));
    assert_eq!(first, Some((id("bbbb"), usage(8, 1, 30))));
    assert_eq!(block_on(add(&store, &[("zzzz", usage(1, 1, 1))])), None);
    drop(store);
    assert_eq!(usage_in(&file_in(&folder), "aaab"), Usage::default());
}

fn put_behind_its_back(folder: &TempDir, name: &str, value: &[u8]) {
    let database = Builder::new().open(file_in(folder)).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut table = transaction.open_table(CLICKS).unwrap();
    table.insert(name.as_bytes(), value).unwrap();
    drop(table);
    transaction.commit().unwrap();
}

#[test]
fn verification_finds_damaged_and_orphaned_clicks() {
    let whole = |name: &str| checksum::seal(name.as_bytes(), &clicks::encode(&usage(1, 1, 1)));
    let mut flipped = whole("aaaa");
    flipped[7] ^= 2;
    for (name, value, expected) in [
        ("aaaa", whole("aaaa")[..27].to_vec(), "the clicks of aaaa are damaged"),
        ("aaaa", flipped, "the clicks of aaaa are damaged"),
        ("aaaa", whole("bbbb"), "the clicks of aaaa are damaged"),
        ("aaa0", whole("aaa0"), "there are clicks of aaa0, which has no record"),
        ("bbbc", whole("bbbc"), "there are clicks of bbbc, which has no record"),
        ("zzzz", whole("zzzz"), "there are clicks of zzzz, which has no record"),
    ] {
        let (folder, store) = used();
        drop(store);
        put_behind_its_back(&folder, name, &value);
        let store = Store::open_read_only(&file_in(&folder)).unwrap();
        let found = store.snapshot().unwrap().verify(|| {}).unwrap();
        assert_eq!(found.problems, [expected]);
    }
}

#[test]
fn damaged_clicks_count_from_zero() {
    let (folder, store) = used();
    drop(store);
    put_behind_its_back(&folder, "aaaa", b"what is this");
    let store = open(folder.path());
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.usage(id("aaaa")).unwrap(), Usage::default());
    assert_eq!(
        snapshot.verify(|| {}).unwrap().problems,
        ["the clicks of aaaa are damaged"]
    );
    // Who looks whether something has been written must not fail either.
    let read = block_on(store.write(|transaction| transaction.usage(id("aaaa")))).unwrap();
    assert_eq!(read, Usage::default());
    block_on(add(&store, &[("aaaa", usage(1, 0, 40)), ("bbbb", usage(1, 0, 40))]));
    drop(store);
    assert_eq!(usage_in(&file_in(&folder), "aaaa"), usage(1, 0, 40));
    assert_eq!(usage_in(&file_in(&folder), "bbbb"), usage(8, 1, 40));
}

/// Clicks come every few seconds for as long as links are used; a checkpoint each time would wear out the disk.
#[test]
fn clicks_alone_wait_longer_for_their_checkpoint() {
    const NEVER: Duration = Duration::from_secs(1_000_000);
    const SOON: Duration = Duration::from_millis(1);
    for (idle, idle_after_clicks, is_link_written) in [(NEVER, SOON, false), (SOON, NEVER, true)] {
        let (folder, store) = used();
        drop(store);
        let file = StoreFile::new(&file_in(&folder));
        let pace = RetryTiming {
            idle,
            idle_after_clicks,
            ..RetryTiming::default()
        };
        let store = Store::open_on(Arc::new(file), folder.path(), None, pace, None, WithoutWrites::Fails).unwrap();
        block_on(async {
            // The first write makes the journal.
            add(&store, &[("aaaa", usage(1, 0, 40))]).await;
            add(&store, &[("aaaa", usage(1, 0, 41))]).await;
            if is_link_written {
                put(&store, golden_link()).await;
            }
        });
        let copy = folder.path().join("copy");
        let is_in_the_file = || {
            fs::copy(file_in(&folder), &copy).unwrap();
            // A copy of a file that is being written to may be none.
            let store = Store::open_read_only(&copy).ok();
            let found = store.and_then(|store| store.snapshot().ok()?.usage(id("aaaa")).ok());
            found == Some(usage(5, 3, 41))
        };
        while !is_in_the_file() {
            std::thread::yield_now();
        }
    }
}
