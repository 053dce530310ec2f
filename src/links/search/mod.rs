//! Searches for people: by a part of a text, in every order, over a million links at once. No index of the store
//! answers these. The rows are read into memory at the first search and dropped when nobody has searched for a while;
//! commits keep them as the store is. Lists of the API that would take long in the store are answered from them too.

mod query;
mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockUpgradableReadGuard, RwLockWriteGuard};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

pub use query::{SearchDate, SearchOrder, SearchQuery, SearchState};

use crate::links::search::rows::Rows;
use crate::links::{LinkError, Links};
use crate::model::{LinkId, LinkRef, PartnerId, ShortLink, Usage};
use crate::store::{Lane, Listing, Query, ReadLimit, Snapshot, Stopped, StoreError, Visitor};

/// Changes that wait for the next search. With more, reading everything anew is as quick.
const WAITING_MAX: usize = if cfg!(test) { 8 } else { 10_000 };
/// The rows are dropped when nobody has searched for so long.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Lists of more links than this have no rows read for them, which would take half a gigabyte.
const LISTED_MAX_LINKS: usize = 4_000_000;
/// How long a list waits for another look at the rows to bring them up to date.
const LIST_PATIENCE: Duration = Duration::from_millis(100);
/// How often a search begins anew because too much changed meanwhile, as during an import.
const ATTEMPTS: usize = 3;
/// Searches at a time; each takes a core.
const SEARCHES_MAX: usize = 2;
/// How long a search waits for others.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// The rows, once somebody has searched.
#[derive(Debug)]
pub struct SearchIndex {
    rows: RwLock<Option<Rows>>,
    waiting: Mutex<Waiting>,
    turns: Semaphore,
    /// Of the rows.
    memory_bytes: AtomicUsize,
    /// When a list would have used them.
    wanted: Notify,
}

#[derive(Debug)]
enum Change {
    Link(Box<ShortLink>),
    /// With all clicks.
    Used(Vec<(LinkId, u64)>),
}

/// What has happened since the rows were last brought up to date.
#[derive(Debug)]
struct Waiting {
    /// Whether somebody searches: otherwise nothing has to be kept.
    is_kept: bool,
    /// Whether changes were lost since the rows were read.
    is_stale: bool,
    /// How often that was so.
    losses: u64,
    changes: Vec<Change>,
    /// Of the changes.
    links: usize,
    searched_at: Instant,
}

impl Change {
    fn links(&self) -> usize {
        match self {
            Self::Link(_) => 1,
            Self::Used(used) => used.len(),
        }
    }
}

impl Waiting {
    /// Keeps changes no more: what has been read is of no use then.
    fn lose(&mut self) {
        self.is_kept = false;
        self.changes = Vec::new();
        self.links = 0;
    }
}

impl Default for SearchIndex {
    fn default() -> Self {
        Self {
            rows: RwLock::new(None),
            waiting: Mutex::new(Waiting {
                is_kept: false,
                is_stale: true,
                losses: 0,
                changes: Vec::new(),
                links: 0,
                searched_at: Instant::now(),
            }),
            turns: Semaphore::new(SEARCHES_MAX),
            memory_bytes: AtomicUsize::new(0),
            wanted: Notify::new(),
        }
    }
}

