//! `/status`: how the appliance is, for `tinyd status` and whoever else wants it as JSON; and what counts as ill health.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::admin::Monitor;
use crate::http::{self, Response};
use crate::metrics::{Distribution, FetchOutcome, HISTORY_LENGTH, RedirectOutcome, Refusal, Report, Sample};
use crate::model::Timestamp;
use crate::store::Health;

const METHODS: &str = "GET, HEAD, OPTIONS";

/// Short and long rates.
const TEN_SECONDS: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// How long the disk may take before that is ill health.
const DISK_WAIT_MAX: Duration = Duration::from_secs(10);
/// The share of the disk that should be free, if that is between the bounds: a large disk is not full with some gigabytes left.
const DISK_FREE_SHARE: u64 = 20;
const DISK_FREE_LEAST_BYTES: u64 = 64 * MEBIBYTE;
const DISK_FREE_MOST_BYTES: u64 = 2048 * MEBIBYTE;
const MEBIBYTE: u64 = 1024 * 1024;
/// After so long a backup is asked for.
const BACKUP_AGE_MAX_SECONDS: i64 = 7 * SECONDS_IN_A_DAY;
const SECONDS_IN_A_DAY: i64 = 24 * 60 * 60;

const NANOSECONDS_IN_A_SECOND: f64 = 1e9;

/// What is judged.
struct State<'s> {
    report: &'s Report,
    health: Health,
    /// Links in the store when it was opened.
    stored: u64,
    /// Fetches that were refused in the last minutes because there were too many.
    busy_fetches: u64,
    now: Timestamp,
}

impl State<'_> {
    /// What is wrong, in sentences that say what to do about it where that is not plain.
    fn problems(&self) -> Vec<String> {
        let Report {
            map, store, process, ..
        } = self.report;
        let mut problems = Vec::new();
        if let Health::Refusing(reason) = &self.health {
            problems.push(format!("the store refuses writes: {reason}"));
        }
        if !map.is_loaded {
            let (links, stored) = (map.links, self.stored);
            problems.push(format!("links are still being loaded: {links} of {stored} so far"));
        }
        if map.damaged > 0 {
            let damaged = map.damaged;
            problems.push(format!(
                "{damaged} links cannot be served because their records are damaged: the log names them"
            ));
        }
        if store.problems > 0 {
            let found = store.problems;
            problems.push(format!(
                "verification has found {found} damaged entries in the store: the log names them; restore them from a backup"
            ));
        }
        let waiting = store.writer.waiting;
        if waiting > DISK_WAIT_MAX {
            problems.push(format!(
                "the store has been waiting for its disk for {} seconds",
                waiting.as_secs()
            ));
        }
        if let (Some(open), Some(most)) = (process.open_fds, process.max_fds)
            && open.saturating_mul(10) >= most.saturating_mul(9)
        {
            problems.push(format!(
                "{open} of {most} open files are used up: raise the limit (LimitNOFILE)"
            ));
        }
        if let Some([_, free, total]) = store.disk
            && free < (total / DISK_FREE_SHARE).clamp(DISK_FREE_LEAST_BYTES, DISK_FREE_MOST_BYTES)
        {
            let (free, total) = (free / MEBIBYTE, total / MEBIBYTE);
            problems.push(format!(
                "the disk of the store is nearly full: {free} of {total} MiB are free"
            ));
        }
        problems
    }

    /// What is worth knowing, and no ill health.
    fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        if self.busy_fetches > 0 {
            let busy = self.busy_fetches;
            hints.push(format!(
                "{busy} fetches were refused as too many: proxy.max_fetches, max_fetches_per_client"
            ));
        }
        if self.health == Health::ReadOnly {
            hints.push("read-only: writes are refused, as was asked for".to_owned());
            return hints;
        }
        let store = &self.report.store;
        match store.last_backup {
            None if store.links.iter().any(|(_, links)| *links > 0) => {
                hints.push("no backup has been taken: tinyd backup FILE".to_owned());
            }
            Some(at) if self.now.as_unix() - at > BACKUP_AGE_MAX_SECONDS => {
                let days = (self.now.as_unix() - at) / SECONDS_IN_A_DAY;
                hints.push(format!("the last backup was taken {days} days ago: tinyd backup FILE"));
            }
            _ => {}
        }
        hints
    }
}

