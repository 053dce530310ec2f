//! Latencies of redirects alone and beside each load, in turns, of one or two builds of tinyd; and of the floor beside
//! a tinyd with a heavy load, which tells how much of it is that the cores are busy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::rig::beside::{self, Turns};
use crate::rig::links::Kind;
use crate::rig::loads::{Going, Load, Target};
use crate::rig::open_loop::{self, Latencies, Plan};
use crate::rig::origin::{BODY_BYTES, Origin};
use crate::rig::proxies;
use crate::rig::report::{self, Goal, Spread, say};
use crate::rig::stores;
use crate::rig::tinyd::{Setup, Tinyd};

/// What is compared, and how many times as much it may be.
const GOAL: (&str, f64, f64) = ("p99", 99.0, 1.5);
/// The percentiles that are shown.
const SHOWN: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)];
/// How long after a load the store's file is written, which is not to be in a turn alone.
const SETTLING: Duration = Duration::from_secs(2);

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) loads: Vec<Load>,
    pub(crate) links: u64,
    pub(crate) rounds: u64,
    /// How often a turn is taken at most.
    pub(crate) tries: usize,
    /// Other builds of tinyd, which have their turns too.
    pub(crate) others: Vec<PathBuf>,
    /// The server of this is not looked at.
    pub(crate) plan: Plan,
}

/// A server that is asked for redirects while a tinyd has something to do.
struct Lane<'t> {
    name: String,
    load: Load,
    target: &'t Target,
    asked: SocketAddr,
    alone: Turns,
    beside: Turns,
    rates: Vec<f64>,
}

/// Compares.
pub(crate) fn compare(comparison: &Comparison, scratch: &Path) -> Result<(Value, Vec<Goal>)> {
    let origin = Origin::start()?;
    let mut targets = vec![target(None, comparison, &origin, scratch)?];
    for number in 0..comparison.others.len() {
        targets.push(target(Some(number), comparison, &origin, scratch)?);
    }
    // They are verified at the same time.
    targets
        .iter_mut()
        .try_for_each(|target| target.tinyd.wait_until_verified())?;
    let floor = proxies::floor_beside(scratch, comparison.plan.links)?;
    let mut lanes = Vec::new();
    for &load in &comparison.loads {
        for target in &targets {
            lanes.push(Lane::new(load, target, &target.name, target.tinyd.public));
        }
        if let (true, Some(first)) = (load.is_heavy(), targets.first()) {
            lanes.push(Lane::new(load, first, "the floor", floor.address));
        }
    }
    for round in 0..comparison.rounds {
        say(&format!("beside loads: round {} of {}", round + 1, comparison.rounds));
        for lane in &mut lanes {
            lane.take_turns(comparison, round).with_context(|| lane.name.clone())?;
        }
    }
    show(comparison.plan, &lanes);
    let mut goals: Vec<_> = lanes.iter().map(|lane| lane.beside.goal(&lane.alone, GOAL)).collect();
    let turns: Vec<_> = lanes.iter().flat_map(|lane| [&lane.alone, &lane.beside]).collect();
    goals.push(beside::none_failed("beside loads", &turns));
    let of_lane = |lane: &Lane<'_>| {
        let rate = Spread::of(lane.rates.iter().copied());
        json!({
            "beside": lane.name,
            lane.load.unit(): rate,
            "alone": lane.alone.json(),
            "latency": lane.beside.json(),
        })
    };
    let results = json!({
        "requestsPerSecond": comparison.plan.requests_a_second,
        "seconds": comparison.plan.seconds,
        "lanes": lanes.iter().map(of_lane).collect::<Vec<_>>(),
    });
    Ok((results, goals))
}

/// The own build, or one of the others.
fn target(other: Option<usize>, comparison: &Comparison, origin: &Origin, scratch: &Path) -> Result<Target> {
    let binary = other.and_then(|number| comparison.others.get(number));
    let binary = binary.map(|binary| binary.to_string_lossy().into_owned());
    let name = binary.clone().unwrap_or_else(|| "tinyd".to_owned());
    let data = scratch.join(other.map_or_else(|| "beside".to_owned(), |number| format!("beside-{number}")));
    stores::prepared(Kind::Named, comparison.links)?.copy_to(&data)?;
    let port = origin.address.port();
    let settings = format!("[fetch]\nallow = [\"127.0.0.0/8\"]\nports = [{port}]\nmax_bytes = {BODY_BYTES}\n");
    let mut setup = Setup::new(&data, &data);
    if let Some(binary) = &binary {
        setup.binary = binary;
    }
    let tinyd = Tinyd::start(Setup {
        more: &settings,
        ..setup
    })?;
    Target::new(name, tinyd, comparison.plan.links, &data, origin)
}

impl<'t> Lane<'t> {
    fn new(load: Load, target: &'t Target, server: &str, asked: SocketAddr) -> Self {
        let name = format!("{server} beside {}", load.title());
        Self {
            alone: Turns::new(format!("{name}: alone")),
            beside: Turns::new(name.clone()),
            name,
            load,
            target,
            asked,
            rates: Vec::new(),
        }
    }

    fn take_turns(&mut self, comparison: &Comparison, round: u64) -> Result<()> {
        let plan = Plan {
            server: self.asked,
            ..comparison.plan
        };
        let tries = comparison.tries;
        let (mut alone, mut beside) = (None, None);
        for place in [0, 1] {
            if (place + round).is_multiple_of(2) {
                alone = Some(beside::calmest("alone", tries, || open_loop::run(plan))?);
            } else {
                beside = Some(beside::calmest(&self.name, tries, || self.turn(plan))?);
            }
        }
        if let (Some(alone), Some((latencies, rate))) = (alone, beside) {
            self.alone.latencies.push(alone);
            self.beside.latencies.push(latencies);
            self.rates.push(rate);
        }
        Ok(())
    }

    fn turn(&self, plan: Plan) -> Result<(Latencies, f64)> {
        let going = Going::start(self.load, self.target, Duration::from_secs(plan.seconds))?;
        let latencies = open_loop::run(plan);
        let rate = going.end();
        thread::sleep(SETTLING);
        Ok((latencies?, rate?))
    }
}

fn show(plan: Plan, lanes: &[Lane<'_>]) {
    let mut names = vec!["".to_owned(), "load".to_owned()];
    names.extend(SHOWN.map(|(name, _)| format!("{name} alone")));
    names.extend(SHOWN.map(|(name, _)| format!("{name} beside")));
    names.extend(SHOWN.map(|(name, _)| format!("{name} ratio")));
    names.extend(["alone", "beside"].map(|turns| format!("generator's own p99 {turns}")));
    let row = |lane: &Lane<'_>| {
        let rate = Spread::of(lane.rates.iter().copied()).median;
        let digits = if rate < 100.0 { 1 } else { 0 };
        let mut row = vec![lane.name.clone(), format!("{rate:.digits$} {}", lane.load.unit())];
        for turns in [&lane.alone, &lane.beside] {
            row.extend(SHOWN.map(|(_, percentile)| format!("{:.0}", turns.spread(percentile).median)));
        }
        row.extend(SHOWN.map(|(_, percentile)| lane.beside.ratio_to(&lane.alone, percentile).to_string()));
        row.extend([&lane.alone, &lane.beside].map(|turns| format!("{:.0}", turns.own().median)));
        row
    };
    let rate = plan.requests_a_second;
    let title = format!("Latency at {rate} redirects a second, µs from when each was due (medians of rounds)");
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    report::table(&title, &names, lanes.iter().map(row).collect());
}
