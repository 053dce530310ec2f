//! Counting clicks: each thread records its own, all are gathered every few seconds and written down by the writer.
//!
//! Invariants: recording takes a lock that only its thread wants but for a moment every few seconds, and allocates nothing
//! unless links are used in hundreds at a time; what is recorded is written exactly once, or is counted as dropped; memory
//! is bounded by the number of links.

use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
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

/// How often what was recorded is written down: what a crash can lose.
const FLUSH_INTERVAL: Duration = Duration::from_secs(4);
/// Links that a recorder has room for from the start: some 30 KB.
const ROOM_LINKS: usize = 448;
/// All tables together take at most so much, or [`BYTES_FOR_EACH_LINK`].
pub(super) const LEAST_BYTES: usize = 32 << 20;
/// What counting costs at most for each link in the store, where that is more than [`LEAST_BYTES`].
pub(super) const BYTES_FOR_EACH_LINK: usize = 8;
/// The part of it that recorders have together; what is gathered has the rest.
const PART_OF_RECORDERS: usize = 4;
/// Of so many parts of what a recorder takes at most, one makes it ask to be gathered before the time.
const MANY_PARTS: usize = 4;
/// A link in a table: the entry, and a byte of the table's own.
const ENTRY_BYTES: usize = size_of::<(LinkId, Usage)>() + 1;
/// Links in one transaction, so that other writes wait no more than some milliseconds for it.
const WRITTEN_TOGETHER_LINKS: usize = if cfg!(test) { 10 } else { 1_000 };
/// The same at the end of the program, when nobody waits: each transaction is a sync. Less than a megabyte of the journal's sixteen.
const WRITTEN_AT_THE_END_LINKS: usize = 16_384;
/// How long to wait before what could not be written is tried again at the end of the program.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Clicks that are dropped are told of no more often than this.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

type Table = HashMap<LinkId, Usage, RandomState>;

/// Records the redirects of one thread. Without a place to record to, it does nothing. Clones record to the same place.
#[derive(Debug, Clone, Default)]
pub struct ClickRecorder {
    place: Option<(Arc<Mutex<Table>>, Arc<Shared>)>,
}

impl ClickRecorder {
    /// Counts a redirect that is being answered.
    pub fn record(&self, id: LinkId, visit: Visit, now: Timestamp) {
        let Some((table, shared)) = &self.place else { return };
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
        self.place.is_some()
    }
}

/// What all recorders have recorded and the store does not have yet.
#[derive(Debug)]
pub(super) struct Clicks {
    shared: Arc<Shared>,
    is_counting: bool,
    /// Held by who writes. Those who read never wait for it.
    writing: AsyncMutex<()>,
}

#[derive(Debug)]
struct Shared {
    recorders: Mutex<Vec<Arc<Mutex<Table>>>>,
    gathered: Mutex<Gathered>,
    /// Links that each recorder takes at most between two gatherings.
    recorded_max: AtomicUsize,
    /// Links that are gathered at most.
    gathered_max: AtomicUsize,
    written: AtomicU64,
    /// Woken by a recorder that cannot take much more.
    many: Notify,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Gathered {
    table: Table,
    /// An empty one, to be put in the place of a recorder's.
    spare: Table,
    /// The chunk that was made last; an empty one at first.
    last: Arc<Chunk>,
    /// Whether that is being written, or was not acknowledged when that was tried.
    is_in_flight: bool,
}

impl Gathered {
    fn in_flight(&self) -> Option<&Arc<Chunk>> {
        self.is_in_flight.then_some(&self.last)
    }
}

#[derive(Debug, Default)]
struct Chunk {
    /// In the order of the ids.
    counts: Vec<(LinkId, Usage)>,
    /// The first sum that came of writing it: where the store has that and no later chunk, it has all of it.
    sum: Mutex<Option<(LinkId, Usage)>>,
    /// The one that was made after it. Whoever holds a chunk can go from there to all that came later.
    next: OnceLock<Arc<Self>>,
}

impl Drop for Chunk {
    /// One after the other, because each that nobody else holds would drop the next inside of its own drop.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(chunk) = next {
            next = Arc::into_inner(chunk).and_then(|mut chunk| chunk.next.take());
        }
    }
}

