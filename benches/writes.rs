//! Durable adds by client count, of tinyd and of PostgreSQL, in turns.
//!
//! Every add is acknowledged after it is on disk. `cargo bench --bench writes`; `-- --quick` for a look.

mod rig;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::{Value, json};

use rig::disk;
use rig::http::Connection;
use rig::links::DESTINATION_BYTES;
use rig::machine::{self, Place};
use rig::plot;
use rig::postgres::{self, Postgres};
use rig::report::{self, Goal, Spread, say};
use rig::tinyd::{Setup, Tinyd};
use rig::{interrupt, wrk};

/// The number of clients that has a goal.
const GOAL_CLIENTS: u32 = 64;

/// Measures durable adds.
#[derive(Debug, Parser)]
#[command(name = "writes")]
struct Options {
    #[command(flatten)]
    cargo: rig::CargoArgs,

    /// One round of two seconds each
    #[arg(long)]
    quick: bool,

    /// Rounds, in each of which both have their turn
    #[arg(long, default_value_t = 3)]
    rounds: u64,

    /// Seconds of each turn
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Clients that add at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    clients: Vec<u32>,
}

/// What one turn came to.
#[derive(Debug, Clone, Copy)]
struct Turn {
    adds_a_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// The turns of both with one number of clients.
#[derive(Debug)]
struct Row {
    clients: u32,
    tinyd: Vec<Turn>,
    postgres: Vec<Turn>,
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
    machine::require("wrk")?;
    say(&machine::summary());
    let scratch = machine::scratch_for_others()?;
    let kind = disk::file_system(scratch.path())?;
    let appended = disk::syncs_a_second(scratch.path(), false)?;
    let overwritten = disk::syncs_a_second(scratch.path(), true)?;
    say(&format!(
        "disk ({kind}), one thread, {} bytes and fdatasync in turns: {appended:.0}/s appending, \
         {overwritten:.0}/s overwriting",
        disk::SYNCED_BYTES
    ));
    let mut goals = Vec::new();
    let adds = adds(&options, scratch.path(), &mut goals)?;
    let results = json!({
        "disk": { "fileSystem": kind, "appendedSyncsPerSecond": appended, "overwrittenSyncsPerSecond": overwritten },
        "adds": adds,
        "goals": goals,
    });
    report::goals(&goals);
    report::write_json("writes", &results)
}

fn adds(options: &Options, scratch: &Path, goals: &mut Vec<Goal>) -> Result<Value> {
    let data = scratch.join("data");
    // As it runs by default, and as PostgreSQL does: on every core.
    let tinyd = Tinyd::start(Setup {
        place: Place::Anywhere,
        threads: machine::cores(),
        ..Setup::new(&data, scratch)
    })?;
    let most = options.clients.iter().copied().max().unwrap_or(1);
    let postgres = Postgres::start(scratch, most)?;
    if postgres.is_none() {
        say(&format!(
            "PostgreSQL is not installed and left out: {}",
            postgres::INSTALL
        ));
    }
    let script = wrk::adds(scratch, &tinyd.session()?, DESTINATION_BYTES)?;
    let mut rows = Vec::new();
    for &clients in &options.clients {
        let mut row = Row {
            clients,
            tinyd: Vec::new(),
            postgres: Vec::new(),
        };
        for round in 0..options.rounds {
            say(&format!(
                "adds by {clients} clients: round {} of {}",
                round + 1,
                options.rounds
            ));
            // A number that no other run has, so that names are unique.
            let seed = u64::from(clients) * 1_000 + round + 1;
            row.tinyd.push(add(&tinyd, &script, clients, options.seconds, seed)?);
            if let Some(postgres) = &postgres {
                let run = postgres.add(clients, options.seconds)?;
                row.postgres.push(Turn {
                    adds_a_second: run.adds_a_second,
                    p50_ms: run.p50_ms,
                    p99_ms: run.p99_ms,
                });
            }
        }
        if clients == GOAL_CLIENTS && !row.postgres.is_empty() {
            goals.push(Goal::at_least(
                "64 clients add",
                "tinyd / PostgreSQL",
                3.0,
                "",
                row.ratio(),
            ));
        }
        rows.push(row);
    }
    show(&rows)?;
    Ok(rows.iter().map(Row::json).collect())
}

/// One run of wrk, after which as many links must be there as were acknowledged.
fn add(tinyd: &Tinyd, script: &Path, clients: u32, seconds: u64, seed: u64) -> Result<Turn> {
    let session = tinyd.session()?;
    let total = || -> Result<u64> {
        let listed = Connection::open(tinyd.admin)?.call("list", &[("ks", &session), ("pager[pageSize]", "1")])?;
        listed
            .get("totalCount")
            .and_then(Value::as_u64)
            .context("a list without totalCount")
    };
    let before = total()?;
    let url = format!("http://{}", tinyd.admin);
    let run = wrk::run_without_errors(Place::Anywhere, &url, script, clients, seconds, seed)?;
    let stored = total()? - before;
    // Those that were on their way when wrk stopped may be stored as well.
    if !(run.requests..=run.requests + u64::from(clients)).contains(&stored) {
        bail!("tinyd acknowledged {} adds and stored {stored}", run.requests);
    }
    Ok(Turn {
        adds_a_second: run.requests as f64 / run.seconds,
        p50_ms: run.p50_ms,
        p99_ms: run.p99_ms,
    })
}

impl Row {
    fn ratio(&self) -> Spread {
        let pairs = self.tinyd.iter().zip(&self.postgres);
        Spread::of(pairs.map(|(tinyd, postgres)| tinyd.adds_a_second / postgres.adds_a_second))
    }