impl SearchIndex {
    async fn turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let waiting = tokio::time::timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        // The semaphore is never closed.
        waiting
            .ok()
            .and_then(Result::ok)
            .ok_or(StoreError::Stopped(Stopped::Time))
    }

    /// Notes a committed link. Never waits for a search.
    pub fn note(&self, link: &ShortLink) {
        self.push(|| Change::Link(Box::new(link.clone())));
    }

    pub fn note_used(&self, used: Vec<(LinkId, u64)>) {
        self.push(|| Change::Used(used));
    }

    /// Whether changes are kept for searches.
    pub fn is_kept(&self) -> bool {
        self.waiting.lock().is_kept
    }

    fn push(&self, change: impl FnOnce() -> Change) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_kept {
            return;
        }
        let change = change();
        waiting.links += change.links();
        if waiting.links > WAITING_MAX {
            // The rows go at the next search, or sweep: their lock may be held for as long as a search takes.
            waiting.lose();
            return;
        }
        waiting.changes.push(change);
    }

    /// Forgets the rows: the store may have lost commits.
    pub fn clear(&self) {
        let mut waiting = self.waiting.lock();
        waiting.lose();
    }

    /// Frees the rows where they are of no use any more.
    pub fn sweep(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.searched_at.elapsed() >= IDLE {
            waiting.lose();
        }
        let is_kept = waiting.is_kept;
        drop(waiting);
        if !is_kept && let Some(mut rows) = self.rows.try_write() {
            *rows = None;
            self.memory_bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Keeps changes from now on: a snapshot that is taken after this lacks none that is not kept.
    ///
    /// Returns since which loss changes have been kept, and whether they are from now on.
    fn begin(&self) -> (u64, bool) {
        let mut waiting = self.waiting.lock();
        waiting.searched_at = Instant::now();
        let is_new = !waiting.is_kept;
        if is_new {
            (waiting.is_kept, waiting.is_stale) = (true, true);
            waiting.losses += 1;
        }
        (waiting.losses, is_new)
    }

    /// Calls `look` with rows that are as new as this snapshot, or newer; `None` if too much has changed since
    /// [`Self::begin`].
    fn with_rows<R>(
        &self,
        losses: u64,
        snapshot: &Snapshot,
        look: impl FnOnce(&Rows) -> R,
    ) -> Result<Option<R>, StoreError> {
        self.with_locked_rows(self.rows.upgradable_read(), losses, Some(snapshot), look)
    }

    /// The same; without a snapshot, `None` if there are no rows.
    fn with_locked_rows<R>(
        &self,
        rows: RwLockUpgradableReadGuard<'_, Option<Rows>>,
        losses: u64,
        snapshot: Option<&Snapshot>,
        look: impl FnOnce(&Rows) -> R,
    ) -> Result<Option<R>, StoreError> {
        let mut waiting = self.waiting.lock();
        if !waiting.is_kept || waiting.losses != losses {
            return Ok(None);
        }
        let is_usable = rows.is_some() && !waiting.is_stale;
        if is_usable && waiting.changes.is_empty() {
            drop(waiting);
            // Others may look too.
            let rows = RwLockUpgradableReadGuard::downgrade(rows);
            return Ok(rows.as_ref().map(look));
        }
        if !is_usable && snapshot.is_none() {
            return Ok(None);
        }
        waiting.is_stale = false;
        let changes = std::mem::take(&mut waiting.changes);
        waiting.links = 0;
        drop(waiting);
        let mut rows = RwLockUpgradableReadGuard::upgrade(rows);
        if let Some(snapshot) = snapshot.filter(|_| !is_usable) {
            *rows = None;
            self.memory_bytes.store(0, Ordering::Relaxed);
            *rows = Some(read(snapshot).inspect_err(|_| self.clear())?);
        }
        if let Some(rows) = rows.as_mut() {
            // Those that a snapshot has already change nothing.
            apply(rows, changes);
            self.memory_bytes.store(rows.memory_bytes(), Ordering::Relaxed);
        }
        let rows = RwLockWriteGuard::downgrade(rows);
        Ok(rows.as_ref().map(look))
    }
}

impl SearchIndex {
    /// Whether lists need not look into the store.
    pub fn is_ready(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.is_kept && !waiting.is_stale
    }

    /// Answers a list from the rows, if they are there and can tell.
    fn list(&self, query: &Query, snapshot: &Snapshot) -> Result<Option<Listing>, StoreError> {
        let losses = {
            let mut waiting = self.waiting.lock();
            waiting.searched_at = Instant::now();
            waiting.losses
        };
        let Some(rows) = self.rows.try_upgradable_read_for(LIST_PATIENCE) else {
            return Ok(None);
        };
        let found = self.with_locked_rows(rows, losses, None, |rows| rows.list(query))?;
        let Some((total, ids)) = found.flatten() else {
            return Ok(None);
        };
        let mut links = Vec::with_capacity(ids.len());
        for id in ids {
            match snapshot.get(id) {
                Ok(Some(link)) if query.matches(&(&link).into()) => links.push(link),
                // It has changed since the snapshot, or its record is damaged.
                Ok(_) | Err(StoreError::Damaged { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Listing { links, total }))
    }

    /// As [`Snapshot::list`]; what takes long is answered from the rows, and has them read for the next time.
    pub fn list_or_read(
        &self,
        query: &Query,
        snapshot: &Snapshot,
        limit: &ReadLimit,
        lane: Lane,
    ) -> Result<Listing, StoreError> {
        if lane == Lane::Apart {
            if let Some(listing) = self.list(query, snapshot)? {
                return Ok(listing);
            }
            self.wanted.notify_one();
        }
        snapshot.list(query, limit)
    }
}

fn apply(rows: &mut Rows, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Link(link) => rows.put(&(&*link).into()),
            Change::Used(used) => used.into_iter().for_each(|(id, clicks)| rows.set_clicks(id, clicks)),
        }
    }
}

/// Collects the links of its part of the store.
struct Collector(Rows);

impl Visitor for Collector {
    fn visit(&mut self, _: LinkId, link: Result<LinkRef<'_>, StoreError>) {
        match link {
            Ok(link) => self.0.put(&link),
            // It has been logged when the map was loaded, and is not found.
            Err(_) => self.0.lacks_links = true,
        }
    }
}

fn read(snapshot: &Snapshot) -> Result<Rows, StoreError> {
    let began = Instant::now();
    // One thread, so that redirects have the other cores.
    let scanned = snapshot.scan(1, &ReadLimit::default(), || Collector(Rows::default()))?;
    let is_whole = scanned.unread == 0;
    let mut rows = scanned
        .visitors
        .into_iter()
        .next()
        .map(|collector| collector.0)
        .unwrap_or_default();
    rows.lacks_links |= !is_whole;
    snapshot.for_each_used(|id, clicks| rows.set_clicks(id, clicks))?;
    tracing::debug!(elapsed = ?began.elapsed(), bytes = rows.memory_bytes(), "links read for searches");
    Ok(rows)
}

/// What a search has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Those of the page, in order.
    pub links: Vec<(ShortLink, Usage)>,
    /// On all pages.
    pub total: u64,
}

