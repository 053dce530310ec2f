//! A box's connection to its cluster, and what it knows of the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};

use crate::cluster::ClusterSettings;
use crate::cluster::log::{Appending, Log};
use crate::cluster::nats::{Connecting, Nats};
use crate::cluster::presence::Members;
use crate::links::Links;
use crate::model::priority;
use crate::store::replication::{ApplyError, Position, ReplicationLog};

/// What a box knows of its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// The number of the last entry, as far as is known.
    pub head: Option<u64>,
    /// The number of the first entry that the servers keep, as far as is known.
    pub first: Option<u64>,
    /// Since when nothing has been heard of the log.
    pub silent_since: Option<Instant>,
    /// Since when this box has fewer entries than the log.
    pub behind_since: Option<Instant>,
    /// Why this box cannot follow.
    pub stuck: Option<String>,
}

/// A box's connection to its cluster. A thread of its own carries it, which ends with it.
#[derive(Debug)]
pub struct Cluster {
    pub(super) settings: ClusterSettings,
    // Dropped in the background, because this may be dropped by a task.
    runtime: Option<Runtime>,
    pub(super) nats: Nats,
    pub(super) members: Arc<Members>,
    pub(super) appending: Appending,
    /// Notified when the log goes further than this box.
    pub(super) behind: Notify,
    pub(super) state: watch::Sender<LogState>,
    /// Clicks and previews of this box that the stream of clicks does not have yet.
    pub(super) clicks_waiting: AtomicU64,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Cluster {
    /// Connects; where there is no server yet, goes on trying.
    pub fn connect(settings: &ClusterSettings) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tinyd-cluster")
            .on_thread_start(|| priority::lower(priority::LOWEST_NICE))
            .enable_all()
            .build()?;
        let nats = runtime
            .block_on(Nats::connect(settings, Connecting::Patiently))
            .map_err(io::Error::other)?;
        Ok(Self {
            settings: settings.clone(),
            runtime: Some(runtime),
            nats,
            members: Arc::default(),
            appending: Appending::default(),
            behind: Notify::new(),
            state: watch::Sender::new(LogState {
                silent_since: Some(Instant::now()),
                ..LogState::default()
            }),
            clicks_waiting: AtomicU64::new(0),
        })
    }

    /// The log, for the writer of the store.
    pub fn log(&self) -> io::Result<Arc<dyn ReplicationLog>> {
        let runtime = self.runtime.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (nats, runtime) = (self.nats.clone(), runtime.handle().clone());
        Ok(Arc::new(Log::new(
            nats,
            &self.settings,
            self.appending.clone(),
            runtime,
        )))
    }

    pub const fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    pub(super) const fn nats(&self) -> &Nats {
        &self.nats
    }

    pub const fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// The log goes so far, and from there where that was said too.
    pub(super) fn heard(&self, first: Option<u64>, last: u64) {
        self.state.send_modify(|state| {
            state.first = first.or(state.first);
            state.head = state.head.max(Some(last));
            state.silent_since = None;
        });
    }

    pub fn state(&self) -> LogState {
        self.state.borrow().clone()
    }
}

/// Why a box has stopped applying the log, for good.
pub fn halted(links: &Links) -> Option<ApplyError> {
    links.store().replicating()?.halted()
}

/// Up to where a box has applied the log.
pub fn position(links: &Links) -> Option<Position> {
    let replicating = links.store().replicating()?;
    Some(*replicating.position().borrow())
}
