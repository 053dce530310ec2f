//! A store that only follows a replication log: it does not sync what it can read again, and a crash may take any of
//! it. `TINYD_CRASH_SEED` runs one seed again, `TINYD_CRASH_RUNS` sets the number of runs.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::links::tests::block_on;
use crate::links::tests::cluster::{Cluster, Member, shared};
use crate::links::tests::crash::run_seeds;
use crate::links::tests::simulated::{Step, World, check_whole, now_of, run};
use crate::store::testing::simulated::{Operation, Side};

const RUNS: usize = 300;
const STEPS: usize = 24;

/// A writer, the first, and a store that only follows, the second.
fn with_follower(seed: u64) -> Result<Cluster, String> {
    let mut cluster = Cluster::new(seed);
    cluster.members.truncate(2);
    let (log, disk) = (cluster.log.followed(), cluster.members[1].disk.clone());
    cluster.members[1].restart(disk, &cluster.clock, &log)?;
    Ok(cluster)
}

fn crash(cluster: &mut Cluster, rng: &mut StdRng) -> Result<(), String> {
    let (log, disk) = (cluster.log.followed(), cluster.members[1].disk.crashed(rng));
    cluster.members[1].restart(disk, &cluster.clock, &log)?;
    if cluster.members[1].disk.is_cut_off() {
        return Err("what was not synced was taken for damaged".to_owned());
    }
    Ok(())
}

fn clicks(member: &Member) -> u64 {
    World::of(&member.links).usages.values().map(|usage| usage.clicks).sum()
}

/// Returns how many entries crashes took.
fn run_one(seed: u64) -> Result<usize, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = with_follower(seed)?;
    let mut taken = 0;
    for number in 1..=STEPS {
        cluster.clock.set(now_of(number));
        for _ in 0..rng.random_range(0..4) {
            cluster.add(0).map_err(|error| error.to_string())?;
        }
        let follower = &cluster.members[1];
        follower.follow(&cluster.log).map_err(|error| error.to_string())?;
        if rng.random_ratio(1, 6) {
            let world = World::of(&follower.links);
            block_on(run(&follower.links, &world, &Step::CountClicks, number)).map_err(|error| format!("{error:?}"))?;
        }
        if rng.random_ratio(1, 4) {
            let (before, clicked) = (follower.position().sequence, clicks(follower));
            crash(&mut cluster, &mut rng)?;
            let after = cluster.members[1].position().sequence;
            if clicks(&cluster.members[1]) != clicked {
                return Err("clicks that were counted are lost".to_owned());
            }
            taken += usize::try_from(before - after).unwrap();
        }
    }
    cluster.settle()?;
    let [writer, follower] = &cluster.members[..] else {
        return Err("two stores".to_owned());
    };
    check_whole(&follower.links, &World::of(&follower.links))?;
    if shared(&follower.links) != shared(&writer.links) || follower.position() != writer.position() {
        return Err("stores differ".to_owned());
    }
    Ok(taken)
}

#[test]
fn follower_reads_again_what_a_crash_took() {
    let taken = run_seeds(
        |runs, _| runs >= RUNS,
        |seed| run_one(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}")),
    );
    println!("{taken} entries were taken");
}

/// A store that only follows, with entries in its journal, and the number of syncs of the journal that they took.
fn with_entries() -> (Cluster, usize) {
    let cluster = with_follower(1).unwrap();
    let follower = &cluster.members[1];
    let syncs = || {
        let log = follower.disk.log();
        log.iter()
            .filter(|operation| **operation == Operation::Sync(Side::Journal))
            .count()
    };
    // The first makes the journal.
    cluster.add(0).unwrap();
    follower.follow(&cluster.log).unwrap();
    let before = syncs();
    for _ in 0..2 {
        cluster.add(0).unwrap();
        follower.follow(&cluster.log).unwrap();
    }
    let taken = syncs() - before;
    (cluster, taken)
}

#[test]
fn follower_syncs_clicks_and_no_entries() {
    let (cluster, syncs) = with_entries();
    assert_eq!(syncs, 0);
    let follower = &cluster.members[1];
    let before = follower.disk.log_length();
    let world = World::of(&follower.links);
    block_on(run(&follower.links, &world, &Step::CountClicks, 1)).unwrap();
    assert!(follower.disk.log()[before..].contains(&Operation::Sync(Side::Journal)));
}

/// What is before it was synced with it, so it did not get lost by itself.
#[test]
fn follower_knows_damage_before_a_synced_record() {
    for is_synced in [false, true] {
        let (mut cluster, _) = with_entries();
        let follower = &cluster.members[1];
        if is_synced {
            let world = World::of(&follower.links);
            block_on(run(&follower.links, &world, &Step::CountClicks, 1)).unwrap();
        }
        let disk = follower.disk.with_damaged_journal();
        cluster.members[1]
            .restart(disk, &cluster.clock, &cluster.log.followed())
            .unwrap();
        assert_eq!(cluster.members[1].disk.is_cut_off(), is_synced);
    }
}
