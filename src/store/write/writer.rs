//! The one writer: a thread that takes what has queued up during the last sync into one transaction, appends it to the
//! journal, commits it, has it published and then answers.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};

use crate::metrics::StoreMetrics;
use crate::model::priority;
use crate::store::error::{StoreError, WriteError};
use crate::store::files::medium::Medium;
use crate::store::journal::Journal;
use crate::store::journal::redo::Redo;
use crate::store::journal::replay::{self, Source};
use crate::store::journal::visibility::Visibility;
use crate::store::read::snapshot::Snapshot;
use crate::store::write::log_state::{Replicated, Replicating};
use crate::store::write::parts::SentParts;
use crate::store::write::queue::{
    Job, JobScope, Received, RetryTiming, TransactionEnd, WriterRequest, batch_of, receive,
};
use crate::store::write::transaction::{Change, Finished, Transaction};

/// Bytes of changes that share a transaction of redb, about a thousand links; a reader waits until they are committed.
/// Among a million links hardly two changes are in one page, so that more would only take longer.
const UNCOMMITTED_MAX_BYTES: usize = if cfg!(test) { 1024 } else { 256 * 1024 };
/// The same where jobs come one by one, a few dozen links: the next one waits for this commit, and not with others.
const LONE_UNCOMMITTED_MAX_BYTES: usize = if cfg!(test) { 512 } else { 32 * 1024 };
/// Jobs that may wait. Further callers wait for a slot instead of being refused.
const QUEUE_MAX_JOBS: usize = 4096;

/// The open database, which readers and the writer share; `None` while it is closed after a failure.
pub type Handle = Arc<watch::Sender<Option<Arc<Database>>>>;

/// Observes every commit: after it is on disk, before a sender is answered.
pub trait CommitObserver: Send + Sync + 'static {
    /// The changes of one transaction, in the order in which they were made.
    fn committed(&self, changes: Vec<Change>);

    /// What the observer keeps must become what this snapshot holds: after a commit of too many changes to tell, or
    /// after the store failed and has been opened again, when a commit of unknown outcome is in it or is not. No
    /// commit comes meanwhile.
    fn catch_up(&self, snapshot: &Snapshot) -> Result<(), StoreError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Accepting,
    /// Until the store has opened itself again; and why.
    Refusing(String),
    ReadOnly,
}

/// The queue to the writer's thread. Dropping it waits until what is queued has been written.
#[derive(Debug)]
pub struct Writer {
    // Both are there until the drop.
    queue: Option<mpsc::Sender<WriterRequest>>,
    thread: Option<JoinHandle<()>>,
    health: watch::Receiver<Health>,
    replicating: Option<Replicating>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// With a failure, the medium is open for reading only, and takes no writes yet.
    pub fn start(
        medium: Arc<dyn Medium>,
        shared: SharedWithReaders,
        observer: Option<Arc<dyn CommitObserver>>,
        pace: RetryTiming,
        replicated: Option<Replicated>,
        failure: Option<String>,
    ) -> std::io::Result<Self> {
        let replicating = replicated.as_ref().map(Replicated::handle);
        let (queue, requests) = mpsc::channel(QUEUE_MAX_JOBS);
        let health = failure.clone().map_or(Health::Accepting, Health::Refusing);
        let (health_sender, health) = watch::channel(health);
        let state = WriterState {
            medium,
            handle: shared.handle,
            observer,
            published: shared.published,
            health: health_sender,
            pace,
            visibility: shared.visibility,
            metrics: shared.metrics,
            journal: None,
            open: None,
            uncommitted: Vec::new(),
            without_journal_since: None,
            only_clicks_since: None,
            replicated,
        };
        let thread = thread::Builder::new().name("tinyd-writer".into()).spawn(move || {
            priority::lower(priority::LOWEST_NICE);
            state.run(requests, failure);
        })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            health,
            replicating,
        })
    }

    pub async fn submit<R, F>(&self, scope: JobScope, job: F, copy: Option<fn(&F) -> F>) -> Result<R, WriteError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<(TransactionEnd, R), StoreError> + Send + 'static,
    {
        if matches!(*self.health.borrow(), Health::Refusing(_)) {
            return Err(WriteError::Unavailable);
        }
        let (scope, copy) = match &self.replicating {
            Some(replicating) if scope == JobScope::Local || replicating.problem().is_none() => (scope, copy),
            Some(replicating) if replicating.only_follows() => return Err(WriteError::ReadOnly),
            Some(_) => return Err(WriteError::Unavailable),
            // One store's changes share transactions, whatever they are.
            None if scope == JobScope::Local => (JobScope::Shared, None),
            None => (scope, None),
        };
        let (sender, receiver) = oneshot::channel();
        self.send(WriterRequest::Job(Job::new(scope, job, copy, sender)))
            .await?;
        // The writer answers unless it panics, and then the outcome is unknown.
        receiver.await.unwrap_or(Err(WriteError::OutcomeUnknown))
    }

    pub async fn send(&self, request: WriterRequest) -> Result<(), WriteError> {
        let queue = self.queue.as_ref().ok_or(WriteError::Unavailable)?;
        queue.send(request).await.map_err(|_| WriteError::Unavailable)
    }

    pub const fn replicating(&self) -> Option<&Replicating> {
        self.replicating.as_ref()
    }

    pub fn nudge(&self) {
        let (sender, _) = oneshot::channel();
        let job = |_: &mut Transaction<'_>| Ok((TransactionEnd::Commit, ()));
        if let Some(queue) = &self.queue {
            // A full queue finds it out as well.
            let _ = queue.try_send(WriterRequest::Job(Job::new(JobScope::Local, job, None, sender)));
        }
    }

    pub fn queued(&self) -> usize {
        let slots = self.queue.as_ref().map_or(QUEUE_MAX_JOBS, mpsc::Sender::capacity);
        QUEUE_MAX_JOBS.saturating_sub(slots)
    }

    pub fn health(&self) -> Health {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Health::Refusing("the writer has stopped".into());
        }
        self.health.borrow().clone()
    }
}