    fn json(&self) -> Value {
        let of = |turns: &[Turn]| {
            json!({
                "addsPerSecond": spread(turns, |turn| turn.adds_a_second),
                "p50Milliseconds": spread(turns, |turn| turn.p50_ms),
                "p99Milliseconds": spread(turns, |turn| turn.p99_ms),
            })
        };
        json!({ "clients": self.clients, "tinyd": of(&self.tinyd), "postgresql": of(&self.postgres),
            "ratio": self.ratio() })
    }
}

fn spread(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> Spread {
    Spread::of(turns.iter().map(of))
}

fn show(rows: &[Row]) -> Result<()> {
    let shown = |turns: &[Turn]| {
        let rate = spread(turns, |turn| turn.adds_a_second);
        vec![
            format!("{rate:.0}"),
            format!("{:.2}", spread(turns, |turn| turn.p50_ms).median),
            format!("{:.2}", spread(turns, |turn| turn.p99_ms).median),
        ]
    };
    let cells = rows.iter().map(|row| {
        let clients = vec![row.clients.to_string()];
        [
            clients,
            shown(&row.tinyd),
            shown(&row.postgres),
            vec![row.ratio().to_string()],
        ]
        .concat()
    });
    let head = [
        "clients",
        "tinyd adds/s",
        "p50 ms",
        "p99 ms",
        "PostgreSQL adds/s",
        "p50 ms",
        "p99 ms",
        "ratio",
    ];
    report::table("Durable adds: median (min to max) over rounds", &head, cells.collect());
    let line = |name: &str, of: fn(&Row) -> &Vec<Turn>| plot::Line {
        name: name.to_owned(),
        points: rows
            .iter()
            .map(|row| {
                (
                    f64::from(row.clients),
                    spread(of(row), |turn| turn.adds_a_second).median,
                )
            })
            .collect(),
    };
    let lines = [line("tinyd", |row| &row.tinyd), line("PostgreSQL", |row| &row.postgres)];
    plot::lines(
        "writes",
        "Durable adds a second by clients",
        "clients",
        "adds/s",
        &lines,
    )
}