/// Where those who read clicks begin: the chunk that was made last before their snapshot was taken.
struct Before {
    last: Arc<Chunk>,
    was_in_flight: bool,
}

impl Before {
    /// The chunks that are not in a snapshot that was taken after this, of those that were made up to `last`.
    fn missing(self, snapshot: &Snapshot, last: &Arc<Chunk>) -> Result<Vec<Arc<Chunk>>, StoreError> {
        let mut chunks = Vec::new();
        let mut next = Some(self.last);
        while let Some(chunk) = next {
            next = chunk.next.get().filter(|_| !Arc::ptr_eq(&chunk, last)).cloned();
            chunks.push(chunk);
        }
        if !self.was_in_flight {
            // It had been acknowledged, so it is in every later snapshot.
            chunks.remove(0);
        }
        // They are written in their order. Of the last that the snapshot has, it has the very sum; of later ones it has less.
        for place in (0..chunks.len()).rev() {
            if chunks.get(place).map_or(Ok(false), |chunk| chunk.is_in(snapshot))? {
                chunks.drain(..=place);
                break;
            }
        }
        Ok(chunks)
    }
}

impl Chunk {
    /// Writes it, unless an attempt whose outcome was unknown has.
    fn write(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let before = *self.sum.lock();
        if let Some((id, usage)) = before
            && transaction.usage(id)? == usage
        {
            return Ok(());
        }
        // Nobody who reads waits for the disk. There is one writer.
        let sum = transaction.add_usage(&self.counts)?;
        *self.sum.lock() = sum;
        Ok(())
    }

    fn is_in(&self, snapshot: &Snapshot) -> Result<bool, StoreError> {
        let sum = *self.sum.lock();
        sum.map_or(Ok(false), |(id, usage)| Ok(snapshot.usage(id)? == usage))
    }

    fn of(&self, id: LinkId) -> Usage {
        let found = self.counts.binary_search_by_key(&id, |(id, _)| *id).ok();
        found
            .and_then(|place| self.counts.get(place))
            .map_or_else(Usage::default, |(_, usage)| *usage)
    }
}

fn with_room(hasher: &RandomState) -> Table {
    Table::with_capacity_and_hasher(ROOM_LINKS, hasher.clone())
}

/// Gives back what a burst has taken and nobody needs any more.
fn give_back(table: &mut Table, used: usize) {
    if table.is_empty() && table.capacity() > 4 * ROOM_LINKS && used < table.capacity() / 8 {
        *table = with_room(table.hasher());
    }
}

/// Links that a table of so many bytes takes. It has a power of two of places, an eighth of them empty, and while it grows, half as
/// many once more.
fn links_within(bytes: usize) -> usize {
    let places = (bytes / ENTRY_BYTES * 2 / 3)
        .checked_ilog2()
        .map_or(0, |exponent| 1 << exponent);
    places / 8 * 7
}

/// Links that each of so many recorders takes at most, and links that are gathered at most, for so many links in the store.
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
    /// Says what is taken at most from now on.
    fn set_limits(&self, recorders: usize, links: usize) {
        let (recorded, gathered) = limits(recorders, links);
        self.recorded_max.store(recorded, Ordering::Relaxed);
        self.gathered_max.store(gathered, Ordering::Relaxed);
    }

    /// Gathers what the recorders have. Each is locked while an empty table is put in the place of its own.
    fn gather(&self) {
        let recorders = self.recorders.lock();
        let mut gathered = self.gathered.lock();
        let Gathered { table, spare, .. } = &mut *gathered;
        let most = self.gathered_max.load(Ordering::Relaxed);
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

    /// What is to be written next: what is in flight, or else at most so many links.
    fn next_chunk(&self, links: usize) -> Option<Arc<Chunk>> {
        let mut gathered = self.gathered.lock();
        if let Some(chunk) = gathered.in_flight() {
            return Some(Arc::clone(chunk));
        }
        let table = &mut gathered.table;
        let used = table.len();
        let taken = table.extract_if(|_, _| true).take(links);
        let mut counts: Vec<_> = taken.collect();
        give_back(table, used);
        if counts.is_empty() {
            return None;
        }
        // Neighbours are in one page.
        counts.sort_unstable_by_key(|(id, _)| *id);
        let chunk = Arc::new(Chunk {
            counts,
            sum: Mutex::new(None),
            next: OnceLock::new(),
        });
        // The last one has none yet.
        let _ = gathered.last.next.set(Arc::clone(&chunk));
        gathered.last = Arc::clone(&chunk);
        gathered.is_in_flight = true;
        Some(chunk)
    }
}

