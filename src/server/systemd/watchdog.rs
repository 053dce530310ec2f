//! The heartbeat for systemd's watchdog: the notifier asks a question, and each runtime, and each thread that redirects
//! without one, must answer it before the next heartbeat.

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
    pub async fn run(self) {
        let mut of_thread = self.join();
        while of_thread.0.last.changed().await.is_ok() {
            of_thread.answer_last();
        }
    }

    /// For a thread that has no runtime.
    pub fn join(self) -> ThreadHeartbeat {
        self.runtimes.fetch_add(1, Ordering::Relaxed);
        let mut joined = ThreadHeartbeat(self);
        joined.answer_last();
        joined
    }
}

/// What must answer until it is dropped.
#[derive(Debug)]
pub struct ThreadHeartbeat(Heartbeat);

impl ThreadHeartbeat {
    /// Answers the last question, unless it has.
    pub fn answer(&mut self) {
        if self.0.last.has_changed().unwrap_or(false) {
            self.answer_last();
        }
    }

    fn answer_last(&mut self) {
        self.0.last.borrow_and_update().answers.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for ThreadHeartbeat {
    fn drop(&mut self) {
        self.0.runtimes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_answers_each_question_once_until_it_ends() {
        let (questions, heartbeat) = heartbeat();
        let (mut one, other) = (heartbeat.clone().join(), heartbeat.join());
        assert!(questions.are_all_answered());
        questions.ask();
        one.answer();
        one.answer();
        assert!(!questions.are_all_answered(), "one has answered for both");
        drop(other);
        assert!(questions.are_all_answered());
    }
}
