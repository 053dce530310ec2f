//! Stores that share a replication log: seeded runs of the domain on simulated disks that crash, with a simulated log
//! that refuses, delays, repeats, skips, and does not answer.
//!
//! What must hold after each: all stores have the same links, sessions and audit log; every acknowledged write is in
//! all of them; each is whole, and its map shows what it holds. `TINYD_CRASH_SEED` runs one seed again,
//! `TINYD_CRASH_RUNS` sets the number of runs.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::links::file::{Conflict, ImportOptions};
use crate::links::tests::audit::somebody;
use crate::links::tests::crash::run_seeds;
use crate::links::tests::simulated::{
    Step, World, any_step, check_whole, digest_of, import_lines, imported, now_of, open, open_with, run, url_of,
};
use crate::links::tests::{block_on, draft, everybody};
use crate::links::*;
use crate::store::replication::{ApplyError, Chain, ContentDigest, Position, ReplicationLog as _};
use crate::store::testing::log::SimulatedLog;
use crate::store::testing::simulated::Disk;

/// Runs of the test.
const RUNS: usize = 1_000;
/// Domain operations of one run.
const STEPS: usize = 16;
const STORES: usize = 3;

/// What another store does while one writes, has other numbers.
const INTERRUPTING: usize = 1_000;

pub struct Member {
    pub disk: Disk,
    pub links: Arc<Links>,
    pub seed: u64,
}

impl Member {
    pub fn position(&self) -> Position {
        *self.links.store.replicating().unwrap().position().borrow()
    }

    pub fn halted(&self) -> Option<ApplyError> {
        self.links.store.replicating().unwrap().halted()
    }

