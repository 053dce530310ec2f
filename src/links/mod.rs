//! The domain: what happens to links and sessions, written through from the store to the map.
//!
//! Owns the map from which redirects are answered, and decides inside write transactions which changes are allowed.
//! Knows no parameters, no formats and no HTTP beyond the value of a `Location` header.

mod add;
mod audit;
mod bulk;
mod cascade;
mod clicks;
mod days;
mod destinations;
pub mod file;
mod fleet;
mod ids;
mod map;
mod policy;
mod renew;
mod restore;
mod search;
mod sessions;
mod turns;
mod usage;
mod update;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

pub use add::Draft;
pub use audit::AuditLog;
pub use bulk::{BULK_COMMIT_LINKS, BulkChange, BulkCounts};
pub use clicks::ClickRecorder;
pub use destinations::{NewDestinations, NotNew};
pub use fleet::{ClickFaults, ClickSenders};
pub use ids::OnceSeed;
pub use map::{LinkMap, PREFETCHED_LINKS, Verdict};
pub use restore::{Deleted, RestoreOutcome};
pub use search::{SearchDate, SearchOrder, SearchQuery, SearchState};
pub use sessions::Sessions;
pub use turns::{READ_TIMEOUT, ReadContext, Turn};

use crate::kaltura::session::{InvalidKs, Kind, Partners, SESSION_MAX_SECONDS, Session};
use crate::links::clicks::Clicks;
use crate::links::ids::IdSource;
use crate::links::map::Batch;
use crate::links::map::publisher::Publisher;
use crate::links::search::SearchIndex;
use crate::links::turns::Turns;
use crate::model;
use crate::model::validate::InvalidValidity;
use crate::model::{
    Actor, AuditAction, Clock, Digest, ForbiddenHost, ID_MAX_BYTES, LinkId, LinkRef, PartnerId, ShortLink, Status,
    Timestamp,
};
use crate::store::replication::ReplicationLog;
use crate::store::{
    FILE_NAME, Health, Listing, OpenError, Query, ReadLimit, Snapshot, Store, StoreError, Transaction, Visitor,
    WriteError, unless_damaged,
};

/// Concurrent look-ups in the store while the map is loading.
const LOOK_UPS_MAX: usize = 64;
/// Attempts of a look-up while the file fails.
const LOOK_UP_ATTEMPTS: usize = 10;
/// Pause between them: the writer may not have noticed the failure yet.
const LOOK_UP_INTERVAL: Duration = Duration::from_millis(50);
/// How long a look-up waits for a file that is being reopened.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(3);
/// Total time of a look-up, also if the disk hangs.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);
const LOAD_ATTEMPTS: usize = 5;
/// More threads gain nothing: they share the file and the shards.
const LOAD_THREADS_MAX: usize = 8;
const LOAD_RETRY_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub enum UpdateError<E> {
    Link(LinkError),
    Refused(E),
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No such link, or deleted, or outside the scope.
    #[error("no such link")]
    NotFound,
    /// The link has another id now.
    #[error("the id is retired: another one has taken its place")]
    Retired,
    /// Another link of the partner that is not deleted has it.
    #[error("unique id {0:?} is taken")]
    UniqueIdTaken(String),
    #[error(transparent)]
    Host(#[from] ForbiddenHost),
    #[error("user {user:?} has added {limit} links today, the most that the partner allows")]
    TooManyToday { user: String, limit: u32 },
    /// The partner limits the links of each user, and this session has no user.
    #[error("a session without a user adds no links where the links of users are limited")]
    NoUser,
    /// What a search asks for depends on clicks.
    #[error("clicks are not counted")]
    ClicksNotCounted,
    #[error(transparent)]
    Validity(#[from] InvalidValidity),
    /// The disk failed while a new id was written.
    #[error("outcome unknown: if the write was stored, the link has the id {0} now")]
    RenewalUnknown(LinkId),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Read(#[from] StoreError),
}

/// The links that a request may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub partner: PartnerId,
    /// `None`: all of the partner's.
    pub owner: Option<String>,
}

impl Scope {
    /// All links of the partner for an administrator, a user's own for others (docs/kaltura-api.md#permissions).
    pub fn of(session: &Session) -> Self {
        Self {
            partner: session.partner,
            owner: match session.kind {
                Kind::Admin => None,
                // A session without a user owns nothing: no link has an empty owner.
                Kind::User => Some(session.user.clone().unwrap_or_default()),
            },
        }
    }

    fn shows(&self, link: &ShortLink) -> bool {
        self.covers(link) && link.status != Status::Deleted
    }

    fn covers(&self, link: &ShortLink) -> bool {
        link.partner_id == self.partner && (self.owner.is_none() || self.owner == link.user_id)
    }
}

/// The links and sessions. Dropping them waits for queued writes.
#[derive(Debug)]
pub struct Links {
    store: Store,
    index: Arc<LinkMap>,
    search: Arc<SearchIndex>,
    sessions: Arc<Sessions>,
    clicks: Arc<Clicks>,
    turns: Turns,
    clock: Clock,
    ids: IdSource,
    audit_entries: u64,
    stored: u64,
    look_ups: Semaphore,
    is_ending: AtomicBool,
    /// What partners allow; unset: everything.
    partners: OnceLock<watch::Receiver<Arc<Partners>>>,
    load_time: OnceLock<Duration>,
    loaded: OnceLock<Loaded>,
}

/// What was known when the links had been read.
#[derive(Debug)]
struct Loaded {
    /// The latest change among the links stored before this start.
    newest: Timestamp,
    /// By the clock.
    at: Timestamp,
    since: Instant,
}

struct Loader<'i> {
    batch: Batch<'i>,
    links: u64,
    newest: Timestamp,
    damaged: Vec<LinkId>,
}

impl Visitor for Loader<'_> {
    fn visit(&mut self, id: LinkId, link: Result<LinkRef<'_>, StoreError>) {
        self.links += 1;
        let error = match link {
            Ok(link) if self.batch.load(&link) => {
                self.newest = self.newest.max(link.updated_at);
                return;
            }
            Ok(_) => StoreError::never_accepted(id),
            Err(error) => error,
        };
        tracing::error!(%error, "a link cannot be served: export it from a backup, and import that with \
            --on-conflict update");
        self.damaged.push(id);
    }
}

