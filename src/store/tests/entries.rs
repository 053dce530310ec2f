//! Entries of the replication log: what may be in them, and what a store makes of others.

use tempfile::TempDir;

use crate::model::{Day, LinkId};
use crate::store::format::outbox;
use crate::store::format::staged;
use crate::store::format::tables::STAGED;
use crate::store::journal::redo::{self, Redo};
use crate::store::replication::{ApplyError, ClickPosition, Entry, ImportId};
use crate::store::tests::outbox::in_cluster;
use crate::store::tests::usage::id;
use crate::store::tests::{block_on, golden_link, record};
use crate::store::*;

const IMPORT: ImportId = [3; 16];

fn payload(fill: impl FnOnce(&mut Redo)) -> Vec<u8> {
    let mut redo = Redo::kept_for_entries();
    fill(&mut redo);
    redo.into_bytes().unwrap()
}

/// Applies entries with these payloads, which state that no link is changed.
fn apply(store: &Store, payloads: &[Vec<u8>]) -> Result<Position, ApplyError> {
    let mut at = store.snapshot().unwrap().position().unwrap();
    let mut entries = Vec::new();
    for payload in payloads {
        let (entry, position) = Entry::encode(&at, at.digest, 1, payload);
        entries.push(entry);
        at = position;
    }
    block_on(store.apply(entries))
}

/// A store that has met such an entry: it has stopped before it, and serves on.
fn met(payloads: &[Vec<u8>]) -> (TempDir, Store, ApplyError) {
    let (folder, store) = in_cluster();
    let before = store.snapshot().unwrap().position().unwrap();
    let error = apply(&store, payloads).unwrap_err();
    let snapshot = store.snapshot().unwrap();
    let position = snapshot.position().unwrap();
    assert_eq!(position.sequence, before.sequence + payloads.len() as u64 - 1);
    assert_eq!(snapshot.get(golden_link().id).unwrap(), Some(golden_link()));
    assert_eq!(store.replicating().unwrap().halted(), Some(error.clone()));
    assert_eq!(store.health(), Health::Accepting);
    (folder, store, error)
}

fn assert_newer(payloads: &[Vec<u8>], expected: &str) {
    let error = met(payloads).2.to_string();
    assert!(error.contains("newer tinyd") && error.contains(expected), "{error}");
}

#[test]
fn changes_of_one_store_are_refused_in_entries() {
    let link = golden_link().id;
    let at = ClickPosition::after(1, 1);
    let own: [(u8, Vec<u8>); 7] = [
        (redo::USED, payload(|redo| redo.used_without_day(link, &[0; 24]))),
        (redo::USED_ON, payload(|redo| redo.used(link, &[0; 24], Day(1)))),
        (redo::DAYS_DROPPED, payload(|redo| redo.days_dropped(b"key"))),
        (redo::CLICKS_QUEUED, payload(|redo| redo.clicks_queued(1, b"message"))),
        (redo::CLICKS_SENT, payload(|redo| redo.clicks_sent(1))),
        (
            redo::CLICKS_COUNTED,
            payload(|redo| redo.clicks_counted(at, &(Day(1)..=Day(2)), b"message")),
        ),
        (redo::ENTRY, redo::journal_of_entries(redo::ENTRY, [&b"entry"[..]])),
    ];
    for (kind, own) in own {
        assert_eq!(own[1], kind);
        assert_newer(std::slice::from_ref(&own), &format!("kind {kind} in an entry"));
        // Nor do they come in parts.
        let part = payload(|redo| redo.staged(&IMPORT, 0, &own));
        let last = payload(|redo| redo.assembled(&IMPORT, 1));
        assert_newer(&[part, last], &format!("kind {kind} in parts"));
    }
}

#[test]
fn parts_that_put_parts_together_are_refused() {
    // As deep as an entry is long.
    let nested = payload(|redo| redo.assembled(&[4; 16], 1));
    let outer = payload(|redo| redo.staged(&IMPORT, 0, &nested));
    let inner = payload(|redo| redo.staged(&[4; 16], 0, &redo::NO_CHANGES));
    let last = payload(|redo| redo.assembled(&IMPORT, 1));
    assert_newer(&[outer, inner, last], "kind 16 in parts");
}

#[test]
fn record_that_is_not_known_is_of_a_newer_program() {
    let unknown = payload(|redo| redo.link(golden_link().id, &[9, 0, 0, 0, 0]));
    assert_newer(&[unknown], "version 9");
}

#[test]
fn damaged_part_says_that_the_store_differs() {
    let (_folder, store) = in_cluster();
    let record = record::encode(&golden_link()).unwrap();
    let change = payload(|redo| redo.link(golden_link().id, &record));
    let part = payload(|redo| redo.staged(&IMPORT, 0, &change));
    let sequence = apply(&store, &[part]).unwrap().sequence + 1;
    let damage = |t: &mut Transaction<'_>| {
        let key = staged::key_of(&IMPORT, 0);
        t.modifications += 1;
        t.redo.give_up();
        t.inner.open_table(STAGED)?.insert(key.as_slice(), [1].as_slice())?;
        Ok(())
    };
    block_on(store.write_local(damage)).unwrap();
    let met = apply(&store, &[payload(|redo| redo.assembled(&IMPORT, 1))]);
    assert_eq!(met, Err(ApplyError::Diverged { sequence }));
}

fn moved(from: LinkId, to: LinkId) -> Vec<u8> {
    payload(|redo| redo.usage_moved(from, to))
}

#[test]
fn moves_of_clicks_in_a_circle_are_refused() {
    let [a, b, c] = ["aaaa", "bbbb", "cccc"].map(id);
    assert_newer(&[moved(a, a)], "retired id aaaa");
    let (_folder, store, error) = met(&[moved(a, b), moved(b, c), moved(c, a)]);
    assert!(error.to_string().contains("retired id aaaa"), "{error}");
    // Those before stand.
    let resolve = move |t: &mut Transaction<'_>| outbox::resolve(t.inner, a);
    assert_eq!(block_on(store.write_local(resolve)).unwrap(), c);
}
