//! What the writer and others know of the replication log.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::store::error::StoreError;
use crate::store::replication::{Appended, ApplyError, Position, ReplicationLog};

/// For entries that are in the log already.
const CURRENT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the writer knows of the log.
pub struct Replicated {
    log: Arc<dyn ReplicationLog>,
    position: watch::Sender<Position>,
    /// Why entries are not applied any more, for good.
    pub halted: Arc<Mutex<Option<ApplyError>>>,
    /// Bytes of entries that are kept, for others that miss them.
    pub kept_max_bytes: u64,
}

/// The same, for others than the writer.
#[derive(Clone)]
pub struct Replicating {
    log: Arc<dyn ReplicationLog>,
    position: watch::Receiver<Position>,
    halted: Arc<Mutex<Option<ApplyError>>>,
}

impl std::fmt::Debug for Replicating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicating").finish_non_exhaustive()
    }
}

impl Replicating {
    pub const fn position(&self) -> &watch::Receiver<Position> {
        &self.position
    }

    /// Why this store has stopped applying entries, for good.
    pub fn halted(&self) -> Option<ApplyError> {
        self.halted.lock().clone()
    }

    /// Whether this store has, with this position, what any has acknowledged before now; if not, waits until it has.
    pub async fn was_current(&self, at: u64) -> Result<bool, StoreError> {
        match self.log.head().await.map_err(StoreError::Log)? {
            Some(head) if at < head => self.wait_for(head).await.map(|()| false),
            _ => Ok(true),
        }
    }

    /// Waits until this store has what any has acknowledged before now.
    pub async fn wait_until_current(&self) -> Result<(), StoreError> {
        match self.log.head().await.map_err(StoreError::Log)? {
            Some(head) => self.wait_for(head).await,
            None => Ok(()),
        }
    }

    async fn wait_for(&self, head: u64) -> Result<(), StoreError> {
        let mut position = self.position.clone();
        let reached = timeout(CURRENT_TIMEOUT, position.wait_for(|position| position.sequence >= head));
        match reached.await {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::Log(format!("this store is behind entry {head}"))),
        }
    }

    /// Whether this store only follows what others write.
    pub fn only_follows(&self) -> bool {
        self.log.only_follows()
    }

    /// Why no change can be made that concerns all stores.
    pub fn problem(&self) -> Option<String> {
        self.halted().map(|why| why.to_string()).or_else(|| self.log.problem())
    }
}

impl Replicated {
    pub fn new(log: Arc<dyn ReplicationLog>, position: Position, kept_max_bytes: u64) -> Self {
        Self {
            log,
            position: watch::Sender::new(position),
            halted: Arc::default(),
            kept_max_bytes,
        }
    }

    pub fn handle(&self) -> Replicating {
        Replicating {
            log: Arc::clone(&self.log),
            position: self.position.subscribe(),
            halted: Arc::clone(&self.halted),
        }
    }

    pub fn position(&self) -> Position {
        *self.position.borrow()
    }

    pub fn reach(&self, position: Position) {
        self.position.send_replace(position);
    }

    pub fn halted(&self) -> Option<ApplyError> {
        self.halted.lock().clone()
    }

    /// Whether this store only follows what others write.
    pub fn only_follows(&self) -> bool {
        self.log.only_follows()
    }

    /// Entries that come next.
    pub fn read(&self) -> Result<Vec<Vec<u8>>, String> {
        self.log.read(self.position().sequence)
    }

    pub fn append(&self, after: u64, entry: &[u8]) -> Appended {
        self.log.append(after, entry)
    }
}
