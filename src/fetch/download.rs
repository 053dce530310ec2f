//! The body of a destination's answer on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::fetch::exchange::Line;
use crate::http::Interrupted;
use crate::metrics::{FetchOutcome, OpenFetch};

/// Passes a body on, piece by piece as the client takes them: nothing is asked of the destination that the client does not
/// want yet. What goes wrong interrupts it, so that nobody takes a part for the whole.
#[derive(Debug)]
pub(super) struct Download {
    body: Incoming,
    /// Closed with this.
    _line: Line,
    fetch: OpenFetch,
    idle_timeout: Duration,
    alarm: Pin<Box<Sleep>>,
    /// Whether the destination is being waited for.
    is_waiting: bool,
    deadline: Instant,
    /// Bytes that may still be passed on.
    allowed: u64,
    /// Bytes that are still to come, if the destination has said how many there are.
    remaining: Option<u64>,
    is_over: bool,
}

/// What one must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) idle_timeout: Duration,
    pub(super) deadline: Instant,
    /// Most bytes of a body.
    pub(super) bytes: u64,
}

impl Download {
    pub(super) fn new(body: Incoming, line: Line, fetch: OpenFetch, bounds: Bounds) -> Self {
        let remaining = body.size_hint().exact();
        let mut download = Self {
            body,
            _line: line,
            fetch,
            idle_timeout: bounds.idle_timeout,
            alarm: Box::pin(tokio::time::sleep_until(bounds.deadline)),
            is_waiting: false,
            deadline: bounds.deadline,
            allowed: bounds.bytes,
            remaining,
            is_over: false,
        };
        download.note(0);
        download
    }

    /// Notes that so many bytes are passed on.
    fn note(&mut self, length: u64) {
        self.fetch.passed_on(length);
        self.allowed = self.allowed.saturating_sub(length);
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(length));
        if self.remaining == Some(0) {
            // Nobody asks for the end of a body whose length is known.
            self.fetch.set(FetchOutcome::Complete);
        }
    }

    fn interrupt(&mut self, outcome: FetchOutcome) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        tracing::debug!(outcome = outcome.label(), "a destination's answer was interrupted");
        self.fetch.set(outcome);
        self.is_over = true;
        Poll::Ready(Some(Err(Interrupted)))
    }

    /// Ready when the destination has been waited for for too long.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_waiting {
            self.is_waiting = true;
            let until = (Instant::now() + self.idle_timeout).min(self.deadline);
            self.alarm.as_mut().reset(until);
        }
        self.alarm.as_mut().poll(context)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                ready!(self.poll_alarm(context));
                return self.interrupt(FetchOutcome::TimedOut);
            };
            self.is_waiting = false;
            return match frame.map(|frame| frame.map(Frame::into_data)) {
                None => {
                    self.is_over = true;
                    self.fetch.set(FetchOutcome::Complete);
                    Poll::Ready(None)
                }
                // The connection ends at the deadline.
                Some(Err(_)) if Instant::now() >= self.deadline => self.interrupt(FetchOutcome::TimedOut),
                Some(Err(_)) => self.interrupt(FetchOutcome::Broken),
                Some(Ok(Ok(data))) if data.len() as u64 > self.allowed => self.interrupt(FetchOutcome::TooLarge),
                Some(Ok(Ok(data))) => {
                    self.note(data.len() as u64);
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                // Trailers stay here.
                Some(Ok(Err(_))) => continue,
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
