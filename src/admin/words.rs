//! The status in words, for a terminal and for a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::admin::status::{
    ApplianceStatus, ClusterStatus, ConnectionStatus, EventCounts, FetchStatus, LinksStatus, ProcessStatus, Quantiles,
    Rates, RefusalStatus, StoreStatus, TlsStatus,
};
use crate::model::{Timestamp, grouped, shown};

impl ApplianceStatus {
    /// Names, each with what is said of it. A name that is empty goes on with the one before.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows: Vec<_> = self.cluster.iter().flat_map(cluster).collect();
        rows.extend([
            ("redirects", rates(&self.redirects.per_second)),
            ("", outcomes(&self.redirects.outcomes)),
            ("", quantiles(&self.redirects.durations)),
            ("", format!("answered 503: {}", counts(&self.redirects.failed))),
        ]);
        rows.extend(fetches(&self.fetches));
        rows.extend([
            ("API calls", rates(&self.api.per_second)),
            ("", format!("failed {}", counts(&self.api.failed))),
            ("", format!("refused {}", counts(&self.api.refused))),
            ("refusals", refusals(&self.refusals)),
            ("connections", connections(&self.connections)),
        ]);
        rows.extend(self.tls.iter().flat_map(certificates));
        rows.extend([
            ("commits", rates(&self.store.commits_per_second)),
            ("", quantiles(&self.store.commit_durations)),
            ("store", store(&self.store)),
            ("disk", disk(&self.store)),
            ("links", links(&self.links)),
            ("process", process(&self.process)),
            (
                "last backup",
                self.store
                    .last_backup
                    .map_or_else(|| "never".to_owned(), Timestamp::rfc3339_of),
            ),
        ]);
        rows
    }

    /// How long the appliance has been running, and the time that numbers without one are of.
    pub fn spans(&self) -> [String; 2] {
        [span(self.uptime_seconds), span(self.minutes_seconds)]
    }
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

/// Nothing of a box that is alone.
fn cluster(of: &ClusterStatus) -> Vec<(&'static str, String)> {
    let (role, node, epoch, at) = (&of.role, &of.node, of.epoch, grouped(of.position));
    let mut rows = vec![("cluster", format!("{role} box {node}, at entry {at} of epoch {epoch}"))];
    let missing = of.head.saturating_sub(of.position);
    if let Some(reason) = &of.halted {
        rows.push(("", format!("HALTED: {reason}")));
    } else if missing > 0 {
        let (missing, behind) = (grouped(missing), span(of.behind_seconds));
        rows.push(("", format!("{missing} entries behind, for {behind}")));
    }
    if of.silent_seconds > 0 {
        let silent = span(of.silent_seconds);
        rows.push(("", format!("nothing heard of the log for {silent}")));
    }
    // An edge knows of no other box.
    if !of.boxes.is_empty() {
        rows.push(("boxes", outcomes(&of.boxes)));
        rows.push(("appends", outcomes(&of.appends)));
        rows.push(("", quantiles(&of.append_durations)));
    }
    if let Some(seconds) = of.clock_skew_seconds {
        rows.push(("clock", format!("{seconds:+.3} s against the other admin boxes")));
    }
    rows
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
        let (names, until) = (
            certificate.names.join(" "),
            Timestamp::rfc3339_of(certificate.not_after),
        );
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
    let verified = store
        .verified
        .map_or_else(|| "not yet".to_owned(), Timestamp::rfc3339_of);
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
    if links.search_memory_bytes > 0 {
        let _ = write!(text, "; searches take {}", bytes(links.search_memory_bytes));
    }
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