/// The answer to a request for `/status`.
pub fn respond(method: &Method, monitor: &Monitor) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return http::allow(method, METHODS);
    }
    let mut body = describe(monitor).to_string();
    body.push('\n');
    let mut response = http::bytes(StatusCode::OK, "application/json", body);
    http::no_store(response.headers_mut());
    response
}

fn describe(monitor: &Monitor) -> Value {
    let (report, links, uptime) = (monitor.report(), monitor.links(), monitor.uptime());
    let now = Sample::new(&report, uptime);
    let before = |age| monitor.history().before(uptime, age);
    let (ten_seconds, minute, minutes, start) = (
        before(TEN_SECONDS),
        before(MINUTE),
        before(HISTORY_LENGTH),
        Sample::default(),
    );
    let state = State {
        report: &report,
        health: links.health(),
        stored: links.stored(),
        busy_fetches: now.busy_fetches.saturating_sub(minutes.busy_fetches),
        now: links.clock().now(),
    };
    let problems = state.problems();
    let rates = |counted: fn(&Sample) -> u64| {
        json!({
            "tenSeconds": rounded(now.rate(&ten_seconds, counted)),
            "minute": rounded(now.rate(&minute, counted)),
            "start": rounded(now.rate(&start, counted)),
        })
    };
    let counts = |counted: fn(&Sample) -> u64| {
        let minutes = counted(&now).saturating_sub(counted(&minutes));
        json!({ "minutes": minutes, "start": counted(&now) })
    };
    let durations = |of: fn(&Sample) -> &Distribution| durations(&of(&now).since(of(&minutes)));
    json!({
        "healthy": problems.is_empty(),
        "problems": problems,
        "hints": state.hints(),
        "version": report.version,
        "uptimeSeconds": uptime.as_secs(),
        // What the numbers of the last minutes are about.
        "minutesSeconds": uptime.saturating_sub(minutes.at).as_secs(),
        "redirects": {
            "perSecond": rates(|sample| sample.redirects),
            "outcomes": named(RedirectOutcome::ALL.map(RedirectOutcome::label), report.redirects),
            "failed": counts(|sample| sample.failed_redirects),
            "durations": durations(|sample| &sample.redirect_durations),
        },
        "fetches": {
            "perSecond": rates(|sample| sample.fetches),
            "outcomes": named(FetchOutcome::ALL.map(FetchOutcome::label), report.fetches.outcomes),
            "busy": counts(|sample| sample.busy_fetches),
            "open": report.fetches.open,
            "bytes": report.fetches.bytes,
        },
        "api": {
            "perSecond": rates(|sample| sample.calls),
            "refused": counts(|sample| sample.refused_calls),
            "failed": counts(|sample| sample.failed_calls),
        },
        "refusals": refusals(&report, counts(|sample| sample.refusals)),
        "connections": connections(&report),
        "store": store(&report, &state.health, rates(|sample| sample.commits.count()), durations(|sample| &sample.commits)),
        "links": map(&report, state.stored),
        "process": process(&report),
    })
}

fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