impl Clicks {
    pub(super) fn new(is_counting: bool) -> Self {
        // Seeded at random, so that nobody can choose ids that fall into one bucket.
        let hasher = RandomState::default();
        let gathered = Gathered {
            table: Table::with_hasher(hasher.clone()),
            spare: if is_counting {
                with_room(&hasher)
            } else {
                Table::with_hasher(hasher)
            },
            last: Arc::default(),
            is_in_flight: false,
        };
        let shared = Shared {
            recorders: Mutex::new(Vec::new()),
            gathered: Mutex::new(gathered),
            recorded_max: AtomicUsize::new(0),
            gathered_max: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            many: Notify::new(),
            dropped: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
            is_counting,
            writing: AsyncMutex::new(()),
        }
    }

    fn recorder(&self) -> ClickRecorder {
        if !self.is_counting {
            return ClickRecorder::default();
        }
        let table = with_room(self.shared.gathered.lock().spare.hasher());
        let table = Arc::new(Mutex::new(table));
        let mut recorders = self.shared.recorders.lock();
        recorders.push(Arc::clone(&table));
        // The next flush knows how many links there are.
        self.shared.set_limits(recorders.len(), 0);
        drop(recorders);
        ClickRecorder {
            place: Some((table, Arc::clone(&self.shared))),
        }
    }
}

impl Links {
    /// Whether redirects are counted. To be said before anybody has a recorder.
    pub fn counting_clicks(self, is_counting: bool) -> Self {
        Self {
            clicks: Clicks::new(is_counting),
            ..self
        }
    }

    /// A recorder for one more thread, for as long as the links are there.
    pub fn recorder(&self) -> ClickRecorder {
        self.clicks.recorder()
    }

    /// Clicks and previews that could not be counted since the start, because too many links were used at a time or the store
    /// took no writes for too long.
    pub fn dropped_clicks(&self) -> u64 {
        self.clicks.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes down what has been recorded until now. What cannot be written is kept, as long as there is room for it.
    pub async fn flush_clicks(&self) -> Result<(), WriteError> {
        self.flush_clicks_by(WRITTEN_TOGETHER_LINKS).await
    }

    /// The same, with at most so many links in a transaction.
    async fn flush_clicks_by(&self, links_together: usize) -> Result<(), WriteError> {
        let shared = &self.clicks.shared;
        let recorders = shared.recorders.lock().len();
        shared.set_limits(recorders, self.index.links());
        shared.gather();
        // What comes meanwhile has time until it is done again.
        let mut left = shared.gathered.lock().table.len();
        loop {
            let writing = self.clicks.writing.lock().await;
            let is_new = !shared.gathered.lock().is_in_flight;
            let Some(chunk) = shared.next_chunk(left.min(links_together)) else {
                return Ok(());
            };
            let links = chunk.counts.len();
            let to_write = Arc::clone(&chunk);
            // If this ends here, the chunk stays in flight.
            self.store.write(move |transaction| to_write.write(transaction)).await?;
            shared.gathered.lock().is_in_flight = false;
            shared.written.fetch_add(1, Ordering::Relaxed);
            drop(writing);
            if is_new {
                left = left.saturating_sub(links);
            }
            let visits: u64 = chunk.counts.iter().map(|(_, usage)| usage.visits()).sum();
            tracing::debug!(links, visits, "clicks are written down");
            // There may be many chunks, and recorders do not wait.
            shared.gather();
        }
    }

    /// Writes down everything that has been recorded, as often as it takes. Gives up when nothing has been written for so long,
    /// unless the store takes writes and is only slow.
    pub async fn flush_all_clicks(&self, patience: Duration) {
        let shared = &self.clicks.shared;
        let (mut written, mut since) = (shared.written.load(Ordering::Relaxed), Instant::now());
        loop {
            let flushing = self.flush_clicks_by(WRITTEN_AT_THE_END_LINKS);
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
                tracing::warn!("the store is slow: the end waits until clicks are written down");
            } else if since.elapsed() >= patience {
                break;
            }
        }
        let gathered = shared.gathered.lock();
        let in_flight = gathered.in_flight().into_iter().flat_map(|chunk| &chunk.counts);
        let waiting = gathered.table.values().chain(in_flight.map(|(_, usage)| usage));
        let visits: u64 = waiting.map(Usage::visits).sum();
        tracing::error!(visits, "the store takes no writes: clicks are lost");
    }

