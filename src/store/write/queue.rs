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

/// A write that waits in the queue, whatever it returns.
pub trait Job: Send {
    /// Whether it wants a transaction for itself.
    fn is_alone(&self) -> bool;

    /// Runs it in a transaction. Its sender is answered once the transaction has ended; if it fails, at once.
    fn run(self: Box<Self>, transaction: &mut Transaction<'_>) -> Result<(TransactionEnd, Answer), StoreError>;

    /// Tells its sender that nothing was written.
    fn refuse(self: Box<Self>);
}

pub struct Write<F, R> {
    pub job: F,
    pub alone: bool,
    pub sender: oneshot::Sender<Result<R, WriteError>>,
}

// The sender may have left, which changes nothing about the write: a failure to answer is ignored.
impl<F, R> Job for Write<F, R>
where
    R: Send + 'static,
    F: FnOnce(&mut Transaction<'_>) -> Result<(TransactionEnd, R), StoreError> + Send,
{
    fn is_alone(&self) -> bool {
        self.alone
    }

    fn run(self: Box<Self>, transaction: &mut Transaction<'_>) -> Result<(TransactionEnd, Answer), StoreError> {
        let Self { job, sender, .. } = *self;
        match job(transaction) {
            Ok((ending, result)) => {
                let answer = move |outcome: Result<(), WriteError>| drop(sender.send(outcome.map(|()| result)));
                Ok((ending, Box::new(answer)))
            }
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

#[derive(Debug, PartialEq, Eq)]
pub enum Received<T> {
    Item(T),
    Wanted,
    /// Nothing has come for as long as was waited.
    Nothing,
    Ended,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an item, at most for so long, if that is said, or until `is_wanted` after this thread was unparked.
pub fn receive<T>(
    queue: &mut mpsc::Receiver<T>,
    patience: Option<Duration>,
    is_wanted: impl Fn() -> bool,
) -> Received<T> {
    let end = patience.and_then(|patience| Instant::now().checked_add(patience));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if is_wanted() {
            return Received::Wanted;
        }
        match queue.poll_recv(&mut context) {
            Poll::Ready(item) => return item.map_or(Received::Ended, Received::Item),
            Poll::Pending => {}
        }
        match end.map(|end| end.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Received::Nothing,
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}

/// The jobs that can be in one transaction with this one; `next` is one that came after them and cannot.
pub fn batch_of(
    first: Box<dyn Job>,
    jobs: &mut mpsc::Receiver<Box<dyn Job>>,
    next: &mut Option<Box<dyn Job>>,
) -> Vec<Box<dyn Job>> {
    let alone = first.is_alone();
    let mut batch = vec![first];
    while !alone
        && batch.len() < BATCH_MAX_JOBS
        && let Ok(job) = jobs.try_recv()
    {
        if job.is_alone() {
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
        assert_eq!(receive(&mut queue, patience, || false), Received::Nothing);
        assert_eq!(receive(&mut queue, None, || true), Received::Wanted);
        for patience in [None, Some(Duration::MAX), Some(Duration::from_secs(3600))] {
            let other = sender.clone();
            let sending = thread::spawn(move || other.blocking_send(1).unwrap());
            assert_eq!(receive(&mut queue, patience, || false), Received::Item(1));
            sending.join().unwrap();
        }
        let ending = thread::spawn(move || drop(sender));
        assert_eq!(
            receive(&mut queue, Some(Duration::from_secs(3600)), || false),
            Received::Ended
        );
        ending.join().unwrap();
    }
}
