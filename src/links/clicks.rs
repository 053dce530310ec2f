//! Counting clicks. Each thread records its own; they are gathered into one table, and written to the store every
//! [`FLUSH_INTERVAL`]: what a crash can lose. A drain writes them all.
//!
//! What is recorded is a count to add to what the store has, so a reader adds what is pending to what its snapshot
//! has. While a flush goes on, a total may lack that flush for a moment; it is never too high.
//!
//! A flush is sorted by id, so that neighbours are written into one page together, and goes in batches, so that other
//! writes do not wait long. Recording takes a lock that only its thread wants but for a moment, and allocates nothing
//! unless links are used in hundreds at a time.

use std::mem;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures_util::future::{Either, select};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::MissedTickBehavior;

use crate::links::{LinkError, Links, ReadContext, Scope, Turn};
use crate::model::{LinkId, ShortLink, Timestamp, Usage, Visit};
use crate::store::{Health, Lane, Listing, Query, ReadLimit, Snapshot, StoreError, Transaction, WriteError};

/// With the time that a flush takes, a crash loses at most 30 seconds.
const FLUSH_INTERVAL: Duration = Duration::from_secs(20);
/// Initial capacity of a recorder: about 30 KB.
const ROOM_LINKS: usize = 448;
/// All tables together take at most this, or [`BYTES_FOR_EACH_LINK`] if that is more.
pub(super) const LEAST_BYTES: usize = 32 << 20;
pub(super) const BYTES_FOR_EACH_LINK: usize = 8;
/// The recorders' share of it, as a divisor; the rest is for pending clicks.
const PART_OF_RECORDERS: usize = 4;
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
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
const LOG_INTERVAL: Duration = Duration::from_secs(60);

type Table = HashMap<LinkId, Usage, RandomState>;

/// Records the redirects of one thread, or nothing if counting is off. Clones share the table.
#[derive(Debug, Clone, Default)]
pub struct ClickRecorder {
    target: Option<(Arc<Mutex<Table>>, Arc<Shared>)>,
}

impl ClickRecorder {
    pub fn record(&self, id: LinkId, visit: Visit, now: Timestamp) {
        let Some((table, shared)) = &self.target else { return };
        let mut table = table.lock();
        if let Some(usage) = table.get_mut(&id) {
            usage.note(visit, now);
            return;
        }
        let most = shared.recorded_max.load(Ordering::Relaxed);
        if table.len() >= most {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut usage = Usage::default();
        usage.note(visit, now);
        table.insert(id, usage);
        let is_many = table.len() == most / MANY_PARTS;
        drop(table);
        if is_many {
            shared.many.notify_one();
        }
    }

    pub const fn is_counting(&self) -> bool {
        self.target.is_some()
    }
}

/// Clicks that the store does not have yet.
#[derive(Debug)]
pub(super) struct Clicks {
    shared: Arc<Shared>,
    is_counting: bool,
    /// Held during a flush. Readers never wait for it.
    flushing: AsyncMutex<()>,
}

#[derive(Debug)]
struct Shared {
    recorders: Mutex<Vec<Arc<Mutex<Table>>>>,
    pending: Mutex<Pending>,
    /// Links that a recorder takes between two gatherings.
    recorded_max: AtomicUsize,
    pending_max: AtomicUsize,
    written: AtomicU64,
    /// Notified by a recorder that is filling up.
    many: Notify,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Pending {
    table: Table,
    /// Empty; `gather` swaps it with a recorder's.
    spare: Table,
    /// What is being written, by id.
    flush: Arc<Vec<(LinkId, Usage)>>,
    /// Links at its start that the store has acknowledged.
    flushed: usize,
    /// The next links of it: queued, or of unknown outcome.
    batch: Option<Batch>,
}

#[derive(Debug, Clone)]
struct Batch {
    flush: Arc<Vec<(LinkId, Usage)>>,
    range: Range<usize>,
    /// The first total after the write. A store or snapshot with this total contains the batch.
    total: Arc<Mutex<Option<(LinkId, Usage)>>>,
}

impl Batch {
    /// Writes it unless an attempt of unknown outcome succeeded.
    fn write(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let before = *self.total.lock();
        if let Some((id, total)) = before
            && transaction.usage(id)? == total
        {
            return Ok(());
        }
        let counts = self.flush.get(self.range.clone()).unwrap_or_default();
        // Readers need the lock, so it is not held here.
        let total = transaction.add_usage(counts)?;
        *self.total.lock() = total;
        Ok(())
    }

