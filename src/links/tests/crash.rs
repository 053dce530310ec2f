//! Crashes and failing disks: seeded runs of the domain on a simulated disk.
//!
//! What must hold after each: the store is in a state that some prefix of the operations made, with every acknowledged
//! one in it; it is whole; and the map shows what it holds. `TINYD_CRASH_SEED` runs one seed again, `TINYD_CRASH_RUNS`
//! sets the number of runs.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::links::tests::audit::somebody;
use crate::links::tests::simulated::{Step, World, any_step, check_whole, now_of, open, open_unloaded, run, url_of};
use crate::links::tests::{block_on, draft};
use crate::links::*;
use crate::store::testing::gate;
use crate::store::testing::simulated::{Content, Disk, Failure, Operation, carry_out, crash};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// Crash points of a normal run, at least.
const CRASH_POINTS: usize = 10_000;
/// Domain operations of one run.
const STEPS: usize = 12;
/// Of so many crash points, one is also crashed in its recovery, and one written to afterwards.
const FURTHER_CHECKS: u32 = 4;

/// A run without any crash, as the disk saw it.
struct Recording {
    seed: u64,
    before: Content,
    log: Vec<Operation>,
    /// The world after so many steps.
    worlds: Vec<World>,
    /// For each step, how many operations the disk had seen when it began and when it was acknowledged.
    steps: Vec<(usize, usize)>,
}

/// Runs steps one after the other, and sometimes several adds that are committed together.
fn record(seed: u64) -> Recording {
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = Disk::with_store();
    let before = disk.content();
    let clock = Clock::manual(now_of(0));
    let links = open(&disk, &clock, seed).unwrap();
    let (mut worlds, mut steps) = (vec![World::default()], Vec::new());
    block_on(async {
        while steps.len() < STEPS {
            let number = steps.len() + 1;
            clock.set(now_of(number));
            let world = worlds.last().unwrap().clone();
            let begun = disk.log_length();
            if rng.random_bool(0.2) {
                let together = rng.random_range(2..6);
                let added = add_together(&links, number, together).await;
                for link in added {
                    let world = worlds.last().unwrap();
                    worlds.push(world.after(&Step::Add(None, None), number, Some(&link)));
                    steps.push((begun, disk.log_length()));
                }
                continue;
            }
            let step = any_step(&mut rng);
            let added = run(&links, &world, &step, number).await.unwrap();
            worlds.push(world.after(&step, number, added.as_ref()));
            steps.push((begun, disk.log_length()));
        }
    });
    // A checkpoint that follows the last answer has ended then: what reads meanwhile decides which pages are free.
    block_on(links.store.write_local(|_| Ok(()))).unwrap();
    assert_eq!(&World::of(&links), worlds.last().unwrap(), "seed {seed}");
    drop(links);
    Recording {
        seed,
        before,
        log: disk.log(),
        worlds,
        steps,
    }
}

/// Adds several links in one commit: they wait while the writer is held up.
async fn add_together(links: &Links, number: usize, count: usize) -> Vec<ShortLink> {
    let (open_gate, gate) = gate();
    let (running, is_running) = std::sync::mpsc::channel::<()>();
    let mut held_up = Box::pin(links.store.write(move |_| {
        running.send(()).unwrap();
        gate.lock().recv().unwrap();
        Ok(())
    }));
    assert!(futures_util::poll!(&mut held_up).is_pending());
    is_running.recv().unwrap();
    let mut adding: Vec<_> = (0..count)
        .map(|_| Box::pin(links.add(draft(&url_of(number)), somebody())))
        .collect();
    for add in &mut adding {
        assert!(futures_util::poll!(add).is_pending());
    }
    open_gate.send(()).unwrap();
    held_up.await.unwrap();
    let added = futures_util::future::join_all(adding).await;
    added.into_iter().map(Result::unwrap).collect()
}