impl Links {
    /// Opens the store in a data folder. The map is empty until [`Links::load`]. New ids have `id_length` characters, 4
    /// to 20.
    pub fn open(folder: &Path, clock: Clock, id_length: usize) -> Result<Self, OpenError> {
        Self::open_in_cluster(folder, clock, id_length, None)
    }

    /// As [`Links::open`], with the log that this store shares with others.
    pub fn open_in_cluster(
        folder: &Path,
        clock: Clock,
        id_length: usize,
        log: Option<Arc<dyn ReplicationLog>>,
    ) -> Result<Self, OpenError> {
        let publisher = Publisher::default();
        let file = folder.join(FILE_NAME);
        unless_damaged(&file, || {
            let store = Store::open_to_serve(&file, Some(Arc::new(publisher.clone())), log.clone())?;
            Self::from_store(store, publisher, clock, IdSource::unguessable(id_length))
        })
    }

    /// Opens a store file, for instance a backup, without writing to it.
    pub fn open_read_only(file: &Path, clock: Clock) -> Result<Self, OpenError> {
        let ids = IdSource::unguessable(ID_MAX_BYTES);
        unless_damaged(file, || {
            let links = Self::from_store(Store::open_read_only(file)?, Publisher::default(), clock, ids)?;
            Ok(links.counting_clicks(false))
        })
    }

    fn from_store(store: Store, publisher: Publisher, clock: Clock, ids: IdSource) -> Result<Self, OpenError> {
        let snapshot = store.snapshot()?;
        let Publisher {
            index,
            search,
            sessions,
        } = publisher;
        sessions.replace_revocations(snapshot.revocations()?);
        let stored = snapshot.totals()?.iter().sum();
        Ok(Self {
            store,
            index,
            search,
            sessions,
            clicks: Clicks::new(true, "".into()),
            turns: Turns::default(),
            clock,
            ids,
            audit_entries: u64::MAX,
            stored,
            look_ups: Semaphore::new(LOOK_UPS_MAX),
            is_ending: AtomicBool::new(false),
            partners: OnceLock::new(),
            load_time: OnceLock::new(),
            loaded: OnceLock::new(),
        })
    }

    /// Loads every link from the store into the map, and returns how many. Writes go on meanwhile and win over what is
    /// loaded. A damaged link is logged and answers as such. If the store fails, waits until it works again.
    pub fn load(&self) -> Result<u64, StoreError> {
        let began = Instant::now();
        let loaded = self.load_patiently()?;
        // The first load counts.
        let _ = self.load_time.set(began.elapsed());
        Ok(loaded)
    }

