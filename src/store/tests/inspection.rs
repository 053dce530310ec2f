//! The verification of a store in use.

use redb::WriteTransaction;

use crate::model::ShortLink;
use crate::store::format::keys::Index;
use crate::store::format::tables::{ACTIONS, COUNTERS, LINKS, REVOCATIONS};
use crate::store::format::{record, values};
use crate::store::tests::copies::{numbered, tamper, with_something_of_everything};
use crate::store::tests::{block_on, golden_link, open, put};
use crate::store::*;

/// Inspects all of a store, doing something after each piece, and returns how many pieces that took.
fn inspect(store: &Store, mut meanwhile: impl FnMut()) -> (u64, Inspection) {
    let (mut inspection, mut pieces) = (Inspection::default(), 0);
    while inspection.step(store).unwrap() {
        pieces += 1;
        meanwhile();
    }
    (pieces, inspection)
}

#[test]
fn inspection_finds_each_kind_of_damage() {
    type Tampering = fn(&WriteTransaction);
    let cases: [(&str, Tampering); 8] = [
        ("nothing", |_| {}),
        ("a record", |t| {
            let mut record = record::encode(&golden_link()).unwrap();
            record[9] ^= 4;
            let mut table = t.open_table(LINKS).unwrap();
            table.insert(b"67mk41xj".as_slice(), record.as_slice()).unwrap();
        }),
        ("an id", |t| {
            let record = record::encode(&golden_link()).unwrap();
            let mut table = t.open_table(LINKS).unwrap();
            table.insert(b"No id".as_slice(), record.as_slice()).unwrap();
        }),
        ("a missing entry", |t| {
            let mut table = t.open_table(Index::User.table()).unwrap();
            let key = Index::User.key_of(&golden_link()).unwrap();
            table.remove(key.as_slice()).unwrap();
        }),
        ("a stray entry", |t| {
            let other = ShortLink {
                id: "zzzz".parse().unwrap(),
                ..golden_link()
            };
            let mut table = t.open_table(Index::Updated.table()).unwrap();
            table
                .insert(Index::Updated.key_of(&other).unwrap().as_slice(), ())
                .unwrap();
        }),
        ("a counter", |t| {
            let key = b"P\0\x12\xd6\x87".as_slice();
            let mut table = t.open_table(COUNTERS).unwrap();
            table
                .insert(key, values::encode_counts(key, [0, 2, 0]).as_slice())
                .unwrap();
        }),
        ("a revocation", |t| {
            let mut table = t.open_table(REVOCATIONS).unwrap();
            table.insert([1; 20].as_slice(), [0; 12].as_slice()).unwrap();
        }),
        ("counted calls", |t| {
            let mut table = t.open_table(ACTIONS).unwrap();
            table.insert([2; 20].as_slice(), [1; 20].as_slice()).unwrap();
        }),
    ];
    for (what, tampering) in cases {
        let folder = with_something_of_everything();
        tamper(&folder, tampering);
        let store = open(folder.path());
        let (_, found) = inspect(&store, || {});
        assert_eq!(found.problems > 0, what != "nothing", "{what}: {found:?}");
    }
}

/// No piece is longer than the others, however many links there are, and what is written meanwhile is no damage.
#[test]
fn inspection_goes_in_pieces_beside_writes() {
    let folder = with_something_of_everything();
    let store = open(folder.path());
    for number in 0..20 {
        block_on(put(&store, numbered(number)));
    }
    let mut number = 20;
    let (pieces, found) = inspect(&store, || {
        if number < 40 {
            block_on(put(&store, numbered(number)));
            let changed = ShortLink {
                user_id: Some("another".into()),
                ..numbered(number - 15)
            };
            block_on(put(&store, changed));
            number += 1;
        }
    });
    assert_eq!(found.problems, 0);
    assert!(found.entries >= 21 * 6, "{found:?}");
    assert!(pieces >= found.entries / 3, "{pieces} pieces for {found:?}");
}
