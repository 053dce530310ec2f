//! When a connection ends by itself: one clock for both connection loops.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::http::Limits;
use crate::metrics::{Connections, Refusal};

/// How long a connection that was just used, or is in its handshake, is kept during a drain: a request may be on its
/// way.
pub const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Ready when a drain has begun and its grace is over.
pub async fn drained(mut stopped: watch::Receiver<bool>) {
    // Without a sender, the program ends too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    tokio::time::sleep(DRAIN_GRACE).await;
}

#[derive(Debug)]
pub struct Deadlines {
    began: Instant,
    /// Since when the next request is awaited.
    pub waiting_since: Instant,
    /// Since when a part of its head is there.
    head_since: Option<Instant>,
    pub requests: usize,
    /// Set during a drain.
    grace_ends: Option<Instant>,
}

impl Deadlines {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            waiting_since: now,
            head_since: None,
            requests: 0,
            grace_ends: None,
        }
    }

    /// When to look at the deadlines next: not later than a head or an idle time that begins now would be overdue.
    pub fn alarm(&self, limits: &Limits) -> Instant {
        let soon = Instant::now() + limits.head_timeout.min(limits.idle_timeout);
        self.grace_ends.unwrap_or_else(|| self.next(limits).0.min(soon))
    }

    pub fn note_partial_head(&mut self, now: Instant) {
        self.head_since.get_or_insert(now);
    }

    pub const fn note_request(&mut self) {
        self.requests += 1;
        self.head_since = None;
    }

    pub fn wait(&mut self, now: Instant, is_partial: bool) {
        self.waiting_since = now;
        self.head_since = is_partial.then_some(now);
    }

    /// Why the connection must end after `requests`, if it must.
    pub fn last_because(&self, limits: &Limits, requests: usize, now: Instant) -> Option<Refusal> {
        if limits.requests.is_some_and(|most| requests >= most) {
            return Some(Refusal::Requests);
        }
        (now - self.began >= limits.lifetime).then_some(Refusal::Lifetime)
    }

    pub const fn is_draining(&self) -> bool {
        self.grace_ends.is_some()
    }

    /// Begins the grace of a drain, and returns its end.
    pub fn drain(&mut self) -> Instant {
        let now = Instant::now();
        let used = self.head_since.unwrap_or(self.waiting_since).max(self.waiting_since);
        let was_just_used = now - used < DRAIN_GRACE;
        let ends = if was_just_used { now + DRAIN_GRACE } else { now };
        *self.grace_ends.insert(ends)
    }

    /// When the connection has waited too long, and for what.
    fn next(&self, limits: &Limits) -> (Instant, Refusal) {
        let waits = match self.head_since {
            Some(since) => (since + limits.head_timeout, Refusal::HeadTimeout),
            None if self.requests == 0 => (self.waiting_since + limits.head_timeout, Refusal::HeadTimeout),
            None => (self.waiting_since + limits.idle_timeout, Refusal::IdleTimeout),
        };
        // A connection that was just used ends with its next response.
        let lives = (self.began + limits.lifetime).max(self.waiting_since + DRAIN_GRACE);
        if lives < waits.0 {
            (lives, Refusal::Lifetime)
        } else {
            waits
        }
    }

    /// Why the connection has waited too long, if it has.
    pub fn overdue(&self, limits: &Limits, now: Instant) -> Option<Refusal> {
        let (deadline, reason) = self.next(limits);
        (deadline <= now).then_some(reason)
    }

    /// Ready when the connection has waited too long, with the reason unless the server drains. Resets `alarm` only
    /// when it fires, which costs less than at each request.
    pub fn poll(&self, mut alarm: Pin<&mut Sleep>, limits: &Limits, cx: &mut Context<'_>) -> Poll<Option<Refusal>> {
        loop {
            ready!(alarm.as_mut().poll(cx));
            if self.is_draining() {
                return Poll::Ready(None);
            }
            if let Some(reason) = self.overdue(limits, Instant::now()) {
                return Poll::Ready(Some(reason));
            }
            alarm.as_mut().reset(self.alarm(limits));
        }
    }
}

