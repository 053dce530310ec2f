//! Clicks of several boxes: seeded runs on simulated disks that crash in the middle of what they do, with a simulated
//! stream that refuses, forgets to answer, and stores messages twice and late.
//!
//! What must hold after each: every box that counts shows for each link what all boxes have written down, each click
//! once, also after new ids; and nothing waits any more. `TINYD_CRASH_SEED` runs one seed again, `TINYD_CRASH_RUNS`
//! sets the number of runs.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::links::tests::audit::somebody;
use crate::links::tests::cluster::{Cluster, Member};
use crate::links::tests::crash::run_seeds;
use crate::links::tests::simulated::{World, check_whole, open_with};
use crate::links::tests::{block_on, everybody};
use crate::links::*;
use crate::model::{Day, Usage, Visit};
use crate::store::replication::{ClickError, ClickMessage, ClickPosition, ClickSource};
use crate::store::testing::clicks::{Sent, SimulatedClicks};
use crate::store::testing::simulated::{Content, Disk, carry_out, crash};

const RUNS: usize = 200;
const STEPS: usize = 60;
/// Boxes that count; one more sends only.
const ADMINS: usize = 2;
/// Messages that are sent or counted in a step.
const SEND_MAX: usize = 4;
const TODAY: Day = Day(20_000);

/// Clicks and previews of links.
type Counted = BTreeMap<LinkId, (u64, u64)>;

fn add(to: &mut Counted, id: LinkId, (clicks, previews): (u64, u64)) {
    let counted = to.entry(id).or_default();
    *counted = (counted.0 + clicks, counted.1 + previews);
}

/// A box, beside what is in the cluster.
struct Node {
    name: String,
    is_admin: bool,
    /// What was on its disk at its last start.
    base: Content,
    recorder: ClickRecorder,
    acknowledged: u64,
    /// What it has recorded and not written down yet.
    recorded: Counted,
}

impl Node {
    fn of(member: &Member, name: String, is_admin: bool) -> Self {
        Self {
            name,
            is_admin,
            base: member.disk.content(),
            recorder: member.links.recorder(),
            acknowledged: 0,
            recorded: Counted::new(),
        }
    }
}

struct Fleet {
    cluster: Cluster,
    nodes: Vec<Node>,
    stream: SimulatedClicks,
    rng: StdRng,
    /// The first id of each link that has had another one.
    roots: BTreeMap<LinkId, LinkId>,
    /// What all boxes have written down, by the first ids.
    written: Counted,
}

/// Starts a box again, under its name.
fn restart(member: &mut Member, disk: Disk, cluster: &Cluster, name: &str) -> Result<(), String> {
    member.disk = disk;
    let log = Some(Arc::new(cluster.log.clone()) as Arc<dyn ReplicationLog>);
    let links = open_with(&member.disk, &cluster.clock, member.seed, log)?.in_box(name);
    links.load().map_err(|error| error.to_string())?;
    block_on(links.drop_clicks_of_others()).map_err(|error| error.to_string())?;
    member.links = Arc::new(links);
    Ok(())
}

