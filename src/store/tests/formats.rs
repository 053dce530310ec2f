//! Stores of every format, and the way from the older ones to the newest.

use std::fs;
use std::path::Path;

use redb::Builder;

use crate::model::{Day, ShortLink, Timestamp, Usage};
use crate::store::format::keys::Index;
use crate::store::format::tables::{CLICKS, COUNTERS, LINKS, META};
use crate::store::format::{clicks, format_1, keys, record, tables};
use crate::store::journal::redo;
use crate::store::tests::copies::{at, file_in, numbered, tamper};
use crate::store::tests::{block_on, golden_link, open, put};
use crate::store::*;

fn opened(folder: &tempfile::TempDir, is_read_only: bool) -> Store {
    if is_read_only {
        Store::open_read_only(&file_in(folder)).unwrap()
    } else {
        open(folder.path())
    }
}

/// The upgrade gives everything a new checksum, so what it reads must be whole.
#[test]
fn damaged_page_of_format_1_is_not_upgraded() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = include_bytes!("../testdata/format_1.redb").to_vec();
    let url = golden_link().full_url;
    // The last one is in the newest commit; the one before it is whole.
    let at = content
        .windows(url.len())
        .rposition(|bytes| bytes == url.as_bytes())
        .unwrap();
    content[at + url.len() - 2] ^= 1;
    content[at + url.len() - 1] ^= 2;
    fs::write(file_in(&folder), &content).unwrap();
    let opened = [
        Store::open(&file_in(&folder), None).map(drop),
        Store::open_read_only(&file_in(&folder)).map(drop),
    ];
    for opened in opened {
        assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
    }
    assert_eq!(fs::read(file_in(&folder)).unwrap(), content);
    assert!(!folder.path().join("links.format-1.redb").exists());
}

/// The golden files: stores of each format. A change of the format must still read them.
#[test]
fn stores_of_every_format_are_read_and_written() {
    let stores: [&[u8]; 2] = [
        include_bytes!("../testdata/format_1.redb"),
        include_bytes!("../testdata/format_2.redb"),
    ];
    for (format, content) in (1..).zip(stores) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(file_in(&folder), content).unwrap();
        for is_read_only in [true, false] {
            let store = opened(&folder, is_read_only);
            let snapshot = store.snapshot().unwrap();
            assert_eq!(snapshot.get(golden_link().id).unwrap(), Some(golden_link()));
            let found = snapshot.verify(|| {}).unwrap();
            assert!(found.is_clean(), "{found:#?}");
            assert_eq!(found.links, [1, 2, 1]);
            assert_eq!(snapshot.revocations().unwrap(), [([1; 20], Timestamp::MAX)]);
        }
        let set_aside = folder.path().join("links.format-1.redb");
        assert_eq!(set_aside.exists(), format == 1);
        let store = open(folder.path());
        // Of three calls one was made.
        block_on(async {
            for allowed in [true, true, false] {
                let counted = store.write(|t| t.count_action([2; 20], 3, Timestamp::MAX)).await;
                assert_eq!(counted, Ok(allowed));
            }
            put(&store, golden_link()).await;
        });
    }
}