    /// Applies what the log gives; whether that was all there is.
    pub fn follow(&self, log: &SimulatedLog) -> Result<bool, ApplyError> {
        let Ok(entries) = log.read(self.position().sequence) else {
            return Ok(false);
        };
        match block_on(self.links.store.apply(entries)) {
            Ok(position) => Ok(position.sequence == log.entries().len() as u64),
            Err(error) if error.is_final() => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn digest(&self) -> ContentDigest {
        self.links.store.snapshot().unwrap().content_digest().unwrap()
    }

    pub fn restart(&mut self, disk: Disk, clock: &Clock, log: &SimulatedLog) -> Result<(), String> {
        self.disk = disk;
        let opened = open_with(&self.disk, clock, self.seed, Some(Arc::new(log.clone())))?;
        self.links = Arc::new(opened);
        self.links.load().map(drop).map_err(|error| error.to_string())
    }
}

pub struct Cluster {
    pub log: SimulatedLog,
    pub clock: Clock,
    pub members: Vec<Member>,
}

impl Cluster {
    pub fn new(seed: u64) -> Self {
        let (log, clock) = (SimulatedLog::default(), Clock::manual(now_of(0)));
        let members = (0..STORES as u64).map(|number| {
            let (disk, seed) = (
                Disk::with_store(),
                seed.wrapping_mul(STORES as u64).wrapping_add(number),
            );
            let links = open(&disk, &clock, seed).unwrap();
            block_on(links.store.enter_cluster(Position {
                cluster: *b"cluster of tests",
                epoch: 1,
                sequence: 0,
                chain: Chain::default(),
                digest: ContentDigest::default(),
            }))
            .unwrap();
            drop(links);
            let links = open_with(&disk, &clock, seed, Some(Arc::new(log.clone()))).unwrap();
            links.load().unwrap();
            let links = Arc::new(links);
            Member { disk, links, seed }
        });
        let members = members.collect();
        Self { log, clock, members }
    }

    /// Has every store apply all there is.
    pub fn settle(&self) -> Result<(), String> {
        self.log.set_faults(None);
        for member in &self.members {
            while !member.follow(&self.log).map_err(|error| error.to_string())? {}
        }
        Ok(())
    }

    pub fn add(&self, member: usize) -> Result<ShortLink, LinkError> {
        block_on(self.members[member].links.add(draft("https://e.example/"), somebody()))
    }
}

/// What all stores must have: the rest is each store's own.
pub fn shared(links: &Links) -> World {
    World {
        usages: BTreeMap::new(),
        days: BTreeMap::new(),
        ..World::of(links)
    }
}

/// What was acknowledged, by any store.
#[derive(Default)]
struct Acknowledged {
    links: BTreeSet<LinkId>,
    revoked: BTreeSet<Digest>,
    retired: BTreeSet<LinkId>,
}

impl Acknowledged {
    /// How much of it is lost.
    fn lost(&self, world: &World) -> usize {
        let is_retired = |id: &&LinkId| world.links.get(*id).is_some_and(ShortLink::is_retired);
        let has = |id: &&LinkId| world.links.contains_key(*id);
        let is_revoked = |digest: &&Digest| world.revoked.contains_key(*digest);
        let kept = self.links.iter().filter(has).count()
            + self.revoked.iter().filter(is_revoked).count()
            + self.retired.iter().filter(is_retired).count();
        self.links.len() + self.revoked.len() + self.retired.len() - kept
    }
}

#[derive(Debug, Clone)]
enum Action {
    Step(Step),
    /// Lines for so many links that are there, some with a unique id, and for two that are new.
    ImportOver(usize, Option<&'static str>, bool),
}

fn any_action(rng: &mut StdRng) -> Action {
    if rng.random_ratio(1, 6) {
        let unique_id = [None, Some("p"), Some("q")][rng.random_range(0..3)];
        return Action::ImportOver(rng.random_range(0..8), unique_id, rng.random_bool(0.5));
    }
    Action::Step(any_step(rng))
}

/// The new links of such an import.
fn over(number: usize) -> impl Iterator<Item = ShortLink> {
    imported(number).zip(["a", "b"]).map(move |(link, name)| ShortLink {
        id: format!("over{number}{name}").parse().unwrap(),
        ..link
    })
}

fn act(links: &Links, action: &Action, number: usize, acknowledged: &Mutex<Acknowledged>) {
    let world = World::of(links);
    match action {
        Action::Step(step) => {
            let Ok(added) = block_on(run(links, &world, step, number)) else {
                return;
            };
            let mut acknowledged = acknowledged.lock();
            match step {
                Step::Revoke => drop(acknowledged.revoked.insert(digest_of(number))),
                Step::Import(false) => acknowledged.links.extend(imported(number).map(|link| link.id)),
                Step::RenewId(link) if added.is_some() => {
                    acknowledged.retired.extend(world.pick(*link).map(|link| link.id))
                }
                _ => {}
            }
            acknowledged.links.extend(added.map(|link| link.id));
        }
        Action::ImportOver(most, unique_id, keep_going) => {
            let there = world.links.values().rev().take(*most).map(|link| ShortLink {
                full_url: url_of(number),
                starts_at: None,
                status: Status::Enabled,
                unique_id: unique_id.map(str::to_owned),
                ..link.clone()
            });
            let lines = there.chain(over(number)).map(Ok).collect();
            let options = ImportOptions {
                conflict: Conflict::Update,
                keep_going: *keep_going,
                ..ImportOptions::default()
            };
            if block_on(import_lines(links, lines, options)).is_ok_and(|report| report.applied) {
                acknowledged.lock().links.extend(over(number).map(|link| link.id));
            }
        }
    }
}

/// Whether an import has written some of its links only.
fn has_torn(world: &World) -> bool {
    let has = |link: ShortLink| world.links.contains_key(&link.id);
    let numbers = (1..=STEPS).flat_map(|number| [number, number + INTERRUPTING]);
    let mut imports = numbers.flat_map(|number| [imported(number).map(has).collect(), over(number).map(has).collect()]);
    imports.any(|links: Vec<bool>| links.iter().any(|has| *has) != links.iter().all(|has| *has))
}

fn run_one(seed: u64) -> Result<usize, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(seed);
    cluster.log.set_faults(Some(StdRng::seed_from_u64(seed)));
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for number in 1..=STEPS {
        cluster.clock.set(now_of(number));
        let chosen = rng.random_range(0..STORES);
        if rng.random_ratio(1, 8) {
            let member = &mut cluster.members[chosen];
            let disk = member.disk.crashed(&mut rng);
            member.restart(disk, &cluster.clock, &cluster.log)?;
        }
        let member = &cluster.members[chosen];
        if rng.random_ratio(1, 2) {
            member.follow(&cluster.log).map_err(|error| error.to_string())?;
        }
        let action = any_action(&mut rng);
        let crashed = Arc::new(Mutex::new(None));
        if rng.random_ratio(1, 6) {
            // The store stops between its appends, whose end others then see.
            let (disk, crashed) = (member.disk.clone(), Arc::clone(&crashed));
            let mut crash_rng = StdRng::seed_from_u64(rng.random());
            let crash = move || *crashed.lock() = Some(disk.crashed(&mut crash_rng));
            cluster.log.interrupt(rng.random_range(0..4), crash);
        } else if rng.random_ratio(1, 2) {
            let other = Arc::clone(&cluster.members[(chosen + 1) % STORES].links);
            let (action, acknowledged) = (any_action(&mut rng), Arc::clone(&acknowledged));
            cluster.log.interrupt(rng.random_range(0..4), move || {
                act(&other, &action, number + INTERRUPTING, &acknowledged);
            });
        }
        act(&member.links, &action, number, &acknowledged);
        cluster.log.interrupt_no_more();
        let crashed = crashed.lock().take();
        if let Some(disk) = crashed {
            cluster.members[chosen].restart(disk, &cluster.clock, &cluster.log)?;
        }
    }
    cluster.settle()?;
    let (first, position) = (shared(&cluster.members[0].links), cluster.members[0].position());
    for member in &cluster.members {
        let world = World::of(&member.links);
        check_whole(&member.links, &world)?;
        if shared(&member.links) != first || member.position() != position {
            return Err("stores differ".to_owned());
        }
        if member.digest() != position.digest {
            return Err("the digest is not that of the links".to_owned());
        }
    }
    if has_torn(&first) {
        return Err("an import has written some of its links only".to_owned());
    }
    let lost = acknowledged.lock().lost(&first);
    if lost > 0 {
        return Err(format!("{lost} acknowledged writes are lost"));
    }
    Ok(cluster.log.entries().len())
}

#[test]
fn stores_of_a_cluster_agree_and_lose_no_write() {
    let entries = run_seeds(
        |runs, _| runs >= RUNS,
        |seed| run_one(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}")),
    );
    println!("{entries} entries");
}

/// What a broken log gives, and what a store makes of it.
fn after_tampering(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> (Cluster, Result<bool, ApplyError>) {
    let cluster = Cluster::new(1);
    for _ in 0..4 {
        cluster.add(0).unwrap();
    }
    cluster.log.tamper(change);
    let followed = cluster.members[1].follow(&cluster.log);
    (cluster, followed)
}

#[test]
fn hole_in_the_log_is_not_passed_over() {
    let (cluster, followed) = after_tampering(|entries| drop(entries.remove(2)));
    assert_eq!(followed, Ok(false));
    let member = &cluster.members[1];
    assert_eq!((member.position().sequence, member.halted()), (2, None));
}

#[test]
fn changed_entry_stops_the_store_that_meets_it() {
    let flip = |entries: &mut Vec<Vec<u8>>| *entries[1].last_mut().unwrap() ^= 1;
    let (cluster, followed) = after_tampering(flip);
    assert!(followed.is_err(), "{followed:?}");
    let member = &cluster.members[1];
    // The changed one does not decode, or the one after it does not continue it.
    assert!(member.position().sequence <= 2);
    assert!(member.halted().is_some());
    // It serves on, and takes no write that would go on from there.
    assert!(cluster.add(1).is_err());
    assert_eq!(member.links.health(), Health::Accepting);
}

#[test]
fn lost_end_of_the_log_forks_no_history() {
    let cluster = Cluster::new(1);
    for _ in 0..4 {
        cluster.add(0).unwrap();
    }
    for member in &cluster.members {
        while !member.follow(&cluster.log).unwrap() {}
    }
    // The engine loses the end, and another store, which was set back, writes on.
    cluster.log.tamper(|entries| entries.truncate(2));
    let lagging = Cluster {
        log: cluster.log.clone(),
        ..Cluster::new(2)
    };
    let mut set_back = lagging.members.into_iter().next().unwrap();
    set_back
        .restart(set_back.disk.clone(), &cluster.clock, &cluster.log)
        .unwrap();
    while !set_back.follow(&cluster.log).unwrap() {}
    for _ in 0..3 {
        block_on(set_back.links.add(draft("https://e.example/other"), somebody())).unwrap();
    }
    let before = cluster.members[1].position();
    let followed = cluster.members[1].follow(&cluster.log);
    assert_eq!(followed, Err(ApplyError::Fork { sequence: 5 }));
    assert_eq!(cluster.members[1].position(), before);
    // Its writers meet it too.
    assert!(cluster.add(0).is_err());
}

#[test]
fn store_with_other_links_stops_at_the_next_entry() {
    let cluster = Cluster::new(1);
    let added = cluster.add(0).unwrap();
    let member = &cluster.members[1];
    assert_eq!(member.follow(&cluster.log), Ok(true));
    let spoil = move |transaction: &mut Transaction<'_>| {
        transaction.digest = None;
        let old = transaction.get(added.id)?.ok_or(StoreError::Closed)?;
        let new = ShortLink {
            full_url: "https://e.example/other".into(),
            ..old.clone()
        };
        transaction.put(Some(&old), new)
    };
    block_on(member.links.store.write_local(spoil)).unwrap();
    let edit = |old: &ShortLink| {
        Ok::<_, LinkError>(ShortLink {
            name: Some("new".into()),
            ..old.clone()
        })
    };
    let id = added.id;
    block_on(cluster.members[0].links.update(id, everybody(), somebody(), edit))
        .map_err(|_| "")
        .unwrap();
    assert_eq!(member.follow(&cluster.log), Err(ApplyError::Diverged { sequence: 2 }));
    assert_eq!(member.position().sequence, 1);
}

#[test]
fn overtaken_writer_applies_the_other_entry_and_runs_again() {
    let cluster = Cluster::new(1);
    cluster.add(0).unwrap();
    cluster.add(1).unwrap();
    assert_eq!(cluster.members[1].position().sequence, 2);
    // A unique id that another store has given is taken, although this one has not heard of it.
    let draft = || Draft {
        unique_id: Some("one".into()),
        ..draft("https://e.example/")
    };
    block_on(cluster.members[0].links.add(draft(), somebody())).unwrap();
    let refused = block_on(cluster.members[2].links.add(draft(), somebody()));
    assert!(matches!(refused, Err(LinkError::UniqueIdTaken(_))), "{refused:?}");
    assert_eq!(cluster.log.entries().len(), 3);
}

/// A job that changes nothing appends nothing, and would not notice that another store is ahead.
#[test]
fn write_to_a_link_that_has_not_come_yet_waits_for_it() {
    let cluster = Cluster::new(1);
    cluster.log.say_head();
    let added = cluster.add(0).unwrap();
    let behind = &cluster.members[1];
    let mut deleting = Box::pin(behind.links.delete(added.id, everybody(), somebody()));
    block_on(async {
        assert!(futures_util::poll!(&mut deleting).is_pending());
        // Afterwards the first has run.
        behind.links.store.write_local(|_| Ok(())).await.unwrap();
    });
    while !behind.follow(&cluster.log).unwrap() {}
    let deleted = block_on(deleting);
    assert_eq!(deleted.unwrap().link.id, added.id);
    assert_eq!(behind.position().sequence, 2);
}