/// What the writer shares with readers of the store.
pub struct SharedWithReaders {
    pub handle: Handle,
    pub published: watch::Sender<u64>,
    pub visibility: Arc<Visibility>,
    pub metrics: Arc<StoreMetrics>,
}

pub struct WriterState {
    pub medium: Arc<dyn Medium>,
    pub handle: Handle,
    pub observer: Option<Arc<dyn CommitObserver>>,
    pub published: watch::Sender<u64>,
    pub health: watch::Sender<Health>,
    pub pace: RetryTiming,
    pub visibility: Arc<Visibility>,
    pub metrics: Arc<StoreMetrics>,
    /// None until its file is made, by the writer when it is idle or by the first write, and where none can be made:
    /// every commit is then a durable one.
    pub journal: Option<Journal>,
    /// What the journal has and readers do not see yet: a transaction of redb that is still open. A page that changes
    /// often is copied once in a transaction and not in every batch, which is most of the work.
    pub open: Option<WriteTransaction>,
    /// The changes in it, as the journal has them.
    pub uncommitted: Vec<Vec<u8>>,
    /// When the last attempt to create a journal failed, which is logged once.
    pub without_journal_since: Option<Instant>,
    /// Since when the journal has had something that the store's file does not have, if that is only clicks.
    pub only_clicks_since: Option<Instant>,
    /// In a cluster.
    pub replicated: Option<Replicated>,
}

/// Why a batch was not committed, and what its senders may know of the outcome.
pub type BatchError = (WriteError, StoreError);

impl WriterState {
    fn run(mut self, mut requests: mpsc::Receiver<WriterRequest>, failure: Option<String>) {
        let visibility = Arc::clone(&self.visibility);
        let _released = visibility.serve();
        if failure.is_some_and(|reason| !self.open_later(reason, &mut requests)) {
            return;
        }
        let mut next = None;
        loop {
            let received = match next.take() {
                Some(request) => Some(Received::Item(request)),
                None => self.receive(&mut requests),
            };
            let Some(received) = received else {
                return self.end_journal();
            };
            // A bug, or a page that redb cannot read: to the senders, the outcome is unknown.
            let done = catch_unwind(AssertUnwindSafe(|| match received {
                Received::Item(request) => {
                    let mut uncommitted_max = UNCOMMITTED_MAX_BYTES;
                    match request {
                        WriterRequest::Job(first) => {
                            let batch = batch_of(first, &mut requests, &mut next);
                            if batch.len() == 1 {
                                uncommitted_max = LONE_UNCOMMITTED_MAX_BYTES;
                            }
                            self.write(batch)?;
                        }
                        WriterRequest::Apply(entries, sender) => self.apply(&entries, sender)?,
                        WriterRequest::Replace(with, sender) => self.replace(&with, sender)?,
                        WriterRequest::Append(payload, sender) => self.append(&payload, sender)?,
                        WriterRequest::Checkpoint(sender) => self.checkpoint_now(sender)?,
                    }
                    // Now, while no caller waits: readers must not wait for an append to the log.
                    if self.replicated.as_ref().is_some_and(|log| !log.only_follows()) {
                        self.make_visible()?;
                    }
                    if self.journal.as_ref().is_some_and(Journal::is_nearly_full) {
                        self.checkpoint()
                    } else if self.uncommitted.iter().map(Vec::len).sum::<usize>() > uncommitted_max {
                        self.make_visible()
                    } else {
                        Ok(())
                    }
                }
                Received::Wanted => self.make_visible(),
                Received::Nothing => self.use_idle_time(),
            }));
            if let Err(error) = done.unwrap_or(Err(StoreError::Panicked))
                && error.is_of_the_file()
            {
                next.take().into_iter().for_each(WriterRequest::refuse);
                if !self.recover(error, &mut requests) {
                    return;
                }
            }
        }
    }

