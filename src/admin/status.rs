//! `/status`: the health of the appliance as JSON, which `tinyd status` reads, and the rules of what is unhealthy.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::admin::Monitor;
use crate::http::{self, Response};
use crate::metrics::{
    ConnectionsReport, Distribution, FetchOutcome, HISTORY_LENGTH, Listener, RedirectOutcome, Refusal, Report, Sample,
};
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
                "{busy} fetches were refused as too many: fetch.max_fetches, max_fetches_per_client"
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

/// What `/status` answers. Members that another version does not send get their default.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplianceStatus {
    pub healthy: bool,
    /// What is wrong, each with what to do about it.
    pub problems: Vec<String>,
    /// What is worth knowing, and not unhealthy.
    pub hints: Vec<String>,
    pub version: String,
    pub uptime_seconds: u64,
    /// The time that `minutes` and durations cover: the uptime, and [`HISTORY_LENGTH`] at most.
    pub minutes_seconds: u64,
    pub redirects: RedirectStatus,
    pub fetches: FetchStatus,
    pub api: ApiStatus,
    pub refusals: RefusalStatus,
    pub connections: ConnectionStatus,
    pub store: StoreStatus,
    pub links: LinksStatus,
    pub process: ProcessStatus,
}

/// Events a second, on average over each time.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rates {
    pub ten_seconds: f64,
    pub minute: f64,
    pub start: f64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub minutes: u64,
    pub start: u64,
}

