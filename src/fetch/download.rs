//! The body of a destination's answer on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::fetch::exchange::Line;
use crate::fetch::{FetchError, IN_ALL};
use crate::http::Interrupted;
use crate::metrics::{FetchOutcome, OpenFetch};
use crate::model::LinkId;

/// After so many bytes, another connection of the thread has its turn.
const TURN_BYTES: u64 = 256 * 1024;

/// Smaller pieces are small.
const SMALL_BYTES: usize = 64;
/// After so many small pieces in a row, pause: each costs as much as a thousand of its bytes.
const SMALL_PIECES: u32 = 128;
const PAUSE: Duration = Duration::from_millis(10);

/// Passes a body on as the client takes it, and reads no more from the destination than that. An error aborts the
/// response, so that no client takes a part for the whole.
#[derive(Debug)]
pub(super) struct Download {
    body: Incoming,
    _line: Line,
    fetch: OpenFetch,
    bounds: Bounds,
    alarm: Pin<Box<Sleep>>,
    is_waiting: bool,
    passed_on: u64,
    /// The same in this turn.
    in_turn: u64,
    /// Small pieces since the last wait for the destination.
    small: u32,
    /// Bytes to come, if the destination sent a length.
    remaining: Option<u64>,
    /// Received before the head was passed on.
    first: Option<Bytes>,
    /// Ends the response on the next poll.
    error: Option<FetchError>,
    is_over: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// For the log.
    pub(super) link: LinkId,
    pub(super) idle_timeout: Duration,
    pub(super) deadline: Instant,
    pub(super) bytes: u64,
}

impl Download {
    pub(super) fn new(body: Incoming, line: Line, fetch: OpenFetch, bounds: Bounds) -> Self {
        let remaining = body.size_hint().exact();
        let mut download = Self {
            body,
            _line: line,
            fetch,
            alarm: Box::pin(tokio::time::sleep_until(bounds.deadline)),
            bounds,
            is_waiting: false,
            passed_on: 0,
            in_turn: 0,
            small: 0,
            remaining,
            first: None,
            error: None,
            is_over: false,
        };
        download.note(0);
        download
    }

    /// Waits for the first piece or the end. An error until then gets a response of our own.
    pub(super) async fn begin(&mut self) -> Result<(), FetchError> {
        if self.body.is_end_stream() {
            return Ok(());
        }
        let began = match std::future::poll_fn(|cx| self.poll_piece(cx)).await {
            None => Ok(()),
            Some(Ok(first)) => {
                self.first = Some(first);
                Ok(())
            }
            Some(Err(error)) => Err(error),
        };
        if let Err(error) = &began {
            self.fetch.set(error.outcome());
        }
        began
    }

    fn note(&mut self, length: u64) {
        self.fetch.passed_on(length);
        self.passed_on += length;
        self.in_turn += length;
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(length));
        if self.remaining == Some(0) {
            // hyper does not poll for the end of a body of known length.
            self.fetch.set(FetchOutcome::Complete);
        }
    }

    fn interrupt(&mut self, error: &FetchError) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let (id, bytes) = (self.bounds.link, self.passed_on);
        tracing::debug!(%id, bytes, %error, "a destination was not fetched to its end");
        self.fetch.set(error.outcome());
        self.is_over = true;
        Poll::Ready(Some(Err(Interrupted)))
    }

    fn is_overdue(&self) -> bool {
        Instant::now() >= self.bounds.deadline
    }

    /// Ready after the pause for many small pieces.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.small == SMALL_PIECES {
            self.small += 1;
            self.alarm.as_mut().reset(Instant::now() + PAUSE);
        }
        ready!(self.alarm.as_mut().poll(cx));
        self.small = 0;
        Poll::Ready(())
    }

    /// Ready when the destination has been idle too long.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_waiting {
            (self.is_waiting, self.small) = (true, 0);
            let until = (Instant::now() + self.bounds.idle_timeout).min(self.bounds.deadline);
            self.alarm.as_mut().reset(until);
        }
        self.alarm.as_mut().poll(cx)
    }
}

impl Download {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FetchError>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                ready!(self.poll_alarm(cx));
                let what = if self.is_overdue() { IN_ALL } else { "the next part" };
                return Poll::Ready(Some(Err(FetchError::TimedOut(what))));
            };
            self.is_waiting = false;
            return Poll::Ready(match frame.map(|frame| frame.map(Frame::into_data)) {
                None => {
                    self.is_over = true;
                    self.fetch.set(FetchOutcome::Complete);
                    None
                }
                // The connection ends at the deadline.
                Some(Err(_)) if self.is_overdue() => Some(Err(FetchError::TimedOut(IN_ALL))),
                Some(Err(error)) => Some(Err(FetchError::broken(error))),
                Some(Ok(Ok(data))) if data.len() as u64 > self.bounds.bytes - self.passed_on => {
                    Some(Err(FetchError::TooLarge(self.passed_on + data.len() as u64)))
                }
                Some(Ok(Ok(data))) if data.is_empty() => continue,
                Some(Ok(Ok(data))) => Some(Ok(data)),
                // Trailers are not passed on.
                Some(Ok(Err(_))) => continue,
            });
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.small >= SMALL_PIECES {
            ready!(self.poll_pause(cx));
        }
        if self.in_turn >= TURN_BYTES {
            self.in_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(error) = self.error.take() {
            return self.interrupt(&error);
        }
        let piece = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(self.poll_piece(cx)),
        };
        match piece {
            None => Poll::Ready(None),
            Some(Ok(data)) => {
                self.small += u32::from(data.len() < SMALL_BYTES);
                self.note(data.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                // On the next poll, so that the pieces so far are sent first. The error aborts the connection.
                self.error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
