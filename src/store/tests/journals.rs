//! The journal: what it brings back, what it must not, and that the store is whole without it after a clean end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::model::{ShortLink, Timestamp, Usage};
use crate::store::files::disk::journal_path;
use crate::store::format::{clicks, record};
use crate::store::journal::record::records;
use crate::store::journal::redo::Redo;
use crate::store::journal::replay::Source;
use crate::store::journal::{FILE_BYTES, Journal, Tie, replay};
use crate::store::tests::{any_link, block_on, golden_link, open, put};
use crate::store::*;

pub fn file_in(folder: &TempDir) -> PathBuf {
    folder.path().join(FILE_NAME)
}

fn link(number: u8) -> ShortLink {
    ShortLink {
        id: format!("link{number}").parse().unwrap(),
        unique_id: None,
        ..golden_link()
    }
}

/// What a crash would leave of a store now: its file, and that of its journal.
pub fn crashed(folder: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(file_in(folder), file_in(&copy)).unwrap();
    fs::copy(journal_path(&file_in(folder)), journal_path(&file_in(&copy))).unwrap();
    copy
}

fn has(path: &Path, number: u8) -> bool {
    let store = Store::open_read_only(path).unwrap();
    store.snapshot().unwrap().get(link(number).id).unwrap().is_some()
}

/// A store that has crashed, with a link in its file and another one in its journal.
fn with_a_journal() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        put(&store, link(0)).await;
        put(&store, link(1)).await;
    });
    crashed(&folder)
}

#[test]
fn cleanly_closed_store_needs_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for number in 0..5 {
        block_on(put(&store, link(number)));
    }
    assert!(journal_path(&file_in(&folder)).exists());
    drop(store);
    assert!(!journal_path(&file_in(&folder)).exists());
    assert!((0..5).all(|number| has(&file_in(&folder), number)));
}

#[test]
fn reader_of_a_crashed_store_sees_its_journal() {
    let folder = with_a_journal();
    let path = file_in(&folder);
    let files = || (fs::read(&path).unwrap(), fs::read(journal_path(&path)).unwrap());
    let before = files();
    assert!(has(&path, 0) && has(&path, 1));
    let verified = Store::open_verified(&path).unwrap();
    assert!(verified.snapshot().unwrap().verify(|| {}).unwrap().is_clean());
    drop(verified);
    assert!(files() == before, "a file was changed");

    // Without it, there is only what was in the file, and that can be served.
    let journal = fs::read(journal_path(&path)).unwrap();
    fs::remove_file(journal_path(&path)).unwrap();
    assert!(has(&path, 0) && !has(&path, 1));

    fs::write(journal_path(&path), journal).unwrap();
    compact(&path, &mut ()).unwrap();
    fs::remove_file(journal_path(&path)).unwrap();
    assert!(has(&path, 0) && has(&path, 1));
}

/// A store that has crashed, with links 2 and 3, and a backup of it.
fn another() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        put(&store, link(2)).await;
        put(&store, link(3)).await;
    });
    let crashed = crashed(&folder);
    let backup = crashed.path().join("backup");
    store.snapshot().unwrap().copy_to(&backup, &mut ()).unwrap();
    (crashed, backup)
}

/// The mistake: a backup is copied over a store that has crashed, and what the journal of that one held comes back.
#[test]
fn foreign_journal_beside_a_whole_store_is_set_aside() {
    let (one, (other, backup)) = (with_a_journal(), another());
    drop(open(other.path()));
    let path = file_in(&one);
    let journal = fs::read(journal_path(&path)).unwrap();
    for (round, whole) in [backup, file_in(&other)].into_iter().enumerate() {
        fs::copy(whole, &path).unwrap();
        fs::write(journal_path(&path), &journal).unwrap();
        for _ in 0..2 {
            assert!(has(&path, 2) && has(&path, 3) && !has(&path, 1));
            block_on(put(&open(one.path()), link(4)));
        }
        let kept = ["old", "old.2"].map(|why| path.with_extension(format!("redb.journal.{why}")));
        assert!(
            fs::read(&kept[round]).unwrap() == journal,
            "the journal that was kept before must stay"
        );
    }
}

/// The mistake: only the store's file is moved to another folder after a crash, or a copy of a running one is put
/// there.
#[test]
fn foreign_journal_beside_a_crashed_store_ends_writes() {
    let (one, (other, _)) = (with_a_journal(), another());
    let path = file_in(&one);
    let own = fs::read(journal_path(&file_in(&other))).unwrap();
    let journal = fs::read(journal_path(&path)).unwrap();
    fs::copy(file_in(&other), &path).unwrap();
    for _ in 0..2 {
        let store = open(one.path());
        assert!(store.snapshot().unwrap().get(link(2).id).unwrap().is_some());
        assert!(matches!(store.health(), Health::Refusing(reason) if reason.contains("journal of another store")));
        let written = block_on(store.write(|t| t.revoke([1; 20], Timestamp::MAX)));
        assert_eq!(written, Err(WriteError::Unavailable));
    }
    assert!(fs::read(journal_path(&path)).unwrap() == journal);

    // With its own, everything is there.
    fs::write(journal_path(&path), own).unwrap();
    block_on(put(&open(one.path()), link(4)));
    assert!(has(&path, 2) && has(&path, 3) && has(&path, 4));
}

