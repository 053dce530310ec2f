//! The store after a failure: closed, read from where that is possible, and opened again once the disk works.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::store::error::StoreError;
use crate::store::read::snapshot::Snapshot;
use crate::store::write::log_state::Replicated;
use crate::store::write::queue::WriterRequest;
use crate::store::write::writer::{Health, WriterState};

/// How often writes are refused while the store is closed.
const REFUSE_INTERVAL: Duration = Duration::from_millis(10);
/// How often to look whether a reader has begun.
const CLOSE_INTERVAL: Duration = Duration::from_millis(1);

impl WriterState {
    /// Refuses writes until the store has been opened again; false if the program ends before.
    pub fn recover(&mut self, error: StoreError, requests: &mut mpsc::Receiver<WriterRequest>) -> bool {
        // At once, also where no write met the failure.
        self.health.send_replace(Health::Refusing(error.to_string()));
        tracing::error!(
            %error,
            "store failed: refusing writes until it works again, redirects continue"
        );
        self.metrics.failures.increment();
        // What is in it must be replayed before anything is written to it.
        self.journal = None;
        self.metrics.journal_bytes.set(0);
        self.forget_uncommitted();
        self.close();
        // What they wait for is to be seen in what they find, or not before the store works again.
        self.visibility.release();
        self.read_meanwhile();
        self.open_again(error.to_string(), requests)
    }

    /// As [`Self::recover`], for a store whose medium takes no writes at the start; it has been opened for reading.
    pub fn open_later(&mut self, reason: String, requests: &mut mpsc::Receiver<WriterRequest>) -> bool {
        tracing::error!(
            error = reason,
            "store takes no writes: refusing them until it does, redirects are answered"
        );
        self.metrics.failures.increment();
        self.visibility.release();
        self.open_again(reason, requests)
    }

    fn open_again(&mut self, mut reason: String, requests: &mut mpsc::Receiver<WriterRequest>) -> bool {
        let since = Instant::now();
        let mut delay = self.pace.reopen_first;
        loop {
            if !refuse_for(delay, requests) {
                return false;
            }
            delay = (delay * 2).min(self.pace.reopen_most);
            match self.reopen().map_err(|error| with_causes(&*error)) {
                Ok(()) => break,
                Err(why) if why == reason => {}
                Err(why) => {
                    tracing::warn!(reason = why, "store still failing");
                    self.health.send_replace(Health::Refusing(why.clone()));
                    reason = why;
                }
            }
        }
        self.health.send_replace(Health::Accepting);
        tracing::info!(elapsed = ?since.elapsed(), "store works again, accepting writes");
        true
    }

    /// Closes the file. Reads that go on fail.
    pub fn close(&self) {
        let Some(mut database) = self.handle.send_replace(None) else {
            return;
        };
        loop {
            // Readers hold it only while they begin.
            match Arc::try_unwrap(database) {
                Ok(database) => {
                    // The failure that led here is what it would report. redb panics in some damaged files.
                    let _ = catch_unwind(AssertUnwindSafe(|| database.close()));
                    return;
                }
                Err(shared) => {
                    database = shared;
                    thread::sleep(CLOSE_INTERVAL);
                }
            }
        }
    }

    /// Lets reads go on while the medium takes no writes, if the file can be read.
    fn read_meanwhile(&self) {
        self.handle
            .send_replace(self.medium.open_read_only().ok().map(Arc::new));
    }

    fn reopen(&self) -> Result<(), Box<dyn Error>> {
        self.medium.probe()?;
        // Readers go on meanwhile.
        self.medium.check()?;
        self.close();
        self.open().inspect_err(|_| {
            self.close();
            self.read_meanwhile();
        })
    }

    pub fn open(&self) -> Result<(), Box<dyn Error>> {
        let database = Arc::new(self.medium.open()?);
        // What readers see in it that is not published yet, they wait for.
        self.handle.send_replace(Some(Arc::clone(&database)));
        let snapshot = Snapshot::new(&database)?;
        let (published, sequence) = (*self.published.borrow(), snapshot.sequence);
        // A store that only follows has confirmed nothing to anybody, and reads it again.
        let only_follows = self.replicated.as_ref().is_some_and(Replicated::only_follows);
        if sequence < published && !only_follows {
            tracing::error!(
                commits = published - sequence,
                "store lost acknowledged commits: the disk did not keep what it had confirmed"
            );
        }
        if let Some(observer) = &self.observer {
            observer.catch_up(&snapshot)?;
        }
        self.metrics.set_links(snapshot.totals()?);
        if let (Some(replicated), Some(position)) = (&self.replicated, snapshot.position()) {
            replicated.reach(position);
        }
        self.published.send_replace(sequence);
        self.visibility.reach(sequence);
        Ok(())
    }
}

pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Refuses what is in the queue and what comes for a while; false if the program ends meanwhile.
fn refuse_for(delay: Duration, requests: &mut mpsc::Receiver<WriterRequest>) -> bool {
    let end = Instant::now() + delay;
    loop {
        loop {
            match requests.try_recv() {
                Ok(request) => request.refuse(),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(REFUSE_INTERVAL));
    }
}