    fn load_patiently(&self) -> Result<u64, StoreError> {
        for _ in 1..LOAD_ATTEMPTS {
            match self.try_load() {
                Err(error) if error.is_of_the_file() => {
                    tracing::warn!(%error, "loading interrupted");
                    // A reader may have noticed the failure before the writer.
                    self.store.nudge();
                    std::thread::sleep(LOAD_RETRY_INTERVAL);
                    // Wait for a file that cannot be read; one that only takes no writes can be.
                    while self.store.snapshot().is_err() && matches!(self.health(), Health::Refusing(_)) {
                        std::thread::sleep(LOAD_RETRY_INTERVAL);
                    }
                    if self.index.is_loaded() {
                        return Ok(self.index.links() as u64);
                    }
                }
                loaded => return loaded,
            }
        }
        self.try_load()
    }

    fn try_load(&self) -> Result<u64, StoreError> {
        self.index.reserve(self.stored);
        let loader = || Loader {
            batch: Batch::new(&self.index),
            links: 0,
            newest: Timestamp::MIN,
            damaged: Vec::new(),
        };
        let snapshot = self.store.snapshot()?;
        let scanned = snapshot.scan(model::cores().min(LOAD_THREADS_MAX), &ReadLimit::default(), loader)?;
        let links = scanned.visitors.iter().map(|loader| loader.links).sum();
        let newest = scanned.visitors.iter().map(|loader| loader.newest).max();
        // Only links of earlier starts: later ones have this process's clock, which may be ahead.
        let _ = self.loaded.set(Loaded {
            newest: newest.unwrap_or(Timestamp::MIN),
            at: self.clock.now(),
            since: Instant::now(),
        });
        let mut damaged = HashSet::new();
        for loader in scanned.visitors {
            loader.batch.finish();
            damaged.extend(loader.damaged);
        }
        let is_whole = scanned.unread == 0
            && damaged.is_empty()
            && snapshot
                .totals()
                .is_ok_and(|totals| totals.iter().sum::<u64>() == links);
        if is_whole || self.find_lost(&snapshot, &mut damaged)? {
            self.index.set_loaded(damaged);
        } else {
            tracing::error!(
                "the store is damaged: redirects go on for the links that can be read, others are answered 503. \
                Restore a backup"
            );
        }
        Ok(links)
    }

