//! `tinyd status`: the health of a running server on one screen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

use crate::admin::{
    ApplianceStatus, ConnectionStatus, EventCounts, FetchStatus, LinksStatus, ProcessStatus, Quantiles, Rates,
    RefusalStatus, StoreStatus, TlsStatus,
};
use crate::cli::client::{not_secured, untrusted};
use crate::cli::exit::{CliError, Failure};
use crate::cli::secure::TlsArgs;
use crate::cli::{ConfigArgs, time};
use crate::config::Settings;
use crate::model::grouped;
use crate::model::shown;

const EXAMPLES: &str = "\
Reads the admin listener, without a session. Exits with 0 if the server is
healthy, with 1 and the reasons if not, and with 6 if it cannot be reached.

Examples:
  tinyd status
  tinyd status --config /etc/tinyd/tinyd.toml
  tinyd status --url http://10.0.0.5:8081 --json";

const TIMEOUT: Duration = Duration::from_secs(10);

/// Width of the column with names.
const NAME_WIDTH: usize = 13;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// URL of the admin listener [default: from the configuration]
    #[arg(long, value_name = "URL", env = "TINYD_URL", hide_env_values = true)]
    url: Option<String>,

    #[command(flatten)]
    tls: TlsArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<(), CliError> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => Settings::load(&args.config.overrides())?.admin_url(),
    };
    let url = url.trim_end_matches('/');
    let answer = fetch(&args.tls, url)?;
    if !answer.get("healthy").is_some_and(Value::is_boolean) {
        return Err(not_tinyd(url));
    }
    let status = ApplianceStatus::deserialize(&answer).map_err(|_| not_tinyd(url))?;
    let mut out = io::stdout().lock();
    if args.json {
        // As the server sent it: it may be newer and say more.
        writeln!(out, "{}", shown::json(&answer))?;
    } else {
        out.write_all(shown::lines(&screen(url, &status)).as_bytes())?;
    }
    out.flush()?;
    if status.healthy {
        return Ok(());
    }
    Err(Failure::Other.error(format!("tinyd at {url} is not healthy")))
}

fn fetch(tls: &TlsArgs, url: &str) -> Result<Value, CliError> {
    let response = tls.agent(url, TIMEOUT)?.get(format!("{url}/status")).call();
    let mut response = response.map_err(|error| {
        Failure::Unreachable.error(match untrusted(&error) {
            Some(reason) => not_secured(url, &reason),
            None => format!("cannot reach tinyd at {url}: {error}"),
        })
    })?;
    let body = response.body_mut().read_to_string().map_err(|_| not_tinyd(url))?;
    serde_json::from_str(&body).map_err(|_| not_tinyd(url))
}

fn not_tinyd(url: &str) -> CliError {
    Failure::Unreachable.error(format!("{url} did not answer as tinyd does: is it the admin listener?"))
}

fn screen(url: &str, status: &ApplianceStatus) -> String {
    let mut screen = String::new();
    let verdict = if status.healthy { "healthy" } else { "NOT HEALTHY" };
    let (version, uptime) = (&status.version, span(status.uptime_seconds));
    let _ = writeln!(screen, "{verdict}: tinyd {version} at {url}, up {uptime}");
    let problems = status.problems.iter().map(|text| ("problem", text));
    for (kind, text) in problems.chain(status.hints.iter().map(|text| ("hint", text))) {
        let _ = writeln!(screen, "{kind:NAME_WIDTH$}{text}");
    }
    let minutes = span(status.minutes_seconds);
    let _ = writeln!(screen, "\nNumbers without a time are of the last {minutes}.\n");
    let mut rows = vec![
        ("redirects", rates(&status.redirects.per_second)),
        ("", outcomes(&status.redirects.outcomes)),
        ("", quantiles(&status.redirects.durations)),
        ("", format!("answered 503: {}", counts(&status.redirects.failed))),
    ];
    rows.extend(fetches(&status.fetches));
    rows.extend([
        ("API calls", rates(&status.api.per_second)),
        ("", format!("failed {}", counts(&status.api.failed))),
        ("", format!("refused {}", counts(&status.api.refused))),
        ("refusals", refusals(&status.refusals)),
        ("connections", connections(&status.connections)),
    ]);
    rows.extend(status.tls.iter().flat_map(certificates));
    rows.extend([
        ("commits", rates(&status.store.commits_per_second)),
        ("", quantiles(&status.store.commit_durations)),
        ("store", store(&status.store)),
        ("disk", disk(&status.store)),
        ("links", links(&status.links)),
        ("process", process(&status.process)),
        (
            "last backup",
            status.store.last_backup.map_or_else(|| "never".to_owned(), time::show),
        ),
    ]);
    for (name, text) in rows {
        let _ = writeln!(screen, "{name:NAME_WIDTH$}{text}");
    }
    screen
}

