//! The jobs of the writer: waiting for them without a runtime, and putting those together that share a transaction.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::store::error::{StoreError, WriteError};
use crate::store::replication::{ApplyError, Position};
use crate::store::write::transaction::EntryOutcome;
use crate::store::write::transaction::Transaction;

/// Jobs in one transaction at most. Throughput is flat from about 16 rows; beyond this a batch only adds latency.
const BATCH_MAX_JOBS: usize = 256;

/// The longest pause between attempts to open the store again, in seconds.
pub const REOPEN_SECONDS_MAX: u64 = 5;

/// When the writer acts without a job.
#[derive(Debug, Clone, Copy)]
pub struct RetryTiming {
    /// The first pause before the store is opened again after a failure; doubled each time.
    pub reopen_first: Duration,
    /// The longest one.
    pub reopen_most: Duration,
    /// Idle time before a checkpoint: long enough not to disturb occasional writes, short enough that there is hardly
    /// ever something to replay after a crash.
    pub idle: Duration,
    /// The same where only clicks have been written, which come every few seconds while links are used at all: a
    /// checkpoint each time would wear out the disk.
    pub idle_after_clicks: Duration,
}

impl Default for RetryTiming {
    fn default() -> Self {
        Self {
            reopen_first: Duration::from_millis(100),
            reopen_most: Duration::from_secs(REOPEN_SECONDS_MAX),
            idle: Duration::from_secs(1),
            idle_after_clicks: Duration::from_secs(30),
        }
    }
}

/// How a job that has a transaction for itself ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionEnd {
    Commit,
    Abort,
}

/// With which others a job shares its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobScope {
    /// With those of the same scope. In a cluster, its changes are those of all stores.
    Shared,
    /// The same, with changes of this store alone, such as clicks.
    Local,
    /// With none.
    Alone,
}

/// A write that waits in the queue.
pub struct Job {
    pub scope: JobScope,
    work: Box<dyn Work>,
}

trait Work: Send {
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<TransactionEnd, StoreError>;

    /// Whether it has run without an error, and its sender waits for the outcome.
    fn has_run(&self) -> bool;

    /// Whether its sender has been answered.
    fn is_over(&self) -> bool;

    fn answer(&mut self, outcome: Result<(), WriteError>);
}

/// A job, then its result.
struct Task<R, F> {
    job: Option<F>,
    /// Copies a job that can run again, in another transaction.
    copy: Option<fn(&F) -> F>,
    result: Option<R>,
    sender: Option<oneshot::Sender<Result<R, WriteError>>>,
}

impl<R, F> Task<R, F> {
    fn send(&mut self, result: Result<R, WriteError>) {
        if let Some(sender) = self.sender.take() {
            // The sender may have left, which changes nothing about the write.
            drop(sender.send(result));
        }
    }
}

