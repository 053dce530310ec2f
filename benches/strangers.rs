//! Latency of redirects beside slow clients, against that without them, in turns.
//!
//! `cargo bench --bench strangers`; `-- --quick` for a look.

mod rig;

use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use serde_json::json;

use rig::links::Kind;
use rig::machine::{self, Place};
use rig::open_loop::{self, Latencies, PERCENTILES, Plan};
use rig::report::{self, Goal, Spread, say};
use rig::slow::SlowClients;
use rig::tinyd::{Setup, Tinyd};
use rig::{http, interrupt, stores};

/// Connections that ask for redirects.
const CONNECTIONS: usize = 64;
/// What is compared, and how many times as much it may be.
const GOALS: [(&str, f64, f64); 2] = [("p50", 50.0, 1.25), ("p99", 99.0, 1.5)];

/// Measures redirects beside slow clients.
#[derive(Debug, Parser)]
#[command(name = "strangers")]
struct Options {
    #[command(flatten)]
    cargo: rig::CargoArgs,

    /// One round of two seconds
    #[arg(long)]
    quick: bool,

    /// Rounds, in each of which redirects are measured without and beside slow clients
    #[arg(long, default_value_t = 5)]
    rounds: u64,

    /// Seconds of each turn
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Redirects a second
    #[arg(long, default_value_t = 2_000)]
    rate: u64,

    /// Seconds that slow clients are at it before redirects are measured; their coming is a flood of requests, not slowness
    #[arg(long, default_value_t = 3)]
    lead: u64,

    /// Links that there are
    #[arg(long, default_value_t = 100_000)]
    links: u64,

    /// Clients that send heads byte by byte, and as many that read byte by byte
    #[arg(long, default_value_t = 1_000)]
    slow: usize,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if !options.cargo.is_wanted() {
        return Ok(());
    }
    if options.quick {
        (options.rounds, options.seconds) = (1, 2);
    }
    interrupt::watch()?;
    say(&machine::summary());
    let scratch = machine::scratch()?;
    let data = scratch.path().join("data");
    stores::prepared(Kind::Plain, options.links)?.copy_to(&data)?;
    let mut tinyd = Tinyd::start(Setup::new(&data, scratch.path()))?;
    let plan = Plan {
        server: tinyd.public,
        links: options.links,
        requests_a_second: options.rate,
        seconds: options.seconds,
        connections: CONNECTIONS,
    };
    let (mut alone, mut beside, mut closed) = (Vec::new(), Vec::new(), 0);
    for round in 0..options.rounds {
        say(&format!("round {} of {}", round + 1, options.rounds));
        alone.push(open_loop::run(plan)?);
        let slow = SlowClients::start(tinyd.public, options.slow, options.slow, Place::Load)?;
        thread::sleep(Duration::from_secs(options.lead));
        beside.push(open_loop::run(plan)?);
        closed += slow.closed();
        drop(slow);
        let admin = tinyd.admin;
        tinyd.process.wait_until(Duration::from_secs(60), || {
            let scrape = http::get(admin, "/metrics")?;
            let text = String::from_utf8(scrape.body)?;
            Ok(text.contains("\ntinyd_connections_open{listener=\"public\"} 0\n"))
        })?;
    }
    show(&options, &alone, &beside, closed)
}

fn show(options: &Options, alone: &[Latencies], beside: &[Latencies], closed: u64) -> Result<()> {
    let spread = |of: &[Latencies], percentile| Spread::of(of.iter().map(|one| one.microseconds(percentile)));
    let ratio = |percentile| {
        let pairs = alone.iter().zip(beside);
        Spread::of(pairs.map(|(alone, beside)| beside.microseconds(percentile) / alone.microseconds(percentile)))
    };
    let rows = PERCENTILES.iter().map(|&(name, percentile)| {
        vec![
            name.to_owned(),
            format!("{:.0}", spread(alone, percentile)),
            format!("{:.0}", spread(beside, percentile)),
            ratio(percentile).to_string(),
        ]
    });
    let (rate, slow) = (options.rate, options.slow);
    let title = format!("Latency at {rate} redirects a second, µs from when each was due");
    let beside_whom = format!("beside {slow} slow heads and {slow} slow reads");
    report::table(&title, &["", "alone", &beside_whom, "ratio"], rows.collect());
    say(&format!("connections of slow clients that the server closed: {closed}"));
    let failed = Spread::of(alone.iter().chain(beside).map(|latencies| latencies.failed as f64));
    let mut goals = vec![Goal::at_most("slow clients", "failed redirects", 0.0, "", failed)];
    for (name, percentile, limit) in GOALS {
        let what = format!("{name} beside / alone");
        goals.push(Goal::at_most("slow clients", &what, limit, "", ratio(percentile)));
    }
    report::goals(&goals);
    let json = |of: &[Latencies]| of.iter().map(Latencies::json).collect::<Vec<_>>();
    let results = json!({ "alone": json(alone), "beside": json(beside), "closed": closed, "goals": goals });
    report::write_json("strangers", &results)
}
