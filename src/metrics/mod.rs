//! What the appliance counts of itself, in plain atomics that every room may count into.
//!
//! Knows no links and no requests. No address, ID, URL, user, partner or session ever comes here: labels are words of
//! this room, names of actions, and the names and files of certificates.

mod calls;
mod cluster;
mod connections;
mod prometheus;
mod fetches;
mod histogram;
mod history;
mod labels;
mod number;
mod orders;
mod process;
mod redirects;
mod report;
mod session_starts;
mod store;

use std::sync::Arc;

pub use calls::{ActionName, Calls, SessionFailure, UNKNOWN_ACTION};
pub use cluster::{AdminBoxReport, AppendOutcome, Appends, ClusterReport, MemberState};
pub use connections::{Connections, ConnectionsReport, Handshake, Listener, OpenConnection, Refusal};
pub use fetches::{FetchOutcome, Fetches, OpenFetch};
pub use histogram::{Distribution, NANOSECONDS_IN_A_SECOND};
pub use history::{HISTORY_LENGTH, History, SAMPLE_INTERVAL, Sample};
pub use number::{Counter, Gauge};
pub use orders::{AcmeReport, OrderOutcome, Orders};
pub use process::ProcessReport;
pub use prometheus::Exposition;
pub use redirects::{RedirectCounts, RedirectOutcome, ThreadRedirects};
pub use report::{CertificateReport, MapReport, Report, StoreReport, TlsReport};
pub use session_starts::{SessionStartCounters, StartCounts, StartMethod, StartOutcome};
pub use store::StoreMetrics;
#[cfg(test)]
pub use store::WriterReport;

#[derive(Debug, Default)]
pub struct Metrics {
    pub redirects: RedirectCounts,
    pub calls: Calls,
    pub fetches: Arc<Fetches>,
    /// Of certificates.
    pub orders: Arc<Orders>,
    pub session_starts: Arc<SessionStartCounters>,
    public: Arc<Connections>,
    admin: Arc<Connections>,
}

impl Metrics {
    pub const fn connections(&self, listener: Listener) -> &Arc<Connections> {
        match listener {
            Listener::Public => &self.public,
            Listener::Admin => &self.admin,
        }
    }

    /// Counts a connection or a request that was refused, or a connection that was closed for a reason of ours.
    pub fn refused(&self, listener: Listener, refusal: Refusal) {
        self.connections(listener).refused(refusal);
    }
}
