//! Instructions a redirect: what tinyd executes in user space for one, counted by valgrind instead of timed, so that a
//! busy machine changes nothing. Fails when one has grown by more than a twentieth.
//!
//! The whole way is counted, from the readiness of the socket to the return from the write: two runs that differ in
//! nothing but the number of requests, divided by that.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::{Value, json};

mod rig;

use crate::rig::http::{GOTO, TINY};
use crate::rig::links::{self, Kind};
use crate::rig::tinyd::{Setup, Tinyd};
use crate::rig::tls::certificate::Certificate;
use crate::rig::tls::client::Client;
use crate::rig::{CargoArgs, interrupt, machine, report, stores};

/// Links in the map: few, so that writing their clicks down every two seconds, on another thread, hardly counts.
const LINKS: u64 = 64;
/// Requests of the shorter run, enough that everything has been done once, and of the longer one.
const REQUESTS: (usize, usize) = (500, 4_500);
/// The same where each waits.
const REQUESTS_APART: (usize, usize) = (100, 1_100);
/// Until the server waits for the next connection: whether it need not, when that comes sooner, would be chance.
const PAUSE: Duration = Duration::from_millis(10);
/// By how much a work may grow before this fails.
const TOLERANCE: f64 = 1.05;
/// How long valgrind may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// So many at a time, on one connection.
    Together(usize),
    /// Each on a connection of its own.
    Apart,
    /// One after the other, on one connection with TLS.
    Secured,
}

/// What is counted: the path before the id, whether there is such a link, how requests are sent, and the instructions a
/// request that were counted when this was last changed: with Rust 1.95 for x86-64, as `.ci/run` builds it, which is
/// without link-time optimisation. With it, they are about a quarter fewer.
const WORKS: [(&str, &str, bool, Manner, f64); 6] = [
    ("goto", GOTO, true, Manner::Together(1), 4_110.0),
    ("goto, 16 pipelined", GOTO, true, Manner::Together(16), 3_260.0),
    ("goto, a new connection", GOTO, true, Manner::Apart, 5_700.0),
    ("goto over TLS", GOTO, true, Manner::Secured, 15_200.0),
    ("hop", TINY, true, Manner::Together(1), 3_480.0),
    ("unknown id", GOTO, false, Manner::Together(1), 4_150.0),
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
    for (name, path, is_known, manner, expected) in WORKS {
        let count = |requests| -> Result<f64> {
            let scratch = machine::scratch()?;
            let data = scratch.path().join("data");
            prepared.copy_to(&data)?;
            let targets: Vec<_> = targets(path, is_known).collect();
            count(&data, scratch.path(), manner, &targets, requests)
        };
        let (few, many) = match manner {
            Manner::Apart => REQUESTS_APART,
            _ => REQUESTS,
        };
        let each = (count(many)? - count(few)?) / (many - few) as f64;
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

/// A path for each of many links, or of ids that no link has.
fn targets(path: &str, is_known: bool) -> impl Iterator<Item = String> {
    let first = if is_known { 0 } else { LINKS };
    (first..first + LINKS).map(move |number| format!("{path}{}", links::id(number)))
}

/// The instructions of a run that answers so many requests.
fn count(data: &Path, scratch: &Path, manner: Manner, targets: &[String], requests: usize) -> Result<f64> {
    let file = scratch.join("instructions");
    let certificate = match manner {
        Manner::Secured => Some(Certificate::new(scratch)?),
        _ => None,
    };
    let mut tinyd = Tinyd::start(Setup {
        counted_in: Some(&file),
        certificate: certificate.as_ref(),
        ..Setup::new(data, scratch)
    })?;
    // Else they would be counted in the longer run, and not in the shorter one.
    tinyd.wait_until_verified()?;
    tinyd.wait_until_journal(data)?;
    let targets: Vec<_> = targets.iter().cycle().take(requests).collect();
    match manner {
        Manner::Together(together) => {
            let mut stream = connect(tinyd.public)?;
            for targets in targets.chunks(together) {
                let request: String = targets.iter().map(|target| request(target, "")).collect();
                stream.write_all(request.as_bytes())?;
                wait_for(&mut stream, targets.len())?;
            }
        }
        Manner::Apart => {
            for target in targets {
                let mut stream = connect(tinyd.public)?;
                stream.write_all(request(target, "Connection: close\r\n").as_bytes())?;
                wait_for(&mut stream, 1)?;
                thread::sleep(PAUSE);
            }
        }
        Manner::Secured => {
            let (certificate, address) = certificate.as_ref().zip(tinyd.secure).context("TLS")?;
            let mut connection = Client::new(certificate)?.connect(address)?;
            for target in targets {
                connection.get(target)?;
            }
        }
    }
    drop(tinyd);
    let log = fs::read_to_string(&file).context("what valgrind has counted")?;
    let counted = log.lines().filter_map(|line| line.split_once("refs:")).next_back();
    let (_, number) = counted.with_context(|| format!("valgrind has not counted:\n{log}"))?;
    Ok(number.trim().replace(',', "").parse()?)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn request(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n{more}\r\n")
}

/// Reads so many answers. Of one that has a body, the head says enough: both are sent together.
fn wait_for(stream: &mut TcpStream, answers: usize) -> Result<()> {
    let (mut buffer, mut received) = (vec![0; 64 * 1024], Vec::new());
    while received.windows(4).filter(|end| end == b"\r\n\r\n").count() < answers {
        let length = stream.read(&mut buffer).context("waiting for an answer")?;
        if length == 0 {
            bail!("the server closed the connection");
        }
        received.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    Ok(())
}
