//! Copies of the store, verification, older formats, and files that something has damaged.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use redb::{Builder, ReadableDatabase as _, WriteTransaction};

use crate::model::{ShortLink, Timestamp};
use crate::store::format::keys::Index;
use crate::store::format::tables::{COUNTERS, LINKS, META};
use crate::store::format::upgrade::Formats;
use crate::store::format::{record, tables, values};
use crate::store::tests::{any_link, block_on, golden_link, open, put, try_open};
use crate::store::*;

fn dump_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut dump = Vec::new();
    snapshot.dump(&mut dump).unwrap();
    dump
}

pub fn file_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join(FILE_NAME)
}

/// A store with a link, a revocation and a counted call.
pub fn with_something_of_everything() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        put(&store, golden_link()).await;
        store.write(|t| t.revoke([1; 20], Timestamp::MAX)).await.unwrap();
        assert!(
            store
                .write(|t| t.count_action([2; 20], 3, Timestamp::MAX))
                .await
                .unwrap()
        );
    });
    folder
}

pub const fn at(second: i64) -> Timestamp {
    Timestamp::from_unix(second)
}

pub fn numbered(number: u64) -> ShortLink {
    ShortLink {
        id: format!("link{number}").parse().unwrap(),
        unique_id: None,
        ..golden_link()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_holds_what_the_store_held(links in prop::collection::vec(any_link(), 0..60)) {
        let folder = with_something_of_everything();
        let store = open(folder.path());
        block_on(async {
            for link in links {
                put(&store, link).await;
            }
        });
        let expected = dump_of(&store.snapshot().unwrap());
        let (copied, restored) = (folder.path().join("copied"), folder.path().join("restored"));
        store.snapshot().unwrap().copy_to(&copied, &mut ()).unwrap();
        restore_dump(expected.as_slice(), &restored, &mut ()).unwrap();
        for path in [copied, restored] {
            prop_assert!(dump_of(&Store::open_read_only(&path).unwrap().snapshot().unwrap()) == expected);
        }
    }

    #[test]
    fn a_dump_that_is_cut_off_or_changed_makes_no_store(cut in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let folder = with_something_of_everything();
        let dump = dump_of(&open(folder.path()).snapshot().unwrap());
        let mut changed = dump.clone();
        let position = cut.index(dump.len());
        changed[position] ^= 1_u8 << bit;
        let path = folder.path().join("restored");
        for bad in [&dump[..position], &changed] {
            prop_assert!(restore_dump(bad, &path, &mut ()).is_err());
            prop_assert!(!path.exists());
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
        }
    }

    /// redb panics on some damaged files; whoever opens one must be told, and the file be left alone.
    #[test]
    fn a_damaged_file_is_refused_or_served_but_never_changed(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
    ) {
        let folder = with_something_of_everything();
        let path = file_in(&folder);
        let mut content = fs::read(&path).unwrap();
        for (index, byte) in damages {
            // Where something is: the file is mostly empty.
            let position = index.index(64 * 1024);
            content[position] = byte;
        }
        fs::write(&path, &content).unwrap();
        match Store::open_read_only(&path) {
            Ok(store) => drop(store),
            Err(error) => prop_assert!(error.to_string().contains("links.redb")
                || matches!(error, OpenError::Read(_)), "{error}"),
        }
        prop_assert!(fs::read(&path).unwrap() == content, "the file was changed");
    }
}

#[test]
fn compacting_makes_the_file_smaller_and_keeps_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder);
    let store = open(folder.path());
    let put_all = |length: usize| {
        let links = (0..2_000).map(move |number| ShortLink {
            id: format!("{number:04}").parse().unwrap(),
            unique_id: None,
            full_url: format!("https://e.example/{}", "x".repeat(length)),
            ..golden_link()
        });
        block_on(futures_util::future::join_all(links.map(|link| put(&store, link))));
    };
    put_all(4_000);
    put_all(10);
    let expected = dump_of(&store.snapshot().unwrap());
    assert!(matches!(
        compact(&path, &mut ()),
        Err(CopyError::Open(OpenError::InUse { .. }))
    ));
    drop(store);
    let compaction = compact(&path, &mut ()).unwrap();
    assert_eq!(compaction.after, fs::metadata(&path).unwrap().len());
    assert!(compaction.after * 2 < compaction.before, "{compaction:?}");
    assert!(dump_of(&open(folder.path()).snapshot().unwrap()) == expected);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "something was left behind"
    );
}

