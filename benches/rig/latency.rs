//! Latencies of several servers at the same fixed rate, one after another, as a table, JSON and a plot.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::rig::open_loop::{self, PERCENTILES, Plan};
use crate::rig::plot;
use crate::rig::report::{self, say};

/// The percentiles that are drawn.
const DRAWN: [f64; 10] = [50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95];

/// Runs the plan against each server in turn; the plan's own server is not looked at.
pub(crate) fn compare(servers: &[(&str, SocketAddr)], plan: Plan) -> Result<Value> {
    let (mut rows, mut results, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for &(name, server) in servers {
        say(&format!("latency: {name}"));
        let latencies = open_loop::run(Plan { server, ..plan }).with_context(|| format!("latencies of {name}"))?;
        let shown = PERCENTILES
            .iter()
            .map(|(_, percentile)| format!("{:.0}", latencies.microseconds(*percentile)));
        rows.push(
            [
                vec![name.to_owned()],
                shown.collect(),
                vec![latencies.failed.to_string()],
            ]
            .concat(),
        );
        // A percentile p stands at 100 / (100 - p): one request in so many is slower.
        let points = DRAWN.iter().map(|&p| (100.0 / (100.0 - p), latencies.microseconds(p)));
        lines.push(plot::Line {
            name: name.to_owned(),
            points: points.collect(),
        });
        results.push(json!({ "server": name, "latency": latencies.json() }));
    }
    let names: Vec<_> = PERCENTILES.iter().map(|(name, _)| *name).collect();
    let head = [&["server"], names.as_slice(), &["failed"]].concat();
    let rate = plan.requests_a_second;
    let title = format!("Latency at {rate} requests a second");
    report::table(&format!("{title}, µs from when each was due"), &head, rows);
    plot::lines("redirect-latency", &title, "one request in … is slower", "µs", &lines)?;
    Ok(json!({ "requestsPerSecond": rate, "seconds": plan.seconds, "servers": results }))
}