    fn is_in(&self, snapshot: &Snapshot) -> Result<bool, StoreError> {
        let total = *self.total.lock();
        total.map_or(Ok(false), |(id, total)| Ok(snapshot.usage(id)? == total))
    }
}

impl Pending {
    fn unflushed(&self) -> &[(LinkId, Usage)] {
        self.flush.get(self.flushed..).unwrap_or_default()
    }

    /// What a reader adds to the totals of a snapshot.
    fn missing(&self, ids: &[LinkId], snapshot: &Snapshot) -> Result<Vec<Usage>, StoreError> {
        let is_batch_in = self.batch.as_ref().map_or(Ok(false), |batch| batch.is_in(snapshot))?;
        let in_batch = self
            .batch
            .as_ref()
            .filter(|_| is_batch_in)
            .map_or(0, |batch| batch.range.end);
        let of_flush = |id: &LinkId| {
            let found = self.flush.binary_search_by_key(id, |(id, _)| *id).ok();
            let found = found.filter(|place| *place >= self.flushed.max(in_batch));
            found.and_then(|place| self.flush.get(place)).map(|(_, usage)| *usage)
        };
        let usage = |id: &LinkId| {
            let mut usage = self.table.get(id).copied().unwrap_or_default();
            usage.add(&of_flush(id).unwrap_or_default());
            usage
        };
        Ok(ids.iter().map(usage).collect())
    }
}

fn with_room(hasher: &RandomState) -> Table {
    Table::with_capacity_and_hasher(ROOM_LINKS, hasher.clone())
}

/// Shrinks a table that a burst has grown.
fn give_back(table: &mut Table, used: usize) {
    if table.is_empty() && table.capacity() > 4 * ROOM_LINKS && used < table.capacity() / 8 {
        *table = with_room(table.hasher());
    }
}

/// Links that fit in a table of so many bytes: hashbrown allocates a power of two of slots, fills seven eighths, and
/// needs half as much again while it grows.
fn links_within(bytes: usize) -> usize {
    let places = (bytes / ENTRY_BYTES * 2 / 3)
        .checked_ilog2()
        .map_or(0, |exponent| 1 << exponent);
    places / 8 * 7
}

/// Links that each recorder takes, and that are pending, at most.
pub(super) fn limits(recorders: usize, links: usize) -> (usize, usize) {
    let bytes = LEAST_BYTES.max(links.saturating_mul(BYTES_FOR_EACH_LINK));
    let of_recorders = bytes / PART_OF_RECORDERS;
    // One more is the spare.
    (
        links_within(of_recorders / (recorders + 1)),
        links_within(bytes - of_recorders),
    )
}

impl Shared {
    fn set_limits(&self, recorders: usize, links: usize) {
        let (recorded, pending) = limits(recorders, links);
        self.recorded_max.store(recorded, Ordering::Relaxed);
        self.pending_max.store(pending, Ordering::Relaxed);
    }

    /// Moves recorded clicks into the pending table. Each recorder is locked only for a swap.
    fn gather(&self) {
        let recorders = self.recorders.lock();
        let mut pending = self.pending.lock();
        let most = self
            .pending_max
            .load(Ordering::Relaxed)
            .saturating_sub(pending.unflushed().len());
        let Pending { table, spare, .. } = &mut *pending;
        for recorder in recorders.iter() {
            let mut recorded = recorder.lock();
            if recorded.is_empty() {
                continue;
            }
            mem::swap(&mut *recorded, spare);
            drop(recorded);
            let used = spare.len();
            for (id, usage) in spare.drain() {
                if let Some(before) = table.get_mut(&id) {
                    before.add(&usage);
                } else if table.len() < most {
                    table.insert(id, usage);
                } else {
                    self.dropped.fetch_add(usage.visits(), Ordering::Relaxed);
                }
            }
            give_back(spare, used);
        }
    }

    fn flush_max(&self) -> usize {
        (self.pending_max.load(Ordering::Relaxed) / FLUSH_PARTS).max(1)
    }

    /// Begins a flush of the pending table, up to [`Shared::flush_max`]. The previous flush has ended.
    fn begin_flush(&self) {
        let mut pending = self.pending.lock();
        let table = &mut pending.table;
        let used = table.len();
        let mut flush: Vec<_> = table.extract_if(|_, _| true).take(self.flush_max()).collect();
        give_back(table, used);
        flush.sort_unstable_by_key(|(id, _)| *id);
        (pending.flush, pending.flushed) = (Arc::new(flush), 0);
    }