impl<R, F> Work for Task<R, F>
where
    R: Send,
    F: FnOnce(&mut Transaction<'_>) -> Result<(TransactionEnd, R), StoreError> + Send,
{
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<TransactionEnd, StoreError> {
        let job = match (&self.job, self.copy) {
            (Some(job), Some(copy)) => Some(copy(job)),
            _ => self.job.take(),
        };
        match job.map_or(Err(StoreError::Closed), |job| job(transaction)) {
            Ok((end, result)) => {
                self.result = Some(result);
                Ok(end)
            }
            Err(error) => {
                self.send(Err(WriteError::Unavailable));
                Err(error)
            }
        }
    }

    fn has_run(&self) -> bool {
        self.result.is_some()
    }

    fn is_over(&self) -> bool {
        self.sender.is_none()
    }

    fn answer(&mut self, outcome: Result<(), WriteError>) {
        let result = self.result.take().ok_or(WriteError::Unavailable);
        self.send(result.and_then(|result| outcome.map(|()| result)));
    }
}

impl Job {
    /// A job that runs once, or with `copy` again where a change of another store comes before it.
    pub fn new<R, F>(
        scope: JobScope,
        job: F,
        copy: Option<fn(&F) -> F>,
        sender: oneshot::Sender<Result<R, WriteError>>,
    ) -> Self
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<(TransactionEnd, R), StoreError> + Send + 'static,
    {
        let task = Task {
            job: Some(job),
            copy,
            result: None,
            sender: Some(sender),
        };
        Self {
            scope,
            work: Box::new(task),
        }
    }

    /// If it fails, its sender is answered at once.
    pub fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<TransactionEnd, StoreError> {
        self.work.run(transaction)
    }

    pub fn has_run(&self) -> bool {
        self.work.has_run()
    }

    pub fn is_over(&self) -> bool {
        self.work.is_over()
    }

    /// Tells its sender how the transaction has ended, or that nothing was written, if it has not run.
    pub fn answer(mut self, outcome: Result<(), WriteError>) {
        self.work.answer(outcome);
    }

    pub fn refuse(self) {
        self.answer(Err(WriteError::Unavailable));
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Received<T> {
    Item(T),
    Wanted,
    /// Nothing has come for as long as was waited.
    Nothing,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an item until the queue ends, for `patience` at most, or until `is_wanted` after an unpark of this thread.
pub fn receive<T>(
    queue: &mut mpsc::Receiver<T>,
    patience: Option<Duration>,
    is_wanted: impl Fn() -> bool,
) -> Option<Received<T>> {
    let end = patience.and_then(|patience| Instant::now().checked_add(patience));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if is_wanted() {
            return Some(Received::Wanted);
        }
        if let Poll::Ready(item) = queue.poll_recv(&mut context) {
            return item.map(Received::Item);
        }
        match end.map(|end| end.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Some(Received::Nothing),
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}

/// What the writer does.
pub enum WriterRequest {
    Job(Job),
    /// Applying entries of the replication log.
    Apply(Vec<Vec<u8>>, oneshot::Sender<Result<Position, ApplyError>>),
    /// Going on with another store in this one's place.
    Replace(PathBuf, oneshot::Sender<Result<Position, ApplyError>>),
    /// Appending changes to the replication log before they are made.
    Append(Vec<u8>, oneshot::Sender<Result<EntryOutcome, WriteError>>),
    Checkpoint(oneshot::Sender<()>),
}

impl WriterRequest {
    pub fn refuse(self) {
        match self {
            Self::Job(job) => job.refuse(),
            // Its sender may have left.
            Self::Apply(_, sender) | Self::Replace(_, sender) => drop(sender.send(Err(ApplyError::Unavailable))),
            Self::Append(_, sender) => drop(sender.send(Err(WriteError::Unavailable))),
            Self::Checkpoint(_) => {}
        }
    }
}

/// The jobs that can be in one transaction with this one; `next` is a request that came after them and cannot.
pub fn batch_of(
    first: Job,
    requests: &mut mpsc::Receiver<WriterRequest>,
    next: &mut Option<WriterRequest>,
) -> Vec<Job> {
    let scope = first.scope;
    let mut batch = vec![first];
    while scope != JobScope::Alone
        && batch.len() < BATCH_MAX_JOBS
        && let Ok(request) = requests.try_recv()
    {
        match request {
            WriterRequest::Job(job) if job.scope == scope => batch.push(job),
            other => {
                *next = Some(other);
                break;
            }
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_timeout_and_end_stop_the_wait() {
        let (sender, mut queue) = mpsc::channel(1);
        let patience = Some(Duration::from_millis(1));
        assert_eq!(receive(&mut queue, patience, || false), Some(Received::Nothing));
        assert_eq!(receive(&mut queue, None, || true), Some(Received::Wanted));
        for patience in [None, Some(Duration::MAX), Some(Duration::from_secs(3600))] {
            let other = sender.clone();
            let sending = thread::spawn(move || other.blocking_send(1).unwrap());
            assert_eq!(receive(&mut queue, patience, || false), Some(Received::Item(1)));
            sending.join().unwrap();
        }
        let ending = thread::spawn(move || drop(sender));
        assert_eq!(receive(&mut queue, Some(Duration::from_secs(3600)), || false), None);
        ending.join().unwrap();
    }
}
