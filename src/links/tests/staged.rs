//! Imports and deletions of users in a cluster: all or nothing in every store.

use std::sync::Arc;

use crate::links::file::{Conflict, ImportOptions, ImportReport};
use crate::links::tests::audit::somebody;
use crate::links::tests::cluster::{Cluster, shared};
use crate::links::tests::simulated::{World, check_whole, import_lines};
use crate::links::tests::{PARTNER, block_on, draft, everybody, imports};
use crate::links::*;
use crate::store::AuditQuery;
use crate::store::replication::{ApplyError, Entry};
use crate::store::testing::gate;
use crate::store::testing::log::SimulatedLog;

const UPDATE: ImportOptions = ImportOptions {
    conflict: Conflict::Update,
    dry_run: false,
    keep_going: false,
    partner: None,
    obeyed: None,
};

/// The kind of a change that has a part.
const STAGED: u8 = 13;

fn link(number: usize) -> ShortLink {
    ShortLink {
        partner_id: PARTNER,
        user_id: Some("me".into()),
        ..imports::link(number)
    }
}

fn import(cluster: &Cluster, member: usize, links: Vec<ShortLink>, options: ImportOptions) -> ImportReport {
    let lines = links.into_iter().map(Ok).collect();
    block_on(import_lines(&cluster.members[member].links, lines, options)).unwrap()
}

/// Parts of imports that each store has.
fn parts(cluster: &Cluster) -> Vec<usize> {
    let of_member = |links: &Links| {
        let snapshot = links.store.snapshot().unwrap();
        snapshot.staged_parts().unwrap()
    };
    cluster.members.iter().map(|member| of_member(&member.links)).collect()
}

/// How many entries of the log state the digest after them, and how many do not.
fn kinds(cluster: &Cluster) -> (usize, usize) {
    let entries = cluster.log.entries();
    let stated = entries
        .iter()
        .filter(|entry| Entry::decode(entry).unwrap().states_digest);
    let stated = stated.count();
    (stated, entries.len() - stated)
}

/// All stores have the same after all entries.
fn agreed(cluster: &Cluster) -> World {
    cluster.settle().unwrap();
    let world = shared(&cluster.members[0].links);
    for member in &cluster.members {
        assert_eq!(shared(&member.links), world);
        assert_eq!(member.position(), cluster.members[0].position());
        check_whole(&member.links, &World::of(&member.links)).unwrap();
    }
    assert_eq!(parts(cluster), [0; 3]);
    world
}

#[test]
fn long_import_and_deletion_reach_every_store() {
    let cluster = Cluster::new(1);
    let report = import(&cluster, 0, (0..1_000).map(link).collect(), ImportOptions::default());
    assert_eq!((report.added, report.applied), (1_000, true));
    let (stated, ahead) = kinds(&cluster);
    assert!(stated == 0 && ahead > 50, "{stated} and {ahead}");
    let world = agreed(&cluster);
    assert_eq!((world.links.len(), world.audit.len()), (1_000, 1));
    let deleted = block_on(cluster.members[1].links.delete_user(PARTNER, "me".into(), somebody()));
    assert_eq!(deleted.unwrap(), 1_000);
    assert_eq!(kinds(&cluster), (0, ahead + 1));
    // The next entry states the digest of all that.
    cluster.add(2).unwrap();
    let world = agreed(&cluster);
    let left = world.links.values().filter(|link| link.status != Status::Deleted);
    assert_eq!(left.count(), 1);
    let query = AuditQuery {
        limit: 2,
        ..AuditQuery::default()
    };
    let entry = block_on(cluster.members[2].links.audit(query)).unwrap();
    let deletion = &entry.entries[1];
    assert_eq!(deletion.action, AuditAction::DeleteUser);
    assert_eq!(deletion.changes["links"].new.as_deref(), Some("1000"));
    // Nothing is appended where there is nothing to delete.
    let deleted = block_on(cluster.members[1].links.delete_user(PARTNER, "me".into(), somebody()));
    assert_eq!((deleted.unwrap(), kinds(&cluster)), (0, (1, ahead + 1)));
}