/// Makes a store as a program of format 1 left it: these links, the first of which was used, and a session of each
/// kind. Whatever else happens to the store is done to it before its format is written.
fn make_format_1(path: &Path, links: &[ShortLink], journal: Option<u64>) {
    let database = Builder::new().create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(LINKS).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for link in links {
            let record = record::encode_of_format_1(link);
            table.insert(link.id.as_bytes(), record.as_slice()).unwrap();
            for index in Index::ALL {
                let mut table = transaction.open_table(index.table()).unwrap();
                if let Some(key) = index.key_of(link) {
                    table.insert(key.as_slice(), ()).unwrap();
                }
            }
            for key in keys::counters_of(link) {
                *counts.entry(key).or_insert(0_u64) += 1;
            }
        }
        let mut counters = transaction.open_table(COUNTERS).unwrap();
        for (key, enabled) in counts {
            let value = [0, enabled, 0].map(u64::to_be_bytes).concat();
            counters.insert(key.as_slice(), value.as_slice()).unwrap();
        }
        let mut revocations = transaction.open_table(format_1::REVOCATIONS_1).unwrap();
        revocations.insert([1; 20].as_slice(), 100).unwrap();
        let mut actions = transaction.open_table(format_1::ACTIONS_1).unwrap();
        actions.insert([2; 20].as_slice(), (2, 100)).unwrap();
        let mut clicks = transaction.open_table(CLICKS).unwrap();
        let usage = clicks::encode(&usage(5));
        clicks.insert(links[0].id.as_bytes(), usage.as_slice()).unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", 1).unwrap();
        meta.insert("sequence", 10).unwrap();
        if let Some(salt) = journal {
            let mut journal = transaction.open_table(tables::JOURNAL).unwrap();
            journal.insert("salt", salt).unwrap();
            journal.insert("bytes", journal::FILE_BYTES as u64).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn usage(clicks: u64) -> Usage {
    Usage {
        clicks,
        previews: 1,
        last_used_at: Some(at(50)),
    }
}

/// A record of the journal of a store of format 1.
fn journal_record_1(salt: u64, sequence: u64, payload: &[u8]) -> Vec<u8> {
    use sha1::{Digest as _, Sha1};
    let mut hash = Sha1::new();
    hash.update([salt.to_be_bytes(), sequence.to_be_bytes()].concat());
    hash.update(payload);
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut record = [
        length.as_slice(),
        &hash.finalize()[..8],
        &sequence.to_be_bytes(),
        payload,
    ]
    .concat();
    record.resize(record.len().next_multiple_of(512), 0);
    record
}

#[test]
fn crashed_store_of_format_1_is_upgraded_with_its_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder);
    let links: Vec<_> = (0..7).map(numbered).collect();
    make_format_1(&path, &links, Some(99));
    let mut redo = redo::Redo::kept();
    let added = numbered(8);
    redo.link(added.id, &record::encode_of_format_1(&added));
    redo.used_without_day(added.id, &clicks::encode(&usage(3)));
    let mut journal = journal_record_1(99, 11, &redo.into_bytes().unwrap());
    journal.resize(journal::FILE_BYTES, 0);
    fs::write(files::disk::journal_path(&path), journal).unwrap();
    let store = open(folder.path());
    let snapshot = store.snapshot().unwrap();
    let found = snapshot.verify(|| {}).unwrap();
    assert!(found.is_clean(), "{found:#?}");
    for link in links.iter().chain([&added]) {
        assert_eq!(snapshot.get(link.id).unwrap().as_ref(), Some(link));
    }
    assert_eq!(snapshot.usage(links[0].id).unwrap(), usage(5));
    assert_eq!(snapshot.usage(added.id).unwrap(), usage(3));
    assert_eq!(snapshot.usage_by_day(added.id, Day(0)..=Day(9)).unwrap(), []);
    assert_eq!(snapshot.revocations().unwrap(), [([1; 20], at(100))]);
    assert_eq!(snapshot.counted_calls().unwrap(), [([2; 20], 2)]);
    drop(snapshot);
    block_on(put(&store, numbered(9)));
    drop(store);
    // Going back, as the log says.
    let set_aside = folder.path().join("links.format-1.redb");
    assert!(set_aside.exists() && files::disk::journal_path(&set_aside).exists());
}

/// It has no checksum that would fit, so it answers as damaged for ever, and the others are served.
#[test]
fn damaged_record_does_not_keep_a_store_from_its_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder);
    let links: Vec<_> = (0..7).map(numbered).collect();
    make_format_1(&path, &links, None);
    tamper(&folder, |transaction| {
        let mut table = transaction.open_table(LINKS).unwrap();
        let cut = record::encode_of_format_1(&links[3]);
        table.insert(links[3].id.as_bytes(), &cut[..cut.len() - 3]).unwrap();
        table.insert(b"No id".as_slice(), cut.as_slice()).unwrap();
    });
    for is_read_only in [true, false] {
        let store = opened(&folder, is_read_only);
        let snapshot = store.snapshot().unwrap();
        for (number, link) in links.iter().enumerate() {
            match snapshot.get(link.id) {
                Ok(found) => assert_eq!(found.as_ref(), Some(link)),
                Err(error) => assert!(number == 3 && matches!(error, StoreError::Damaged { .. })),
            }
        }
        let found = snapshot.verify(|| {}).unwrap();
        for text in ["link3: record version 1", "links: No id"] {
            assert!(
                found.problems.iter().any(|problem| problem.contains(text)),
                "{found:#?}"
            );
        }
    }
}
