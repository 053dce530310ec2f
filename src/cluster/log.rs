//! The log as the writer of the store sees it: each append has an outcome, which is found out with patience.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{timeout, timeout_at};

use crate::cluster::nats::{Nats, NatsError, Published};
use crate::cluster::{ClusterSettings, Reads, Role};
use crate::metrics::{AppendOutcome, Appends};
use crate::store::replication::{Appended, LogHead, ReplicationLog};

/// A read answers 503 then. A new leader is elected within 4 to 6 seconds.
const HEAD_PATIENCE: Duration = Duration::from_secs(6);
/// For one answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// The first pause before a request is sent again; doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(100);
/// A writer gives way for so long to one that was overtaken, so that not always the same one wins.
const GIVING_WAY: Duration = Duration::from_millis(10);

/// Whether entries can be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// By this connection: others may know more after the next one is made.
    Yes {
        connection: u64,
    },
    /// In a moment, which a write waits for; and why not now.
    Soon(String),
    No(String),
}

/// When another box was last overtaken.
#[derive(Debug, Default)]
pub struct Overtaken(Mutex<Option<Instant>>);

impl Overtaken {
    pub fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// For how long to give way, once.
    fn take(&self) -> Option<Duration> {
        let since = self.0.lock().take()?.elapsed();
        GIVING_WAY.checked_sub(since)
    }
}

/// What the writer and those that watch the log tell each other.
#[derive(Debug, Clone)]
pub struct Appending {
    pub writable: Arc<watch::Sender<Writable>>,
    pub overtaken: Arc<Overtaken>,
    /// The last entry that this box has appended without hearing what became of it.
    pub unsure: Arc<Mutex<Option<Bytes>>>,
    pub metrics: Arc<Appends>,
}

impl Default for Appending {
    fn default() -> Self {
        Self {
            writable: Arc::new(watch::Sender::new(Writable::Soon("not connected yet".to_owned()))),
            overtaken: Arc::default(),
            unsure: Arc::default(),
            metrics: Arc::default(),
        }
    }
}

pub struct Log {
    nats: Nats,
    /// Where requests run; the writer's thread waits for them.
    runtime: Handle,
    patience: Duration,
    role: Role,
    node: String,
    appending: Appending,
    /// Whether its last append was overtaken.
    is_behind: AtomicBool,
    reads: Reads,
    /// Reads that wait for the head of the log: one answer is for all that have come before its question.
    heads: mpsc::UnboundedSender<oneshot::Sender<Result<u64, String>>>,
}

/// The number of the last entry, asked again while a leader is elected.
async fn head_of(nats: &Nats, end: Instant) -> Result<u64, String> {
    loop {
        let reason = match timeout(HEAD_TIMEOUT, nats.info()).await {
            Ok(Ok(info)) if info.is_led() => return Ok(info.state.last_seq),
            Ok(Ok(_)) => "the log has no leader that hears a majority of the NATS servers".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer from NATS".to_owned(),
        };
        if Instant::now() >= end {
            return Err(reason);
        }
        tokio::time::sleep(RETRY_MAX).await;
    }
}

async fn ask_for_heads(
    nats: Nats,
    mut waiting: mpsc::UnboundedReceiver<oneshot::Sender<Result<u64, String>>>,
    patience: Duration,
) {
    while let Some(first) = waiting.recv().await {
        let mut asking = vec![first];
        while let Ok(other) = waiting.try_recv() {
            asking.push(other);
        }
        let head = head_of(&nats, Instant::now() + patience).await;
        for one in asking {
            // It may have left.
            drop(one.send(head.clone()));
        }
    }
}

impl Log {
    pub fn new(nats: Nats, settings: &ClusterSettings, appending: Appending, runtime: Handle) -> Self {
        let (heads, waiting) = mpsc::unbounded_channel();
        let patience = settings.write_patience.min(HEAD_PATIENCE);
        runtime.spawn(ask_for_heads(nats.clone(), waiting, patience));
        Self {
            nats,
            runtime,
            node: settings.node.clone(),
            appending,
            is_behind: AtomicBool::new(false),
            reads: settings.reads,
            heads,
            patience: settings.write_patience,
            role: settings.role,
        }
    }

    /// Whether what the log has after an entry is this one; `None` if it has none.
    async fn is_stored(&self, after: u64, entry: &[u8]) -> Result<Option<bool>, NatsError> {
        let stored = self.nats.get(after + 1).await?;
        Ok(stored.map(|stored| stored == entry))
    }

    /// Waits until entries can be appended by the connection that there is, or returns why they cannot.
    async fn wait_until_writable(&self, end: Instant) -> Result<(), String> {
        let mut writable = self.appending.writable.subscribe();
        loop {
            let wait = match &*writable.borrow_and_update() {
                Writable::Yes { connection } if *connection == self.nats.connections() => return Ok(()),
                Writable::Yes { .. } => "asking the other boxes how far they are".to_owned(),
                Writable::Soon(reason) => reason.clone(),
                Writable::No(reason) => return Err(reason.clone()),
            };
            // The sender lives as long as this.
            if timeout_at(end.into(), writable.changed()).await.is_err() {
                return Err(wait);
            }
        }
    }