/// A cluster with links that are deleted, and their ids.
fn with_deleted_links() -> (Cluster, Vec<LinkId>) {
    let cluster = Cluster::new(1);
    import(&cluster, 0, (0..200).map(link).collect(), ImportOptions::default());
    block_on(cluster.members[0].links.delete_user(PARTNER, "me".into(), somebody())).unwrap();
    cluster.settle().unwrap();
    (cluster, (0..200).map(|number| link(number).id).collect())
}

/// Payloads of the log that have parts of a change, after so many entries.
fn sent_parts(cluster: &Cluster, after: usize) -> Vec<Vec<u8>> {
    let entries = cluster.log.entries().split_off(after);
    let payloads = entries
        .iter()
        .map(|entry| Entry::decode(entry).unwrap().payload.to_vec());
    payloads.filter(|payload| payload[1] == STAGED).collect()
}

/// Another store writes before every second append.
fn interrupt_again_and_again(log: &SimulatedLog, other: &Arc<Links>) {
    let (again, links) = (log.clone(), Arc::clone(other));
    log.interrupt(1, move || {
        block_on(links.add(draft("https://e.example/"), somebody())).unwrap();
        interrupt_again_and_again(&again, &links);
    });
}

#[test]
fn long_change_that_is_always_overtaken_is_sent_once() {
    let (cluster, ids) = with_deleted_links();
    let before = cluster.log.entries().len();
    interrupt_again_and_again(&cluster.log, &cluster.members[2].links);
    let restored = block_on(cluster.members[1].links.restore_all(ids, PARTNER, false, somebody())).unwrap();
    cluster.log.interrupt_no_more();
    assert!(restored.iter().all(|(_, outcome)| *outcome == RestoreOutcome::Restored));
    let sent = sent_parts(&cluster, before);
    assert!(sent.len() > 5, "{}", sent.len());
    let different: std::collections::BTreeSet<_> = sent.iter().collect();
    assert_eq!(different.len(), sent.len(), "a part was sent again");
    let world = agreed(&cluster);
    assert!(world.links.values().all(|link| link.status == Status::Enabled));
}

#[test]
fn parts_of_a_long_change_that_is_refused_are_dropped() {
    let (cluster, ids) = with_deleted_links();
    let (before, log) = (cluster.log.entries().len(), cluster.log.clone());
    cluster.log.interrupt(3, move || log.refuse(1));
    let refused = block_on(cluster.members[1].links.restore_all(ids, PARTNER, false, somebody()));
    assert!(refused.is_err());
    assert_eq!(sent_parts(&cluster, before).len(), 3);
    let world = agreed(&cluster);
    assert!(world.links.values().all(|link| link.status == Status::Deleted));
}

#[test]
fn long_change_is_apart_from_those_before_it() {
    let (cluster, ids) = with_deleted_links();
    let links = &cluster.members[1].links;
    let before = cluster.log.entries().len();
    let (added, restored) = block_on(async {
        // Both wait while the writer is held up.
        let (open_gate, gate) = gate();
        let held = links.store.write_local(move |_| {
            gate.lock().recv().unwrap();
            Ok(())
        });
        let adding = links.add(draft("https://e.example/"), somebody());
        let changing = links.change_together(ids, everybody(), BulkChange::Restore, somebody());
        let opening = async { open_gate.send(()).unwrap() };
        let (_, added, restored, ()) = tokio::join!(held, adding, changing, opening);
        (added.unwrap(), restored.unwrap())
    });
    assert_eq!(restored.changed, 200);
    // The add has an entry of its own, and then come the parts.
    let payload = cluster.log.entries().swap_remove(before);
    assert_ne!(Entry::decode(&payload).unwrap().payload[1], STAGED);
    assert!(sent_parts(&cluster, before).len() > 5);
    let world = agreed(&cluster);
    assert!(world.links.contains_key(&added.id));
    assert!(world.links.values().all(|link| link.status == Status::Enabled));
}