impl Recording {
    /// Crashes at every operation of the disk, and returns how many that were.
    fn crash_everywhere(&self, syncs_work: bool) -> Result<usize, String> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let (mut durable, mut pending) = (self.before.clone(), Vec::new());
        for (number, operation) in self.log.iter().enumerate() {
            if syncs_work || !matches!(operation, Operation::Sync(_)) {
                carry_out(&mut durable, &mut pending, operation);
            }
            let mut content = durable.clone();
            crash(&mut content, &pending, &mut rng);
            let seen = number + 1;
            self.check(&Disk::holding(content), seen, &mut rng)
                .map_err(|error| format!("seed {}, crash after operation {seen}: {error}", self.seed))?;
        }
        Ok(self.log.len())
    }

    /// Opens what a crash after `seen` operations has left.
    fn check(&self, disk: &Disk, seen: usize, rng: &mut StdRng) -> Result<(), String> {
        let before = disk.content();
        let links = open(disk, &Clock::manual(now_of(0)), self.seed)?;
        // What is done below is not part of the recording, so only the recovery before it may be crashed.
        let recovered = disk.log_length();
        self.check_world(&links, seen)?;
        if rng.random_ratio(1, FURTHER_CHECKS) {
            let added =
                block_on(links.add(draft("https://e.example/after"), somebody())).map_err(|error| error.to_string())?;
            let mut world = World::of(&links);
            check_whole(&links, &world)?;
            world
                .links
                .remove(&added.id)
                .ok_or("what was added after the crash is not there")?;
        }
        drop(links);
        if rng.random_ratio(1, FURTHER_CHECKS) {
            let log = disk.log();
            let (mut content, mut pending) = (before, Vec::new());
            for operation in log.iter().take(rng.random_range(0..=recovered)) {
                carry_out(&mut content, &mut pending, operation);
            }
            crash(&mut content, &pending, rng);
            let links = open(&Disk::holding(content), &Clock::manual(now_of(0)), self.seed)?;
            self.check_world(&links, seen)
                .map_err(|error| format!("after a second crash: {error}"))?;
        }
        Ok(())
    }

    fn check_world(&self, links: &Links, seen: usize) -> Result<(), String> {
        let acknowledged = self.steps.iter().filter(|(_, at)| *at <= seen).count();
        // A step that changes nothing is acknowledged in the moment in which it begins.
        let begun = self.steps.iter().filter(|(at, _)| *at < seen).count().max(acknowledged);
        let world = World::of(links);
        check_whole(links, &world)?;
        if self.worlds[acknowledged..=begun].contains(&world) {
            return Ok(());
        }
        let earlier = self.worlds[..acknowledged].contains(&world);
        let what = if earlier {
            "acknowledged steps are lost"
        } else {
            "it is none that the steps have made"
        };
        Err(format!("{what}: {acknowledged} were acknowledged, {begun} begun"))
    }
}

pub fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: expected a number, not {text:?}")),
    )
}

/// Runs seeds on all cores until `enough`, given the number of runs and what they have done, which is returned.
pub fn run_seeds(enough: impl Fn(usize, usize) -> bool + Sync, one: impl Fn(u64) -> usize + Sync) -> usize {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    if let Some(seed) = setting("TINYD_CRASH_SEED") {
        return one(seed);
    }
    let first = rand::random::<u32>() as usize;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::SeqCst);
                    let is_enough = match setting("TINYD_CRASH_RUNS") {
                        Some(runs) => run as u64 >= runs,
                        None => enough(run, done.load(Ordering::SeqCst)),
                    };
                    if is_enough {
                        return;
                    }
                    done.fetch_add(one((first + run) as u64), Ordering::SeqCst);
                }
            });
        }
    });
    done.into_inner()
}

#[test]
fn crash_keeps_acknowledged_writes_and_tears_none() {
    let points = run_seeds(
        |_, done| done >= CRASH_POINTS,
        |seed| {
            record(seed)
                .crash_everywhere(true)
                .unwrap_or_else(|error| panic!("{error}"))
        },
    );
    println!("{points} crash points");
}

/// A seed that is printed is worth something only if it can be run again.
#[test]
fn a_seed_runs_the_same_way_again() {
    for seed in 0..5 {
        let (one, other) = (record(seed), record(seed));
        assert!(one.log == other.log && one.worlds == other.worlds, "seed {seed}");
    }
}

/// The harness must be able to fail: on a disk whose syncs do nothing, something is lost.
#[test]
fn disk_that_does_not_sync_is_detected() {
    let mut lost = 0;
    for seed in 0..10 {
        let recording = record(seed);
        let run = std::panic::AssertUnwindSafe(|| recording.crash_everywhere(false));
        match std::panic::catch_unwind(run) {
            Ok(Ok(_)) => panic!("seed {seed} finds nothing"),
            Ok(Err(error)) => lost += usize::from(error.contains("acknowledged steps are lost")),
            // What is left may be so broken that redb panics, which is a finding as well.
            Err(_) => {}
        }
    }
    assert!(lost > 0, "no seed has found that something acknowledged is lost");
}