/// Changes a store behind tinyd's back.
pub fn tamper(folder: &tempfile::TempDir, change: impl FnOnce(&WriteTransaction)) {
    let database = Builder::new().open(file_in(folder)).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn verification_finds_everything_that_does_not_fit_together() {
    let insert = |transaction: &WriteTransaction, index: Index| {
        let other = ShortLink {
            id: "zzzz".parse().unwrap(),
            ..golden_link()
        };
        let mut table = transaction.open_table(index.table()).unwrap();
        table.insert(index.key_of(&other).unwrap().as_slice(), ()).unwrap();
    };
    let remove = |transaction: &WriteTransaction, index: Index| {
        let mut table = transaction.open_table(index.table()).unwrap();
        table.remove(index.key_of(&golden_link()).unwrap().as_slice()).unwrap();
    };
    let count = |transaction: &WriteTransaction, key: &[u8], counts: [u64; 3]| {
        let mut table = transaction.open_table(COUNTERS).unwrap();
        table
            .insert(key, values::encode_counts(key, counts).as_slice())
            .unwrap();
    };
    type Tampering<'a> = Box<dyn Fn(&WriteTransaction) + 'a>;
    let cases: [(&str, Tampering<'_>); 6] = [
        ("67mk41xj has no entry in by_user", Box::new(|t| remove(t, Index::User))),
        (
            "by_updated has an entry for zzzz, which has no record",
            Box::new(|t| insert(t, Index::Updated)),
        ),
        (
            "unique id 1234567/key is held by 2 links",
            Box::new(|t| insert(t, Index::UniqueId)),
        ),
        (
            "by_created 1234567 has [0, 1, 0] links, counted are Some([0, 0, 7])",
            Box::new(|t| count(t, b"P\0\x12\xd6\x87", [0, 0, 7])),
        ),
        (
            "4 counters, but links in 3 scopes",
            Box::new(|t| count(t, b"P\0\0\0\0", [0, 0, 1])),
        ),
        (
            "damaged record in table links: 67mk41xj: record version 255, known is 2",
            Box::new(|t| {
                let mut table = t.open_table(LINKS).unwrap();
                table.insert(b"67mk41xj".as_slice(), [255].as_slice()).unwrap();
            }),
        ),
    ];
    for (expected, change) in cases {
        let folder = with_something_of_everything();
        tamper(&folder, |transaction| change(transaction));
        let store = Store::open_read_only(&file_in(&folder)).unwrap();
        let found = store.snapshot().unwrap().verify(|| {}).unwrap();
        assert!(
            found.problems.iter().any(|problem| problem == expected),
            "{expected}: {found:#?}"
        );
        assert_eq!(found.found, found.problems.len() as u64);
        drop(store);
        let before = fs::read(file_in(&folder)).unwrap();
        assert!(
            matches!(compact(&file_in(&folder), &mut ()), Err(CopyError::Damaged(_))),
            "{expected}"
        );
        assert!(!files::unfinished::unfinished(&file_in(&folder)).exists());
        assert_eq!(fs::read(file_in(&folder)).unwrap().len(), before.len());
    }
}

/// A byte that no index and no decoder looks at.
#[test]
fn changed_byte_of_a_record_is_found() {
    let folder = with_something_of_everything();
    let path = file_in(&folder);
    let mut content = fs::read(&path).unwrap();
    let url = golden_link().full_url.into_bytes();
    let positions: Vec<_> = content
        .windows(url.len())
        .enumerate()
        .filter(|(_, window)| *window == url)
        .map(|(position, _)| position)
        .collect();
    assert!(!positions.is_empty());
    for position in positions {
        content[position + url.len() - 2] ^= 1;
    }
    fs::write(&path, &content).unwrap();
    let opened = Store::open_verified(&path);
    assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
    let compacted = compact(&path, &mut ());
    assert!(
        matches!(compacted, Err(CopyError::Open(OpenError::Damaged { .. }))),
        "{compacted:?}"
    );
    assert!(fs::read(&path).unwrap() == content);
}

/// A backup of a running appliance, and one of a file: each names what is damaged and leaves nothing behind.
#[test]
fn backup_of_a_damaged_store_names_the_damage() {
    type Tampering = fn(&WriteTransaction);
    let cases: [(&str, Tampering); 6] = [
        ("67mk41xj: wrong checksum", |t| {
            let mut table = t.open_table(LINKS).unwrap();
            let mut record = record::encode(&golden_link()).unwrap();
            record[30] ^= 1;
            table.insert(b"67mk41xj".as_slice(), record.as_slice()).unwrap();
        }),
        ("67mk41xk: wrong checksum", |t| {
            let mut table = t.open_table(LINKS).unwrap();
            let record = record::encode(&golden_link()).unwrap();
            table.insert(b"67mk41xk".as_slice(), record.as_slice()).unwrap();
        }),
        ("counters: P", |t| {
            let mut table = t.open_table(COUNTERS).unwrap();
            let counts = values::encode_counts(b"another", [0, 1, 0]);
            table.insert(b"P\0\x12\xd6\x87".as_slice(), counts.as_slice()).unwrap();
        }),
        ("revocations: ", |t| {
            let mut table = t.open_table(tables::REVOCATIONS).unwrap();
            table.insert([1; 20].as_slice(), [0; 12].as_slice()).unwrap();
        }),
        ("actions: ", |t| {
            let mut table = t.open_table(tables::ACTIONS).unwrap();
            table.insert([2; 20].as_slice(), [0; 20].as_slice()).unwrap();
        }),
        ("by_user: ", |t| {
            let mut table = t.open_table(Index::User.table()).unwrap();
            table.insert(b"short".as_slice(), ()).unwrap();
        }),
    ];
    for (expected, tampering) in cases {
        let folder = with_something_of_everything();
        tamper(&folder, tampering);
        let store = open(folder.path());
        let path = folder.path().join("copied");
        let mut dump = Vec::new();
        let running = store
            .snapshot()
            .unwrap()
            .dump(&mut dump)
            .map(|()| Verification::default());
        let restored = restore_dump(dump.as_slice(), &path, &mut ());
        let copied = store.snapshot().unwrap().copy_to(&path, &mut ());
        for copied in [running, restored, copied] {
            let error = copied.unwrap_err();
            assert!(
                matches!(&error, CopyError::Damaged(reason) if reason.contains(expected)),
                "{error}"
            );
        }
        assert!(!path.exists());
    }
}

/// The checksums of pages are written anew with them, so they tell nothing of what was damaged before.
#[test]
fn update_of_another_link_hides_no_damage() {
    let folder = with_something_of_everything();
    let path = file_in(&folder);
    let mut content = fs::read(&path).unwrap();
    let url = golden_link().full_url.into_bytes();
    for position in 0..content.len() - url.len() {
        if content[position..].starts_with(&url) {
            content[position + 9] ^= 1;
        }
    }
    fs::write(&path, &content).unwrap();
    let store = open(folder.path());
    block_on(async {
        for number in 0..20 {
            put(&store, numbered(number)).await;
        }
    });
    drop(store);
    let verified = Store::open_verified(&path).unwrap();
    let found = verified.snapshot().unwrap().verify(|| {}).unwrap();
    assert!(
        found
            .problems
            .iter()
            .any(|problem| problem.contains("67mk41xj: wrong checksum")),
        "{found:#?}"
    );
}

/// Whoever may write to its scope, and the others, would be refused for ever.
#[test]
fn damaged_counter_is_counted_anew() {
    let folder = with_something_of_everything();
    tamper(&folder, |transaction| {
        let mut table = transaction.open_table(COUNTERS).unwrap();
        table.insert(b"P\0\x12\xd6\x87".as_slice(), [0; 28].as_slice()).unwrap();
    });
    let store = open(folder.path());
    assert_eq!(store.snapshot().unwrap().totals().unwrap(), [0, 1, 0]);
    block_on(put(&store, numbered(1)));
    let found = store.snapshot().unwrap().verify(|| {}).unwrap();
    assert!(found.is_clean(), "{found:#?}");
    assert_eq!(store.snapshot().unwrap().totals().unwrap(), [0, 2, 0]);
}

/// Which session it was is known as long as its digest is whole, and it must not begin again.
#[test]
fn damaged_revocation_stays_in_force() {
    let folder = with_something_of_everything();
    tamper(&folder, |transaction| {
        let mut table = transaction.open_table(tables::REVOCATIONS).unwrap();
        table.insert([1; 20].as_slice(), [0; 12].as_slice()).unwrap();
    });
    let store = open(folder.path());
    block_on(store.write(|t| t.drop_expired_sessions(at(1_000_000)))).unwrap();
    assert_eq!(
        store.snapshot().unwrap().revocations().unwrap(),
        [([1; 20], Timestamp::MAX)]
    );
    assert_eq!(
        block_on(store.write(|t| t.count_action([2; 20], 3, Timestamp::MAX))),
        Ok(true)
    );
}

/// A reader that takes long must not keep a store that has failed from being opened again.
#[test]
fn old_view_does_not_block_reopening() {
    let folder = with_something_of_everything();
    let path = file_in(&folder);
    for read_only in [true, false] {
        let file = StoreFile::new(&path);
        let database = if read_only { file.open_read_only() } else { file.open() }.unwrap();
        let snapshot = Snapshot::new(&database).unwrap();
        database.close().unwrap();
        file.check().unwrap();
        let again = file.open().unwrap();
        assert_eq!(
            Snapshot::new(&again).unwrap().get(golden_link().id).unwrap(),
            Some(golden_link())
        );
        drop(snapshot);
    }
}

#[test]
fn verification_counts_what_it_has_seen() {
    let folder = with_something_of_everything();
    let found = open(folder.path()).snapshot().unwrap().verify(|| {}).unwrap();
    let expected = Verification {
        links: [0, 1, 0],
        index_entries: 6,
        counters: 3,
        ..Verification::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn read_only_store_takes_no_writes_and_keeps_its_file() {
    let folder = with_something_of_everything();
    let path = file_in(&folder);
    // As a crash leaves it: the header says that it is in use.
    let store = open(folder.path());
    block_on(put(&store, golden_link()));
    let crashed = folder.path().join("crashed");
    fs::copy(&path, &crashed).unwrap();
    drop(store);
    for path in [path, crashed] {
        let before = fs::read(&path).unwrap();
        let store = Store::open_read_only(&path).unwrap();
        let other = Store::open_read_only(&path).unwrap();
        let id = golden_link().id;
        let read = block_on(store.read(move |snapshot| snapshot.get(id)));
        assert_eq!(read.unwrap(), Some(golden_link()));
        assert_eq!(block_on(store.write(|_| Ok(()))), Err(WriteError::ReadOnly));
        assert_eq!(store.health(), Health::ReadOnly);
        drop((store, other));
        assert!(fs::read(&path).unwrap() == before);
    }
}

/// What a program of the next format would do with today's stores.
const NEXT: Formats = Formats {
    newest: tables::FORMAT + 1,
    steps: &[|transaction| {
        transaction.open_table(META)?.insert("new", 1)?;
        Ok(())
    }],
};

#[test]
fn older_store_is_set_aside_before_its_upgrade() {
    let folder = with_something_of_everything();
    let path = file_in(&folder);
    let before = fs::read(&path).unwrap();
    let file = StoreFile {
        formats: NEXT,
        ..StoreFile::new(&path)
    };
    let database = file.open().unwrap();
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    assert_eq!(meta.get("format").unwrap().unwrap().value(), 3);
    assert_eq!(meta.get("new").unwrap().unwrap().value(), 1);
    drop((meta, database));
    let refused = try_open(folder.path());
    assert!(matches!(refused, Err(OpenError::Newer { found: 3, known: 2, .. })));

    // Going back, as the log says.
    let copy = folder.path().join("links.format-2.redb");
    assert!(fs::read(&copy).unwrap() == before);
    fs::rename(copy, &path).unwrap();
    let store = open(folder.path());
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.meta.get("format").unwrap().unwrap().value(), 2);
}