    /// Waits for a job; not for long where there is something to do in [idle time](Self::use_idle_time).
    fn receive(&self, requests: &mut mpsc::Receiver<WriterRequest>) -> Option<Received<WriterRequest>> {
        let is_clean = match &self.journal {
            Some(journal) => journal.is_empty(),
            // It could not be made; the next write tries again.
            None => self.without_journal_since.is_some(),
        };
        let patience = match self.only_clicks_since {
            Some(since) => self.pace.idle_after_clicks.saturating_sub(since.elapsed()),
            None => self.pace.idle,
        };
        receive(requests, (!is_clean).then_some(patience), || {
            self.visibility.is_wanted()
        })
    }

    fn write(&mut self, mut batch: Vec<Job>) -> Result<(), StoreError> {
        while let Some(scope) = batch.first().map(|job| job.scope) {
            match self.commit(scope, &mut batch) {
                Ok(ran) => {
                    batch.drain(..ran).for_each(|job| job.answer(Ok(())));
                    if self.replicated.is_some() && !batch.is_empty() {
                        self.make_visible()?;
                    }
                }
                Err((outcome, mut error)) => {
                    if !error.is_of_the_file() {
                        tracing::error!(%error, "write failed and is undone");
                        error = self.restore_uncommitted().map_or_else(or_closed, |()| error);
                    }
                    // Before the answers, so that a retry finds the store refusing.
                    if error.is_of_the_file() {
                        self.health.send_replace(Health::Refusing(error.to_string()));
                    }
                    batch.into_iter().for_each(|job| job.answer(Err(outcome)));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Runs the first jobs in one transaction, all unless they are too many for an entry, has it on disk and publishes
    /// it. Returns how many these were.
    fn commit(&mut self, scope: JobScope, jobs: &mut [Job]) -> Result<usize, BatchError> {
        let mut sent = SentParts::default();
        let committed = self.try_to_commit(scope, jobs, &mut sent);
        self.drop_sent(&sent, committed)
    }

    fn try_to_commit(
        &mut self,
        scope: JobScope,
        mut jobs: &mut [Job],
        sent: &mut SentParts,
    ) -> Result<usize, BatchError> {
        let mut attempts = 0;
        loop {
            let sequence = *self.published.borrow() + 1;
            let unknown = |error| (WriteError::OutcomeUnknown, error);
            let ran = self.run_jobs(scope, sequence, jobs);
            let unavailable = |error| (WriteError::Unavailable, error);
            let (ran, ended) = ran.map_err(unavailable)?;
            let Some((inner, mut finished)) = ended else {
                return Ok(ran);
            };
            if scope != JobScope::Local && self.takes_several_entries(&finished) && ran > 1 {
                // The last of them is too long. Alone, it comes to the same in each attempt.
                drop(inner);
                self.restore_uncommitted().map_err(unavailable)?;
                jobs = mem::take(&mut jobs).split_at_mut(ran - 1).0;
                continue;
            }
            let metrics = Arc::clone(&self.metrics);
            let waiting = metrics.wait_for_disk();
            if scope != JobScope::Local && !self.replicate(&inner, &mut finished, sent)? {
                drop((waiting, inner));
                self.let_others_pass(&mut attempts)?;
                continue;
            }
            self.sync(
                inner,
                scope == JobScope::Alone,
                sequence,
                finished.redo,
                finished.is_clicks,
            )
            .map_err(unknown)?;
            metrics.commits.observe_duration(waiting.elapsed());
            drop(waiting);
            let written = jobs.iter().filter(|job| job.has_run()).count();
            metrics.batch_sizes.observe(written as u64);
            metrics.move_links(finished.links);
            self.publish(sequence, finished.changes).map_err(unknown)?;
            if let (Some(replicated), Some(position)) = (&self.replicated, finished.position) {
                replicated.reach(position);
            }
            return Ok(ran);
        }
    }

    /// How many of the jobs have run, and the transaction with what they have changed; none where nothing is to be
    /// committed.
    fn run_jobs(
        &mut self,
        scope: JobScope,
        sequence: u64,
        jobs: &mut [Job],
    ) -> Result<(usize, Option<(WriteTransaction, Finished)>), StoreError> {
        let is_alone = scope == JobScope::Alone;
        if is_alone {
            // It may be undone, or take long.
            self.make_visible()?;
        }
        let inner = self.begin()?;
        // What is alone may be millions of changes, which the journal could not take.
        let redo = if self.replicated.is_some() {
            Redo::kept_for_entries()
        } else if is_alone || self.journal.is_none() {
            Redo::not_kept()
        } else {
            Redo::kept()
        };
        let mut transaction = Transaction::open(&inner, self.observer.is_some(), redo)?;
        if let Some(replicated) = &self.replicated {
            transaction.digest = Some(replicated.position().digest);
        }
        let mut ending = TransactionEnd::Commit;
        let mut ran = 0;
        for job in jobs.iter_mut() {
            if self.replicated.is_some() && ran > 0 && transaction.redo.is_full_for_an_entry() {
                break;
            }
            ran += 1;
            if job.is_over() {
                continue;
            }
            let before = transaction.modifications;
            match job.run(&mut transaction) {
                Ok(end) => ending = end,
                // One damaged record is no reason to refuse the others.
                Err(error @ StoreError::Damaged { .. }) if transaction.modifications == before => {
                    tracing::error!(%error, "write met a damaged record");
                }
                Err(error) => return Err(error),
            }
        }
        if ending == TransactionEnd::Abort {
            drop(transaction);
            inner.abort()?;
            return Ok((ran, None));
        }
        if transaction.modifications == 0 {
            drop(transaction);
            if self.uncommitted.is_empty() {
                // Which also finds out about an operation that has failed before.
                inner.abort()?;
            } else {
                self.open = Some(inner);
                self.make_visible()?;
            }
            return Ok((ran, None));
        }
        let finished = transaction.finish(sequence)?;
        Ok((ran, Some((inner, finished))))
    }

    /// The transaction that is open, or a new one.
    pub fn begin(&mut self) -> Result<WriteTransaction, StoreError> {
        match self.open.take() {
            Some(inner) => Ok(inner),
            None => Ok(self.database()?.begin_write()?),
        }
    }

    /// Has a transaction on disk: in the journal if that has room, else in the store's file.
    pub fn sync(
        &mut self,
        inner: WriteTransaction,
        is_alone: bool,
        sequence: u64,
        redo: Option<Vec<u8>>,
        is_clicks: bool,
    ) -> Result<(), StoreError> {
        if let (Some(redo), Some(journal)) = (redo, &mut self.journal)
            && journal.has_room_for(sequence, &redo)
        {
            self.only_clicks_since = match self.only_clicks_since {
                _ if !is_clicks => None,
                None if journal.is_empty() => Some(Instant::now()),
                since => since,
            };
            journal.append(sequence, &redo)?;
            self.metrics.journal_bytes.set(journal.bytes());
            self.uncommitted.push(redo);
            self.open = Some(inner);
            return Ok(());
        }
        if !is_alone {
            self.ensure_journal();
        }
        self.commit_durably(inner, sequence)
    }

    pub fn publish(&mut self, sequence: u64, changes: Option<Vec<Change>>) -> Result<(), StoreError> {
        match (self.observer.clone(), changes) {
            (Some(observer), Some(changes)) => observer.committed(changes),
            (Some(observer), None) => {
                self.make_visible()?;
                observer.catch_up(&Snapshot::new(&*self.database()?)?)?;
            }
            (None, _) => {}
        }
        self.published.send_replace(sequence);
        Ok(())
    }

    pub fn database(&self) -> Result<Arc<Database>, StoreError> {
        self.handle.borrow().clone().ok_or(StoreError::Closed)
    }

    /// Commits what is acknowledged, in memory, so that readers see it.
    pub fn make_visible(&mut self) -> Result<(), StoreError> {
        if let Some(mut inner) = self.open.take() {
            inner.set_durability(Durability::None).map_err(redb::Error::from)?;
            inner.commit()?;
            self.uncommitted.clear();
        }
        let published = *self.published.borrow();
        self.visibility.reach(published);
        Ok(())
    }

    /// Makes again what is acknowledged and was undone with a batch that has given up.
    pub fn restore_uncommitted(&mut self) -> Result<(), StoreError> {
        // What is open has it still.
        if self.uncommitted.is_empty() || self.open.is_some() {
            return Ok(());
        }
        let database = self.database()?;
        let inner = database.begin_write()?;
        let mut transaction = Transaction::open(&inner, false, Redo::not_kept())?;
        if self.replicated.is_some() {
            transaction.digest = Snapshot::new(&database)?.position().map(|position| position.digest);
        }
        for payload in &self.uncommitted {
            replay::apply(&mut transaction, payload, Source::Journal)?;
        }
        transaction.finish(*self.published.borrow())?;
        self.open = Some(inner);
        Ok(())
    }

    /// Undoes what readers do not see yet; the journal has it.
    pub fn forget_uncommitted(&mut self) {
        self.open = None;
        self.uncommitted.clear();
    }
}

/// Why acknowledged writes that were undone could not be made again.
fn or_closed(error: StoreError) -> StoreError {
    if error.is_of_the_file() {
        error
    } else {
        StoreError::Closed
    }
}