    /// The next batch to write; a batch of unknown outcome first.
    fn next_batch(&self, links: usize) -> Option<Batch> {
        let mut pending = self.pending.lock();
        if pending.batch.is_none() {
            let left = pending.unflushed().len();
            pending.batch = (left > 0).then(|| Batch {
                flush: Arc::clone(&pending.flush),
                range: pending.flushed..pending.flushed + left.min(links),
                total: Arc::default(),
            });
        }
        pending.batch.clone()
    }

    fn acknowledge(&self, batch: &Batch) {
        let mut pending = self.pending.lock();
        pending.batch = None;
        pending.flushed = batch.range.end;
        if pending.unflushed().is_empty() {
            (pending.flush, pending.flushed) = (Arc::default(), 0);
        }
        self.written.fetch_add(1, Ordering::Relaxed);
    }
}

impl Clicks {
    pub(super) fn new(is_counting: bool) -> Self {
        // A random seed, against ids chosen to collide.
        let hasher = RandomState::default();
        let pending = Pending {
            table: Table::with_hasher(hasher.clone()),
            spare: if is_counting {
                with_room(&hasher)
            } else {
                Table::with_hasher(hasher)
            },
            flush: Arc::default(),
            flushed: 0,
            batch: None,
        };
        let shared = Shared {
            recorders: Mutex::new(Vec::new()),
            pending: Mutex::new(pending),
            recorded_max: AtomicUsize::new(0),
            pending_max: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            many: Notify::new(),
            dropped: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
            is_counting,
            flushing: AsyncMutex::new(()),
        }
    }

    fn recorder(&self) -> ClickRecorder {
        if !self.is_counting {
            return ClickRecorder::default();
        }
        let table = with_room(self.shared.pending.lock().spare.hasher());
        let table = Arc::new(Mutex::new(table));
        let mut recorders = self.shared.recorders.lock();
        recorders.push(Arc::clone(&table));
        // The next flush sets the limit for the number of links.
        self.shared.set_limits(recorders.len(), 0);
        drop(recorders);
        ClickRecorder {
            target: Some((table, Arc::clone(&self.shared))),
        }
    }
}

impl Links {
    /// Turns counting on or off. Call before [`Links::recorder`].
    pub fn counting_clicks(self, is_counting: bool) -> Self {
        Self {
            clicks: Clicks::new(is_counting),
            ..self
        }
    }

    pub fn recorder(&self) -> ClickRecorder {
        self.clicks.recorder()
    }

    /// Clicks and previews dropped since the start: too many links in use, or no writes for too long.
    pub fn dropped_clicks(&self) -> u64 {
        self.clicks.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes what has been recorded until now. What cannot be written stays pending while there is room.
    pub async fn flush_clicks(&self) -> Result<(), WriteError> {
        self.flush_in_batches(BATCH_LINKS).await
    }

    async fn flush_in_batches(&self, links: usize) -> Result<(), WriteError> {
        let shared = &self.clicks.shared;
        let _flushing = self.clicks.flushing.lock().await;
        let recorders = shared.recorders.lock().len();
        shared.set_limits(recorders, self.index.links());
        shared.gather();
        // First, a flush that was interrupted.
        self.write_flush(links).await?;
        // Later clicks have time until the next flush.
        let mut left = shared.pending.lock().table.len();
        while left > 0 {
            left = left.saturating_sub(shared.flush_max());
            shared.begin_flush();
            self.write_flush(links).await?;
        }
        Ok(())
    }

    async fn write_flush(&self, links: usize) -> Result<(), WriteError> {
        let shared = &self.clicks.shared;
        while let Some(batch) = shared.next_batch(links) {
            let to_write = batch.clone();
            // If this future is dropped here, the batch stays and is written again.
            self.store.write(move |transaction| to_write.write(transaction)).await?;
            shared.acknowledge(&batch);
            let counts = batch.flush.get(batch.range.clone()).unwrap_or_default();
            let visits: u64 = counts.iter().map(|(_, usage)| usage.visits()).sum();
            tracing::debug!(links = counts.len(), visits, "clicks written");
            // Recorders do not wait for the remaining batches.
            shared.gather();
        }
        Ok(())
    }

    /// Writes all recorded clicks. Gives up after `patience` without progress, unless the store accepts writes and is
    /// only slow.
    pub async fn flush_all_clicks(&self, patience: Duration) {
        let shared = &self.clicks.shared;
        let (mut written, mut since) = (shared.written.load(Ordering::Relaxed), Instant::now());
        loop {
            let flushing = self.flush_in_batches(DRAIN_BATCH_LINKS);
            let is_slow = match tokio::time::timeout(patience, flushing).await {
                Ok(Ok(())) => return,
                Ok(Err(_)) => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    false
                }
                Err(_) => self.health() == Health::Accepting,
            };
            let written_now = shared.written.load(Ordering::Relaxed);
            if written_now > written {
                (written, since) = (written_now, Instant::now());
            } else if is_slow {
                tracing::warn!("shutdown waiting for click counts to be written");
            } else if since.elapsed() >= patience {
                break;
            }
        }
        let pending = shared.pending.lock();
        let usages = pending
            .table
            .values()
            .chain(pending.unflushed().iter().map(|(_, usage)| usage));
        let visits: u64 = usages.map(Usage::visits).sum();
        tracing::error!(visits, "clicks lost: the store takes no writes");
    }