    /// Writes clicks down every few seconds, for ever.
    pub async fn keep_flushing_clicks(&self) {
        if !self.clicks.is_counting {
            return;
        }
        let shared = &self.clicks.shared;
        let mut interval = tokio::time::interval(FLUSH_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut told_at) = (0, None::<tokio::time::Instant>);
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    let mut flush = pin!(self.flush_clicks());
                    // It can take long, and recorders do not wait. That the store takes no writes has been told by the writer;
                    // clicks are kept.
                    while let Either::Right(((), _)) = select(&mut flush, pin!(shared.many.notified())).await {
                        shared.gather();
                    }
                }
                () = shared.many.notified() => shared.gather(),
            }
            let dropped = self.dropped_clicks();
            if dropped > told && told_at.is_none_or(|at| at.elapsed() >= TELL_INTERVAL) {
                let visits = dropped - told;
                tracing::warn!(
                    visits,
                    "clicks are not counted: more links are used than can be written down"
                );
                (told, told_at) = (dropped, Some(tokio::time::Instant::now()));
            }
        }
    }

    /// What the tables have allocated, in bytes, for tests.
    #[cfg(test)]
    pub(super) fn bytes_for_clicks(&self) -> usize {
        let shared = &self.clicks.shared;
        let recorders = shared.recorders.lock();
        let recorded: usize = recorders.iter().map(|table| table.lock().allocation_size()).sum();
        let gathered = shared.gathered.lock();
        recorded + gathered.table.allocation_size() + gathered.spare.allocation_size()
    }

    /// Whether a flush is waiting for the store, or was not acknowledged, for tests.
    #[cfg(test)]
    pub(super) fn has_clicks_in_flight(&self) -> bool {
        self.clicks.shared.gathered.lock().is_in_flight
    }

    /// Gathers what the recorders have, for tests.
    #[cfg(test)]
    pub(super) fn gather_clicks(&self) {
        self.clicks.shared.gather();
    }

    /// As [`Links::get`], with how the link has been used: everything that was answered before this was asked.
    ///
    /// # Errors
    /// As [`Links::get`].
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

    /// As [`Links::list`], with how each link has been used: everything that was answered before this was asked.
    ///
    /// # Errors
    /// As [`Links::list`].
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

    /// Reads something, and how the links whose ids come with it have been used. Waits for no flush.
    pub(super) async fn read_with_usage<R, F>(&self, lane: Lane, read: F) -> Result<(R, Vec<Usage>), StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<(R, Vec<LinkId>), StoreError> + Send + 'static,
    {
        let shared = Arc::clone(&self.clicks.shared);
        shared.gather();
        let before = {
            let gathered = shared.gathered.lock();
            Before {
                last: Arc::clone(&gathered.last),
                was_in_flight: gathered.is_in_flight,
            }
        };
        let job = move |snapshot: &Snapshot| {
            let (result, ids) = read(snapshot)?;
            let stored: Vec<_> = ids.iter().map(|id| snapshot.usage(*id)).collect::<Result<_, _>>()?;
            // What leaves the table meanwhile is in a chunk that is found from `before`: both are looked at together.
            let (mut usages, last) = {
                let gathered = shared.gathered.lock();
                let counted = |id| gathered.table.get(id).copied().unwrap_or_default();
                (ids.iter().map(counted).collect::<Vec<_>>(), Arc::clone(&gathered.last))
            };
            let missing = before.missing(snapshot, &last)?;
            for ((id, usage), stored) in ids.iter().zip(&mut usages).zip(&stored) {
                usage.add(stored);
                for chunk in &missing {
                    usage.add(&chunk.of(*id));
                }
            }
            Ok((result, usages))
        };
        self.store.read_on(lane, job).await
    }
}
