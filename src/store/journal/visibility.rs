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

    /// Makes this thread the writer. When the result is dropped, no reader waits for it any more.
    pub fn serve(&self) -> Released<'_> {
        // There is one writer.
        let _ = self.writer.set(thread::current());
        Released(self)
    }

    /// Wakes the writer and waits until what is acknowledged now is visible, or the writer cannot make it so.
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

    /// Lets readers pass until the next commit.
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