/// Fails a write when the client accepts nothing for too long.
#[derive(Debug, Default)]
pub struct WriteAlarm(Option<Pin<Box<Sleep>>>);

impl WriteAlarm {
    /// Passes a write on, and times it from when it is first pending, at the longest `until`.
    pub fn pace<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        counts: &Connections,
        until: impl FnOnce() -> Instant,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.0 = None;
            return written;
        }
        let alarm = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until())));
        ready!(alarm.as_mut().poll(cx));
        counts.refused(Refusal::WriteTimeout);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn limits() -> Limits {
        Limits {
            head_timeout: seconds(10),
            idle_timeout: seconds(30),
            lifetime: seconds(100),
            requests: Some(3),
            ..Limits::test()
        }
    }

    #[test]
    fn idle_and_partial_heads_have_timeouts_of_their_own() {
        let (limits, mut deadlines) = (limits(), Deadlines::new());
        let began = deadlines.began;
        assert_eq!(deadlines.next(&limits), (began + seconds(10), Refusal::HeadTimeout));
        deadlines.note_request();
        deadlines.wait(began + seconds(5), false);
        assert_eq!(deadlines.next(&limits), (began + seconds(35), Refusal::IdleTimeout));
        deadlines.note_partial_head(began + seconds(20));
        deadlines.note_partial_head(began + seconds(29));
        assert_eq!(deadlines.next(&limits), (began + seconds(30), Refusal::HeadTimeout));
        deadlines.wait(began + seconds(21), true);
        assert_eq!(deadlines.next(&limits), (began + seconds(31), Refusal::HeadTimeout));
    }

    #[test]
    fn lifetime_spares_a_connection_that_was_just_used() {
        let (limits, mut deadlines) = (limits(), Deadlines::new());
        let began = deadlines.began;
        deadlines.note_request();
        deadlines.wait(began + seconds(90), false);
        assert_eq!(deadlines.next(&limits), (began + seconds(100), Refusal::Lifetime));
        let short = Limits {
            lifetime: seconds(1),
            ..limits.clone()
        };
        assert!(Deadlines::new().alarm(&short) <= Instant::now() + seconds(1));
        deadlines.wait(began + seconds(105), false);
        assert_eq!(deadlines.next(&limits), (began + seconds(106), Refusal::Lifetime));
    }

    #[test]
    fn last_request_is_by_number_or_by_lifetime() {
        let (limits, deadlines) = (limits(), Deadlines::new());
        let last = |requests, second| deadlines.last_because(&limits, requests, deadlines.began + seconds(second));
        assert_eq!(last(2, 99), None);
        assert_eq!(last(3, 99), Some(Refusal::Requests));
        assert_eq!(last(2, 100), Some(Refusal::Lifetime));
    }

    #[tokio::test]
    async fn drain_waits_a_second_for_a_connection_that_was_just_used() {
        let mut alarm = std::pin::pin!(tokio::time::sleep(seconds(60)));
        let mut deadlines = Deadlines::new();
        alarm.as_mut().reset(deadlines.drain());
        let grace = alarm.deadline() - Instant::now();
        assert!(grace > seconds(0) && grace <= DRAIN_GRACE, "{grace:?}");
        // Handed over to hyper, it ends at the same time.
        deadlines.wait(Instant::now(), true);
        assert_eq!(deadlines.alarm(&limits()), alarm.deadline());
        deadlines.wait(Instant::now() - DRAIN_GRACE, false);
        alarm.as_mut().reset(deadlines.drain());
        assert!(alarm.deadline() <= Instant::now());
        let ended = std::future::poll_fn(|cx| deadlines.poll(alarm.as_mut(), &limits(), cx));
        assert_eq!(ended.await, None);
    }
}