fn bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

/// Seconds in their two largest units.
fn span(all: u64) -> String {
    let (days, hours, minutes, seconds) = (all / 86_400, all / 3_600 % 24, all / 60 % 60, all % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

fn latency(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{seconds:.1} s"),
        1e-3.. => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

fn rates(rates: &Rates) -> String {
    let (seconds, minute, start) = (rates.ten_seconds, rates.minute, rates.start);
    format!("{seconds:.1}/s in 10 s, {minute:.1}/s in a minute, {start:.1}/s since the start")
}

fn outcomes(outcomes: &BTreeMap<String, u64>) -> String {
    let named = outcomes.iter().filter(|(_, number)| **number > 0);
    shown::joined(
        named.map(|(name, number)| format!("{name} {}", grouped(*number))),
        "none yet",
    )
}

/// Nothing without fetches: most servers only redirect.
fn fetches(fetches: &FetchStatus) -> Vec<(&'static str, String)> {
    if fetches.open == 0 && fetches.outcomes.values().all(|number| *number == 0) {
        return Vec::new();
    }
    let (open, ended) = (grouped(fetches.open), outcomes(&fetches.outcomes));
    vec![
        ("fetches", format!("{open} open, ended {}", rates(&fetches.per_second))),
        ("", format!("{ended}; {} passed on", bytes(fetches.bytes))),
    ]
}

fn quantiles(quantiles: &Quantiles) -> String {
    match (quantiles.p50_seconds, quantiles.p99_seconds) {
        (Some(half), Some(most)) => format!("half within {}, 99% within {}", latency(half), latency(most)),
        _ => "none lately".to_owned(),
    }
}

fn counts(counts: &EventCounts) -> String {
    format!(
        "{} ({} since the start)",
        grouped(counts.minutes),
        grouped(counts.start)
    )
}

fn refusals(refusals: &RefusalStatus) -> String {
    let mut text = counts(&refusals.counts);
    for (position, (reason, number)) in refusals.reasons.iter().enumerate() {
        let separator = if position == 0 { ":" } else { "," };
        let _ = write!(text, "{separator} {reason} {}", grouped(*number));
    }
    text
}

fn connections(connections: &ConnectionStatus) -> String {
    let [public, admin] = [("public", &connections.public), ("admin", &connections.admin)]
        .map(|(name, of)| format!("{} {name} open ({} accepted)", grouped(of.open), grouped(of.accepted)));
    format!("{public}, {admin}")
}

fn certificates(tls: &TlsStatus) -> impl Iterator<Item = (&'static str, String)> {
    tls.certificates.iter().map(|certificate| {
        let (names, until) = (certificate.names.join(" "), time::show(certificate.not_after));
        ("certificate", format!("{} {names}, valid until {until}", tls.listener))
    })
}

fn store(store: &StoreStatus) -> String {
    let state = match (store.accepting_writes, store.read_only) {
        (true, _) => "takes writes",
        (false, true) => "read-only",
        (false, false) => "REFUSES WRITES",
    };
    let (queued, failures) = (grouped(store.queued), grouped(store.failures));
    let verified = store.verified.map_or_else(|| "not yet".to_owned(), time::show);
    let mut text = format!("{state}, {queued} queued, failed {failures} times since the start, verified {verified}");
    if store.problems > 0 {
        let _ = write!(text, "; {} PROBLEMS", store.problems);
    }
    text
}

fn disk(store: &StoreStatus) -> String {
    let file = store.file_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    let free = match (store.disk_free_bytes, store.disk_size_bytes) {
        (Some(free), Some(size)) => format!("{} of {} free", bytes(free), bytes(size)),
        _ => "free space unknown".to_owned(),
    };
    format!("store {file}, journal {}, {free}", bytes(store.journal_bytes))
}

fn links(links: &LinksStatus) -> String {
    let [enabled, disabled, deleted, in_memory] =
        [links.enabled, links.disabled, links.deleted, links.in_memory].map(grouped);
    let loading = if links.loaded {
        "in memory"
    } else {
        "so far in memory, LOADING"
    };
    let memory = bytes(links.memory_bytes);
    let mut text = format!(
        "{enabled} enabled, {disabled} disabled, {deleted} deleted; {in_memory} {loading}, which take {memory}"
    );
    if links.damaged > 0 {
        let _ = write!(text, "; {} DAMAGED", grouped(links.damaged));
    }
    text
}

fn process(process: &ProcessStatus) -> String {
    let most = process.open_files_max.map(|most| format!(" (of {})", grouped(most)));
    let most = most.unwrap_or_default();
    let memory = process.resident_bytes;
    let parts = [
        memory.map(|memory| format!("{} of memory", bytes(memory))),
        process
            .open_files
            .map(|files| format!("{} open files{most}", grouped(files))),
        process.threads.map(|threads| format!("{} threads", grouped(threads))),
        process.cpu_seconds.map(|time| format!("{time:.0} s of CPU time")),
    ];
    shown::joined(parts.into_iter().flatten(), "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        for (number, expected) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        for (number, expected) in [(5, "5s"), (65, "1m 5s"), (7_260, "2h 1m"), (90_000, "1d 1h")] {
            assert_eq!(span(number), expected);
        }
        for (number, expected) in [(8.4e-6, "8 µs"), (0.001_25, "1.2 ms"), (2.0, "2.0 s")] {
            assert_eq!(latency(number), expected);
        }
    }

    #[test]
    fn problems_come_first_and_missing_members_are_ignored() {
        let status = r#"{"healthy":false,"problems":["the store refuses writes: full"],"hints":["a hint"]}"#;
        let screen = screen("http://a", &serde_json::from_str(status).unwrap());
        let mut lines = screen.lines();
        assert!(lines.next().unwrap().starts_with("NOT HEALTHY: tinyd  at http://a"));
        assert_eq!(lines.next(), Some("problem      the store refuses writes: full"));
        assert_eq!(lines.next(), Some("hint         a hint"));
        assert!(
            screen.contains("REFUSES WRITES") && screen.contains("last backup  never"),
            "{screen}"
        );
    }

    #[test]
    fn fetches_are_shown_where_there_were_any() {
        let of = |open, numbers: &[(&str, u64)], bytes| FetchStatus {
            open,
            outcomes: numbers
                .iter()
                .map(|(name, number)| ((*name).to_owned(), *number))
                .collect(),
            bytes,
            ..FetchStatus::default()
        };
        assert!(fetches(&FetchStatus::default()).is_empty());
        assert!(fetches(&of(0, &[("complete", 0), ("busy", 0)], 0)).is_empty());
        let lines = fetches(&of(3, &[("complete", 0), ("busy", 12)], 1_536));
        let lines: Vec<_> = lines.into_iter().map(|(_, text)| text).collect();
        assert!(lines[0].starts_with("3 open, ended 0.0/s in 10 s"), "{lines:?}");
        assert_eq!(lines[1..], ["busy 12; 1.5 KiB passed on"]);
        assert_eq!(fetches(&of(1, &[("complete", 0)], 0))[0].0, "fetches");
    }

    #[test]
    fn unknown_numbers_are_not_shown_as_zero() {
        let mut of_store = StoreStatus {
            journal_bytes: 512,
            ..StoreStatus::default()
        };
        assert_eq!(disk(&of_store), "store unknown, journal 512 bytes, free space unknown");
        (of_store.file_bytes, of_store.disk_free_bytes, of_store.disk_size_bytes) = (Some(1), Some(3), Some(4));
        assert_eq!(
            disk(&of_store),
            "store 1 bytes, journal 512 bytes, 3 bytes of 4 bytes free"
        );
        assert_eq!(process(&ProcessStatus::default()), "unknown");
        let some = ProcessStatus {
            open_files: Some(5),
            open_files_max: Some(10),
            threads: Some(3),
            cpu_seconds: Some(1.2),
            ..ProcessStatus::default()
        };
        assert_eq!(process(&some), "5 open files (of 10), 3 threads, 1 s of CPU time");
    }
}