    pub async fn keep_flushing_clicks(&self) {
        if !self.clicks.is_counting {
            return;
        }
        let shared = &self.clicks.shared;
        let mut interval = tokio::time::interval(FLUSH_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut logged, mut logged_at) = (0, None::<tokio::time::Instant>);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = shared.many.notified() => {
                    shared.gather();
                    if shared.pending.lock().table.len() < shared.flush_max() {
                        continue;
                    }
                }
            }
            let mut flush = pin!(self.flush_clicks());
            // Recorders do not wait for a slow flush.
            while let Either::Right(((), _)) = select(&mut flush, pin!(shared.many.notified())).await {
                shared.gather();
            }
            let dropped = self.dropped_clicks();
            if dropped > logged && logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                tracing::warn!(
                    dropped = dropped - logged,
                    "dropping clicks: too many links used since the last flush"
                );
                (logged, logged_at) = (dropped, Some(tokio::time::Instant::now()));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn bytes_for_clicks(&self) -> usize {
        let shared = &self.clicks.shared;
        let recorders = shared.recorders.lock();
        let recorded: usize = recorders.iter().map(|table| table.lock().allocation_size()).sum();
        let pending = shared.pending.lock();
        let flush = pending.flush.capacity() * size_of::<(LinkId, Usage)>();
        recorded + pending.table.allocation_size() + pending.spare.allocation_size() + flush
    }

    #[cfg(test)]
    pub(super) fn has_clicks_in_flight(&self) -> bool {
        self.clicks.shared.pending.lock().batch.is_some()
    }

    #[cfg(test)]
    pub(super) fn gather_clicks(&self) {
        self.clicks.shared.gather();
    }

    pub async fn get_with_usage(&self, id: LinkId, scope: Scope) -> Result<(ShortLink, Usage), LinkError> {
        let read = move |snapshot: &Snapshot| {
            let link = snapshot.get(id)?.filter(|link| scope.shows(link));
            let ids = link.iter().map(|link| link.id).collect();
            Ok((link, ids))
        };
        let (link, usages) = self.read_with_usage(Lane::Shared, read).await?;
        let usage = usages.first().copied().unwrap_or_default();
        link.map(|link| (link, usage)).ok_or(LinkError::NotFound)
    }

    pub async fn list_with_usage(
        &self,
        query: Query,
        context: &ReadContext,
    ) -> Result<((Listing, Vec<Usage>), Turn), LinkError> {
        let (partner, query) = (query.partner, Arc::new(query));
        let read = |limit: ReadLimit, lane| {
            let query = Arc::clone(&query);
            let read = move |snapshot: &Snapshot| {
                let listing = snapshot.list(&query, &limit)?;
                let ids = listing.links.iter().map(|link| link.id).collect();
                Ok((listing, ids))
            };
            self.read_with_usage(lane, read)
        };
        Ok(self.read_in_turn(partner, context, read).await?)
    }

    /// Reads something, and the usage of the links whose ids come with it, without waiting for a flush.
    pub(super) async fn read_with_usage<R, F>(&self, lane: Lane, read: F) -> Result<(R, Vec<Usage>), StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<(R, Vec<LinkId>), StoreError> + Send + 'static,
    {
        let shared = Arc::clone(&self.clicks.shared);
        let job = move |snapshot: &Snapshot| {
            let (result, ids) = read(snapshot)?;
            let mut usages: Vec<_> = ids.iter().map(|id| snapshot.usage(*id)).collect::<Result<_, _>>()?;
            // After the snapshot, so that a flush in between is missing from the sum and not in it twice.
            shared.gather();
            let missing = shared.pending.lock().missing(&ids, snapshot)?;
            for (usage, missing) in usages.iter_mut().zip(&missing) {
                usage.add(missing);
            }
            Ok((result, usages))
        };
        self.store.read_on(lane, job).await
    }
}
