//! What downloads through `goto` with `proxy=true` cost redirects: latencies alone and beside them, in turns.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::rig::beside::{self, Turns};
use crate::rig::http::{Connection, GOTO};
use crate::rig::open_loop::{self, Latencies, Plan};
use crate::rig::origin::{BODY_BYTES, Downloads, Origin, Source, Speed};
use crate::rig::report::{Goal, Spread, say};
use crate::rig::stores::Prepared;
use crate::rig::tinyd::{Setup, Tinyd};

/// What is compared, and how many times as much it may be.
const GOAL: (&str, f64, f64) = ("p99", 99.0, 1.2);
/// How long downloads go on before redirects are measured: so much is in all buffers then that what comes is what is
/// taken.
const LEAD: Duration = Duration::from_secs(3);
/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    /// Slow downloads at a time.
    pub(crate) slow: usize,
    /// Fast ones.
    pub(crate) fast: usize,
    pub(crate) rounds: u64,
    /// The server of this is not looked at.
    pub(crate) plan: Plan,
}

/// Downloads beside which redirects are measured.
struct Lane {
    source: Source,
    /// How many, or none.
    count: usize,
    speed: Speed,
    turns: Turns,
    /// Bytes a second in each turn.
    rates: Vec<f64>,
}

/// Compares, with an appliance of its own that has the links of a store.
pub(crate) fn compare(comparison: Comparison, store: &Prepared, scratch: &Path) -> Result<(Value, Vec<Goal>)> {
    let Comparison {
        slow,
        fast,
        rounds,
        mut plan,
    } = comparison;
    let origin = Origin::start()?;
    let data = scratch.join("downloads");
    store.copy_to(&data)?;
    let most = 2 * slow.max(fast).max(1);
    let settings = format!(
        "[fetch]\nallow = [\"127.0.0.0/8\"]\nports = [{}]\nmax_fetches = {most}\nmax_fetches_per_client = {most}\n\
         max_bytes = {BODY_BYTES}\n",
        origin.address.port()
    );
    let setup = Setup::new(&data, &data);
    let mut tinyd = Tinyd::start(Setup {
        more: &settings,
        ..setup
    })?;
    plan.server = tinyd.public;
    let through = source(&tinyd, &origin)?;
    let lane = |name: String, source: &Source, speed, count| Lane {
        source: source.clone(),
        count,
        speed,
        turns: Turns::new(name),
        rates: Vec::new(),
    };
    let mut lanes = vec![
        lane("alone".to_owned(), &through, Speed::Slow, 0),
        lane(format!("beside {slow} slow downloads"), &through, Speed::Slow, slow),
        // What they cost without tinyd: origin, clients and load generator share a core.
        lane(
            format!("beside {slow} slow ones past tinyd"),
            &origin.source(),
            Speed::Slow,
            slow,
        ),
        lane(format!("beside {fast} fast downloads"), &through, Speed::Fast, fast),
    ];
    for round in 0..rounds {
        say(&format!("downloads: round {} of {rounds}", round + 1));
        let mut turns: Vec<_> = lanes.iter_mut().collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for lane in turns {
            lane.take_turn(plan).with_context(|| lane.turns.name.clone())?;
            tinyd.wait_until_nobody_is_connected()?;
        }
    }
    let turns: Vec<_> = lanes.iter().map(|lane| &lane.turns).collect();
    show(plan, &lanes);
    let mut goals = vec![beside::none_failed("downloads", &turns)];
    if let [alone, slow, ..] = turns.as_slice() {
        goals.push(slow.goal(alone, GOAL));
    }
    let of_lane = |lane: &Lane| {
        let rate = Spread::of(lane.rates.iter().copied());
        json!({ "latency": lane.turns.json(), "bytesPerSecond": rate })
    };
    let results = json!({
        "requestsPerSecond": plan.requests_a_second,
        "seconds": plan.seconds,
        "lanes": lanes.iter().map(of_lane).collect::<Vec<_>>(),
    });
    Ok((results, goals))
}

/// The links by which tinyd is asked for what the origin has.
pub(crate) fn source(tinyd: &Tinyd, origin: &Origin) -> Result<Source> {
    let session = tinyd.session()?;
    let mut api = Connection::open(tinyd.admin)?;
    let mut add = |target: &str| -> Result<String> {
        let url = origin.url(target);
        let link = [
            ("ks", session.as_str()),
            ("shortLink[systemName]", "DOWNLOAD"),
            ("shortLink[fullUrl]", &url),
        ];
        let added = api.call("add", &link)?;
        let id = added
            .get("id")
            .and_then(Value::as_str)
            .context("a link without an id")?;
        Ok(format!("{GOTO}{id}/proxy/true"))
    };
    let Source { trickle, flood, .. } = origin.source();
    Ok(Source {
        server: tinyd.public,
        trickle: add(&trickle)?,
        flood: add(&flood)?,
    })
}

impl Lane {
    fn take_turn(&mut self, plan: Plan) -> Result<()> {
        let (latencies, rate) = beside::calmest(&self.turns.name, beside::TRIES, || self.try_turn(plan))?;
        self.turns.latencies.push(latencies);
        self.rates.push(rate);
        Ok(())
    }

    /// Latencies and bytes a second.
    fn try_turn(&self, plan: Plan) -> Result<(Latencies, f64)> {
        let downloads = Downloads::start(&self.source, self.count, self.speed)?;
        thread::sleep(LEAD);
        let (before, since) = (downloads.received(), Instant::now());
        let latencies = open_loop::run(plan)?;
        let rate = downloads.flowed(&before, since.elapsed())?;
        Ok((latencies, rate))
    }
}

fn show(plan: Plan, lanes: &[Lane]) {
    let rate = plan.requests_a_second;
    let title = format!("Latency at {rate} redirects a second, µs from when each was due");
    if let [alone, others @ ..] = lanes {
        let others: Vec<_> = others.iter().map(|lane| &lane.turns).collect();
        beside::show(&title, &alone.turns, &others);
    }
    say("");
    for lane in lanes.iter().filter(|lane| lane.count > 0) {
        let rate = Spread::of(lane.rates.iter().map(|rate| rate / 1e6));
        say(&format!("{}: {rate:.1} MB/s", lane.turns.name));
    }
}
