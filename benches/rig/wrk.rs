//! wrk, and the scripts that say what it asks for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::rig::http::{GOTO, TINY};
use crate::rig::machine::{self, Place};

/// What wrk offers to servers over TLS.
const OPENSSL_CONF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/rig/tls/openssl.cnf");

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The next one when the former has been answered.
    KeepAlive,
    /// So many at once.
    Pipelined(usize),
    /// Each on a connection of its own.
    NewConnection,
}

/// What a run of wrk said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Answers of another status than 2xx or 3xx.
    pub(crate) refused: u64,
    /// Connections that failed, reads, writes, timeouts.
    pub(crate) socket_errors: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Writes a script that asks for ids of a file in random order. All requests are made before the first is sent.
pub(crate) fn script(folder: &Path, name: &str, ids: &Path, path: &str, manner: Manner) -> Result<PathBuf> {
    let (batch, close) = match manner {
        Manner::KeepAlive => (1, ""),
        Manner::Pipelined(count) => (count, ""),
        Manner::NewConnection => (1, "wrk.headers[\"Connection\"] = \"close\"\n"),
    };
    let ids = ids.display();
    let text = format!(
        "{close}local requests = {{}}\n\
         function init(args)\n\
           math.randomseed(tonumber(args[1]))\n\
           local ids = {{}}\n\
           for id in io.lines(\"{ids}\") do ids[#ids + 1] = id end\n\
           for i = #ids, 2, -1 do\n\
             local j = math.random(i)\n\
             ids[i], ids[j] = ids[j], ids[i]\n\
           end\n\
           for first = 1, #ids - {batch} + 1, {batch} do\n\
             local parts = {{}}\n\
             for i = first, first + {batch} - 1 do parts[#parts + 1] = wrk.format(\"GET\", \"{path}\" .. ids[i]) end\n\
             requests[#requests + 1] = table.concat(parts)\n\
           end\n\
         end\n\
         function request() return requests[math.random(#requests)] end\n"
    );
    written(folder, name, &text)
}

/// The same for goto.
pub(crate) fn goto(folder: &Path, name: &str, ids: &Path, manner: Manner) -> Result<PathBuf> {
    script(folder, name, ids, GOTO, manner)
}

/// The same for `/tiny`.
pub(crate) fn tiny(folder: &Path, name: &str, ids: &Path) -> Result<PathBuf> {
    script(folder, name, ids, TINY, Manner::KeepAlive)
}

/// Writes a script that adds links, each with a system name and a destination of its own.
pub(crate) fn adds(folder: &Path, session: &str, destination_bytes: usize) -> Result<PathBuf> {
    let text = format!(
        "local run, number, seed = \"\", 0, 0\n\
         function init(args)\n\
           run = args[1]\n\
           math.randomseed(tonumber(args[1]))\n\
           wrk.method = \"POST\"\n\
           wrk.headers[\"Content-Type\"] = \"application/x-www-form-urlencoded\"\n\
         end\n\
         function request()\n\
           number = number + 1\n\
           local url = string.format(\"https://video.example.com/watch/%s-%d?token=\", run, number)\n\
           while #url < {destination_bytes} do\n\
             url = url .. string.format(\"%08x\", math.random(0, 2147483647))\n\
           end\n\
           url = string.sub(url, 1, {destination_bytes})\n\
           local body = \
           string.format(\"format=1&ks={session}&shortLink[systemName]=BENCH-%s-%d&shortLink[fullUrl]=%s\",\n\
             run, number, (string.gsub(string.gsub(url, \"?\", \"%%3F\"), \"=\", \"%%3D\")))\n\
           return wrk.format(nil, \"/api_v3/service/shortlink_shortlink/action/add\", nil, body)\n\
         end\n"
    );
    written(folder, "adds", &text)
}

fn written(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = folder.join(format!("{name}.lua"));
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// Has wrk drive a server from the load generator's core.
pub(crate) fn run(place: Place, url: &str, script: &Path, connections: u32, seconds: u64, seed: u64) -> Result<Run> {
    let mut command = place.command(machine::require("wrk")?);
    command
        .env("OPENSSL_CONF", OPENSSL_CONF)
        .args([
            "-t",
            "1",
            "-c",
            &connections.to_string(),
            "-d",
            &format!("{seconds}s"),
            "--latency",
            "--timeout",
            "10s",
        ])
        .arg("-s")
        .arg(script)
        .arg(url)
        // A number of its own in each run, which adds put into what they add.
        .args(["--", &seed.to_string()]);
    let output = command.output().context("running wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let run = parse(&text).filter(|_| output.status.success());
    run.with_context(|| format!("wrk failed:\n{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// A run in which every answer was a redirect or a result.
pub(crate) fn run_without_errors(
    place: Place,
    url: &str,
    script: &Path,
    connections: u32,
    seconds: u64,
    seed: u64,
) -> Result<Run> {
    let run = run(place, url, script, connections, seconds, seed)?;
    if run.refused + run.socket_errors > 0 {
        bail!(
            "{url}: {} refused answers and {} socket errors in {run:?}",
            run.refused,
            run.socket_errors
        );
    }
    Ok(run)
}

fn parse(text: &str) -> Option<Run> {
    let mut run = Run::default();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_ascii_whitespace();
        if let Some((requests, rest)) = line.split_once(" requests in ") {
            run.requests = requests.trim().parse().ok()?;
            run.seconds = milliseconds(rest.split(',').next()?)? / 1e3;
        } else if let Some(errors) = line.strip_prefix("Socket errors: ") {
            let counts = errors
                .split(", ")
                .filter_map(|part| part.rsplit(' ').next()?.parse::<u64>().ok());
            run.socket_errors = counts.sum();
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses: ") {
            run.refused = count.parse().ok()?;
        } else {
            match words.next() {
                Some("50%") => run.p50_ms = milliseconds(words.next()?)?,
                Some("99%") => run.p99_ms = milliseconds(words.next()?)?,
                _ => {}
            }
        }
    }
    (run.requests > 0).then_some(run)
}

/// A time as wrk writes it: `812.00us`, `1.23ms`, `2.00s`, `1.10m`.
fn milliseconds(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|end: char| end.is_ascii_alphabetic());
    let scale = match text.get(number.len()..)? {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}
