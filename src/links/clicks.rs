//! Counting clicks. Each thread records its own; they are gathered into one table, and written to the store every
//! [`FLUSH_INTERVAL`]: what a crash can lose. A drain writes them all.
//!
//! What is recorded is a count to add to what the store has, so a reader adds what is pending to what its snapshot
//! has. While a flush goes on, a total may lack that flush for a moment; it is never too high.
//!
//! A flush is sorted by id, so that neighbours are written into one page together, and goes in batches, so that other
//! writes do not wait long. Recording takes a lock that only its thread wants but for a moment, and allocates nothing
//! unless links are used in hundreds at a time.

use std::collections::VecDeque;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures_util::future::{Either, select};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Notify};
use tokio::time::MissedTickBehavior;

use crate::links::Links;
use crate::model::{LinkId, Timestamp, Usage, Visit};
use crate::store::replication::{CLICK_MESSAGE_MAX_LINKS, ClickSource};
use crate::store::{Health, Snapshot, StoreError, Transaction, WriteError};

/// With the time that a flush takes, a crash loses at most 30 seconds.
const FLUSH_INTERVAL: Duration = Duration::from_secs(20);
/// Initial capacity of a recorder's table: about 30 KB.
const ROOM_LINKS: usize = 448;
/// All tables together take at most this, or [`BYTES_FOR_EACH_LINK`] if that is more.
pub(super) const LEAST_BYTES: usize = 32 << 20;
pub(super) const BYTES_FOR_EACH_LINK: usize = 8;
/// The recorders' share of it, as a divisor; the rest is for pending clicks.
const PART_OF_RECORDERS: usize = 4;
/// A recorder notes so many clicks before it counts them: together, because counting waits for memory at each link, and
/// the processor then waits for several links at once.
pub(super) const NOTED_CLICKS: usize = 128;
/// A recorder asks to be gathered when it is full to one part of so many.
const MANY_PARTS: usize = 4;
/// A flush begins early when the pending table is full to one part of so many, and has at most so many links.
const FLUSH_PARTS: usize = 2;
/// An entry and its control byte.
const ENTRY_BYTES: usize = size_of::<(LinkId, Usage)>() + 1;
/// Links in one transaction, for which other writes wait some milliseconds.
const BATCH_LINKS: usize = if cfg!(test) { 10 } else { 1_000 };
/// The same during a drain, when each transaction costs a sync. Less than a megabyte of the journal's sixteen.
const DRAIN_BATCH_LINKS: usize = 16_384;

/// How a flush writes.
#[derive(Debug, Clone, Copy)]
struct FlushMode {
    /// Links in one transaction.
    links: usize,
    /// Whether it fills the outbox of a cluster beyond its limit, so that nothing is lost with the process.
    may_overfill: bool,
}

const REGULAR: FlushMode = FlushMode {
    links: BATCH_LINKS,
    may_overfill: false,
};
const LAST: FlushMode = FlushMode {
    links: DRAIN_BATCH_LINKS,
    may_overfill: true,
};
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
const LOG_INTERVAL: Duration = Duration::from_secs(60);

type Table = HashMap<LinkId, Usage, RandomState>;

/// What a thread has recorded since it was gathered.
#[derive(Debug)]
struct Recorded {
    /// Not counted yet.
    noted: Vec<(LinkId, Visit, Timestamp)>,
    counted: Table,
}

impl Recorded {
    /// Allocates: a thread that redirects must not have to.
    fn in_table(counted: Table) -> Self {
        let noted = Vec::with_capacity(NOTED_CLICKS);
        Self { noted, counted }
    }

