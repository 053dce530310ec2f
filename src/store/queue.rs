//! Waiting for the queue without a runtime, and not for ever.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// What has come of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<T> {
    Item(T),
    /// Nothing has come for as long as was waited.
    Nothing,
    /// Nothing will come any more.
    Ended,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an item, at most for so long, if that is said.
pub(super) fn receive<T>(queue: &mut mpsc::Receiver<T>, patience: Option<Duration>) -> Received<T> {
    let end = patience.and_then(|patience| Instant::now().checked_add(patience));
    let Some(end) = end else {
        return queue.blocking_recv().map_or(Received::Ended, Received::Item);
    };
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match queue.poll_recv(&mut context) {
            Poll::Ready(item) => return item.map_or(Received::Ended, Received::Item),
            Poll::Pending => {}
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Received::Nothing;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_ends_the_waiting_and_so_do_patience_and_the_end() {
        let (sender, mut queue) = mpsc::channel(1);
        let patience = Some(Duration::from_millis(1));
        assert_eq!(receive(&mut queue, patience), Received::Nothing);
        for patience in [None, Some(Duration::MAX), Some(Duration::from_secs(3600))] {
            let other = sender.clone();
            let sending = thread::spawn(move || other.blocking_send(1).unwrap());
            assert_eq!(receive(&mut queue, patience), Received::Item(1));
            sending.join().unwrap();
        }
        let ending = thread::spawn(move || drop(sender));
        assert_eq!(receive(&mut queue, Some(Duration::from_secs(3600))), Received::Ended);
        ending.join().unwrap();
    }
}