impl Links {
    /// Keeps changes from now on.
    async fn begin_search(&self) -> u64 {
        let (losses, is_new) = self.search.begin();
        if is_new {
            // What a commit under way has changed is neither kept nor in a snapshot yet. It is once this has been
            // written; a store that takes no writes has no commit under way.
            let _ = self.store.write_local(|_| Ok(())).await;
        }
        losses
    }

    fn check_search(&self, query: &SearchQuery) -> Result<(), LinkError> {
        let needs_clicks = query.only_unused || query.order == SearchOrder::Clicks;
        if needs_clicks && !self.is_counting_clicks() {
            return Err(LinkError::ClicksNotCounted);
        }
        Ok(())
    }

    pub async fn search(&self, query: SearchQuery) -> Result<Found, LinkError> {
        self.check_search(&query)?;
        let query = Arc::new(query);
        for _ in 0..ATTEMPTS {
            let _turn = self.search.turn().await?;
            let (index, query, now) = (Arc::clone(&self.search), Arc::clone(&query), self.clock.now());
            let losses = self.begin_search().await;
            let find = move |snapshot: &Snapshot| {
                let found = index.with_rows(losses, snapshot, |rows| rows.search(&query, now))?;
                let links = found.map(|(total, ids)| Ok::<_, StoreError>((total, read_all(snapshot, &ids)?)));
                let found = links.transpose()?;
                let links = found.iter().flat_map(|(_, links)| links);
                let ids = links.map(|link| link.id).collect();
                Ok((found, ids))
            };
            if let (Some((total, links)), usages) = self.read_with_usage(Lane::Apart, find).await? {
                let links = links.into_iter().zip(usages).collect();
                return Ok(Found { links, total });
            }
        }
        // An import is going on.
        Err(StoreError::Stopped(Stopped::Time).into())
    }

    /// The ids of all links that a search finds, whatever its page.
    pub async fn search_ids(&self, query: SearchQuery) -> Result<Vec<LinkId>, LinkError> {
        self.check_search(&query)?;
        let query = Arc::new(query);
        for _ in 0..ATTEMPTS {
            let _turn = self.search.turn().await?;
            let (index, query, now) = (Arc::clone(&self.search), Arc::clone(&query), self.clock.now());
            let losses = self.begin_search().await;
            let find =
                move |snapshot: &Snapshot| index.with_rows(losses, snapshot, |rows| rows.search_all(&query, now));
            if let Some(ids) = self.store.read_on(Lane::Apart, find).await? {
                return Ok(ids);
            }
        }
        // An import is going on.
        Err(StoreError::Stopped(Stopped::Time).into())
    }

    /// Reads what searches need, so that the first one does not wait for it.
    pub async fn prepare_search(&self, partner: PartnerId) {
        let nothing = SearchQuery {
            limit: 0,
            ..SearchQuery::of(partner)
        };
        if let Err(error) = self.search(nothing).await {
            tracing::debug!(%error, "cannot prepare searches");
        }
    }

    /// Reads what searches need when a list would have used it; never ends.
    pub async fn keep_reading_for_lists(&self) {
        loop {
            self.search.wanted.notified().await;
            if !self.search.is_ready() && self.index.links() <= LISTED_MAX_LINKS {
                self.prepare_search(PartnerId(0)).await;
            }
        }
    }

    /// What searches keep in memory, in bytes.
    pub fn search_memory_bytes(&self) -> u64 {
        self.search.memory_bytes.load(Ordering::Relaxed) as u64
    }

    /// Frees what searches keep in memory when nobody has searched for a while.
    pub fn sweep_search(&self) {
        self.search.sweep();
    }
}

/// The links with these ids. One that has been added after the snapshot shows at the next search.
fn read_all(snapshot: &Snapshot, ids: &[LinkId]) -> Result<Vec<ShortLink>, StoreError> {
    let mut links = Vec::with_capacity(ids.len());
    for id in ids {
        match snapshot.get(*id) {
            Ok(link) => links.extend(link),
            // It was logged when the map was loaded.
            Err(StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(links)
}
