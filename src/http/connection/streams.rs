//! The requests of an HTTP/2 connection, and when the connection ends by itself.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http::connection::set::LastUsed;
use crate::http::{ClientPresence, Limits};
use crate::metrics::{Connections, Refusal};

/// How long a connection that is ending may take for what it has begun, beside the time of each response.
const GOODBYE: Duration = Duration::from_secs(1);

/// State shared by the stream below hyper and the service above it.
#[derive(Debug)]
pub(super) struct Streams {
    activity: Arc<LastUsed>,
    counts: Arc<Connections>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: Instant,
    in_flight: usize,
    requests: usize,
    /// Since when there is no request in flight.
    idle_since: Instant,
    /// Since when a part of a head is there.
    head_since: Option<Instant>,
    /// Responses that hyper has, and of which the client has not taken everything.
    unsent: usize,
    /// When something was last sent, or a response was last begun.
    progress: Instant,
    /// Clients that must stay and take their responses in time.
    awaited: Vec<(usize, ClientPresence)>,
    ending_since: Option<Instant>,
}

/// What a connection does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    LookAgain(Instant),
    /// End after the requests in flight.
    End,
    /// End at once.
    Abort,
}

impl Streams {
    pub fn new(activity: Arc<LastUsed>, counts: Arc<Connections>) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            activity,
            counts,
            state: Mutex::new(State {
                began: now,
                in_flight: 0,
                requests: 0,
                idle_since: now,
                head_since: None,
                unsent: 0,
                progress: now,
                awaited: Vec::new(),
                ending_since: None,
            }),
        })
    }

    /// Begins a request, and returns its number.
    pub fn begin(&self) -> usize {
        let mut state = self.state.lock();
        if state.in_flight == 0 {
            self.activity.work();
        }
        state.in_flight += 1;
        state.requests += 1;
        state.requests
    }

    /// Whether the connection has had as many requests as it may.
    pub fn next_request(&self, limits: &Limits) -> Option<Next> {
        let is_full = limits.requests.is_some_and(|most| self.state.lock().requests >= most);
        is_full.then(|| {
            self.counts.refused(Refusal::Requests);
            Next::End
        })
    }

    /// hyper has a response whose body it now sends.
    pub fn respond(&self, number: usize, presence: &ClientPresence) {
        let mut state = self.state.lock();
        state.unsent += 1;
        state.progress = Instant::now();
        if presence.required_until().is_some() {
            state.awaited.push((number, presence.clone()));
        }
    }

    /// While a body has nothing to send, the client need not take anything.
    pub fn set_unsent(&self, is_unsent: bool) {
        let mut state = self.state.lock();
        state.unsent = if is_unsent {
            state.unsent + 1
        } else {
            state.unsent.saturating_sub(1)
        };
        state.progress = Instant::now();
    }

    pub fn end(&self, number: usize) {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.awaited.retain(|(awaited, _)| *awaited != number);
        if state.in_flight == 0 {
            state.idle_since = Instant::now();
            self.activity.rest(state.idle_since.into_std());
        }
    }

    pub fn note_progress(&self) {
        self.state.lock().progress = Instant::now();
    }

    pub fn note_head(&self, is_open: bool) {
        let mut state = self.state.lock();
        state.head_since = is_open.then(|| state.head_since.unwrap_or_else(Instant::now));
    }

    pub fn note_stall(&self) {
        self.counts.refused(Refusal::WriteTimeout);
    }

    pub fn note_flood(&self) {
        self.counts.refused(Refusal::FrameFlood);
    }

    /// The connection takes no more requests.
    pub fn set_ending(&self) {
        self.state.lock().ending_since.get_or_insert_with(Instant::now);
    }

    /// Looks at all deadlines, and counts the one that has passed.
    pub fn next(&self, limits: &Limits, now: Instant) -> Next {
        let state = self.state.lock();
        let refuse = |refusal| self.counts.refused(refusal);
        let mut next = now + limits.head_timeout.min(limits.idle_timeout).min(limits.write_timeout);
        let mut is_over = |deadline: Instant| {
            next = next.min(deadline.max(now));
            deadline <= now
        };
        if state
            .head_since
            .is_some_and(|since| is_over(since + limits.head_timeout))
        {
            refuse(Refusal::HeadTimeout);
            return Next::Abort;
        }
        if state.unsent > 0 && is_over(state.progress + limits.write_timeout) {
            refuse(Refusal::WriteTimeout);
            return Next::Abort;
        }
        let awaited = state
            .awaited
            .iter()
            .filter_map(|(_, presence)| presence.required_until());
        if awaited.min().is_some_and(|until| is_over(Instant::from_std(until))) {
            refuse(Refusal::WriteTimeout);
            return Next::Abort;
        }
        if let Some(since) = state.ending_since {
            if state.in_flight == 0 && is_over(since.max(state.idle_since) + GOODBYE) {
                return Next::Abort;
            }
            return Next::LookAgain(next);
        }
        if is_over(state.began + limits.lifetime) {
            refuse(Refusal::Lifetime);
            return Next::End;
        }
        if state.in_flight == 0 {
            let (patience, refusal) = if state.requests == 0 {
                (limits.head_timeout, Refusal::HeadTimeout)
            } else {
                (limits.idle_timeout, Refusal::IdleTimeout)
            };
            if is_over(state.idle_since + patience) {
                refuse(refusal);
                return Next::End;
            }
        }
        Next::LookAgain(next)
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
            write_timeout: seconds(20),
            lifetime: seconds(100),
            requests: Some(3),
            ..Limits::test()
        }
    }

    fn streams() -> (Arc<Streams>, Instant) {
        let streams = Streams::new(Arc::default(), Arc::default());
        let began = streams.state.lock().began;
        (streams, began)
    }

    #[test]
    fn idle_connections_end_by_their_timeouts() {
        let (streams, began) = streams();
        let next = |second| streams.next(&limits(), began + seconds(second));
        assert_eq!(next(9), Next::LookAgain(began + seconds(10)));
        assert_eq!(next(10), Next::End);
        let number = streams.begin();
        assert!(matches!(next(99), Next::LookAgain(_)));
        assert_eq!(next(100), Next::End);
        streams.end(number);
        streams.state.lock().idle_since = began + seconds(20);
        assert!(matches!(next(49), Next::LookAgain(_)));
        assert_eq!(next(50), Next::End);
        assert_eq!(streams.next_request(&limits()), None);
        streams.begin();
        streams.begin();
        assert_eq!(streams.next_request(&limits()), Some(Next::End));
    }

    #[test]
    fn clients_that_take_nothing_are_aborted() {
        let (streams, began) = streams();
        let next = |second| streams.next(&limits(), began + seconds(second));
        let number = streams.begin();
        streams.respond(number, &ClientPresence::default());
        streams.state.lock().progress = began;
        assert_eq!(next(20), Next::Abort);
        streams.set_unsent(false);
        assert!(matches!(next(50), Next::LookAgain(_)));
        streams.note_head(true);
        streams.state.lock().head_since = Some(began);
        streams.note_head(true);
        assert_eq!(next(10), Next::Abort);
        streams.note_head(false);
        assert!(matches!(next(10), Next::LookAgain(_)));
        let presence = ClientPresence::default();
        presence.require_until((began + seconds(5)).into_std());
        streams.respond(number, &presence);
        streams.state.lock().progress = began + seconds(5);
        assert_eq!(next(5), Next::Abort);
        streams.end(number);
        streams.set_unsent(false);
        assert!(matches!(next(5), Next::LookAgain(_)));
    }

    #[test]
    fn ending_connections_finish_their_requests() {
        let (streams, began) = streams();
        let number = streams.begin();
        streams.set_ending();
        assert!(matches!(
            streams.next(&limits(), began + seconds(1_000)),
            Next::LookAgain(_)
        ));
        streams.end(number);
        let idle = streams.state.lock().idle_since;
        assert!(matches!(streams.next(&limits(), idle), Next::LookAgain(_)));
        assert_eq!(streams.next(&limits(), idle + seconds(2)), Next::Abort);
    }
}
