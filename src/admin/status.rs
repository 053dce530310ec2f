//! `/status`: the health of the appliance as JSON, which `tinyd status` reads, and the rules of what is unhealthy.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::admin::Monitor;
use crate::admin::health::State;
use crate::http::{self, Response};
use crate::metrics::{
    AppendOutcome, CertificateReport, ClusterReport, ConnectionsReport, Distribution, FetchOutcome, HISTORY_LENGTH,
    MemberState, NANOSECONDS_IN_A_SECOND, RedirectOutcome, Refusal, Report, Sample, TlsReport,
};
use crate::store::Health;

const TEN_SECONDS: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

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
    /// Listeners with TLS.
    pub tls: Vec<TlsStatus>,
    pub store: StoreStatus,
    pub links: LinksStatus,
    pub process: ProcessStatus,
    /// `None`: this box is alone.
    pub cluster: Option<ClusterStatus>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    pub role: String,
    pub node: String,
    pub epoch: u32,
    /// The last entry of the log that this box has.
    pub position: u64,
    /// The last entry of the log, as far as is known.
    pub head: u64,
    pub behind_seconds: u64,
    pub silent_seconds: u64,
    pub halted: Option<String>,
    /// Of an admin box, as are those below.
    pub refused: Option<String>,
    pub boxes: BTreeMap<String, u64>,
    pub appends: BTreeMap<String, u64>,
    pub append_durations: Quantiles,
    pub clock_skew_seconds: Option<f64>,
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
pub struct EventCounts {
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
    pub failed: EventCounts,
    pub durations: Quantiles,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FetchStatus {
    pub per_second: Rates,
    pub outcomes: BTreeMap<String, u64>,
    /// Refused because as many were open as may be.
    pub busy: EventCounts,
    pub open: u64,
    pub bytes: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiStatus {
    pub per_second: Rates,
    pub refused: EventCounts,
    /// Failed for a reason of the appliance's.
    pub failed: EventCounts,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalStatus {
    #[serde(flatten)]
    pub counts: EventCounts,
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
pub struct TlsStatus {
    pub listener: String,
    /// Why the files of certificates as they are now are not used.
    pub problem: Option<String>,
    pub certificates: Vec<CertificateStatus>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    pub file: String,
    pub names: Vec<String>,
    /// Unix time, both.
    pub not_before: i64,
    pub not_after: i64,
    /// What clients will object to.
    pub faults: Vec<String>,
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
    pub search_memory_bytes: u64,
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

pub fn respond(monitor: &Monitor) -> Response {
    let Ok(mut body) = serde_json::to_vec(&describe(monitor)) else {
        return http::answer(StatusCode::INTERNAL_SERVER_ERROR);
    };
    body.push(b'\n');
    http::bytes(StatusCode::OK, "application/json", body)
}

pub(super) fn describe(monitor: &Monitor) -> ApplianceStatus {
    let (report, links, uptime) = (monitor.report(), &monitor.links, monitor.uptime());
    let now = Sample::new(&report, uptime);
    let before = |age| monitor.history.before(uptime, age);
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
    let counts = |counted: fn(&Sample) -> u64| EventCounts {
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
            outcomes: named(RedirectOutcome::labelled(report.redirects)),
            failed: counts(|sample| sample.failed_redirects),
            durations: quantiles(|sample| &sample.redirect_durations),
        },
        fetches: FetchStatus {
            per_second: rates(|sample| sample.fetches),
            outcomes: named(FetchOutcome::labelled(report.fetches.outcomes)),
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
        tls: report.tls.iter().map(tls).collect(),
        store: store(
            &report,
            state.health,
            rates(|sample| sample.commits.count()),
            quantiles(|sample| &sample.commits),
        ),
        links: map(&report, state.stored),
        process: process(&report),
        cluster: report.cluster.as_ref().map(cluster),
    }
}

fn cluster(report: &ClusterReport) -> ClusterStatus {
    let status = ClusterStatus {
        role: report.role.to_owned(),
        node: report.node.clone(),
        epoch: report.epoch,
        position: report.position,
        head: report.head,
        behind_seconds: report.behind.as_secs(),
        silent_seconds: report.silent.as_secs(),
        halted: report.halted.clone(),
        ..ClusterStatus::default()
    };
    match &report.admin {
        None => status,
        Some(admin) => ClusterStatus {
            refused: admin.refused.clone(),
            boxes: named(MemberState::labelled(admin.boxes)),
            appends: named(AppendOutcome::labelled(admin.appends.outcomes)),
            append_durations: quantiles(&admin.appends.durations),
            clock_skew_seconds: admin.skew.map(|milliseconds| milliseconds as f64 / 1e3),
            ..status
        },
    }
}

fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

fn named(numbers: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    numbers.map(|(name, number)| (name.to_owned(), number)).collect()
}

fn quantiles(of: &Distribution) -> Quantiles {
    let seconds = |share| of.quantile(share).map(|time| time / NANOSECONDS_IN_A_SECOND);
    Quantiles {
        count: of.count(),
        p50_seconds: seconds(0.5),
        p99_seconds: seconds(0.99),
    }
}

fn refusals(connections: &[ConnectionsReport]) -> BTreeMap<String, u64> {
    let all = connections.iter().flat_map(|of| {
        let counted = Refusal::labelled(of.refused);
        counted.map(|(reason, count)| (format!("{}.{reason}", of.listener.label()), count))
    });
    all.filter(|(_, count)| *count > 0).collect()
}

/// In the order of `Listener::ALL`.
fn connections(connections: &[ConnectionsReport; 2]) -> ConnectionStatus {
    let [public, admin] = connections.each_ref().map(|of| ListenerStatus {
        open: of.open,
        accepted: of.accepted,
    });
    ConnectionStatus { public, admin }
}

fn tls(report: &TlsReport) -> TlsStatus {
    let certificate = |of: &CertificateReport| CertificateStatus {
        file: of.file.clone(),
        names: of.names.clone(),
        not_before: of.not_before,
        not_after: of.not_after,
        faults: of.faults.clone(),
    };
    TlsStatus {
        listener: report.listener.label().to_owned(),
        problem: report.problem.clone(),
        certificates: report.certificates.iter().map(certificate).collect(),
    }
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
        search_memory_bytes: map.search_bytes,
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
