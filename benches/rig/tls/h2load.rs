//! h2load, which drives servers over HTTP/2, and what it says.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::rig::contest::{Driven, Served};
use crate::rig::machine::{self, Place};
use crate::rig::tls::servers::Server;

const CONNECTIONS: &str = "64";
/// Requests at a time on each connection.
const STREAMS: &str = "10";

/// A server and the paths that it is asked for, one a line of a file.
#[derive(Debug)]
pub(crate) struct Lane<'s> {
    pub(crate) server: &'s Server,
    pub(crate) paths: &'s Path,
}

/// What a run of h2load said.
#[derive(Debug, Default)]
struct Run {
    seconds: f64,
    done: u64,
    succeeded: u64,
    failed: u64,
    redirected: u64,
    is_http2: bool,
}

impl Driven for Lane<'_> {
    fn name(&self) -> &str {
        self.server.kind.name()
    }

    fn process(&self) -> u32 {
        self.server.process.id()
    }

    fn drive(&self, seconds: u64, _seed: u64) -> Result<Served> {
        let mut command = Place::Load.command(machine::require("h2load")?);
        command
            .args(["-t", "1", "-c", CONNECTIONS, "-m", STREAMS])
            .args(["-D", &format!("{seconds}s")])
            .args(["--groups=X25519", "--tls13-ciphers=TLS_AES_256_GCM_SHA384"])
            .args(["--base-uri", &format!("https://{}", self.server.address)])
            .arg("-i")
            .arg(self.paths);
        let output = command.output().context("running h2load")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let run = parse(&text).filter(|_| output.status.success());
        let run = run.with_context(|| format!("h2load failed:\n{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        if !run.is_http2 || run.failed > 0 || run.succeeded != run.done || run.redirected != run.done {
            bail!("not all requests were redirected over HTTP/2: {run:?}");
        }
        Ok(Served {
            requests: run.done,
            seconds: run.seconds,
        })
    }
}

fn parse(text: &str) -> Option<Run> {
    let mut run = Run::default();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("finished in ") {
            run.seconds = rest.split_once("s,")?.0.parse().ok()?;
        } else if let Some(rest) = line.strip_prefix("requests: ") {
            let of = |what| count(rest, what);
            (run.done, run.succeeded) = (of("done")?, of("succeeded")?);
            run.failed = of("failed")? + of("errored")? + of("timeout")?;
        } else if let Some(rest) = line.strip_prefix("status codes: ") {
            run.redirected = count(rest, "3xx")?;
        } else if line == "Application protocol: h2" {
            run.is_http2 = true;
        }
    }
    (run.done > 0).then_some(run)
}

/// The number before a word: 2 of `done` in `3 total, 2 done`.
fn count(counts: &str, what: &str) -> Option<u64> {
    let mut counts = counts.split(", ").filter_map(|part| part.trim().split_once(' '));
    counts.find(|(_, name)| *name == what)?.0.parse().ok()
}