#[test]
fn deletion_of_a_user_takes_links_of_a_fast_clock_too() {
    let mut cluster = Cluster::new(1);
    let fast = Clock::manual(cluster.clock.now().plus(600));
    let disk = cluster.members[0].disk.clone();
    let log = cluster.log.clone();
    cluster.members[0].restart(disk, &fast, &log).unwrap();
    let own = || Draft {
        user_id: Some("me".into()),
        ..draft("https://e.example/")
    };
    block_on(cluster.members[0].links.add(own(), somebody())).unwrap();
    block_on(cluster.members[1].links.add(own(), somebody())).unwrap();
    let deleted = block_on(cluster.members[1].links.delete_user(PARTNER, "me".into(), somebody()));
    assert_eq!(deleted.unwrap(), 2);
    let world = agreed(&cluster);
    assert!(world.links.values().all(|link| link.status == Status::Deleted));
}

#[test]
fn import_is_worked_out_again_after_a_link_changed() {
    let cluster = Cluster::new(1);
    let before = cluster.add(0).unwrap();
    cluster.settle().unwrap();
    let other = Arc::clone(&cluster.members[1].links);
    let id = before.id;
    // After the only part, and before it counts.
    cluster.log.interrupt(1, move || {
        drop(block_on(other.renew_id(id, everybody(), somebody())).unwrap())
    });
    let changed = ShortLink {
        name: Some("new".into()),
        ..before
    };
    let report = import(&cluster, 0, vec![changed, link(1)], UPDATE);
    assert_eq!((report.added, report.refused, report.applied), (1, 1, false));
    assert!(report.problems[0].reason.contains("retired"), "{report:?}");
    let world = agreed(&cluster);
    assert!(world.links[&id].is_retired() && !world.links.contains_key(&link(1).id));
}

#[test]
fn import_is_worked_out_again_after_a_unique_id_went() {
    for is_skipping in [false, true] {
        let cluster = Cluster::new(1);
        let other = Arc::clone(&cluster.members[1].links);
        let with_unique_id = || Draft {
            unique_id: Some("one".into()),
            ..draft("https://e.example/")
        };
        cluster.log.interrupt(1, move || {
            drop(block_on(other.add(with_unique_id(), somebody())).unwrap())
        });
        let unique = ShortLink {
            unique_id: Some("one".into()),
            ..link(1)
        };
        let options = ImportOptions {
            conflict: if is_skipping { Conflict::Skip } else { Conflict::Fail },
            ..UPDATE
        };
        let report = import(&cluster, 0, vec![unique, link(2)], options);
        assert_eq!((report.added, report.applied), (1, is_skipping), "{report:?}");
        let world = agreed(&cluster);
        assert_eq!(world.links.len(), if is_skipping { 2 } else { 1 });
    }
}

#[test]
fn unique_id_moves_within_an_import() {
    let cluster = Cluster::new(1);
    let unique = |number, unique_id: Option<&str>| ShortLink {
        unique_id: unique_id.map(str::to_owned),
        ..link(number)
    };
    import(&cluster, 0, vec![unique(1, Some("one")), link(2)], UPDATE);
    let report = import(&cluster, 1, vec![unique(1, None), unique(2, Some("one"))], UPDATE);
    assert_eq!((report.updated, report.applied), (2, true));
    let world = agreed(&cluster);
    assert_eq!(world.links[&link(2).id].unique_id.as_deref(), Some("one"));
}