    async fn append_patiently(&self, after: u64, entry: Bytes) -> Appended {
        let (end, mut pause) = (Instant::now() + self.patience, RETRY_FIRST);
        let mut may_be_stored = false;
        loop {
            if let Err(reason) = self.wait_until_writable(end).await {
                return given_up(may_be_stored, reason);
            }
            let reason = match self.nats.append(after, entry.clone()).await {
                Ok(Published::Stored) => return Appended::Stored,
                Ok(Published::WrongLast(Some(last))) if last < after => {
                    // The log has lost its end, or a leader that was cut off answered before its successor.
                    return Appended::Unknown(format!("a NATS server has {last} entries of the log, not {after}"));
                }
                Ok(Published::WrongLast(Some(_))) if !may_be_stored => return Appended::Overtaken,
                // Another's, or this one's of an earlier attempt; or one that is still on its way.
                Ok(Published::WrongLast(_)) => match self.is_stored(after, &entry).await {
                    Ok(Some(true)) => return Appended::Stored,
                    Ok(Some(false)) => return Appended::Overtaken,
                    Ok(None) => "an entry is on its way".to_owned(),
                    Err(error) => error.to_string(),
                },
                Err(error @ NatsError::Disconnected) => error.to_string(),
                Err(error @ NatsError::Refused { .. }) if !may_be_stored => {
                    return Appended::Refused(error.to_string());
                }
                Err(error) => {
                    may_be_stored = true;
                    *self.appending.unsure.lock() = Some(entry.clone());
                    error.to_string()
                }
            };
            if Instant::now() >= end {
                return given_up(may_be_stored, reason);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn read_patiently(&self, after: u64) -> Result<Vec<Vec<u8>>, String> {
        let (end, mut pause) = (Instant::now() + self.patience, RETRY_FIRST);
        loop {
            let reason = match self.nats.read(after).await {
                Ok(entries) if !entries.is_empty() => return Ok(entries),
                // A replica that is behind.
                Ok(_) => "an entry is on its way".to_owned(),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= end {
                return Err(reason);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

const fn given_up(may_be_stored: bool, reason: String) -> Appended {
    if may_be_stored {
        Appended::Unknown(reason)
    } else {
        Appended::Refused(reason)
    }
}

impl ReplicationLog for Log {
    fn append(&self, after: u64, entry: &[u8]) -> Appended {
        // One that was overtaken itself does not wait.
        if !self.is_behind.load(Ordering::Relaxed)
            && let Some(wait) = self.appending.overtaken.take()
        {
            std::thread::sleep(wait);
        }
        let (since, entry) = (Instant::now(), Bytes::copy_from_slice(entry));
        let appended = self.runtime.block_on(self.append_patiently(after, entry));
        let outcome = match &appended {
            Appended::Stored => AppendOutcome::Stored,
            Appended::Overtaken => AppendOutcome::Overtaken,
            Appended::Refused(_) => AppendOutcome::Refused,
            Appended::Unknown(_) => AppendOutcome::Unknown,
        };
        self.appending.metrics.count(outcome, since.elapsed());
        let is_overtaken = appended == Appended::Overtaken;
        self.is_behind.store(is_overtaken, Ordering::Relaxed);
        if is_overtaken {
            let (nats, node) = (self.nats.clone(), self.node.clone());
            // It is about time only.
            self.runtime
                .spawn(async move { nats.publish("overtaken", node.into_bytes()).await });
        }
        if let Appended::Refused(reason) | Appended::Unknown(reason) = &appended {
            // Until the follower finds it working.
            self.appending.writable.send_replace(Writable::No(reason.clone()));
        }
        appended
    }

    fn read(&self, after: u64) -> Result<Vec<Vec<u8>>, String> {
        self.runtime.block_on(self.read_patiently(after))
    }

    fn head(&self) -> LogHead {
        if self.role == Role::Edge {
            return Box::pin(std::future::ready(Ok(None)));
        }
        let (sender, head) = oneshot::channel();
        // The task ends with the runtime, and then there is no answer.
        let _ = self.heads.send(sender);
        let may_be_old = self.reads == Reads::Available;
        Box::pin(async move {
            match head
                .await
                .unwrap_or_else(|_| Err("the connection has ended".to_owned()))
            {
                Ok(head) => Ok(Some(head)),
                Err(_) if may_be_old => Ok(None),
                Err(reason) => Err(reason),
            }
        })
    }

    fn problem(&self) -> Option<String> {
        match self.role {
            Role::Admin => match &*self.appending.writable.borrow() {
                Writable::No(reason) => Some(reason.clone()),
                Writable::Yes { .. } | Writable::Soon(_) => None,
            },
            Role::Edge => Some("this box is an edge, which takes no writes".to_owned()),
        }
    }

    fn only_follows(&self) -> bool {
        self.role == Role::Edge
    }
}