    /// Counts what is noted. True when that makes many.
    #[cold]
    fn count(&mut self, clicks: &Clicks) -> bool {
        let (most, mut is_many) = (clicks.recorded_max.load(Ordering::Relaxed), false);
        for (id, visit, at) in self.noted.drain(..) {
            if let Some(usage) = self.counted.get_mut(&id) {
                usage.note(visit, at);
            } else if self.counted.len() < most {
                self.counted.insert(id, Usage::of(visit, at));
                is_many |= self.counted.len() == most / MANY_PARTS;
            } else {
                clicks.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        is_many
    }
}

/// Records the redirects of one thread, or nothing if counting is off. Clones share what is recorded.
#[derive(Debug, Clone, Default)]
pub struct ClickRecorder {
    target: Option<(Arc<Mutex<Recorded>>, Arc<Clicks>)>,
}

impl ClickRecorder {
    pub fn record(&self, id: LinkId, visit: Visit, now: Timestamp) {
        let Some((recorded, clicks)) = &self.target else { return };
        let mut recorded = recorded.lock();
        recorded.noted.push((id, visit, now));
        let is_many = recorded.noted.len() == NOTED_CLICKS && recorded.count(clicks);
        drop(recorded);
        if is_many {
            clicks.many.notify_one();
        }
    }

    pub const fn is_counting(&self) -> bool {
        self.target.is_some()
    }
}

/// Clicks that the store does not have yet.
#[derive(Debug)]
pub(super) struct Clicks {
    is_counting: bool,
    recorders: Mutex<Vec<Arc<Mutex<Recorded>>>>,
    pending: Mutex<Pending>,
    /// Links that a recorder counts between two gatherings.
    recorded_max: AtomicUsize,
    pending_max: AtomicUsize,
    /// Notified by a recorder that is filling up.
    many: Notify,
    dropped: AtomicU64,
    /// Batches written.
    written: AtomicU64,
    /// Held during a flush. Readers never wait for it.
    flushing: AsyncMutex<()>,
    /// What the counts of this process are known by in a cluster.
    source: ClickSource,
}

#[derive(Debug)]
struct Pending {
    table: Table,
    /// The rest of a flush, by id.
    flush: VecDeque<(LinkId, Usage)>,
    /// Taken from the flush: queued, or of unknown outcome.
    batch: Option<Batch>,
}

/// Links of a flush that are written in one transaction.
#[derive(Debug, Clone)]
struct Batch {
    counts: Arc<Vec<(LinkId, Usage)>>,
    mark: Arc<Mutex<Option<Mark>>>,
}

/// How a store or a snapshot with a batch is told from one without it.
#[derive(Debug, Clone, Copy)]
enum Mark {
    /// The first total after the write.
    Total(LinkId, Usage),
    /// In a cluster, the counter of its message in the outbox.
    Queued(u64),
}

impl Batch {
    /// Writes it unless an attempt of unknown outcome succeeded; false if there is no room for it.
    fn write(
        &self,
        transaction: &mut Transaction<'_>,
        source: &ClickSource,
        mode: FlushMode,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let is_written = match *self.mark.lock() {
            Some(Mark::Total(id, total)) => transaction.usage(id)? == total,
            Some(Mark::Queued(counter)) => transaction.queued_counter()? >= counter,
            None => false,
        };
        if is_written {
            return Ok(true);
        }
        // Readers need the lock, so it is not held here.
        let mark = if transaction.is_in_cluster() {
            let queued = transaction.queue_clicks(source, &self.counts, now, mode.may_overfill)?;
            let Some(counter) = queued else { return Ok(false) };
            Some(Mark::Queued(counter))
        } else {
            let total = transaction.add_usage(&self.counts, now)?;
            total.map(|(id, total)| Mark::Total(id, total))
        };
        *self.mark.lock() = mark;
        Ok(true)
    }

    fn is_in(&self, snapshot: &Snapshot) -> Result<bool, StoreError> {
        let mark = *self.mark.lock();
        Ok(match mark {
            Some(Mark::Total(id, total)) => snapshot.usage(id)? == total,
            Some(Mark::Queued(counter)) => snapshot.queued_counter() >= counter,
            None => false,
        })
    }

    /// The links that people have opened, with all their clicks. In a cluster, what waits in the outbox is not among
    /// them until it is counted.
    fn clicks(&self, transaction: &mut Transaction<'_>) -> Result<Vec<(LinkId, u64)>, StoreError> {
        let is_counted = !transaction.is_in_cluster();
        let used = self.counts.iter().filter(|(_, usage)| usage.clicks > 0);
        used.map(|(id, usage)| {
            let more = if is_counted { 0 } else { usage.clicks };
            Ok((*id, transaction.usage(*id)?.clicks.saturating_add(more)))
        })
        .collect()
    }

    fn visits(&self) -> u64 {
        self.counts.iter().map(|(_, usage)| usage.visits()).sum()
    }

    fn usage(&self, id: &LinkId) -> Option<Usage> {
        let found = self.counts.binary_search_by_key(id, |(id, _)| *id).ok()?;
        self.counts.get(found).map(|(_, usage)| *usage)
    }
}

impl Pending {
    fn usage_in_flush(&self, id: &LinkId) -> Option<Usage> {
        let found = self.flush.binary_search_by_key(id, |(id, _)| *id).ok()?;
        self.flush.get(found).map(|(_, usage)| *usage)
    }

    /// What a reader adds to the totals of a snapshot.
    fn missing(&self, ids: &[LinkId], snapshot: &Snapshot) -> Result<Vec<Usage>, StoreError> {
        let batch = match &self.batch {
            Some(batch) if !batch.is_in(snapshot)? => Some(batch),
            _ => None,
        };
        let usage = |id: &LinkId| {
            let mut usage = self.table.get(id).copied().unwrap_or_default();
            let of_batch = batch.and_then(|batch| batch.usage(id));
            for more in [self.usage_in_flush(id), of_batch].iter().flatten() {
                usage.add(more);
            }
            usage
        };
        Ok(ids.iter().map(usage).collect())
    }

    /// Links that are not in the table any more.
    fn in_flush(&self) -> usize {
        self.flush.len() + self.batch.as_ref().map_or(0, |batch| batch.counts.len())
    }

    fn visits(&self) -> u64 {
        let flush = self.flush.iter().map(|(_, usage)| usage);
        let visits: u64 = self.table.values().chain(flush).map(Usage::visits).sum();
        visits + self.batch.as_ref().map_or(0, Batch::visits)
    }
}

/// Links that fit in a table of so many bytes: hashbrown allocates a power of two of slots, fills seven eighths, and
/// needs half as much again while it grows.
fn links_within(bytes: usize) -> usize {
    let slots = (bytes / ENTRY_BYTES * 2 / 3)
        .checked_ilog2()
        .map_or(0, |exponent| 1 << exponent);
    slots / 8 * 7
}

/// Links that each recorder takes, and that are pending, at most.
pub(super) fn limits(recorders: usize, links: usize) -> (usize, usize) {
    let bytes = LEAST_BYTES.max(links.saturating_mul(BYTES_FOR_EACH_LINK));
    let of_recorders = bytes / PART_OF_RECORDERS;
    // One more is being gathered.
    (
        links_within(of_recorders / (recorders + 1)),
        links_within(bytes - of_recorders),
    )
}

impl Clicks {
    pub(super) fn new(is_counting: bool, node: Arc<str>) -> Arc<Self> {
        let pending = Pending {
            // A random seed, against ids chosen to collide.
            table: Table::with_hasher(RandomState::default()),
            flush: VecDeque::new(),
            batch: None,
        };
        Arc::new(Self {
            is_counting,
            recorders: Mutex::default(),
            pending: Mutex::new(pending),
            recorded_max: AtomicUsize::new(0),
            pending_max: AtomicUsize::new(0),
            many: Notify::new(),
            dropped: AtomicU64::new(0),
            written: AtomicU64::new(0),
            flushing: AsyncMutex::new(()),
            source: ClickSource {
                node,
                process: rand::random(),
            },
        })
    }

    fn recorder(self: &Arc<Self>) -> ClickRecorder {
        if !self.is_counting {
            return ClickRecorder::default();
        }
        let recorded = Arc::new(Mutex::new(Recorded::in_table(self.new_table(ROOM_LINKS))));
        self.recorders.lock().push(Arc::clone(&recorded));
        // The next flush sets the limit for the number of links.
        self.set_limits(0);
        ClickRecorder {
            target: Some((recorded, Arc::clone(self))),
        }
    }

    fn new_table(&self, room: usize) -> Table {
        let hasher = self.pending.lock().table.hasher().clone();
        Table::with_capacity_and_hasher(room, hasher)
    }

    fn set_limits(&self, links: usize) {
        let (recorded, pending) = limits(self.recorders.lock().len(), links);
        self.recorded_max.store(recorded, Ordering::Relaxed);
        self.pending_max.store(pending, Ordering::Relaxed);
    }

    /// Moves recorded clicks into the pending table. Each recorder is locked only for a swap.
    fn gather(&self) {
        let recorders = self.recorders.lock();
        for recorder in recorders.iter() {
            let (links, noted) = {
                let recorded = recorder.lock();
                (recorded.counted.len(), recorded.noted.len())
            };
            if links + noted == 0 {
                continue;
            }
            let mut recorded = Recorded::in_table(self.new_table(links.max(ROOM_LINKS)));
            mem::swap(&mut *recorder.lock(), &mut recorded);
            let mut pending = self.pending.lock();
            let most = self.pending_max.load(Ordering::Relaxed);
            let most = most.saturating_sub(pending.in_flush());
            let noted = recorded.noted.into_iter();
            let noted = noted.map(|(id, visit, at)| (id, Usage::of(visit, at)));
            for (id, usage) in recorded.counted.into_iter().chain(noted) {
                if let Some(before) = pending.table.get_mut(&id) {
                    before.add(&usage);
                } else if pending.table.len() < most {
                    pending.table.insert(id, usage);
                } else {
                    self.dropped.fetch_add(usage.visits(), Ordering::Relaxed);
                }
            }
        }
    }

    /// What a reader adds to the totals of a snapshot that was taken before, so that a flush in between is missing from
    /// the sum and not in it twice.
    pub(super) fn missing(&self, ids: &[LinkId], snapshot: &Snapshot) -> Result<Vec<Usage>, StoreError> {
        self.gather();
        self.pending.lock().missing(ids, snapshot)
    }

    fn flush_max(&self) -> usize {
        (self.pending_max.load(Ordering::Relaxed) / FLUSH_PARTS).max(1)
    }

    /// Begins a flush of the pending table, up to `flush_max`. The previous flush has ended.
    fn begin_flush(&self) {
        let mut pending = self.pending.lock();
        let taken = pending.table.extract_if(|_, _| true).take(self.flush_max());
        let mut flush: Vec<_> = taken.collect();
        let left = pending.table.len();
        pending.table.shrink_to(left);
        flush.sort_unstable_by_key(|(id, _)| *id);
        pending.flush = flush.into();
    }

    /// The next batch to write; a batch of unknown outcome first.
    fn next_batch(&self, links: usize) -> Option<Batch> {
        let mut pending = self.pending.lock();
        if pending.batch.is_none() && !pending.flush.is_empty() {
            let links = links.min(pending.flush.len());
            pending.batch = Some(Batch {
                counts: Arc::new(pending.flush.drain(..links).collect()),
                mark: Arc::default(),
            });
            if pending.flush.is_empty() {
                pending.flush = VecDeque::new();
            }
        }
        pending.batch.clone()
    }
}

impl Links {
    /// Turns counting on or off. Call before [`Links::recorder`].
    pub fn counting_clicks(self, is_counting: bool) -> Self {
        let node = Arc::clone(&self.clicks.source.node);
        Self {
            clicks: Clicks::new(is_counting, node),
            ..self
        }
    }

    /// The name of this box in its cluster, which its clicks carry. Call before [`Links::recorder`].
    pub fn in_box(self, node: &str) -> Self {
        Self {
            clicks: Clicks::new(self.clicks.is_counting, node.into()),
            ..self
        }
    }

    pub(super) fn node(&self) -> Arc<str> {
        Arc::clone(&self.clicks.source.node)
    }

    /// Whether there are clicks to show: in a cluster, others may count them.
    pub fn is_counting_clicks(&self) -> bool {
        self.clicks.is_counting || self.store.replicating().is_some()
    }

    pub fn recorder(&self) -> ClickRecorder {
        self.clicks.recorder()
    }

    /// Clicks and previews dropped since the start: too many links in use, or no writes for too long.
    pub fn dropped_clicks(&self) -> u64 {
        self.clicks.dropped.load(Ordering::Relaxed)
    }

    /// Writes what has been recorded until now. What cannot be written stays pending while there is room.
    pub async fn flush_clicks(&self) -> Result<(), WriteError> {
        self.flush_as(REGULAR).await
    }

    async fn flush_as(&self, mode: FlushMode) -> Result<(), WriteError> {
        let _flushing = self.clicks.flushing.lock().await;
        self.flush_held(mode).await
    }

    /// Writes what has been recorded until now, and lets no other flush begin until the guard is dropped.
    pub(super) async fn hold_flushed_clicks(&self) -> Result<AsyncMutexGuard<'_, ()>, WriteError> {
        let flushing = self.clicks.flushing.lock().await;
        self.flush_held(REGULAR).await?;
        Ok(flushing)
    }

    async fn flush_held(&self, mode: FlushMode) -> Result<(), WriteError> {
        let clicks = &self.clicks;
        clicks.set_limits(self.index.links());
        clicks.gather();
        // Later clicks have time until the next flush.
        let flushes = clicks.pending.lock().table.len().div_ceil(clicks.flush_max());
        // First, a flush that was interrupted.
        let mut is_written = self.write_flush(mode).await?;
        for _ in 0..flushes {
            if !is_written {
                break;
            }
            clicks.begin_flush();
            is_written = self.write_flush(mode).await?;
        }
        Ok(())
    }

    /// False if the outbox is full: what is left waits, where clicks of the same link take no more room.
    async fn write_flush(&self, mode: FlushMode) -> Result<bool, WriteError> {
        let clicks = &self.clicks;
        let links = match self.store.replicating() {
            Some(_) => mode.links.min(CLICK_MESSAGE_MAX_LINKS),
            None => mode.links,
        };
        while let Some(batch) = clicks.next_batch(links) {
            let (links, visits) = (batch.counts.len(), batch.visits());
            // If this future is dropped here, the batch stays and is written again.
            let now = self.clock.now();
            let (search, source) = (Arc::clone(&self.search), clicks.source.clone());
            let write = move |transaction: &mut Transaction<'_>| {
                if !batch.write(transaction, &source, mode, now)? {
                    return Ok(None);
                }
                // A search that begins later reads the store after this.
                if search.is_kept() {
                    batch.clicks(transaction).map(Some)
                } else {
                    Ok(Some(Vec::new()))
                }
            };
            let Some(used) = self.store.write_local(write).await? else {
                return Ok(false);
            };
            clicks.pending.lock().batch = None;
            self.search.note_used(used);
            clicks.written.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(links, visits, "clicks written");
            // Recorders do not wait for the remaining batches.
            clicks.gather();
        }
        Ok(true)
    }

