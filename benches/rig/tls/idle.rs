//! What an idle connection over TLS takes of a server's memory.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::rig::cpu;
use crate::rig::http::GOTO;
use crate::rig::links;
use crate::rig::report::{self, Goal, Spread, say};
use crate::rig::stores;
use crate::rig::tls::client::Client;
use crate::rig::tls::servers::{Kind, Server, Site};

const GOAL_KB: f64 = 24.0;
/// Few: memory that a server has freed after reading many links would be reused, and hide what connections take.
const LINKS: u64 = 1_000;
/// Connections that are opened and closed first: what a server sets up once is no connection's.
const FIRST: u64 = 10;
/// How long a server may take to free what it needs no more.
const SETTLE: Duration = Duration::from_secs(1);
/// Descriptors for all but connections.
const RESERVED: u64 = 128;

/// Raises the limit of descriptors for so many connections, of this process and of servers that it starts.
pub(crate) fn make_room(connections: u64) -> Result<()> {
    let limits = getrlimit(Resource::Nofile);
    let wanted = connections + RESERVED;
    if limits.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limits.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("{connections} connections need {wanted} descriptors; raise `ulimit -Hn`"))
}

/// Compares servers, each started anew in each round, because memory that was freed is there for the next connections.
pub(crate) fn compare(
    work: &str,
    kinds: &[Kind],
    site: &Site<'_>,
    connections: u64,
    rounds: u64,
) -> Result<(Value, Vec<Goal>)> {
    let store = stores::prepared(links::Kind::Plain, LINKS)?;
    let site = Site {
        store: &store,
        links: LINKS,
        ..*site
    };
    let mut measured: Vec<_> = kinds.iter().map(|&kind| (kind, Vec::new())).collect();
    for round in 0..rounds {
        say(&format!("{work}: round {} of {rounds}", round + 1));
        for (kind, samples) in &mut measured {
            let scratch = site.scratch.join(format!("idle-{round}"));
            let kilobytes = measure(*kind, &site, &scratch, connections).with_context(|| kind.name())?;
            samples.push(kilobytes);
        }
    }
    let spreads: Vec<_> = measured
        .iter()
        .map(|(kind, samples)| (kind.name(), Spread::of(samples.iter().copied())))
        .collect();
    let rows = spreads
        .iter()
        .map(|(name, spread)| vec![(*name).to_owned(), format!("{spread:.1}")]);
    let title = format!("{work}: {connections} connections after one redirect each, median (min to max) over rounds");
    report::table(&title, &["server", "KB a connection"], rows.collect());
    let goals = spreads.iter().take(1);
    let goals = goals.map(|(_, spread)| Goal::at_most(work, "memory a connection", GOAL_KB, " KB", *spread));
    let servers = spreads
        .iter()
        .map(|(name, spread)| json!({ "name": name, "kilobytes": spread }));
    let results = json!({ "connections": connections, "servers": servers.collect::<Vec<_>>() });
    Ok((results, goals.collect()))
}

fn measure(kind: Kind, site: &Site<'_>, scratch: &Path, connections: u64) -> Result<f64> {
    let server = kind.start(&Site { scratch, ..*site })?.context("not installed")?;
    let client = Client::new(site.certificate)?;
    let redirected = |number| -> Result<_> {
        let mut connection = client.connect(server.address)?;
        let answer = connection.get(&format!("{GOTO}{}", links::id(number)))?;
        server.verify(&answer, number)?;
        Ok(connection)
    };
    for number in 0..FIRST {
        redirected(number % site.links)?;
    }
    thread::sleep(SETTLE);
    let before = resident_bytes(&server)?;
    let open = (0..connections).map(|number| redirected(number % site.links));
    let mut open = open.collect::<Result<Vec<_>>>()?;
    thread::sleep(SETTLE);
    let after = resident_bytes(&server)?;
    // A connection that the server has closed would take nothing.
    for connection in &mut open {
        let answer = connection.get(&format!("{GOTO}{}", links::id(0)))?;
        server.verify(&answer, 0)?;
    }
    Ok(after.saturating_sub(before) as f64 / connections.max(1) as f64 / 1e3)
}

fn resident_bytes(server: &Server) -> Result<u64> {
    let tree = cpu::tree(server.process.id()).into_iter();
    tree.map(cpu::resident_bytes).sum()
}
