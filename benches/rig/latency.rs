//! Latencies of several servers at the same fixed rate, in turns, as a table, JSON and a plot.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::rig::beside::Turns;
use crate::rig::open_loop::{self, PERCENTILES, Plan};
use crate::rig::plot;
use crate::rig::report::{self, say};

/// The name of the plot.
pub(crate) const PLOT: &str = "redirect-latency";
/// The percentiles that are drawn.
const DRAWN: [f64; 10] = [50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95];

/// Runs the plan against each server in turns; the plan's own server is not looked at.
pub(crate) fn compare(servers: &[(&str, SocketAddr)], plan: Plan, rounds: u64) -> Result<Value> {
    let mut all: Vec<_> = servers.iter().map(|(name, _)| Turns::new(*name)).collect();
    for round in 0..rounds {
        say(&format!("latency: round {} of {rounds}", round + 1));
        let mut turns: Vec<_> = servers.iter().zip(&mut all).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (&(name, server), turns) in turns {
            let latencies = open_loop::run(Plan { server, ..plan }).with_context(|| format!("latencies of {name}"))?;
            turns.latencies.push(latencies);
        }
    }
    let row = |turns: &Turns| {
        let shown = PERCENTILES
            .iter()
            .map(|(_, percentile)| format!("{:.0}", turns.spread(*percentile)));
        let failed: u64 = turns.latencies.iter().map(|latencies| latencies.failed).sum();
        [vec![turns.name.clone()], shown.collect(), vec![failed.to_string()]].concat()
    };
    // A percentile p stands at 100 / (100 - p): one request in so many is slower.
    let line = |turns: &Turns| plot::Line {
        name: turns.name.clone(),
        points: DRAWN
            .iter()
            .map(|&p| (100.0 / (100.0 - p), turns.spread(p).median))
            .collect(),
    };
    let names: Vec<_> = PERCENTILES.iter().map(|(name, _)| *name).collect();
    let head = [&["server"], names.as_slice(), &["failed"]].concat();
    let rate = plan.requests_a_second;
    let title = format!("Latency at {rate} requests a second");
    report::table(
        &format!("{title}, µs from when each was due: median (min to max) over rounds"),
        &head,
        all.iter().map(row).collect(),
    );
    let lines: Vec<_> = all.iter().map(line).collect();
    plot::lines(PLOT, &title, "one request in … is slower", "µs", &lines)?;
    let results: Vec<_> = all.iter().map(Turns::json).collect();
    Ok(json!({ "requestsPerSecond": rate, "seconds": plan.seconds, "servers": results }))
}
