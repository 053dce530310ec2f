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

/// Tells the sender of a job that has been run how it ended.
type Answer = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// A write that waits in the queue, whatever it returns.
trait Job: Send {
    /// Runs it in a transaction. Its sender is answered once the transaction has ended; if it fails, at once.
    fn run(self: Box<Self>, transaction: &mut Transaction<'_>) -> Result<Answer, StoreError>;

    /// Tells its sender that nothing was written.
    fn refuse(self: Box<Self>);
}

struct Write<F, R> {
    job: F,
    sender: oneshot::Sender<Result<R, WriteError>>,
}

// Whoever asked may have gone; that changes nothing about the write, so a failure to answer is passed over.
impl<F, R> Job for Write<F, R>
where
    R: Send + 'static,
    F: FnOnce(&mut Transaction<'_>) -> Result<R, StoreError> + Send,
{
    fn run(self: Box<Self>, transaction: &mut Transaction<'_>) -> Result<Answer, StoreError> {
        let Self { job, sender } = *self;
        match job(transaction) {
            Ok(result) => Ok(Box::new(move |outcome| drop(sender.send(outcome.map(|()| result))))),
            Err(error) => {
                drop(sender.send(Err(WriteError::Unavailable)));
                Err(error)
            }
        }
    }

    fn refuse(self: Box<Self>) {
        drop(self.sender.send(Err(WriteError::Unavailable)));
    }
}

/// The queue to the writer's thread. Dropping it waits until what is queued has been written.
pub(super) struct Writer {
    // Both are there until the drop.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
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
        let queue = self.queue.as_ref().ok_or(WriteError::Unavailable)?;
        let sent = queue.send(Box::new(Write { job, sender })).await;
        sent.map_err(|_| WriteError::Unavailable)?;
        // Every way through the writer answers. If there is none, it has panicked, and nobody knows how far it was.
        receiver.await.unwrap_or(Err(WriteError::OutcomeUnknown))
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
    fn run(mut self, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX_JOBS
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            if *self.health.borrow() != Health::Accepting {
                batch.into_iter().for_each(|job| job.refuse());
                continue;
            }
            if let Err(error) = self.write(batch) {
                tracing::error!(%error, "the store has failed: writes are refused until a restart, redirects go on");
                self.health.send_replace(Health::Refusing(error.to_string()));
            }
        }
    }

    /// Writes a batch and answers all who sent it.
    fn write(&mut self, batch: Vec<Box<dyn Job>>) -> Result<(), StoreError> {
        let mut jobs = batch.into_iter();
        let mut answers = Vec::with_capacity(jobs.len());
        match self.commit(&mut jobs, &mut answers) {
            Ok(()) => {
                answer_all(answers, Ok(()));
                Ok(())
            }
            Err((outcome, error)) => {
                answer_all(answers, Err(outcome));
                jobs.for_each(|job| job.refuse());
                Err(error)
            }
        }
    }

    /// Runs the jobs in one transaction, commits and publishes it. An error says what those who are to be answered may
    /// know of the outcome.
    fn commit(
        &mut self,
        jobs: &mut dyn Iterator<Item = Box<dyn Job>>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), (WriteError, StoreError)> {
        let nothing_written = |error: StoreError| (WriteError::Unavailable, error);
        let mut inner = self
            .database
            .begin_write()
            .map_err(|error| nothing_written(error.into()))?;
        inner.set_quick_repair(true);
        let sequence = self.sequence + 1;
        let mut transaction = Transaction::open(&inner).map_err(nothing_written)?;
        for job in jobs {
            let before = transaction.modifications();
            match job.run(&mut transaction) {
                Ok(answer) => answers.push(answer),
                // One damaged record is no reason to refuse the others.
                Err(error @ StoreError::Damaged { .. }) if transaction.modifications() == before => {
                    tracing::error!(%error, "a write has met a damaged record");
                }
                Err(error) => return Err(nothing_written(error)),
            }
        }
        if transaction.modifications() == 0 {
            drop(transaction);
            return inner.abort().map_err(|error| nothing_written(error.into()));
        }
        let changes = transaction.finish(sequence).map_err(nothing_written)?;
        inner
            .commit()
            .map_err(|error| (WriteError::OutcomeUnknown, error.into()))?;
        self.sequence = sequence;
        self.observer.committed(changes);
        self.published.send_replace(sequence);
        Ok(())
    }
}

fn answer_all(answers: Vec<Answer>, outcome: Result<(), WriteError>) {
    for answer in answers {
        answer(outcome);
    }
}