/// Journals of copies are foreign to each other, though the copies hold the same.
#[test]
fn copies_of_a_store_know_their_journals_apart() {
    let (_folder, backup) = another();
    let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()].map(|folder| {
        fs::copy(&backup, file_in(&folder)).unwrap();
        let store = open(folder.path());
        block_on(async {
            put(&store, link(0)).await;
            put(&store, link(1)).await;
        });
        crashed(&folder)
    });
    fs::copy(journal_path(&file_in(&one)), journal_path(&file_in(&other))).unwrap();
    assert!(matches!(open(other.path()).health(), Health::Refusing(_)));
    assert_eq!(open(one.path()).health(), Health::Accepting);
}

/// Its records still tell whose it is.
#[test]
fn journal_with_a_damaged_first_sector_is_replayed() {
    let folder = with_a_journal();
    let path = journal_path(&file_in(&folder));
    let mut content = fs::read(&path).unwrap();
    content[20] ^= 4;
    fs::write(&path, content).unwrap();
    drop(open(folder.path()));
    assert!(has(&file_in(&folder), 0) && has(&file_in(&folder), 1));
}

#[test]
fn a_journal_that_is_torn_ends_where_it_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for number in 0..4 {
        block_on(put(&store, link(number)));
    }
    let folder = crashed(&folder);
    let path = journal_path(&file_in(&folder));
    let mut content = fs::read(&path).unwrap();
    assert_eq!(content.len(), FILE_BYTES);
    // In the second record; the first sector has none.
    content[2 * 512 + 30] ^= 1;
    fs::write(&path, content).unwrap();
    drop(open(folder.path()));
    assert!(!path.exists(), "it was replayed, and nobody has written since");
    assert!(
        path.with_extension("journal.damaged").exists(),
        "the third record is there, and whole"
    );
    let there: Vec<_> = (0..4).map(|number| has(&file_in(&folder), number)).collect();
    assert_eq!(there, [true, true, false, false]);
}

fn open_with_pause(folder: &TempDir, idle: Duration) -> Store {
    let file = StoreFile::new(&file_in(folder));
    file.create_if_missing().unwrap();
    let pace = RetryTiming {
        idle,
        ..RetryTiming::default()
    };
    Store::open_on(Arc::new(file), folder.path(), None, pace, None, WithoutWrites::Fails).unwrap()
}

/// The first write does not wait for it.
#[test]
fn idle_writer_makes_the_journal_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_pause(&folder, Duration::from_millis(1));
    while !journal_path(&file_in(&folder)).exists() {
        std::thread::yield_now();
    }
    // Not in use before the first write.
    let unused = crashed(&folder);
    block_on(put(&open(unused.path()), link(0)));
    assert_eq!(fs::read_dir(unused.path()).unwrap().count(), 1, "a journal was kept");
    block_on(store.checkpoint());
    drop(store);
    assert!(!journal_path(&file_in(&folder)).exists());
    assert!(has(&file_in(&unused), 0) && !has(&file_in(&folder), 0));
}

/// A store that nobody writes to has nothing to replay, and its file is all that must be copied.
#[test]
fn idle_writer_makes_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_pause(&folder, Duration::from_millis(1));
    for number in 0..3 {
        block_on(put(&store, link(number)));
    }
    let copy = folder.path().join("copy");
    let is_in_the_file = || {
        fs::copy(file_in(&folder), &copy).unwrap();
        // A copy of a file that is being written to may be none.
        let store = Store::open_read_only(&copy).ok();
        store.is_some_and(|store| matches!(store.snapshot().unwrap().get(link(2).id), Ok(Some(_))))
    };
    while !is_in_the_file() {
        std::thread::yield_now();
    }
}

/// Those who were acknowledged before share a transaction of redb with the batch that gives up.
#[test]
fn acknowledged_writes_survive_a_failed_batch() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        for number in 0..4 {
            put(&store, link(number)).await;
        }
        let failing = store.write(|transaction| {
            transaction.revoke([1; 20], Timestamp::MAX)?;
            Err::<(), _>(StoreError::damaged("links", "for this test"))
        });
        assert_eq!(failing.await, Err(WriteError::Unavailable));
        put(&store, link(4)).await;
    });
    assert_eq!(store.health(), Health::Accepting);
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.totals().unwrap(), [0, 5, 0]);
    assert!(snapshot.revocations().unwrap().is_empty());
    assert!(snapshot.verify(|| {}).unwrap().is_clean());
    drop((snapshot, store));
    assert!((0..5).all(|number| has(&file_in(&folder), number)));
}

