//! One exchange of the fast path on a connection: what has arrived is read, and answered as far as it can be. The event
//! loop has it done for its connections, tasks for theirs.
//!
//! What is read and what is written lies in memory that all connections of a thread share, so that one that waits for
//! its next request holds next to nothing.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::http::connection::deadlines::Deadlines;
use crate::http::connection::set::{ConnectionPolicy, LastUsed};
use crate::http::{Head, HeadReader, Peer};
use crate::metrics::Refusal;
use crate::redirect::{Ahead, Asker, FastPath, Now, Outcome, Waiting};

/// Read at a time, and so the longest head that the fast path answers.
pub(super) const INPUT_BYTES: usize = 16 * 1024;
/// Responses to pipelined requests are gathered up to this size. Then another connection has its turn, so that clients
/// that pipeline hundreds of requests do not keep the others waiting.
const OUTPUT_BYTES: usize = 16 * 1024;

/// Shared by the connections of a thread while one of them is polled.
struct Scratch {
    input: Box<[u8]>,
    output: Vec<u8>,
    now: Now,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; INPUT_BYTES].into_boxed_slice(),
        output: Vec::with_capacity(OUTPUT_BYTES),
        now: Now::default(),
    });
}

#[derive(Debug)]
pub(super) enum Next {
    /// Send what the socket's buffer did not take, then go on.
    Send(Vec<u8>),
    /// Answer a request whose link must be read from the store.
    Wait(Waiting),
    Other,
    Close,
}

#[derive(Debug)]
pub(super) struct Progress {
    /// Received and not answered yet: seldom anything.
    pub(super) held: Vec<u8>,
    /// Whether `held` is no whole request.
    pub(super) wants_more: bool,
    /// Reads a partial head.
    partial: Option<Box<HeadReader>>,
    /// Whether the connection closes after the last response.
    is_last: bool,
    /// Whether that is our decision, so that more may arrive.
    pub(super) is_cut: bool,
    /// Requests whose answers were not sent yet.
    untimed: u64,
    pub(super) deadlines: Deadlines,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            held: Vec::new(),
            wants_more: true,
            partial: None,
            is_last: false,
            is_cut: false,
            untimed: 0,
            deadlines: Deadlines::new(),
        }
    }

    /// Whether what arrives next begins with a request.
    pub(super) const fn awaits_request(&self) -> bool {
        self.held.is_empty() && self.partial.is_none() && !self.is_last
    }

    /// Why the connection closes after the next response, if it does.
    pub(super) fn last_because(&self, policy: &ConnectionPolicy) -> Option<Refusal> {
        let Deadlines {
            requests,
            waiting_since,
            ..
        } = self.deadlines;
        self.deadlines.last_because(&policy.limits, requests + 1, waiting_since)
    }

    /// Answers the requests in `received`, and keeps the rest.
    fn answer(
        &mut self,
        fast_path: &FastPath,
        (peer, policy): (&Peer, &ConnectionPolicy),
        mut received: &[u8],
        now: &mut Now,
        output: &mut Vec<u8>,
    ) -> Option<Next> {
        self.wants_more = false;
        let mut ahead = Ahead::default();
        let next = loop {
            if self.is_last {
                return None;
            }
            if received.is_empty() {
                self.wants_more = true;
                return None;
            }
            if output.len() >= OUTPUT_BYTES {
                break None;
            }
            let asker = Asker {
                peer,
                head: &policy.head,
                is_last: self.deadlines.is_draining() || self.last_because(policy).is_some(),
            };
            match fast_path.answer(received, &mut ahead, now, &asker, output) {
                Outcome::Answered { consumed, close } => {
                    received = received.get(consumed..).unwrap_or_default();
                    self.is_cut = asker.is_last;
                    self.note_answer(close);
                    self.untimed += 1;
                }
                Outcome::Waiting(waiting) => {
                    self.is_cut = asker.is_last;
                    break Some(Next::Wait(waiting));
                }
                Outcome::Partial if received.len() < INPUT_BYTES => {
                    let mut reader = Box::<HeadReader>::default();
                    if !matches!(reader.read(received, &policy.head), Ok(Head::Partial)) {
                        break Some(Next::Other);
                    }
                    self.partial = Some(reader);
                    self.wants_more = true;
                    self.deadlines.note_partial_head(self.deadlines.waiting_since);
                    break None;
                }
                // The guard refuses a head that is too long or malformed.
                Outcome::Partial | Outcome::Other => break Some(Next::Other),
            }
        };
        self.held = received.to_vec();
        next
    }

    pub(super) const fn note_answer(&mut self, close: bool) {
        self.is_last = close;
        self.deadlines.note_request();
    }
}

