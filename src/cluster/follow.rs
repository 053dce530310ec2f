//! Following the log: entries are applied as they come, and what was missed is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::FutureExt as _;

use crate::cluster::Role;
use crate::cluster::connection::{Cluster, halted, position};
use crate::cluster::copies::Search;
use crate::cluster::nats::Subscription;
use crate::cluster::watch::{CHECK_INTERVAL, Watcher};
use crate::links::Links;
use crate::store::replication::{ApplyError, Entry, Position};

/// Entries that one transaction applies at most, of those that have come already.
const TOGETHER_MAX: usize = 256;
/// How often an entry that one replica does not have is asked of another.
const REPLICA_ATTEMPTS: usize = 5;

impl Cluster {
    /// Follows the log for as long as this runs.
    pub async fn follow(self: Arc<Self>, links: Arc<Links>) {
        let watcher = Watcher::new(Arc::clone(&self), Arc::clone(&links));
        let follower = Follower {
            cluster: self,
            links,
            copies: Search::default(),
            is_asking: AtomicBool::new(false),
        };
        // Apart, because what applies waits for the writer, and the writer may wait for what watches.
        let cluster = Arc::clone(&follower.cluster);
        tokio::join!(cluster.hear_members(), follower.run(), watcher.run());
    }
}

/// Applies entries.
struct Follower {
    cluster: Arc<Cluster>,
    links: Arc<Links>,
    copies: Search,
    /// While no replica has the next entry.
    is_asking: AtomicBool,
}

impl Follower {
    fn is_admin(&self) -> bool {
        self.cluster.settings.role == Role::Admin
    }

    fn position(&self) -> Option<Position> {
        position(&self.links)
    }

    async fn run(&self) {
        loop {
            match self.cluster.nats.subscribe("live").await {
                Ok(live) => self.apply_from(live).await,
                Err(error) => tracing::debug!(%error, "cannot subscribe yet"),
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// Until the subscription ends.
    async fn apply_from(&self, mut live: Subscription) {
        loop {
            tokio::select! {
                entry = live.next() => match entry {
                    Some(entry) => self.take(entry.to_vec(), &mut live).await,
                    None => return,
                },
                () = self.cluster.behind.notified() => self.catch_up().await,
            }
        }
    }

    /// Applies an entry that has come, with those that have come after it.
    async fn take(&self, entry: Vec<u8>, live: &mut Subscription) {
        let mut entries = vec![entry];
        while entries.len() < TOGETHER_MAX
            && let Some(Some(entry)) = live.next().now_or_never()
        {
            entries.push(entry.to_vec());
        }
        let last = entries.last().and_then(|entry| Entry::decode(entry).ok());
        if let Some(last) = last.map(|entry| entry.position.sequence) {
            self.cluster.heard(None, last);
        }
        match self.links.store().apply(entries).await {
            Err(ApplyError::Gap { .. }) => self.catch_up().await,
            applied => self.applied(&applied),
        }
    }

    fn applied(&self, applied: &Result<Position, ApplyError>) {
        self.cluster.mark_behind(&self.links);
        match applied {
            Ok(_) => self.set_stuck(None),
            // While the store opens itself again, entries wait.
            Err(ApplyError::Unavailable) => {}
            Err(error) => self.set_stuck(Some(error.to_string())),
        }
    }

    fn set_stuck(&self, stuck: Option<String>) {
        self.cluster.state.send_if_modified(|state| {
            let is_new = state.stuck != stuck;
            if let (true, Some(reason)) = (is_new, &stuck) {
                tracing::error!(reason, "cannot follow the log; redirects continue");
            }
            state.stuck = stuck;
            is_new
        });
    }

    /// Reads and applies entries until there are no more.
    async fn catch_up(&self) {
        let nats = &self.cluster.nats;
        let mut ahead = None;
        while let Some(position) = self.position() {
            let read = match ahead.take() {
                Some((after, read)) if after == position.sequence => read,
                _ => nats.read(position.sequence).await,
            };
            let entries = match read {
                Ok(entries) if entries.is_empty() => match self.find(position.sequence + 1).await {
                    Some(entry) => vec![entry],
                    None => return self.start_again(&position).await,
                },
                Ok(entries) => {
                    self.note_asking(position.sequence + 1, false);
                    entries
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read the log");
                    return;
                }
            };
            // The next ones come while the writer applies these.
            let last = position.sequence + entries.len() as u64;
            let reading = async {
                let is_end = self.cluster.state().head.is_none_or(|head| head <= last);
                if is_end {
                    None
                } else {
                    Some((last, nats.read(last).await))
                }
            };
            let (applied, read) = tokio::join!(self.links.store().apply(entries), reading);
            ahead = read;
            self.applied(&applied);
            match applied {
                Ok(after) if after.sequence > position.sequence => self.cluster.heard(None, after.sequence),
                _ => return,
            }
        }
    }

    /// Goes on from a copy if the log does not reach back to this box.
    async fn start_again(&self, position: &Position) {
        let first = self.cluster.state().first;
        let Some(first) = first.filter(|first| *first > position.sequence + 1) else {
            return;
        };
        if !self.copies.is_due(Instant::now()) {
            return;
        }
        // Its own history may be the only copy of what it has acknowledged: salvage writes it.
        if halted(&self.links).is_some() {
            return;
        }
        let own = position.sequence;
        tracing::warn!(
            own,
            first,
            "away for longer than the log reaches: taking a copy of the links"
        );
        match self.copies.replace(&self.cluster, &self.links, first).await {
            Ok(position) => {
                tracing::info!(sequence = position.sequence, "going on from a copy of the links");
                self.set_stuck(None);
            }
            Err(reason) => self.set_stuck(Some(format!(
                "the log begins with entry {first}, and this box has been away since {own}: {reason}"
            ))),
        }
    }

    /// An entry that a replica does not have although the log goes so far: from another, the leader, or an admin box.
    async fn find(&self, sequence: u64) -> Option<Vec<u8>> {
        if self.cluster.state().head.is_none_or(|head| head < sequence) {
            return None;
        }
        for _ in 0..REPLICA_ATTEMPTS {
            if let Ok(mut entries) = self.cluster.nats.read(sequence - 1).await
                && !entries.is_empty()
            {
                self.note_asking(sequence, false);
                return Some(entries.swap_remove(0));
            }
        }
        if self.is_admin()
            && let Ok(Some(entry)) = self.cluster.nats.get(sequence).await
        {
            self.note_asking(sequence, false);
            return Some(entry);
        }
        self.note_asking(sequence, true);
        self.cluster.nats.ask_boxes(sequence, &self.cluster.settings.node).await
    }

    /// Logs when no replica has the next entry, and when one has it again: it is looked at each second.
    fn note_asking(&self, sequence: u64, is_asking: bool) {
        match (self.is_asking.swap(is_asking, Ordering::Relaxed), is_asking) {
            (false, true) => tracing::warn!(sequence, "no replica has an entry of the log; asking the admin boxes"),
            (true, false) => tracing::info!(sequence, "replicas have the entries of the log again"),
            _ => {}
        }
    }
}
