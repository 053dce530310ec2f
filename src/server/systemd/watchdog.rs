//! The heartbeat for systemd's watchdog: the notifier asks a question, and each runtime must answer it before the next
//! heartbeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

#[derive(Debug, Default)]
struct Question {
    answers: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Questions {
    last: watch::Sender<Arc<Question>>,
    runtimes: Arc<AtomicUsize>,
}

/// The heartbeat of a runtime. A runtime whose threads all hang has none.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    last: watch::Receiver<Arc<Question>>,
    runtimes: Arc<AtomicUsize>,
}

pub(super) fn heartbeat() -> (Questions, Heartbeat) {
    let (sender, receiver) = watch::channel(Arc::default());
    let runtimes = Arc::default();
    let questions = Questions {
        last: sender,
        runtimes: Arc::clone(&runtimes),
    };
    let heartbeat = Heartbeat {
        last: receiver,
        runtimes,
    };
    (questions, heartbeat)
}

impl Questions {
    pub(super) fn ask(&self) {
        self.last.send_replace(Arc::default());
    }

    pub(super) fn are_all_answered(&self) -> bool {
        self.last.borrow().answers.load(Ordering::Relaxed) >= self.runtimes.load(Ordering::Relaxed)
    }
}

impl Heartbeat {
    /// Answers each question once for this runtime, until the notifier ends.
    pub async fn run(mut self) {
        self.runtimes.fetch_add(1, Ordering::Relaxed);
        loop {
            self.last.borrow_and_update().answers.fetch_add(1, Ordering::Relaxed);
            if self.last.changed().await.is_err() {
                return;
            }
        }
    }
}
