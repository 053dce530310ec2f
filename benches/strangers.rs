//! Latency of redirects beside slow clients, against that without them, in turns.
//!
//! `cargo bench --bench strangers`; `-- --quick` for a look.

mod rig;

use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use serde_json::json;

use rig::beside::{self, Turns};
use rig::links::Kind;
use rig::machine::{self, Place};
use rig::open_loop::{self, Plan};
use rig::report::{self, say};
use rig::slow::SlowClients;
use rig::tinyd::{Setup, Tinyd};
use rig::{interrupt, stores};

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

    /// Seconds that slow clients are at it before redirects are measured; their coming is a flood of requests, not
    /// slowness
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
    let slow = options.slow;
    let mut alone = Turns::new("alone");
    let mut beside = Turns::new(format!("beside {slow} slow heads and {slow} slow reads"));
    let mut closed = 0;
    for round in 0..options.rounds {
        say(&format!("round {} of {}", round + 1, options.rounds));
        alone.latencies.push(open_loop::run(plan)?);
        let slow = SlowClients::start(tinyd.public, slow, slow, Place::Load)?;
        thread::sleep(Duration::from_secs(options.lead));
        beside.latencies.push(open_loop::run(plan)?);
        closed += slow.closed();
        drop(slow);
        tinyd.wait_until_nobody_is_connected()?;
    }
    let title = format!(
        "Latency at {} redirects a second, µs from when each was due",
        options.rate
    );
    beside::show(&title, &alone, &[&beside]);
    say(&format!("connections of slow clients that the server closed: {closed}"));
    let mut goals = vec![beside::none_failed("slow clients", &[&alone, &beside])];
    goals.extend(GOALS.map(|goal| beside.goal(&alone, goal)));
    report::goals(&goals);
    let results = json!({ "alone": alone.json(), "beside": beside.json(), "closed": closed, "goals": goals });
    report::write_json("strangers", &results)
}
