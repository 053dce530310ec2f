//! The audit log in the store: that it comes back after a crash, travels with copies, and shows damage.

use redb::Builder;

use crate::model::{Actor, ActorKind, AuditAction, AuditEntry, PartnerId, Way};
use crate::store::format::audit;
use crate::store::format::tables::AUDIT;
use crate::store::journal::redo::Redo;
use crate::store::journal::replay::{self, Source};
use crate::store::tests::copies::at;
use crate::store::tests::journals::{crashed, file_in};
use crate::store::tests::{block_on, golden_link, open, put};
use crate::store::*;

fn entry(second: i64) -> AuditEntry {
    AuditEntry {
        sequence: 0,
        at: at(second),
        partner: Some(PartnerId(7)),
        by: Actor {
            partner: Some(PartnerId(7)),
            user: Some("ü".into()),
            kind: ActorKind::User,
            way: Way::Console,
        },
        action: AuditAction::Update,
        id: Some(golden_link().id),
        changes: Default::default(),
    }
    .of_link(None, &golden_link())
}

fn append(store: &Store, second: i64) -> u64 {
    block_on(store.write(move |t| t.append_audit(&entry(second), 100))).unwrap()
}

/// A store with a link and three entries.
fn logged() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(put(&store, golden_link()));
    assert_eq!([1, 2, 3].map(|second| append(&store, second)), [1, 2, 3]);
    (folder, store)
}

fn read(snapshot: &Snapshot) -> Vec<(u64, AuditEntry)> {
    let query = AuditQuery {
        limit: usize::MAX,
        ..AuditQuery::default()
    };
    let entries = snapshot.audit(&query).unwrap().entries;
    entries
        .into_iter()
        .map(|entry| (entry.sequence, AuditEntry { sequence: 0, ..entry }))
        .collect()
}

fn assert_logged(store: &Store) {
    let snapshot = store.snapshot().unwrap();
    assert!(snapshot.verify(|| {}).unwrap().is_clean());
    assert_eq!(
        read(&snapshot),
        [3, 2, 1].map(|number| (number, entry(i64::try_from(number).unwrap())))
    );
}

#[test]
fn entries_come_back_from_the_journal_and_are_not_doubled() {
    let (folder, store) = logged();
    assert_logged(&open(crashed(&folder).path()));
    let mut redo = Redo::kept();
    redo.logged(3, &audit::encode(&entry(3)).unwrap());
    redo.log_dropped(0);
    let payload = redo.into_bytes().unwrap();
    for _ in 0..2 {
        let payload = payload.clone();
        block_on(store.write(move |transaction| replay::apply(transaction, &payload, Source::Journal))).unwrap();
    }
    assert_logged(&store);
}

#[test]
fn copies_dumps_and_compaction_keep_entries() {
    let (folder, store) = logged();
    let (copied, restored) = (folder.path().join("copied"), folder.path().join("restored"));
    let snapshot = store.snapshot().unwrap();
    snapshot.copy_to(&copied, &mut ()).unwrap();
    let mut dump = Vec::new();
    snapshot.dump(&mut dump).unwrap();
    restore_dump(dump.as_slice(), &restored, &mut ()).unwrap();
    drop((snapshot, store));
    compact(&file_in(&folder), &mut ()).unwrap();
    for path in [copied, restored, file_in(&folder)] {
        assert_logged(&Store::open_read_only(&path).unwrap());
    }
}

#[test]
fn entry_of_a_batch_is_written_again_until_it_is_dropped() {
    let (_folder, store) = logged();
    let replace = |sequence| block_on(store.write(move |t| t.replace_audit(sequence, &entry(9)))).unwrap();
    replace(2);
    assert_eq!(read(&store.snapshot().unwrap())[1], (2, entry(9)));
    block_on(store.write(|t| t.drop_audit_until(2))).unwrap();
    replace(2);
    assert_eq!(read(&store.snapshot().unwrap()), [(3, entry(3))]);
}

#[test]
fn damaged_entry_is_found_left_out_and_in_nobodys_way() {
    let text = audit::encode(&entry(2)).unwrap();
    let of_another = audit::sealed(1, &text);
    let no_entry = audit::sealed(2, b"{\"at\":2}");
    let (second, odd) = (2_u64.to_be_bytes().to_vec(), vec![0xff; 9]);
    for (key, value, expected) in [
        (&second, of_another, "wrong checksum"),
        (&second, b"x".to_vec(), "wrong length"),
        (&second, no_entry, "entry 2: missing field"),
        (&odd, audit::sealed(2, &text), "malformed key"),
    ] {
        let (folder, store) = logged();
        drop(store);
        let database = Builder::new().open(file_in(&folder)).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(AUDIT).unwrap();
        table.insert(key.as_slice(), value.as_slice()).unwrap();
        drop(table);
        transaction.commit().unwrap();
        drop(database);
        let store = open(folder.path());
        let snapshot = store.snapshot().unwrap();
        let found = snapshot.verify(|| {}).unwrap().problems;
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
        assert!(matches!(snapshot.dump(&mut Vec::new()), Err(CopyError::Damaged(_))));
        let mut inspection = Inspection::default();
        while inspection.step(&store).unwrap() {}
        assert_eq!(inspection.problems, 1);
        let whole = read(&snapshot).iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!(whole, if *key == odd { vec![3, 2, 1] } else { vec![3, 1] });
        drop(snapshot);
        assert_eq!(append(&store, 4), 4);
    }
}