    /// Writes all recorded clicks. Gives up after `patience` without progress, unless the store accepts writes and is
    /// only slow.
    pub async fn flush_all_clicks(&self, patience: Duration) {
        let written = || self.clicks.written.load(Ordering::Relaxed);
        let (mut before, mut since) = (written(), Instant::now());
        while before != written() || since.elapsed() < patience {
            if before != written() {
                (before, since) = (written(), Instant::now());
            }
            let flushing = self.flush_as(LAST);
            match tokio::time::timeout(patience, flushing).await {
                Ok(Ok(())) => return,
                Ok(Err(_)) => tokio::time::sleep(RETRY_INTERVAL).await,
                Err(_) if before == written() && self.health() == Health::Accepting => {
                    tracing::warn!("shutdown waiting for click counts to be written");
                    since = Instant::now();
                }
                Err(_) => {}
            }
        }
        let visits = self.clicks.pending.lock().visits();
        tracing::error!(visits, "clicks lost: the store takes no writes");
    }

    pub async fn keep_flushing_clicks(&self) {
        let clicks = &self.clicks;
        if !clicks.is_counting {
            return;
        }
        let mut interval = tokio::time::interval(FLUSH_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut logged, mut logged_at) = (0, None::<Instant>);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = clicks.many.notified() => {
                    clicks.gather();
                    if clicks.pending.lock().table.len() < clicks.flush_max() {
                        continue;
                    }
                }
            }
            let mut flush = pin!(self.flush_clicks());
            // Recorders do not wait for a slow flush.
            while let Either::Right(((), _)) = select(&mut flush, pin!(clicks.many.notified())).await {
                clicks.gather();
            }
            let dropped = self.dropped_clicks();
            if dropped > logged && logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                tracing::warn!(
                    dropped = dropped - logged,
                    "dropping clicks: too many links used since the last flush"
                );
                (logged, logged_at) = (dropped, Some(Instant::now()));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn bytes_for_clicks(&self) -> usize {
        let recorders = self.clicks.recorders.lock();
        let of_recorder = |recorder: &Arc<Mutex<Recorded>>| {
            let recorded = recorder.lock();
            let noted = recorded.noted.capacity() * size_of::<(LinkId, Visit, Timestamp)>();
            noted + recorded.counted.allocation_size()
        };
        let recorded: usize = recorders.iter().map(of_recorder).sum();
        let pending = self.clicks.pending.lock();
        let in_flush = pending.flush.capacity() + pending.in_flush() - pending.flush.len();
        recorded + pending.table.allocation_size() + in_flush * size_of::<(LinkId, Usage)>()
    }

    #[cfg(test)]
    pub(super) fn has_clicks_in_flight(&self) -> bool {
        self.clicks.pending.lock().batch.is_some()
    }

    #[cfg(test)]
    pub(super) fn gather_clicks(&self) {
        self.clicks.gather();
    }
}
