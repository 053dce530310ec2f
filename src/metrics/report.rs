//! All numbers as they are at one moment.

use std::time::Duration;

use crate::metrics::calls::ActionReport;
use crate::metrics::connections::{ConnectionsReport, Listener};
use crate::metrics::fetches::FetchesReport;
use crate::metrics::histogram::Distribution;
use crate::metrics::process::ProcessReport;
use crate::metrics::redirects::RedirectOutcome;
use crate::metrics::store::WriterReport;
use crate::metrics::{AcmeReport, ClusterReport, Metrics, SessionFailure, StartCounts};

#[derive(Debug, Clone, Default)]
pub struct StoreReport {
    pub writer: WriterReport,
    pub is_accepting: bool,
    /// Whether it was opened never to take any.
    pub is_read_only: bool,
    pub queued: u64,
    /// Links by the name of their status.
    pub links: [(&'static str, u64); 3],
    /// Bytes of its file, free bytes and size of its disk; `None` if unknown.
    pub disk: Option<[u64; 3]>,
    /// In seconds since 1970, as is `verified`.
    pub last_backup: Option<i64>,
    pub verified: Option<i64>,
    pub problems: u64,
    /// Clicks and previews that could not be counted.
    pub dropped_clicks: u64,
}

#[derive(Debug, Clone, Default)]
pub struct MapReport {
    /// Whether every link of the store is in it.
    pub is_loaded: bool,
    pub load_time: Option<Duration>,
    pub links: u64,
    pub damaged: u64,
    pub bytes: u64,
    /// What searches of the console keep beside it.
    pub search_bytes: u64,
}

/// TLS of a listener.
#[derive(Debug, Clone)]
pub struct TlsReport {
    pub listener: Listener,
    /// Why the files as they are now are not used.
    pub problem: Option<String>,
    /// How often files could not be used.
    pub failures: u64,
    pub certificates: Vec<CertificateReport>,
}

/// A certificate that is served.
#[derive(Debug, Clone)]
pub struct CertificateReport {
    pub file: String,
    pub names: Vec<String>,
    /// In seconds since 1970, both.
    pub not_before: i64,
    pub not_after: i64,
    /// What clients will object to.
    pub faults: Vec<String>,
}

impl CertificateReport {
    /// The name that it is known by.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// Counts by label are in the order of the label's `ALL`, durations in nanoseconds.
#[derive(Debug, Clone)]
pub struct Report {
    pub version: &'static str,
    pub redirects: [u64; RedirectOutcome::ALL.len()],
    pub redirect_durations: Distribution,
    pub fetches: FetchesReport,
    pub connections: [ConnectionsReport; 2],
    pub tls: Vec<TlsReport>,
    pub orders: AcmeReport,
    pub actions: Vec<ActionReport>,
    pub session_failures: [u64; SessionFailure::ALL.len()],
    pub session_starts: StartCounts,
    pub store: StoreReport,
    pub map: MapReport,
    /// `None`: this box is alone.
    pub cluster: Option<ClusterReport>,
    pub process: ProcessReport,
}

impl Metrics {
    /// What has been counted so far, beside what others know.
    pub fn report(&self, store: StoreReport, map: MapReport, started_at: i64) -> Report {
        let (redirects, redirect_durations) = self.redirects.read();
        Report {
            version: env!("CARGO_PKG_VERSION"),
            redirects,
            redirect_durations,
            fetches: self.fetches.read(),
            connections: Listener::ALL.map(|listener| self.connections(listener).read(listener)),
            tls: Vec::new(),
            orders: self.orders.read(),
            actions: self.calls.read(),
            session_failures: self.calls.session_failures(),
            session_starts: self.session_starts.read(),
            store,
            map,
            cluster: None,
            process: ProcessReport::read(started_at),
        }
    }
}
