//! The jobs of the writer: waiting for them without a runtime, and putting those together that share a transaction.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::store::error::{StoreError, WriteError};
use crate::store::write::transaction::Transaction;

/// Jobs in one transaction at most. Throughput is flat from about 16 rows; beyond this a batch only adds latency.
const BATCH_MAX_JOBS: usize = 256;

/// How a job that has a transaction for itself ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionEnd {
    Commit,
    Abort,
}

/// Tells the sender of a job that has been run how it ended.
pub type Answer = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// A write that waits in the queue.
pub struct Job {
    /// Whether it wants a transaction for itself.
    pub is_alone: bool,
    work: Work,
}

/// Runs a write, or, without a transaction, tells its sender that nothing was written.
type Work = Box<dyn FnOnce(Option<&mut Transaction<'_>>) -> Result<(TransactionEnd, Answer), StoreError> + Send>;

impl Job {
    pub fn new<R, F>(is_alone: bool, job: F, sender: oneshot::Sender<Result<R, WriteError>>) -> Self
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<(TransactionEnd, R), StoreError> + Send + 'static,
    {
        // The sender may have left, which changes nothing about the write.
        let work =
            move |transaction: Option<&mut Transaction<'_>>| match transaction.map_or(Err(StoreError::Closed), job) {
                Ok((end, result)) => {
                    let answer = move |outcome: Result<(), WriteError>| drop(sender.send(outcome.map(|()| result)));
                    Ok((end, Box::new(answer) as Answer))
                }
                Err(error) => {
                    drop(sender.send(Err(WriteError::Unavailable)));
                    Err(error)
                }
            };
        Self {
            is_alone,
            work: Box::new(work),
        }
    }

    /// Its sender is answered once the transaction has ended; if the job fails, at once.
    pub fn run(self, transaction: &mut Transaction<'_>) -> Result<(TransactionEnd, Answer), StoreError> {
        (self.work)(Some(transaction))
    }

    pub fn refuse(self) {
        drop((self.work)(None));
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

/// The jobs that can be in one transaction with this one; `next` is one that came after them and cannot.
pub fn batch_of(first: Job, jobs: &mut mpsc::Receiver<Job>, next: &mut Option<Job>) -> Vec<Job> {
    let is_alone = first.is_alone;
    let mut batch = vec![first];
    while !is_alone
        && batch.len() < BATCH_MAX_JOBS
        && let Ok(job) = jobs.try_recv()
    {
        if job.is_alone {
            *next = Some(job);
            break;
        }
        batch.push(job);
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
