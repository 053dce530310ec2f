//! Readers see what redb has committed, which can be behind what is acknowledged; they have the writer commit it then.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// Up to which commit readers can see.
#[derive(Debug)]
pub struct Visibility {
    reached: Mutex<u64>,
    changed: Condvar,
    is_wanted: AtomicBool,
    writer: OnceLock<Thread>,
}

impl Visibility {
    pub fn new(sequence: u64) -> Self {
        Self {
            reached: Mutex::new(sequence),
            changed: Condvar::new(),
            is_wanted: AtomicBool::new(false),
            writer: OnceLock::new(),
        }
    }

    /// Says that this thread is the writer; once that ends, nobody waits for it any more.
    pub fn serve(&self) -> Released<'_> {
        // There is one writer.
        let _ = self.writer.set(thread::current());
        Released(self)
    }

    /// Waits until what is acknowledged now can be seen, or nobody can tell when that will be. The writer wakes up
    /// for it.
    pub fn wait_for_acknowledged(&self, acknowledged: &watch::Receiver<u64>) {
        // Never borrowed while this waits: the writer could not publish what is waited for.
        let sequence = *acknowledged.borrow();
        let mut reached = self.reached.lock();
        // A disk that has lost commits makes it less.
        while *reached < sequence.min(*acknowledged.borrow()) {
            self.is_wanted.store(true, Ordering::SeqCst);
            if let Some(writer) = self.writer.get() {
                writer.unpark();
            }
            self.changed.wait(&mut reached);
        }
    }

    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }

    /// This commit can be seen, and no later one.
    pub fn reach(&self, sequence: u64) {
        let mut reached = self.reached.lock();
        *reached = sequence;
        self.is_wanted.store(false, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Nobody need wait until a commit is reached again.
    pub fn release(&self) {
        self.reach(u64::MAX);
    }
}

/// Releases all waiting readers when the writer ends, however it ends.
pub struct Released<'v>(&'v Visibility);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}
