//! Instructions a redirect: what tinyd executes in user space for one, counted by valgrind instead of timed, so that a
//! busy machine changes nothing. Fails when one has grown by more than a twentieth.
//!
//! The whole way is counted, from the readiness of the socket to the return from the write: two runs that differ in
//! nothing but the number of requests, divided by that.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::{Value, json};

mod rig;

use crate::rig::http::{GOTO, TINY};
use crate::rig::links::{self, Kind};
use crate::rig::tinyd::{Setup, Tinyd};
use crate::rig::{CargoArgs, interrupt, machine, report, stores};

/// Links in the map: few, so that writing their clicks down every two seconds, on another thread, hardly counts.
const LINKS: u64 = 64;
/// Requests of the shorter run: enough that everything has been done once.
const FEW: usize = 500;
/// Requests of the longer run.
const MANY: usize = 4_500;
/// By how much a work may grow before this fails.
const TOLERANCE: f64 = 1.05;
/// How long valgrind may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What is counted: the path before the id, whether there is such a link, requests that are sent together, and the
/// instructions a request that were counted when this was last changed: with Rust 1.95 for x86-64, as `.ci/run`
/// builds it, which is without link-time optimisation. With it, they are about a quarter fewer.
const WORKS: [(&str, &str, bool, usize, f64); 4] = [
    ("goto", GOTO, true, 1, 7_350.0),
    ("goto, 16 pipelined", GOTO, true, 16, 3_130.0),
    ("hop", TINY, true, 1, 6_710.0),
    ("unknown id", GOTO, false, 1, 7_310.0),
];

/// Counts the instructions of a redirect
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    cargo: CargoArgs,
}

fn main() -> Result<ExitCode> {
    if !Args::parse().cargo.is_wanted() {
        return Ok(ExitCode::SUCCESS);
    }
    interrupt::watch()?;
    if machine::find("valgrind").is_none() {
        bail!("valgrind is needed: apt-get install valgrind");
    }
    let prepared = stores::prepared(Kind::Plain, LINKS)?;
    let (mut rows, mut results, mut has_grown) = (Vec::new(), Vec::new(), false);
    for (name, path, is_known, together, expected) in WORKS {
        let count = |requests| -> Result<f64> {
            let scratch = machine::scratch()?;
            let data = scratch.path().join("data");
            prepared.copy_to(&data)?;
            count(&data, scratch.path(), &requests_for(path, is_known, together), requests)
        };
        let each = (count(MANY)? - count(FEW)?) / (MANY - FEW) as f64;
        let ratio = each / expected;
        has_grown |= ratio > TOLERANCE;
        let verdict = match ratio {
            grown if grown > TOLERANCE => "grown",
            shrunk if shrunk < 1.0 / TOLERANCE => "shrunk: write down the new number",
            _ => "as before",
        };
        rows.push(vec![
            name.to_owned(),
            format!("{each:.0}"),
            format!("{expected:.0}"),
            format!("{ratio:.3}"),
            verdict.to_owned(),
        ]);
        results.push(json!({ "work": name, "instructions": each, "expected": expected }));
    }
    report::table(
        "Instructions a request, in user space",
        &["work", "counted", "expected", "ratio", ""],
        rows,
    );
    report::write_json("instructions", &Value::Array(results))?;
    Ok(if has_grown {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Some requests that are sent together, for each of many links.
fn requests_for(path: &str, is_known: bool, together: usize) -> Vec<String> {
    let first = if is_known { 0 } else { LINKS };
    let request = |number: u64| {
        let id = links::id(first + number);
        format!("GET {path}{id} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")
    };
    let numbers: Vec<u64> = (0..LINKS).collect();
    let groups = numbers.chunks(together);
    groups
        .filter(|group| group.len() == together)
        .map(|group| group.iter().map(|&number| request(number)).collect())
        .collect()
}

/// The instructions of a run that answers so many requests.
fn count(data: &Path, scratch: &Path, groups: &[String], requests: usize) -> Result<f64> {
    let file = scratch.join("instructions");
    let mut tinyd = Tinyd::start(Setup {
        counted_in: Some(&file),
        ..Setup::new(data, scratch)
    })?;
    // Else it would be counted in the longer run, and not in the shorter one.
    tinyd.wait_until_verified()?;
    let mut stream = TcpStream::connect(tinyd.public)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let (mut buffer, mut answered) = (vec![0; 64 * 1024], 0);
    for group in groups.iter().cycle() {
        if answered >= requests {
            break;
        }
        let expected = group.matches("\r\n\r\n").count();
        stream.write_all(group.as_bytes())?;
        let mut received = Vec::new();
        while answers(&received) < expected {
            let length = stream.read(&mut buffer).context("waiting for an answer")?;
            if length == 0 {
                bail!("the server closed the connection");
            }
            received.extend_from_slice(buffer.get(..length).unwrap_or_default());
        }
        answered += expected;
    }
    drop(stream);
    drop(tinyd);
    let log = fs::read_to_string(&file).context("what valgrind has counted")?;
    let counted = log.lines().filter_map(|line| line.split_once("refs:")).next_back();
    let (_, number) = counted.with_context(|| format!("valgrind has not counted:\n{log}"))?;
    Ok(number.trim().replace(',', "").parse()?)
}

/// How many answers have come. Of one that has a body, the head says enough: both are sent together.
fn answers(received: &[u8]) -> usize {
    received.windows(4).filter(|end| end == b"\r\n\r\n").count()
}