    /// Adds the ids that an index has and no record: these links are damaged, not unknown. False if the index is
    /// damaged too.
    fn find_lost(&self, snapshot: &Snapshot, damaged: &mut HashSet<LinkId>) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let before = damaged.len();
        let is_known = snapshot.for_each_indexed(|id| {
            if self.index.look_up(id, now) == Verdict::Loading {
                damaged.insert(id);
            }
        })?;
        let lost = damaged.len() - before;
        if lost > 0 {
            tracing::error!(
                lost,
                "the records of links are lost: import them from a backup with --on-conflict update"
            );
        }
        Ok(is_known)
    }

    /// What to answer for an id now. While the map is loading, a missing link is read from the store.
    pub async fn look_up(&self, id: LinkId) -> Verdict {
        match self.index.look_up(id, self.clock.now()) {
            Verdict::Loading => {
                let looking = tokio::time::timeout(LOOK_UP_TIMEOUT, self.look_up_stored(id));
                looking.await.unwrap_or(Verdict::Loading)
            }
            verdict => verdict,
        }
    }

    async fn look_up_stored(&self, id: LinkId) -> Verdict {
        // The semaphore is never closed.
        let _permit = self.look_ups.acquire().await;
        for _ in 0..LOOK_UP_ATTEMPTS {
            match self.store.read_ahead(move |snapshot| snapshot.get(id)).await {
                Ok(link) => {
                    if let Some(link) = &link {
                        self.index.load(&link.into());
                    }
                    // A commit may have added it in between.
                    return match self.index.look_up(id, self.clock.now()) {
                        Verdict::Loading => Verdict::Unknown,
                        verdict => verdict,
                    };
                }
                Err(StoreError::Damaged { .. }) => return Verdict::Damaged,
                // The file failed, and may be reopened in a moment.
                Err(_) => {
                    tokio::time::sleep(LOOK_UP_INTERVAL).await;
                    if !self.store.wait_until_readable(LOOK_UP_PATIENCE).await {
                        break;
                    }
                }
            }
        }
        Verdict::Loading
    }

    /// Has what takes long and can be done again be given up: the program ends.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// How long it took to load the map; `None` while it is being loaded.
    pub fn load_time(&self) -> Option<Duration> {
        self.load_time.get().copied()
    }

    /// Links in the store when it was opened.
    pub const fn stored(&self) -> u64 {
        self.stored
    }

    /// The store, for what concerns it alone: snapshots and imports.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The map from which redirects are answered.
    pub const fn index(&self) -> &Arc<LinkMap> {
        &self.index
    }

    pub fn health(&self) -> Health {
        self.store.health()
    }

    /// The clock by which links are dated.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub async fn get(&self, id: LinkId, scope: &Scope) -> Result<ShortLink, LinkError> {
        let link = self.store.read(move |snapshot| snapshot.get(id)).await?;
        link.filter(|link| scope.shows(link)).ok_or(LinkError::NotFound)
    }

    /// Lists links in the partner's turn, which lasts until the returned [`Turn`] is dropped.
    pub async fn list(&self, query: Query, context: &ReadContext) -> Result<(Listing, Turn), LinkError> {
        let (partner, query) = (query.partner, Arc::new(query));
        let read = |limit: ReadLimit, lane| {
            let (query, search) = (Arc::clone(&query), Arc::clone(&self.search));
            let read = move |snapshot: &Snapshot| search.list_or_read(&query, snapshot, &limit, lane);
            self.store.read_on(lane, read)
        };
        Ok(self.read_in_turn(partner, context, read).await?)
    }

    /// Waits until this box has what any box of its cluster has acknowledged before now.
    pub async fn wait_until_current(&self) -> Result<(), StoreError> {
        match self.store.replicating() {
            Some(replicating) => replicating.wait_until_current().await,
            None => Ok(()),
        }
    }

    pub fn check_not_revoked(&self, session: &Session) -> Result<(), InvalidKs> {
        let by_id = session.session_id_digest();
        if self.sessions.is_revoked(&session.digest) || by_id.is_some_and(|digest| self.sessions.is_revoked(&digest)) {
            return Err(InvalidKs::Revoked);
        }
        Ok(())
    }

    /// Counts a call of a session that allows `limit` calls. The count is on disk before the call runs, so that a
    /// restart gives none back. False: the limit was reached before.
    pub async fn count_action(&self, session: &Session, limit: u64) -> Result<bool, WriteError> {
        let (digest, expiry) = (session.digest, session.expiry);
        let job = move |transaction: &mut Transaction<'_>| transaction.count_action(digest, limit, expiry);
        self.store.write(job).await
    }

    /// Revokes a session, and every session of the partner with the same session id.
    pub async fn revoke(&self, session: &Session, by: Actor) -> Result<(), WriteError> {
        let (log, digest, expiry): (_, Digest, Timestamp) = (self.audit_log(by), session.digest, session.expiry);
        let (by_id, now) = (session.session_id_digest(), self.clock.now());
        let job = move |transaction: &mut Transaction<'_>| {
            transaction.revoke(digest, expiry)?;
            if let Some(by_id) = by_id {
                transaction.revoke(by_id, expiry.max(now.plus(SESSION_MAX_SECONDS)))?;
            }
            log.note(transaction, AuditAction::EndSession, now, |entry| entry)?;
            Ok(())
        };
        self.store.write(job).await
    }

    /// Drops revocations and counts of expired sessions. A fast clock must not bring ended sessions back.
    pub async fn drop_expired_sessions(&self) -> Result<(), WriteError> {
        let Some(now) = self.time_at_most(|loaded| loaded.newest) else {
            return Ok(());
        };
        let job = move |transaction: &mut Transaction<'_>| transaction.drop_expired_sessions(now);
        self.store.write(job).await
    }

    /// A time for dropping what is old, which a fast clock does not make too late: at most one that was known at the
    /// start, plus the uptime. `None` until links are loaded.
    fn time_at_most(&self, known: impl FnOnce(&Loaded) -> Timestamp) -> Option<Timestamp> {
        let loaded = self.loaded.get()?;
        let running = i64::try_from(loaded.since.elapsed().as_secs()).unwrap_or(i64::MAX);
        Some(self.clock.now().min(known(loaded).plus(running)))
    }
}