/// What a box is doing when it crashes.
type Work = fn(&Member, &mut Node, &SimulatedClicks);

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut cluster = Cluster::new(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut nodes = Vec::new();
        let mut members = std::mem::take(&mut cluster.members);
        for (number, member) in members.iter_mut().enumerate() {
            let disk = member.disk.crashed(&mut rng);
            let base = disk.content();
            let name = format!("box-{number}");
            restart(member, disk, &cluster, &name).unwrap();
            nodes.push(Node {
                base,
                ..Node::of(member, name, number < ADMINS)
            });
        }
        cluster.members = members;
        let stream = SimulatedClicks::default();
        stream.set_faults(Some(StdRng::seed_from_u64(seed)));
        Self {
            cluster,
            nodes,
            stream,
            rng,
            roots: BTreeMap::new(),
            written: Counted::new(),
        }
    }

    fn root(&self, id: LinkId) -> LinkId {
        *self.roots.get(&id).unwrap_or(&id)
    }

    /// Notes what a box has written down since the message with this counter.
    fn note_written(&mut self, number: usize, after: u64) {
        let links = &self.cluster.members[number].links;
        for (_, message) in block_on(links.queued_clicks(after, usize::MAX)).unwrap() {
            for delta in ClickMessage::decode(&message).unwrap().deltas() {
                let more = (delta.usage.clicks, delta.usage.previews);
                add(&mut self.written, *self.roots.get(&delta.id).unwrap_or(&delta.id), more);
                let left = self.nodes[number].recorded.get_mut(&delta.id).expect("recorded before");
                *left = (left.0 - more.0, left.1 - more.1);
            }
        }
    }

    fn counter(&self, number: usize) -> u64 {
        self.cluster.members[number]
            .links
            .store
            .snapshot()
            .unwrap()
            .queued_counter()
    }

    fn restart(&mut self, number: usize, disk: Disk) -> Result<(), String> {
        let base = disk.content();
        let mut member = self.cluster.members.remove(number);
        let restarted = restart(&mut member, disk, &self.cluster, &self.nodes[number].name);
        self.cluster.members.insert(number, member);
        restarted?;
        self.nodes[number].base = base;
        self.nodes[number].recorder = self.cluster.members[number].links.recorder();
        self.nodes[number].acknowledged = 0;
        Ok(())
    }

    /// Does something, and now and then crashes in the middle of it.
    fn work(&mut self, number: usize, work: Work) -> Result<(), String> {
        let counter = self.counter(number);
        let before = self.cluster.members[number].disk.log_length();
        let shown = shown_by(&self.cluster.members[number]);
        work(&self.cluster.members[number], &mut self.nodes[number], &self.stream);
        if self.rng.random_ratio(1, 3) {
            let disk = &self.cluster.members[number].disk;
            let end = self.rng.random_range(before..=disk.log_length());
            let (mut content, mut pending) = (self.nodes[number].base.clone(), Vec::new());
            for operation in disk.log().iter().take(end) {
                carry_out(&mut content, &mut pending, operation);
            }
            crash(&mut content, &pending, &mut self.rng);
            self.restart(number, Disk::holding(content))?;
            self.note_written(number, counter);
            self.nodes[number].recorded.clear();
        } else {
            self.note_written(number, counter);
            let is_admin = self.nodes[number].is_admin;
            let (before, after) = (shown, shown_by(&self.cluster.members[number]));
            if is_admin && (after.0 < before.0 || after.1 < before.1) {
                return Err(format!("box {number} showed {before:?}, and shows {after:?}"));
            }
        }
        Ok(())
    }

    fn record(&mut self, number: usize) {
        let ids: Vec<_> = World::of(&self.cluster.members[number].links)
            .links
            .into_keys()
            .collect();
        if ids.is_empty() {
            return;
        }
        for _ in 0..self.rng.random_range(1..6) {
            let id = ids[self.rng.random_range(0..ids.len())];
            let day = TODAY.minus(self.rng.random_range(0..3));
            let (visit, counted) = match self.rng.random_bool(0.7) {
                true => (Visit::Click, (1, 0)),
                false => (Visit::Preview, (0, 1)),
            };
            let node = &mut self.nodes[number];
            node.recorder.record(id, visit, day.start());
            add(&mut node.recorded, id, counted);
        }
    }

    fn renew(&mut self, number: usize) -> Result<(), String> {
        let links = &self.cluster.members[number].links;
        let live = World::of(links).links.into_values();
        let live: Vec<_> = live.filter(|link| link.status != Status::Deleted).collect();
        if live.is_empty() {
            return Ok(());
        }
        let id = live[self.rng.random_range(0..live.len())].id;
        let counter = self.counter(number);
        match block_on(self.cluster.members[number].links.renew_id(id, everybody(), somebody())) {
            Ok(new) => drop(self.roots.insert(new.id, self.root(id))),
            // Another box was first.
            Err(LinkError::Retired) => {}
            Err(error) => return Err(error.to_string()),
        }
        self.note_written(number, counter);
        Ok(())
    }

    /// A new box, from a backup of an admin box, or from a plain copy of its disk, messages that wait included.
    fn join(&mut self, from: usize) -> Result<(), String> {
        let source = &self.cluster.members[from];
        let disk = if self.rng.random_bool(0.5) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("copy.redb");
            let snapshot = source.links.store.snapshot().unwrap();
            snapshot.copy_to(&path, &mut ()).map_err(|error| error.to_string())?;
            Disk::with_file(std::fs::read(&path).unwrap())
        } else {
            source.disk.crashed(&mut self.rng)
        };
        let (seed, base) = (self.rng.random(), disk.content());
        let log = Some(Arc::new(self.cluster.log.clone()) as Arc<dyn ReplicationLog>);
        let name = format!("box-{}", self.nodes.len());
        let links = open_with(&disk, &self.cluster.clock, seed, log)?.in_box(&name);
        links.load().map_err(|error| error.to_string())?;
        block_on(links.drop_clicks_of_others()).map_err(|error| error.to_string())?;
        let member = Member {
            disk,
            links: Arc::new(links),
            seed,
        };
        let node = Node::of(&member, name, true);
        self.cluster.members.push(member);
        self.nodes.push(Node { base, ..node });
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let number = self.rng.random_range(0..self.nodes.len());
        let is_admin = self.nodes[number].is_admin;
        match self.rng.random_range(0..24) {
            0..3 if is_admin => drop(self.cluster.add(number)),
            3 if is_admin => self.renew(number)?,
            4..9 => self.record(number),
            9..13 => self.work(number, flush)?,
            13..16 => self.work(number, send)?,
            16..20 if is_admin => self.work(number, count)?,
            20 if is_admin && self.nodes.len() < 5 => self.join(number)?,
            21 if self.rng.random_ratio(1, 8) => self.stream.make_anew(),
            _ => {
                let followed = self.cluster.members[number].follow(&self.cluster.log);
                followed.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Has all written down, sent and counted.
    fn settle(&mut self) -> Result<(), String> {
        self.cluster.settle()?;
        self.stream.set_faults(None);
        for number in 0..self.nodes.len() {
            let counter = self.counter(number);
            let flushed = self.cluster.members[number]
                .links
                .flush_all_clicks(Duration::from_secs(60));
            block_on(flushed);
            self.note_written(number, counter);
            if self.nodes[number].recorded.values().any(|left| *left != (0, 0)) {
                return Err(format!("box {number} has not written down all that it has recorded"));
            }
            while !queued(&self.cluster.members[number], self.nodes[number].acknowledged).is_empty() {
                send(&self.cluster.members[number], &mut self.nodes[number], &self.stream);
            }
        }
        self.count_all();
        Ok(())
    }

    fn count_all(&mut self) {
        for (member, node) in self
            .cluster
            .members
            .iter()
            .zip(&mut self.nodes)
            .filter(|(_, node)| node.is_admin)
        {
            while position(member, &self.stream).sequence < self.stream.length() {
                count(member, node, &self.stream);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let mut first = None;
        for (number, (member, node)) in self.cluster.members.iter().zip(&self.nodes).enumerate() {
            let world = World::of(&member.links);
            check_whole(&member.links, &world)?;
            if !queued(member, 0).is_empty() {
                return Err(format!("messages wait in box {number}"));
            }
            if !node.is_admin {
                continue;
            }
            let mut shown = Counted::new();
            for (id, usage) in &world.usages {
                let is_moved = world.links[id].is_retired();
                if is_moved {
                    return Err(format!("box {number} counts clicks for the retired id {id}"));
                }
                add(&mut shown, self.root(*id), (usage.clicks, usage.previews));
            }
            let all = shown
                .values()
                .fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
            if shown_by(member) != all {
                return Err(format!("box {number} shows {:?} of {all:?}", shown_by(member)));
            }
            if shown != self.written {
                return Err(format!(
                    "box {number} shows {shown:?}, written down were {:?}",
                    self.written
                ));
            }
            let total = |of: u8| {
                let days = world.days.iter().filter(|(key, _)| key[4] == of);
                days.fold((0, 0), |sum, (_, day)| (sum.0 + day.0, sum.1 + day.1))
            };
            if total(b'L') != all || total(b'P') != all {
                return Err(format!("the days of box {number} do not add up"));
            }
            if *first.get_or_insert_with(|| (world.usages.clone(), world.days.clone())) != (world.usages, world.days) {
                return Err("boxes differ".to_owned());
            }
        }
        Ok(())
    }
}

/// What a box shows of all links together, with what is not counted yet.
fn shown_by(member: &Member) -> (u64, u64) {
    let ids: Vec<_> = World::of(&member.links).links.into_keys().collect();
    let shown = ids.into_iter().map(|id| {
        let found = block_on(member.links.find_with_usage(id, everybody()));
        let (_, usage) = found.unwrap();
        (usage.clicks, usage.previews)
    });
    shown.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
}

fn queued(member: &Member, after: u64) -> Vec<(u64, Vec<u8>)> {
    block_on(member.links.queued_clicks(after, SEND_MAX)).unwrap()
}

fn position(member: &Member, stream: &SimulatedClicks) -> ClickPosition {
    let stored = block_on(member.links.click_position()).unwrap();
    let fresh = ClickPosition::after(stream.number(), 0);
    stored.filter(|at| at.stream == stream.number()).unwrap_or(fresh)
}

fn flush(member: &Member, _: &mut Node, _: &SimulatedClicks) {
    block_on(member.links.flush_clicks()).unwrap();
}

fn send(member: &Member, node: &mut Node, stream: &SimulatedClicks) {
    for (counter, message) in queued(member, node.acknowledged) {
        if !stream.publish(&node.name, &message) {
            break;
        }
        node.acknowledged = counter;
    }
    if !node.is_admin {
        block_on(member.links.drop_queued_clicks(node.acknowledged)).unwrap();
    }
}

fn count(member: &Member, _: &mut Node, stream: &SimulatedClicks) {
    let at = position(member, stream);
    // What it cannot count yet, it counts later.
    let messages = stream.read(at.sequence);
    let mut held = ClickSenders::default();
    let _ = block_on(member.links.count_messages(at, messages, u64::MAX, &mut held)).unwrap();
    assert!(held.holds_none());
}

/// Runs one seed; `tamper` changes the stream before its end is counted.
fn run_one(seed: u64, tamper: fn(&mut Vec<Sent>)) -> Result<usize, String> {
    run_attacked(seed, false, tamper)
}

/// The same, with a thief who sends messages meanwhile.
fn run_attacked(seed: u64, is_attacked: bool, tamper: fn(&mut Vec<Sent>)) -> Result<usize, String> {
    let mut fleet = Fleet::new(seed);
    // In few runs there is no message by then, and nothing to tamper with.
    let mut number = 0;
    while number < STEPS || fleet.stream.length() == 0 {
        number += 1;
        if is_attacked && number.is_multiple_of(4) {
            fleet.stream.tamper(attack);
        }
        fleet
            .cluster
            .clock
            .set(TODAY.start().plus(i64::try_from(number).unwrap()));
        fleet.step()?;
    }
    fleet.settle()?;
    fleet.stream.tamper(tamper);
    fleet.count_all();
    fleet.check()?;
    Ok(usize::try_from(fleet.stream.length()).unwrap())
}

#[test]
fn clicks_of_all_boxes_count_once_each() {
    let messages = run_seeds(
        |runs, _| runs >= RUNS,
        |seed| run_one(seed, |_| {}).unwrap_or_else(|error| panic!("seed {seed}: {error}")),
    );
    println!("{messages} messages");
}

/// The last message, as another process of its box would send it.
fn again(messages: &[Sent], process: [u8; 16]) -> Sent {
    let (node, message) = messages.last().unwrap();
    let message = ClickMessage::decode(message).unwrap();
    let at = position_of(&message);
    let source = ClickSource {
        node: node.as_str().into(),
        process,
    };
    let again = ClickMessage::encode(&at, &source, message.counter, message.deltas());
    (node.clone(), again)
}

fn position_of(message: &ClickMessage<'_>) -> crate::store::replication::Position {
    crate::store::replication::Position {
        cluster: message.cluster,
        epoch: message.epoch,
        sequence: message.sequence,
        chain: Default::default(),
        digest: Default::default(),
    }
}

#[test]
fn message_that_is_counted_twice_would_be_found() {
    // The same again changes nothing; the same from another source is counted.
    run_one(1, |messages| messages.push(messages.last().unwrap().clone())).unwrap();
    let found = run_one(1, |messages| messages.push(again(messages, [9; 16])));
    assert!(
        found.as_ref().is_err_and(|error| error.contains("written down")),
        "{found:?}"
    );
}

/// Sends what somebody can who has the key of one box, and knows more of another one than that shows.
fn attack(messages: &mut Vec<Sent>) {
    let Some((node, message)) = messages.iter().rev().find(|(node, _)| node != "stolen").cloned() else {
        return;
    };
    let decoded = ClickMessage::decode(&message).unwrap();
    let at = position_of(&decoded);
    let last_of = |node: &str| {
        let source = ClickSource {
            node: node.into(),
            process: decoded.process,
        };
        ClickMessage::encode(&at, &source, u64::MAX, [].into_iter())
    };
    // Its last message again, one with a counter that none can exceed, in its name and in the thief's, and none.
    let hostile = [
        message.clone(),
        last_of(&node),
        last_of("stolen"),
        b"TC\x09 no message".to_vec(),
    ];
    messages.extend(hostile.map(|message| ("stolen".to_owned(), message)));
}

#[test]
fn messages_of_a_thief_change_no_clicks_of_others() {
    for seed in 1..20 {
        let ran = run_attacked(seed, true, |_| {});
        ran.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn faults_of_a_box_are_summed_up() {
    let fleet = Fleet::new(1);
    let (links, mut senders) = (Arc::clone(&fleet.cluster.members[0].links), ClickSenders::default());
    let flood = vec![("stolen".to_owned(), b"TC\x02 no message".to_vec()); 1_000];
    let counted = links.count_messages(ClickPosition::after(5, 0), flood, u64::MAX, &mut senders);
    block_on(counted).unwrap();
    let faults = ClickFaults {
        passed_over: 1_000,
        reason: Some(ClickError::Malformed),
        missing: 0,
    };
    assert_eq!(senders.take_faults(), BTreeMap::from([("stolen".to_owned(), faults)]));
    assert_eq!(senders.take_faults(), BTreeMap::new());
}

/// Messages that hold up their box: of a newer version, and of an entry that no log has.
#[test]
fn box_that_cannot_be_counted_holds_up_no_other() {
    let fleet = Fleet::new(1);
    fleet.cluster.log.set_faults(None);
    fleet.stream.set_faults(None);
    let id = fleet.cluster.add(0).unwrap().id;
    fleet.cluster.settle().unwrap();
    let (at, log) = (fleet.cluster.members[0].position(), fleet.cluster.log.clone());
    let send = |node: &str, counter: u64, entry: u64| {
        let at = crate::store::replication::Position { sequence: entry, ..at };
        let source = ClickSource {
            node: node.into(),
            process: [7; 16],
        };
        let delta = crate::store::replication::clicks::ClickDelta {
            id,
            usage: Usage {
                clicks: 1,
                previews: 0,
                last_used_at: Some(TODAY.start()),
            },
            day: TODAY,
        };
        ClickMessage::encode(&at, &source, counter, [delta].into_iter())
    };
    let mut newer = send("new", 1, 1);
    newer.truncate(newer.len() - 4);
    newer[2] = 99;
    newer.extend(crate::store::testing::checksum_of(&newer));
    let messages = vec![
        ("new".to_owned(), newer),
        ("ahead".to_owned(), send("ahead", 1, 2)),
        ("good".to_owned(), send("good", 1, 1)),
        ("ahead".to_owned(), send("ahead", 2, 1)),
        ("good".to_owned(), send("good", 2, 1)),
    ];
    let (links, mut held) = (Arc::clone(&fleet.cluster.members[0].links), ClickSenders::default());
    let from = |sequence| ClickPosition::after(5, sequence);
    let clicks = || block_on(links.find_with_usage(id, everybody())).unwrap().1.clicks;
    let count =
        |held: &mut ClickSenders, head| block_on(links.count_messages(from(0), messages.clone(), head, held)).unwrap();
    assert_eq!(count(&mut held, log.entries().len() as u64), (from(5), None));
    assert_eq!((clicks(), held.is_due(1), held.is_due(2)), (2, false, true));
    assert!(held.reason().unwrap().contains("clicks of ahead, and of 1 others"));
    // After a restart, it begins before what was held up, and counts nothing twice.
    let kept = ClickPosition { sequence: 0, ..from(5) };
    assert_eq!(block_on(links.click_position()).unwrap(), Some(kept));
    let mut held = ClickSenders::default();
    count(&mut held, 1);
    assert_eq!(clicks(), 2);
    // Of an entry that the log has, all wait for it.
    let waits = count(&mut ClickSenders::default(), 2);
    assert_eq!(waits.0, from(1));
    fleet.cluster.add(1).unwrap();
    fleet.cluster.settle().unwrap();
    let mut held = ClickSenders::default();
    assert_eq!(count(&mut held, 2), (from(5), None));
    assert_eq!((clicks(), held.is_due(u64::MAX)), (4, false));
}