fn named<const N: usize>(names: [&'static str; N], numbers: [u64; N]) -> Value {
    let members = names.into_iter().zip(numbers);
    members
        .map(|(name, number)| (name.to_owned(), json!(number)))
        .collect::<Map<_, _>>()
        .into()
}

/// Half of all, and all but a hundredth, took at most so long; null if there was none.
fn durations(of: &Distribution) -> Value {
    let seconds = |share| {
        of.quantile(share)
            .map(|nanoseconds| nanoseconds / NANOSECONDS_IN_A_SECOND)
    };
    json!({ "count": of.count(), "p50Seconds": seconds(0.5), "p99Seconds": seconds(0.99) })
}

/// How many there were, and the reasons of which there were any.
fn refusals(report: &Report, mut counts: Value) -> Value {
    let mut reasons = Map::new();
    for of in &report.connections {
        for (reason, count) in Refusal::ALL.into_iter().zip(of.refused).filter(|(_, count)| *count > 0) {
            reasons.insert(format!("{}.{}", of.listener.label(), reason.label()), json!(count));
        }
    }
    if let Value::Object(counts) = &mut counts {
        counts.insert("reasons".to_owned(), reasons.into());
    }
    counts
}

fn connections(report: &Report) -> Value {
    let of_listeners = report.connections.iter();
    let members = of_listeners.map(|of| {
        (
            of.listener.label().to_owned(),
            json!({ "open": of.open, "accepted": of.accepted }),
        )
    });
    members.collect::<Map<_, _>>().into()
}

fn store(report: &Report, health: &Health, commits: Value, durations: Value) -> Value {
    let store = &report.store;
    let [file, free, total] = store.disk.map_or([None; 3], |disk| disk.map(Some));
    let reason = match health {
        Health::Refusing(reason) => Some(reason),
        Health::Accepting | Health::ReadOnly => None,
    };
    json!({
        "acceptingWrites": store.is_accepting,
        "readOnly": *health == Health::ReadOnly,
        "reason": reason,
        "failures": store.writer.failures,
        "queued": store.queued,
        "commitsPerSecond": commits,
        "commitDurations": durations,
        "diskWaitSeconds": store.writer.waiting.as_secs_f64(),
        "fileBytes": file,
        "journalBytes": store.writer.journal_bytes,
        "diskFreeBytes": free,
        "diskSizeBytes": total,
        "lastBackup": store.last_backup,
        "verified": store.verified,
        "problems": store.problems,
    })
}

fn map(report: &Report, stored: u64) -> Value {
    let map = &report.map;
    let mut links = Map::new();
    for (status, number) in report.store.links {
        links.insert(status.to_owned(), json!(number));
    }
    let more = json!({
        "loaded": map.is_loaded,
        "loadSeconds": map.load_time.map(|time| time.as_secs_f64()),
        "inMemory": map.links,
        "storedAtStart": stored,
        "damaged": map.damaged,
        "memoryBytes": map.bytes,
    });
    if let Value::Object(more) = more {
        links.extend(more);
    }
    links.into()
}

/// What is not known is null.
fn process(report: &Report) -> Value {
    let process = &report.process;
    json!({
        "residentBytes": process.resident_bytes,
        "openFiles": process.open_fds,
        "openFilesMax": process.max_fds,
        "threads": process.threads,
        "cpuSeconds": process.cpu_seconds.map(rounded),
        "startedAt": process.started_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{MapReport, Metrics, ProcessReport, StoreReport, WriterReport};

    const NOW: i64 = 1_800_000_000;

    fn well() -> Report {
        let store = StoreReport {
            is_accepting: true,
            links: [("disabled", 0), ("enabled", 3), ("deleted", 0)],
            disk: Some([1_000, 100 * 1024 * MEBIBYTE, 1_000 * 1024 * MEBIBYTE]),
            last_backup: Some(NOW - SECONDS_IN_A_DAY),
            ..StoreReport::default()
        };
        let map = MapReport {
            is_loaded: true,
            links: 3,
            ..MapReport::default()
        };
        let process = ProcessReport {
            cpu_seconds: Some(1.0),
            resident_bytes: Some(1_000),
            virtual_bytes: Some(1_000),
            open_fds: Some(100),
            max_fds: Some(1_024),
            threads: Some(4),
            started_at: 0,
        };
        Report {
            process,
            ..Metrics::default().report(store, map, 0)
        }
    }

    fn state(report: &Report, health: Health) -> (Vec<String>, Vec<String>) {
        let state = State {
            report,
            health,
            stored: 5,
            busy_fetches: 0,
            now: Timestamp::from_unix(NOW),
        };
        (state.problems(), state.hints())
    }

    #[test]
    fn an_appliance_that_does_its_work_is_healthy() {
        let none = (Vec::<String>::new(), Vec::<String>::new());
        assert_eq!(state(&well(), Health::Accepting), none);
        // Nobody needs a backup of nothing.
        let mut empty = well();
        (empty.store.last_backup, empty.store.links) = (None, [("disabled", 0), ("enabled", 0), ("deleted", 0)]);
        assert_eq!(state(&empty, Health::Accepting), none);
        let (problems, hints) = state(&well(), Health::ReadOnly);
        assert!(problems.is_empty() && hints[0].contains("read-only"));
    }

    #[test]
    fn what_is_wrong_is_said_and_why() {
        let changed = |change: fn(&mut Report)| {
            let mut report = well();
            change(&mut report);
            report
        };
        let waiting = |seconds| WriterReport {
            waiting: Duration::from_secs(seconds),
            ..WriterReport::default()
        };
        for (report, problem) in [
            (
                changed(|report| report.map.is_loaded = false),
                "links are still being loaded: 3 of 5 so far",
            ),
            (changed(|report| report.map.damaged = 2), "2 links cannot be served"),
            (changed(|report| report.store.problems = 3), "found 3 damaged entries"),
            (
                Report {
                    store: StoreReport {
                        writer: waiting(11),
                        ..well().store
                    },
                    ..well()
                },
                "waiting for its disk for 11 seconds",
            ),
            (
                changed(|report| report.process.open_fds = Some(922)),
                "922 of 1024 open files",
            ),
            (
                changed(|report| report.store.disk.as_mut().unwrap()[1] = 2_000 * MEBIBYTE),
                "nearly full: 2000 of 1024000 MiB",
            ),
            (
                changed(|report| report.store.disk = Some([1, 40 * MEBIBYTE, 500 * MEBIBYTE])),
                "nearly full: 40 of 500 MiB",
            ),
        ] {
            let (problems, _) = state(&report, Health::Accepting);
            assert!(
                problems.len() == 1 && problems[0].contains(problem),
                "{problem}: {problems:?}"
            );
        }
        let (problems, _) = state(&well(), Health::Refusing("No space left".into()));
        assert_eq!(problems, ["the store refuses writes: No space left"]);
    }

    #[test]
    fn what_is_nearly_wrong_is_not() {
        let mut report = well();
        report.process.open_fds = Some(921);
        report.store.disk = Some([1, 65 * MEBIBYTE, 500 * MEBIBYTE]);
        report.store.writer.waiting = DISK_WAIT_MAX;
        assert!(state(&report, Health::Accepting).0.is_empty());
    }

    #[test]
    fn fetches_that_were_too_many_are_worth_telling_and_no_ill_health() {
        for health in [Health::Accepting, Health::ReadOnly] {
            let state = State {
                report: &well(),
                health,
                stored: 5,
                busy_fetches: 12,
                now: Timestamp::from_unix(NOW),
            };
            assert!(state.problems().is_empty());
            assert!(
                state.hints()[0].starts_with("12 fetches were refused"),
                "{:?}",
                state.hints()
            );
        }
    }

    #[test]
    fn a_backup_is_asked_for_where_there_is_none_or_an_old_one() {
        for (at, hint) in [
            (None, "no backup has been taken"),
            (Some(NOW - 8 * SECONDS_IN_A_DAY), "8 days ago"),
        ] {
            let mut report = well();
            report.store.last_backup = at;
            let (problems, hints) = state(&report, Health::Accepting);
            assert!(problems.is_empty() && hints[0].contains(hint), "{hints:?}");
        }
    }
}