/// Operations that fail in one run of steps on a failing disk, at most.
const FAILURES: usize = 4;
/// Runs on a failing disk in a normal run.
const FAILING_RUNS: usize = 150;

/// The store works again on its own; what it shows then and what it had acknowledged are on the disk, even if that had
/// forgotten what it could not sync.
fn fail_often(seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = Disk::with_store();
    let clock = Clock::manual(now_of(0));
    let links = open(&disk, &clock, seed).unwrap();
    let mut world = World::default();
    let mut unknown = 0;
    for number in 1..=STEPS * FAILURES {
        clock.set(now_of(number));
        if number % STEPS == 1 {
            let failure = Failure {
                first: disk.operations() + rng.random_range(1..200),
                count: rng.random_range(1..40),
                errno: [EIO, ENOSPC, EROFS][rng.random_range(0..3)],
                reads_too: rng.random_bool(0.3),
            };
            disk.fail(failure, StdRng::seed_from_u64(rng.random()));
        }
        let step = any_step(&mut rng);
        let done = block_on(run(&links, &world, &step, number)).map_err(|error| match error {
            LinkError::RenewalUnknown(_) => WriteError::OutcomeUnknown.into(),
            error => error,
        });
        let context = || format!("seed {seed}, step {number}, {step:?}");
        match done {
            Ok(added) => world = world.after(&step, number, added.as_ref()),
            Err(LinkError::Write(error)) => {
                while links.health() != Health::Accepting {
                    // Redirects go on meanwhile, and show what was acknowledged.
                    for link in world.links.values() {
                        let shown = links.index().entry(link.id);
                        assert!(shown.is_some(), "{}: {} is not served", context(), link.id);
                    }
                }
                let found = World::of(&links);
                match error {
                    WriteError::OutcomeUnknown => assert!(world.can_become(&found, &step, number), "{}", context()),
                    _ => assert_eq!(found, world, "{}: called not written", context()),
                }
                unknown += 1;
                world = found;
            }
            Err(error) => panic!("{}: {error:?}", context()),
        }
        check_whole(&links, &world).unwrap_or_else(|error| panic!("{}: {error}", context()));
        let after_crash =
            open(&disk.crashed(&mut rng), &clock, seed).unwrap_or_else(|error| panic!("{}: {error}", context()));
        assert_eq!(World::of(&after_crash), world, "{}: lost in a crash", context());
    }
    unknown
}

#[test]
fn failing_disk_costs_no_acknowledged_write_and_no_redirect() {
    let failures = run_seeds(|runs, _| runs >= FAILING_RUNS, fail_often);
    println!("{failures} failed writes");
    assert!(failures > 0, "nothing failed");
}

/// The loss: a store that fails while the map is being loaded, and every link that is not in it yet answers 503.
#[test]
fn unloaded_links_are_served_while_the_disk_fails() {
    let disk = Disk::with_store();
    let clock = Clock::manual(now_of(0));
    let add = |links: &Links| block_on(links.add(draft("https://e.example/x"), somebody()));
    let ids: Vec<_> = {
        let links = open(&disk, &clock, 0).unwrap();
        (0..5).map(|_| add(&links).unwrap().id).collect()
    };
    let links = open_unloaded(&disk, &clock, 1).unwrap();
    let forever = Failure {
        first: disk.operations() + 1,
        count: u64::MAX / 2,
        errno: ENOSPC,
        reads_too: false,
    };
    disk.fail(forever, StdRng::seed_from_u64(0));
    assert!(matches!(add(&links), Err(LinkError::Write(WriteError::OutcomeUnknown))));
    for id in ids {
        assert_eq!(
            block_on(links.look_up(id)),
            Verdict::Redirect("https://e.example/x".parse().unwrap())
        );
    }
    // The map can be loaded too.
    assert!(!links.index().is_loaded());
    assert!(links.load().unwrap() >= 5);
    assert!(matches!(links.health(), Health::Refusing(_)));
}