/// A dry run is undone, and what was acknowledged before it is not.
#[test]
fn acknowledged_writes_survive_an_aborted_job() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        put(&store, link(0)).await;
        put(&store, link(1)).await;
        let undone = store.write_alone(|transaction| {
            transaction.put(None, link(2))?;
            Ok((TransactionEnd::Abort, ()))
        });
        undone.await.unwrap();
    });
    assert_eq!(store.snapshot().unwrap().totals().unwrap(), [0, 2, 0]);
}

const fn tie(identity: u64, salt: u64) -> Tie {
    Tie {
        identity: Some(identity),
        salt,
    }
}

#[derive(Default, Clone)]
struct Memory(Arc<parking_lot::Mutex<Vec<u8>>>);

impl journal::JournalFile for Memory {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock();
        let start = usize::try_from(offset).unwrap();
        content.resize(FILE_BYTES, 0);
        content[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn usage_of(link: &ShortLink) -> Usage {
    let clicks = u64::from(link.id.as_bytes()[0]);
    Usage {
        clicks,
        previews: clicks / 2,
        last_used_at: Some(link.created_at),
    }
}

fn changes_of(links: &[ShortLink], revoked: &[(u8, i64)]) -> Vec<u8> {
    let mut redo = Redo::kept();
    for link in links {
        redo.link(link.id, &record::encode(link).unwrap());
        redo.used_without_day(link.id, &clicks::encode(&usage_of(link)));
    }
    for (digest, until) in revoked {
        redo.revoked(&[*digest; 20], Timestamp::from_unix(*until));
        redo.counted(&[*digest; 20], 3, Timestamp::from_unix(*until));
        redo.dropped(Timestamp::from_unix(*until / 2));
    }
    redo.into_bytes().unwrap_or_default()
}

proptest! {
    #[test]
    fn journal_has_the_records_appended_since_its_restart(
        rounds in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_500), 0..6),
            1..4),
        other in any::<u64>(),
    ) {
        let file = Memory::default();
        let mut journal = Journal::new(Box::new(file.clone()), 7);
        let mut sequence = 0;
        for (salt, payloads) in (1..).zip(rounds) {
            journal.restart(salt, sequence);
            let mut expected = Vec::new();
            for payload in payloads {
                prop_assert!(!journal.has_room_for(sequence, &payload), "a number that was taken");
                if journal.has_room_for(sequence + 1, &payload) {
                    sequence += 1;
                    journal.append(sequence, &payload).unwrap();
                    expected.push((sequence, payload));
                }
            }
            let content = file.0.lock().clone();
            let found: Vec<_> = records(&content, tie(7, salt)).map(|(number, payload)| (number, payload.to_vec()))
                .collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(records(&content, tie(7, other | 1 << 63)).count(), 0);
            prop_assert_eq!(records(&content, tie(other | 1 << 63, salt)).count(), 0);
        }
    }

    #[test]
    fn any_content_of_a_journal_is_harmless(content in prop::collection::vec(any::<u8>(), 0..3_000),
        salt in any::<u64>()) {
        prop_assert_eq!(records(&content, tie(7, salt)).count(), 0);
        prop_assert_eq!(records(&content, Tie { identity: None, salt }).count(), 0);
        prop_assert_eq!(journal::owner_of(&content), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Changes that are made again have the same effect; what is none is refused without harm.
    #[test]
    fn altered_changes_are_refused_or_make_a_whole_store(
        links in prop::collection::vec(any_link(), 1..8),
        revoked in prop::collection::vec((any::<u8>(), -5_i64..50), 0..3),
        cut in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let whole = changes_of(&links, &revoked);
        let mut altered = whole.clone();
        altered[cut.index(whole.len())] = byte;
        for payload in [whole[..cut.index(whole.len())].to_vec(), altered, whole] {
            // What gives up is undone.
            let _ = block_on(store.write(move |transaction| replay::apply(transaction, &payload, Source::Journal)));
            let found = store.snapshot().unwrap().verify(|| {}).unwrap();
            prop_assert!(found.problems.iter().all(|problem| problem.starts_with("unique id")), "{found:?}");
        }
        let snapshot = store.snapshot().unwrap();
        // Of several with one id, the last one.
        let last: BTreeMap<_, _> = links.into_iter().map(|link| (link.id, link)).collect();
        for (id, link) in last {
            prop_assert_eq!(snapshot.usage(id).unwrap(), usage_of(&link));
            prop_assert_eq!(snapshot.get(id).unwrap(), Some(link));
        }
    }
}
