//! The requests of an HTTP/2 connection, and when the connection ends by itself.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http::connection::deadlines::DRAIN_GRACE;
use crate::http::connection::set::LastUsed;
use crate::http::{ClientPresence, Limits};
use crate::metrics::{Connections, Refusal};

/// How long a connection that is ending waits for the client to take the rest of its last response.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a client may send requests after it was told that the connection is ending: they may be on their way.
const LATE_REQUESTS: Duration = Duration::from_secs(5);

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
    /// Responses of which the client has to take more, by number, and since when it has taken nothing of them.
    unsent: Vec<(usize, Instant)>,
    /// Clients that must stay and take their responses in time.
    awaited: Vec<(usize, ClientPresence)>,
    /// When something was last sent.
    sent_at: Instant,
    ending_since: Option<Instant>,
    /// Whether the client goes on asking on a connection that is ending.
    is_deaf: bool,
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
                unsent: Vec::new(),
                awaited: Vec::new(),
                sent_at: now,
                ending_since: None,
                is_deaf: false,
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
        state.is_deaf |= state.ending_since.is_some_and(|since| since.elapsed() > LATE_REQUESTS);
        state.requests
    }

    /// Until when a drain waits for the first request: a client that is told to leave before that would have to connect
    /// again. None once it has come.
    pub fn first_request_until(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.requests == 0).then(|| state.began + DRAIN_GRACE)
    }

    /// Whether the connection has had as many requests as it may.
    pub fn next_request(&self, limits: &Limits) -> Option<Next> {
        let is_full = limits.requests.is_some_and(|most| self.state.lock().requests >= most);
        is_full.then(|| {
            self.counts.refused(Refusal::Requests);
            Next::End
        })
    }

    /// The client of a request has to take its response in time.
    pub fn wait_for(&self, number: usize, presence: &ClientPresence) {
        if presence.required_until().is_some() {
            self.state.lock().awaited.push((number, presence.clone()));
        }
    }

    /// hyper has a part of a response that the client has yet to take; or, without one, waits for the next.
    pub fn set_unsent(&self, number: usize, is_unsent: bool) {
        let mut state = self.state.lock();
        state.unsent.retain(|(unsent, _)| *unsent != number);
        if is_unsent {
            state.unsent.push((number, Instant::now()));
        }
    }

    pub fn end(&self, number: usize) {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.unsent.retain(|(unsent, _)| *unsent != number);
        state.awaited.retain(|(awaited, _)| *awaited != number);
        if state.in_flight == 0 {
            state.idle_since = Instant::now();
            self.activity.rest(state.idle_since.into_std());
        }
    }

    pub fn note_sent(&self) {
        self.state.lock().sent_at = Instant::now();
    }

    pub fn note_head(&self, is_open: bool) {
        let mut state = self.state.lock();
        state.head_since = is_open.then(|| state.head_since.unwrap_or_else(Instant::now));
    }

    pub const fn counts(&self) -> &Arc<Connections> {
        &self.counts
    }

    pub fn note_flood(&self) {
        self.counts.refused(Refusal::FrameFlood);
    }

    /// The client is told that the connection is ending.
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
        let taken = state.unsent.iter().map(|(_, since)| *since + limits.write_timeout);
        let awaited = state
            .awaited
            .iter()
            .filter_map(|(_, presence)| presence.required_until());
        let to_take = taken.chain(awaited.map(Instant::from_std)).min();
        if to_take.is_some_and(&mut is_over) {
            refuse(Refusal::WriteTimeout);
            return Next::Abort;
        }
        if let Some(since) = state.ending_since {
            let idle_since = since.max(state.idle_since);
            let is_idle = state.in_flight == 0;
            // A client may answer pings for as long as it likes.
            let is_gone =
                is_idle && is_over((idle_since.max(state.sent_at) + GOODBYE).min(idle_since + limits.write_timeout));
            return if is_gone || state.is_deaf {
                Next::Abort
            } else {
                Next::LookAgain(next)
            };
        }
        if is_over(state.began + limits.lifetime) {
            refuse(Refusal::Lifetime);
            return Next::End;
        }
        if state.in_flight == 0 && state.head_since.is_none() {
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
        let (stalled, other) = (streams.begin(), streams.begin());
        streams.set_unsent(stalled, true);
        streams.set_unsent(other, true);
        for (_, since) in &mut streams.state.lock().unsent {
            *since = began;
        }
        // Of one response, nothing is taken, whatever becomes of others.
        streams.set_unsent(other, true);
        streams.note_sent();
        assert!(matches!(next(19), Next::LookAgain(_)));
        assert_eq!(next(20), Next::Abort);
        streams.set_unsent(stalled, false);
        streams.end(other);
        assert!(matches!(next(50), Next::LookAgain(_)));
        streams.note_head(true);
        streams.state.lock().head_since = Some(began);
        streams.note_head(true);
        assert_eq!(next(10), Next::Abort);
        streams.note_head(false);
        assert!(matches!(next(10), Next::LookAgain(_)));
        let presence = ClientPresence::default();
        presence.require_until((began + seconds(5)).into_std());
        streams.wait_for(stalled, &presence);
        assert_eq!(next(5), Next::Abort);
        streams.end(stalled);
        assert!(matches!(next(5), Next::LookAgain(_)));
    }

    #[test]
    fn ending_connections_finish_their_requests() {
        let (streams, _) = streams();
        let number = streams.begin();
        streams.set_ending();
        let since = streams.state.lock().ending_since.unwrap();
        let next = |second| streams.next(&limits(), since + seconds(second));
        assert!(matches!(next(1_000), Next::LookAgain(_)));
        streams.end(number);
        let set = |idle: u64, sent: u64| {
            let mut state = streams.state.lock();
            (state.idle_since, state.sent_at) = (since + seconds(idle), since + seconds(sent));
        };
        set(0, 0);
        assert!(matches!(streams.next(&limits(), since), Next::LookAgain(_)));
        assert_eq!(next(1), Next::Abort);
        // The rest of a response is still being taken.
        set(10, 15);
        assert!(matches!(next(15), Next::LookAgain(_)));
        assert_eq!(next(16), Next::Abort);
        // Or a client has its pings answered.
        set(10, 29);
        assert!(matches!(next(29), Next::LookAgain(_)));
        assert_eq!(next(30), Next::Abort);
    }

    #[test]
    fn client_that_goes_on_asking_is_aborted() {
        let (streams, began) = streams();
        streams.set_ending();
        streams.begin();
        assert!(matches!(
            streams.next(&limits(), began + seconds(3)),
            Next::LookAgain(_)
        ));
        streams.state.lock().ending_since = Instant::now().checked_sub(LATE_REQUESTS + seconds(1));
        streams.begin();
        assert_eq!(streams.next(&limits(), began + seconds(3)), Next::Abort);
    }
}