#[test]
fn parts_of_an_import_that_failed_are_dropped() {
    let cluster = Cluster::new(1);
    let store = |member: usize| &cluster.members[member].links.store;
    let mut given_up = store(0).stage_import();
    block_on(given_up.add(b"part")).unwrap();
    block_on(given_up.add(b"part")).unwrap();
    cluster.settle().unwrap();
    assert_eq!(parts(&cluster), [2; 3]);
    block_on(given_up.give_up());
    agreed(&cluster);
    // One whose writer is gone, a day later by the clock of another writer.
    let day = 24 * 60 * 60 * 1000;
    let mut recent = store(0).stage_import_of(crate::model::unix_milliseconds() - day + 60_000);
    block_on(recent.add(b"part")).unwrap();
    let mut old = store(0).stage_import_of(crate::model::unix_milliseconds() - day - 60_000);
    block_on(old.add(b"part")).unwrap();
    cluster.settle().unwrap();
    assert_eq!(parts(&cluster), [1; 3]);
    // It cannot count any more.
    assert!(!block_on(old.finish(None)).unwrap());
    block_on(recent.give_up());
    agreed(&cluster);
}

#[test]
fn copy_made_during_an_import_follows_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE_NAME);
    let (copied, dumped) = (folder.path().join("copied"), folder.path().join("dumped"));
    let cluster = Cluster::new(1);
    let (other, log) = (Arc::clone(&cluster.members[0].links), cluster.log.clone());
    cluster.log.interrupt(3, {
        let (copied, dumped) = (copied.clone(), dumped.clone());
        move || {
            let snapshot = other.store.snapshot().unwrap();
            assert!(snapshot.copy_to(&copied, &mut ()).unwrap().is_clean());
            let mut dump = Vec::new();
            snapshot.dump(&mut dump).unwrap();
            assert!(
                crate::store::restore_dump(dump.as_slice(), &dumped, &mut ())
                    .unwrap()
                    .is_clean()
            );
        }
    });
    assert!(import(&cluster, 0, (0..60).map(link).collect(), UPDATE).applied);
    let world = agreed(&cluster);
    for copy in [copied, dumped] {
        std::fs::rename(copy, &file).unwrap();
        let links = Links::open_in_cluster(folder.path(), Clock::system(), 8, Some(Arc::new(log.clone()))).unwrap();
        let at = *links.store.replicating().unwrap().position().borrow();
        assert_eq!(
            (at.sequence, links.store.snapshot().unwrap().totals().unwrap()),
            (3, [0; 3])
        );
        block_on(links.store.apply(log.entries().split_off(3))).unwrap();
        assert_eq!(shared(&links), world);
    }
}

#[test]
fn store_with_a_damaged_record_stops_before_it_decides() {
    for is_deletion in [false, true] {
        let cluster = Cluster::new(1);
        import(&cluster, 0, vec![link(1), link(2)], UPDATE);
        cluster.settle().unwrap();
        let damaged = &cluster.members[1];
        let damage = move |transaction: &mut Transaction<'_>| transaction.damage(link(1).id);
        block_on(damaged.links.store.write_local(damage)).unwrap();
        // It cannot replace it: the others have it.
        let other = ShortLink {
            name: Some("new".into()),
            ..link(1)
        };
        let report = import(&cluster, 1, vec![other.clone()], UPDATE);
        assert_eq!((report.refused, report.applied), (1, false));
        assert!(report.problems[0].reason.contains("new copy"), "{report:?}");
        if is_deletion {
            block_on(cluster.members[0].links.delete_user(PARTNER, "me".into(), somebody())).unwrap();
        } else {
            import(&cluster, 0, vec![other], UPDATE);
        }
        let sequence = cluster.log.entries().len() as u64;
        let mut followed = Ok(false);
        while followed == Ok(false) {
            followed = damaged.follow(&cluster.log);
        }
        assert_eq!(followed, Err(ApplyError::Diverged { sequence }));
        assert!(cluster.add(1).is_err());
        assert!(cluster.add(0).is_ok());
    }
}
