//! The one writer: a thread that takes what has queued up during the last sync into one transaction, commits it, has
//! it published and then answers.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use redb::Database;
use tokio::sync::{mpsc, oneshot, watch};

use crate::store::error::{StoreError, WriteError};
use crate::store::transaction::{Change, Transaction};

/// Jobs in one transaction at most. Throughput is flat from about 16 rows; beyond this a batch only adds latency.
const BATCH_MAX_JOBS: usize = 256;
/// Jobs that may wait. Those who come later wait for a place, which slows them down instead of refusing them.
const QUEUE_MAX_JOBS: usize = 4096;

/// Is told of every commit: after it is on disk, before anybody is answered.
pub trait CommitObserver: Send + Sync + 'static {
    /// The changes of one transaction, in the order in which they were made.
    fn committed(&self, changes: Vec<Change>);
}

/// Whether the store takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Accepting,
    /// It does not, and why.
    Refusing(String),
}

/// Tells a job's sender how it ended.
type Answer = Box<dyn FnOnce(Result<(), WriteError>) + Send>;
type Job = Box<dyn FnOnce(&mut Transaction<'_>) -> Result<Answer, StoreError> + Send>;

/// The queue to the writer's thread. Dropping it waits until what is queued has been written.
pub(super) struct Writer {
    // Both are there until the drop.
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    health: watch::Receiver<Health>,
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

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn start(
        database: Arc<Database>,
        observer: Arc<dyn CommitObserver>,
        published: watch::Sender<u64>,
        sequence: u64,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX_JOBS);
        let (health_sender, health) = watch::channel(Health::Accepting);
        let state = State {
            database,
            observer,
            published,
            sequence,
            health: health_sender,
        };
        let thread = thread::Builder::new()
            .name("tinyd-writer".into())
            .spawn(move || state.run(jobs))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            health,
        })
    }

    pub(super) async fn submit<R, F>(&self, job: F) -> Result<R, WriteError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            let result = job(transaction)?;
            Ok(Box::new(move |outcome| {
                // Whoever asked may have gone; that changes nothing about the write.
                let _ = sender.send(outcome.map(|()| result));
            }))
        });
        let queue = self.queue.as_ref().ok_or(WriteError::Unavailable)?;
        queue.send(job).await.map_err(|_| WriteError::Unavailable)?;
        // A job that is dropped without an answer was never part of a commit.
        receiver.await.unwrap_or(Err(WriteError::Unavailable))
    }

    pub(super) fn health(&self) -> Health {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Health::Refusing("the writer has stopped".into());
        }
        self.health.borrow().clone()
    }
}

struct State {
    database: Arc<Database>,
    observer: Arc<dyn CommitObserver>,
    published: watch::Sender<u64>,
    sequence: u64,
    health: watch::Sender<Health>,
}

impl State {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX_JOBS
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            if *self.health.borrow() != Health::Accepting {
                // Dropping a job answers it: unavailable.
                continue;
            }
            if let Err(error) = self.commit(batch) {
                tracing::error!(%error, "the store has failed: writes are refused until a restart, redirects go on");
                self.health.send_replace(Health::Refusing(error.to_string()));
            }
        }
    }

    fn commit(&mut self, batch: Vec<Job>) -> Result<(), StoreError> {
        let mut inner = self.database.begin_write()?;
        inner.set_quick_repair(true);
        let sequence = self.sequence + 1;
        let mut answers = Vec::with_capacity(batch.len());
        let mut transaction = Transaction::open(&inner)?;
        for job in batch {
            let before = transaction.modifications();
            match job(&mut transaction) {
                Ok(answer) => answers.push(answer),
                // One damaged record is no reason to refuse the others: whoever met it is told that nothing was written.
                Err(error @ StoreError::Damaged { .. }) if transaction.modifications() == before => {
                    tracing::error!(%error, "a write has met a damaged record");
                }
                Err(error) => return Err(error),
            }
        }
        if transaction.modifications() == 0 {
            drop(transaction);
            inner.abort().map_err(StoreError::from)?;
            answer_all(answers, Ok(()));
            return Ok(());
        }
        let changes = transaction.finish(sequence)?;
        if let Err(error) = inner.commit() {
            answer_all(answers, Err(WriteError::OutcomeUnknown));
            return Err(error.into());
        }
        self.sequence = sequence;
        self.observer.committed(changes);
        self.published.send_replace(sequence);
        answer_all(answers, Ok(()));
        Ok(())
    }
}

fn answer_all(answers: Vec<Answer>, outcome: Result<(), WriteError>) {
    for answer in answers {
        answer(outcome);
    }
}