/// What it takes to answer what has arrived on a connection.
pub(super) struct FastExchange<'c, S> {
    pub(super) stream: &'c mut S,
    pub(super) fast_path: &'c FastPath,
    pub(super) peer: &'c Peer,
    pub(super) policy: &'c ConnectionPolicy,
    /// Of a connection that is in the set.
    pub(super) activity: Option<&'c LastUsed>,
    pub(super) progress: &'c mut Progress,
    /// What was read ahead, while nothing was held.
    pub(super) arrived: &'c [u8],
}

impl<'c, S: AsyncRead + AsyncWrite + Unpin> FastExchange<'c, S> {
    /// Answers what has arrived, until there is no more or something else must be done. `at` is the time as it was read
    /// last, which is after each sending.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, at: &mut Instant) -> Poll<io::Result<Next>> {
        SCRATCH.with_borrow_mut(|Scratch { input, output, now }| {
            output.clear();
            while !self.progress.is_last {
                let Some(received) = ready!(self.poll_input(cx, input))? else {
                    return Poll::Ready(Ok(Next::Close));
                };
                let asker = (self.peer, self.policy);
                let before = self.progress.deadlines.requests;
                self.progress.deadlines.waiting_since = *at;
                now.refresh(self.fast_path.clock(), at.into_std());
                let next = self.progress.answer(self.fast_path, asker, received, now, output);
                // A client that sends a head byte by byte counts as idle, and may be evicted.
                if self.progress.deadlines.requests > before {
                    self.activity.inspect(|activity| activity.rest(at.into_std()));
                }
                let unsent = self.try_send(cx, output);
                self.note_duration(at);
                output.clear();
                if let Some(unsent) = unsent? {
                    return Poll::Ready(Ok(Next::Send(unsent)));
                }
                if let Some(next) = next {
                    return Poll::Ready(Ok(next));
                }
                if !self.progress.wants_more && !self.progress.is_last {
                    // There is more, after the other connections' turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok(Next::Close))
        })
    }

    /// Records how long the responses took that were just handed to the kernel.
    fn note_duration(&mut self, at: &mut Instant) {
        let answered = std::mem::take(&mut self.progress.untimed);
        if answered > 0 {
            let began = std::mem::replace(at, Instant::now());
            self.fast_path.took(*at - began, answered);
        }
    }

    /// What was read ahead; else what is held and, if that is no whole request, what the socket has. `None` at the end
    /// of the stream.
    fn poll_input<'i>(&mut self, cx: &mut Context<'_>, input: &'i mut [u8]) -> Poll<io::Result<Option<&'i [u8]>>>
    where
        'c: 'i,
    {
        if !self.arrived.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.arrived))));
        }
        if !ready!(self.poll_rest_of_head(cx, input))? {
            return Poll::Ready(Ok(None));
        }
        let held = &mut self.progress.held;
        let mut buffer = ReadBuf::new(input);
        // It came from a buffer of this size.
        buffer.put_slice(held);
        if self.progress.wants_more {
            ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().len() == held.len() {
                return Poll::Ready(Ok(None));
            }
        }
        *held = Vec::new();
        let length = buffer.filled().len();
        Poll::Ready(Ok(input.get(..length)))
    }

    /// Reads until a partial head is whole or malformed; false at the end of the stream. The fast path parses it only
    /// then: parsing it anew for each byte would take thousands of times the effort.
    fn poll_rest_of_head(&mut self, cx: &mut Context<'_>, input: &mut [u8]) -> Poll<io::Result<bool>> {
        let Progress { held, partial, .. } = &mut self.progress;
        let Some(reader) = partial else {
            return Poll::Ready(Ok(true));
        };
        loop {
            let room = input.len().saturating_sub(held.len());
            let mut buffer = ReadBuf::new(input.get_mut(..room).unwrap_or_default());
            ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            held.extend_from_slice(buffer.filled());
            let is_partial = matches!(reader.read(held, &self.policy.head), Ok(Head::Partial));
            if !is_partial || held.len() >= INPUT_BYTES {
                self.progress.partial = None;
                self.progress.wants_more = false;
                return Poll::Ready(Ok(true));
            }
        }
    }

    /// Sends what the socket's buffer takes, and returns the rest: of TLS, what is not secured yet.
    fn try_send(&mut self, cx: &mut Context<'_>, output: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if output.is_empty() {
            return Ok(None);
        }
        let mut stream = Pin::new(&mut *self.stream);
        let sent = match stream.as_mut().poll_write(cx, output) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        let rest = output.get(sent..).unwrap_or_default();
        let is_sent = rest.is_empty() && stream.poll_flush(cx)?.is_ready();
        Ok((!is_sent).then(|| rest.to_vec()))
    }
}