/// Upper bounds of the median and the 99th percentile; none without events.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Quantiles {
    pub count: u64,
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedirectStatus {
    pub per_second: Rates,
    pub outcomes: BTreeMap<String, u64>,
    /// Answered 503.
    pub failed: Counts,
    pub durations: Quantiles,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FetchStatus {
    pub per_second: Rates,
    pub outcomes: BTreeMap<String, u64>,
    /// Refused because as many were open as may be.
    pub busy: Counts,
    pub open: u64,
    pub bytes: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiStatus {
    pub per_second: Rates,
    pub refused: Counts,
    /// Failed for a reason of the appliance's.
    pub failed: Counts,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalStatus {
    #[serde(flatten)]
    pub counts: Counts,
    /// By `listener.reason`, those that are not zero.
    pub reasons: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionStatus {
    pub public: ListenerStatus,
    pub admin: ListenerStatus,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    pub open: u64,
    pub accepted: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreStatus {
    pub accepting_writes: bool,
    pub read_only: bool,
    pub reason: Option<String>,
    pub failures: u64,
    pub queued: u64,
    pub commits_per_second: Rates,
    pub commit_durations: Quantiles,
    pub disk_wait_seconds: f64,
    pub file_bytes: Option<u64>,
    pub journal_bytes: u64,
    pub disk_free_bytes: Option<u64>,
    pub disk_size_bytes: Option<u64>,
    /// Unix time, as is `verified`.
    pub last_backup: Option<i64>,
    pub verified: Option<i64>,
    /// Damaged entries that the verification has found.
    pub problems: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinksStatus {
    pub enabled: u64,
    pub disabled: u64,
    pub deleted: u64,
    pub loaded: bool,
    pub load_seconds: Option<f64>,
    pub in_memory: u64,
    pub stored_at_start: u64,
    pub damaged: u64,
    pub memory_bytes: u64,
}

/// What the operating system does not say is null.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessStatus {
    pub resident_bytes: Option<u64>,
    pub open_files: Option<u64>,
    pub open_files_max: Option<u64>,
    pub threads: Option<u64>,
    pub cpu_seconds: Option<f64>,
    /// Unix time.
    pub started_at: i64,
}

/// The answer to a request for `/status`.
pub fn respond(method: &Method, monitor: &Monitor) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return http::allow(method, METHODS);
    }
    let Ok(mut body) = serde_json::to_vec(&describe(monitor)) else {
        return http::answer(StatusCode::INTERNAL_SERVER_ERROR);
    };
    body.push(b'\n');
    let mut response = http::bytes(StatusCode::OK, "application/json", body);
    http::no_store(response.headers_mut());
    response
}

fn describe(monitor: &Monitor) -> ApplianceStatus {
    let (report, links, uptime) = (monitor.report(), monitor.links(), monitor.uptime());
    let now = Sample::new(&report, uptime);
    let before = |age| monitor.history().before(uptime, age);
    let (ten_seconds, minute, minutes) = (before(TEN_SECONDS), before(MINUTE), before(HISTORY_LENGTH));
    let start = Sample::default();
    let state = State {
        report: &report,
        health: links.health(),
        stored: links.stored(),
        busy_fetches: now.busy_fetches.saturating_sub(minutes.busy_fetches),
        now: links.clock().now(),
    };
    let problems = state.problems();
    let rates = |counted: fn(&Sample) -> u64| Rates {
        ten_seconds: rounded(now.rate(&ten_seconds, counted)),
        minute: rounded(now.rate(&minute, counted)),
        start: rounded(now.rate(&start, counted)),
    };
    let counts = |counted: fn(&Sample) -> u64| Counts {
        minutes: counted(&now).saturating_sub(counted(&minutes)),
        start: counted(&now),
    };
    let quantiles = |of: fn(&Sample) -> &Distribution| quantiles(&of(&now).since(of(&minutes)));
    ApplianceStatus {
        healthy: problems.is_empty(),
        problems,
        hints: state.hints(),
        version: report.version.to_owned(),
        uptime_seconds: uptime.as_secs(),
        minutes_seconds: uptime.saturating_sub(minutes.at).as_secs(),
        redirects: RedirectStatus {
            per_second: rates(|sample| sample.redirects),
            outcomes: named(RedirectOutcome::ALL.map(RedirectOutcome::label), report.redirects),
            failed: counts(|sample| sample.failed_redirects),
            durations: quantiles(|sample| &sample.redirect_durations),
        },
        fetches: FetchStatus {
            per_second: rates(|sample| sample.fetches),
            outcomes: named(FetchOutcome::ALL.map(FetchOutcome::label), report.fetches.outcomes),
            busy: counts(|sample| sample.busy_fetches),
            open: report.fetches.open,
            bytes: report.fetches.bytes,
        },
        api: ApiStatus {
            per_second: rates(|sample| sample.calls),
            refused: counts(|sample| sample.refused_calls),
            failed: counts(|sample| sample.failed_calls),
        },
        refusals: RefusalStatus {
            counts: counts(|sample| sample.refusals),
            reasons: refusals(&report.connections),
        },
        connections: connections(&report.connections),
        store: store(
            &report,
            state.health,
            rates(|sample| sample.commits.count()),
            quantiles(|sample| &sample.commits),
        ),
        links: map(&report, state.stored),
        process: process(&report),
    }
}

fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

fn named<const N: usize>(names: [&'static str; N], numbers: [u64; N]) -> BTreeMap<String, u64> {
    names.into_iter().map(str::to_owned).zip(numbers).collect()
}

fn quantiles(of: &Distribution) -> Quantiles {
    let seconds = |share| {
        of.quantile(share)
            .map(|nanoseconds| nanoseconds / NANOSECONDS_IN_A_SECOND)
    };
    Quantiles {
        count: of.count(),
        p50_seconds: seconds(0.5),
        p99_seconds: seconds(0.99),
    }
}

fn refusals(connections: &[ConnectionsReport]) -> BTreeMap<String, u64> {
    let all = connections.iter().flat_map(|of| {
        let counted = Refusal::ALL.into_iter().zip(of.refused);
        counted.map(|(reason, count)| (format!("{}.{}", of.listener.label(), reason.label()), count))
    });
    all.filter(|(_, count)| *count > 0).collect()
}

fn connections(connections: &[ConnectionsReport]) -> ConnectionStatus {
    let mut status = ConnectionStatus::default();
    for of in connections {
        let listener = match of.listener {
            Listener::Public => &mut status.public,
            Listener::Admin => &mut status.admin,
        };
        *listener = ListenerStatus {
            open: of.open,
            accepted: of.accepted,
        };
    }
    status
}

fn store(report: &Report, health: Health, commits_per_second: Rates, commit_durations: Quantiles) -> StoreStatus {
    let store = &report.store;
    let [file_bytes, disk_free_bytes, disk_size_bytes] = store.disk.map_or([None; 3], |disk| disk.map(Some));
    StoreStatus {
        accepting_writes: store.is_accepting,
        read_only: health == Health::ReadOnly,
        reason: match health {
            Health::Refusing(reason) => Some(reason),
            Health::Accepting | Health::ReadOnly => None,
        },
        failures: store.writer.failures,
        queued: store.queued,
        commits_per_second,
        commit_durations,
        disk_wait_seconds: store.writer.waiting.as_secs_f64(),
        file_bytes,
        journal_bytes: store.writer.journal_bytes,
        disk_free_bytes,
        disk_size_bytes,
        last_backup: store.last_backup,
        verified: store.verified,
        problems: store.problems,
    }
}

fn map(report: &Report, stored_at_start: u64) -> LinksStatus {
    let map = &report.map;
    let [disabled, enabled, deleted] = report.store.links.map(|(_, number)| number);
    LinksStatus {
        enabled,
        disabled,
        deleted,
        loaded: map.is_loaded,
        load_seconds: map.load_time.map(|time| time.as_secs_f64()),
        in_memory: map.links,
        stored_at_start,
        damaged: map.damaged,
        memory_bytes: map.bytes,
    }
}

fn process(report: &Report) -> ProcessStatus {
    let process = &report.process;
    ProcessStatus {
        resident_bytes: process.resident_bytes,
        open_files: process.open_fds,
        open_files_max: process.max_fds,
        threads: process.threads,
        cpu_seconds: process.cpu_seconds.map(rounded),
        started_at: process.started_at,
    }
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
