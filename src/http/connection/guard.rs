//! What stands between a connection and hyper: it takes the head of each request apart before hyper sees it, refuses
//! what is malformed or ambiguous, and keeps the times and the limits of the connection.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::http::connection::deadlines::{Deadlines, WriteAlarm};
use crate::http::connection::set::{ConnectionContext, ConnectionSlot, LastUsed};
use crate::http::{self, BadHead, ClientPresence, Framing, Head, HeadReader, Peer};
use crate::metrics::Refusal;

const CHUNK_BYTES: usize = 8 * 1024;
/// How long to read and discard after the last response. Closing with unread bytes makes the kernel reset the
/// connection, and the client may lose the response.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Closes a connection on which more may arrive, so that the client gets the response.
pub async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    // Of TLS, the end is a record, which a client that reads nothing does not take.
    tokio::time::timeout(LINGER, stream.shutdown()).await??;
    let mut rest = stream.take(LINGER_MAX_BYTES);
    let mut nowhere = tokio::io::sink();
    let reading = tokio::io::copy(&mut rest, &mut nowhere);
    tokio::time::timeout(LINGER, reading).await?.map(drop)
}

/// A connection for hyper.
#[derive(Debug)]
pub struct Handover<S> {
    pub stream: S,
    /// Received and not answered.
    pub unread: Vec<u8>,
    pub deadlines: Deadlines,
    pub peer: Peer,
    pub slot: ConnectionSlot,
}

impl<S> Handover<S> {
    pub fn new(stream: S, peer: Peer, slot: ConnectionSlot) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            deadlines: Deadlines::new(),
            peer,
            slot,
        }
    }

    pub fn try_map<T>(self, map: impl FnOnce(S) -> io::Result<T>) -> io::Result<Handover<T>> {
        Ok(Handover {
            stream: map(self.stream)?,
            unread: self.unread,
            deadlines: self.deadlines,
            peer: self.peer,
            slot: self.slot,
        })
    }
}

impl<S> Handover<S> {
    /// With the time for a first request beginning now.
    #[must_use]
    pub fn restarted(self) -> Self {
        Self {
            deadlines: Deadlines::new(),
            ..self
        }
    }
}

/// State shared by the stream below hyper and the service above it.
#[derive(Debug)]
pub struct Exchange {
    activity: Arc<LastUsed>,
    is_in_flight: AtomicBool,
    is_last: AtomicBool,
    is_torn: AtomicBool,
    reader: AtomicWaker,
    presence: ClientPresence,
}

impl Exchange {
    pub fn new(activity: Arc<LastUsed>) -> Arc<Self> {
        Arc::new(Self {
            activity,
            is_in_flight: AtomicBool::new(false),
            is_last: AtomicBool::new(false),
            is_torn: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            presence: ClientPresence::default(),
        })
    }

    pub const fn presence(&self) -> &ClientPresence {
        &self.presence
    }

    fn begin(&self) {
        self.activity.work();
        self.is_in_flight.store(true, Ordering::Release);
    }

    /// hyper has the whole response.
    pub fn end(&self) {
        self.activity.rest(std::time::Instant::now());
        self.presence.release();
        self.is_in_flight.store(false, Ordering::Release);
        self.reader.wake();
    }

    fn is_in_flight(&self) -> bool {
        self.is_in_flight.load(Ordering::Acquire)
    }

    /// Whether the connection closes after the request in flight, as its response must say.
    pub fn is_last(&self) -> bool {
        self.is_last.load(Ordering::Acquire)
    }

    /// Aborts the connection: a response delimited by its end was truncated.
    pub fn tear(&self) {
        self.is_torn.store(true, Ordering::Release);
    }

    fn set_last(&self) {
        self.is_last.store(true, Ordering::Release);
    }
}

/// A stream that can move to another runtime.
pub trait Migrate: Sized {
    type Detached: Send + 'static;

    fn detach(self) -> io::Result<Self::Detached>;

    fn attach(detached: Self::Detached) -> io::Result<Self>;
}

impl Migrate for TcpStream {
    type Detached = std::net::TcpStream;

    fn detach(self) -> io::Result<Self::Detached> {
        self.into_std()
    }

    fn attach(detached: Self::Detached) -> io::Result<Self> {
        Self::from_std(detached)
    }
}

/// A stream whose other end may close, or that can be aborted.
pub trait Depart {
    /// Whether it must be shut down before it is closed, so that the client knows that it has everything.
    const SAYS_GOODBYE: bool;

    /// Ready when the peer has closed. Not seen while unread bytes are there.
    fn poll_departed(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Makes dropping the stream reset the connection.
    fn tear(&self);
}

impl Depart for TcpStream {
    const SAYS_GOODBYE: bool = false;

    fn poll_departed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = [MaybeUninit::uninit(); 1];
        match ready!(self.poll_peek(cx, &mut ReadBuf::uninit(&mut room))) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }

    fn tear(&self) {
        // A failure means that it is closed already.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

#[derive(Debug)]
enum CloseReason {
    /// Send an error response, from this byte on.
    Refuse(Vec<u8>, usize),
    Shutdown,
    Linger {
        until: Pin<Box<Sleep>>,
        bytes: u64,
    },
    Done,
}

/// A stream that gives hyper one request at a time.
pub struct Guard<S: Depart> {
    stream: S,
    context: ConnectionContext,
    exchange: Arc<Exchange>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    deadlines: Deadlines,
    held: Vec<u8>,
    /// Reads the head at the start of `held`.
    reader: HeadReader,
    /// Bytes of `held` that hyper may have: a checked head.
    released: usize,
    /// The framing of the rest of the request.
    body: Framing,
    was_in_flight: bool,
    is_over: bool,
    alarm: Pin<Box<Sleep>>,
    write_alarm: WriteAlarm,
    ending: CloseReason,
}

impl<S: Depart> Guard<S> {
    pub fn new(
        stream: S,
        unread: Vec<u8>,
        mut deadlines: Deadlines,
        context: ConnectionContext,
        exchange: Arc<Exchange>,
    ) -> Self {
        let mut stopped = context.stopped.clone();
        deadlines.wait(Instant::now(), !unread.is_empty());
        Self {
            stream,
            exchange,
            stop: Box::pin(async move {
                // Without a sender, the program ends too.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            }),
            alarm: Box::pin(tokio::time::sleep_until(deadlines.alarm(&context.policy.limits))),
            deadlines,
            held: unread,
            reader: HeadReader::default(),
            released: 0,
            body: Framing::Length(0),
            was_in_flight: false,
            is_over: false,
            write_alarm: WriteAlarm::default(),
            ending: CloseReason::Shutdown,
            context,
        }
    }

    fn refuse(&mut self, bad: BadHead) {
        let too_large = [431, 414].contains(&bad.status.as_u16());
        self.context.counts.refused(if too_large {
            Refusal::HeadTooLarge
        } else {
            Refusal::Malformed
        });
        let answer = http::refusal(bad.status, bad.reason, self.context.clock.now());
        self.ending = CloseReason::Refuse(answer, 0);
        self.is_over = true;
    }

    fn forward_head(&mut self, length: usize, framing: Framing) {
        self.deadlines.note_request();
        let length = http::rewrite_request_line(&mut self.held, length);
        self.released = length;
        self.reader = HeadReader::default();
        hide_upgrade(self.held.get_mut(..length).unwrap_or_default());
        self.body = framing;
        self.was_in_flight = true;
        let limits = &self.context.policy.limits;
        let reason = self
            .deadlines
            .last_because(limits, self.deadlines.requests, Instant::now());
        if let Some(reason) = reason {
            self.context.counts.refused(reason);
        }
        // Only hyper knows where a chunked body ends, so the guard cannot find the next head.
        let is_ending = self.deadlines.is_draining() || *self.context.stopped.borrow();
        if reason.is_some() || is_ending || framing == Framing::Chunked {
            self.exchange.set_last();
        }
        self.exchange.begin();
    }

    /// Ready when the connection has waited too long for a request.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.deadlines.is_draining() && self.stop.as_mut().poll(cx).is_ready() {
            let ends = self.deadlines.drain();
            self.alarm.as_mut().reset(ends);
        }
        let limits = &self.context.policy.limits;
        if let Some(reason) = ready!(self.deadlines.poll(self.alarm.as_mut(), limits, cx)) {
            self.context.counts.refused(reason);
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Depart + Unpin> Guard<S> {
    /// Ready with true when a head may be forwarded, with false when none comes.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.is_over {
                return Poll::Ready(Ok(false));
            }
            if self.exchange.is_in_flight() {
                self.exchange.reader.register(cx.waker());
                if self.exchange.is_in_flight() {
                    return Poll::Pending;
                }
            }
            if self.was_in_flight {
                self.was_in_flight = false;
                self.deadlines.wait(Instant::now(), !self.held.is_empty());
            }
            if self.exchange.is_last() {
                self.is_over = true;
                continue;
            }
            match self.reader.read(&self.held, &self.context.policy.head) {
                Ok(Head::Whole { length, framing }) => {
                    self.forward_head(length, framing);
                    return Poll::Ready(Ok(true));
                }
                Ok(Head::Partial) => {}
                Err(bad) => {
                    self.refuse(bad);
                    continue;
                }
            }
            let mut room = [MaybeUninit::uninit(); CHUNK_BYTES];
            let mut chunk = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.stream).poll_read(cx, &mut chunk)? {
                Poll::Ready(()) if chunk.filled().is_empty() => self.is_over = true,
                Poll::Ready(()) => {
                    self.deadlines.note_partial_head(Instant::now());
                    self.held.extend_from_slice(chunk.filled());
                }
                Poll::Pending => {
                    ready!(self.poll_alarm(cx));
                    self.is_over = true;
                }
            }
        }
    }

    fn pass_on(&mut self, most: usize, buffer: &mut ReadBuf<'_>) -> usize {
        let length = most.min(self.held.len()).min(buffer.remaining());
        buffer.put_slice(self.held.get(..length).unwrap_or_default());
        self.held.drain(..length);
        if self.held.is_empty() {
            // An idle connection holds no buffer.
            self.held = Vec::new();
        }
        length
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = match self.body {
            Framing::Length(rest) => usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.remaining()),
            Framing::Chunked => buffer.remaining(),
        };
        let passed = if self.held.is_empty() {
            // Not beyond the body: the next head must be checked.
            let mut room = [MaybeUninit::uninit(); CHUNK_BYTES];
            let room = room.get_mut(..most.min(CHUNK_BYTES)).unwrap_or_default();
            let mut chunk = ReadBuf::uninit(room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
            let filled = chunk.filled().len();
            buffer.put_slice(chunk.filled());
            filled
        } else {
            self.pass_on(most, buffer)
        };
        if let Framing::Length(rest) = &mut self.body {
            *rest -= passed as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Times a write, and fails it when the client accepts nothing for too long.
    fn paced<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Self {
            context,
            exchange,
            write_alarm,
            ..
        } = self;
        write_alarm.pace(cx, written, &context.counts, || {
            let patience = Instant::now() + context.policy.limits.write_timeout;
            // A client that reads slowly keeps the write timeout, but may be too slow for a fetch.
            let deadline = exchange.presence.required_until().map(Instant::from_std);
            deadline.map_or(patience, |deadline| deadline.min(patience))
        })
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.ending {
                CloseReason::Refuse(answer, sent) => {
                    let rest = answer.get(*sent..).unwrap_or_default();
                    if rest.is_empty() {
                        self.ending = CloseReason::Shutdown;
                        continue;
                    }
                    let written = Pin::new(&mut self.stream).poll_write(cx, rest);
                    let (length, before) = (answer.len(), *sent);
                    let written = ready!(self.paced(cx, written))?;
                    if let CloseReason::Refuse(_, sent) = &mut self.ending {
                        *sent = if written == 0 { length } else { before + written };
                    }
                }
                CloseReason::Shutdown => {
                    let shut_down = Pin::new(&mut self.stream).poll_shutdown(cx);
                    ready!(self.paced(cx, shut_down))?;
                    let until = Box::pin(tokio::time::sleep(LINGER));
                    self.ending = CloseReason::Linger { until, bytes: 0 };
                }
                CloseReason::Linger { until, bytes } => {
                    let mut room = [MaybeUninit::uninit(); CHUNK_BYTES];
                    let mut chunk = ReadBuf::uninit(&mut room);
                    let read = Pin::new(&mut self.stream).poll_read(cx, &mut chunk);
                    let is_over = match read {
                        Poll::Pending => {
                            ready!(until.as_mut().poll(cx));
                            true
                        }
                        Poll::Ready(read) => read.is_err() || chunk.filled().is_empty(),
                    };
                    *bytes += chunk.filled().len() as u64;
                    if is_over || *bytes > LINGER_MAX_BYTES || until.is_elapsed() {
                        self.ending = CloseReason::Done;
                    }
                }
                CloseReason::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: Depart> Drop for Guard<S> {
    fn drop(&mut self) {
        if self.exchange.is_torn.load(Ordering::Acquire) {
            self.stream.tear();
        }
    }
}

/// Renames the header `Upgrade`. tinyd may ignore it (RFC 9110, section 7.8), but hyper would not end the connection.
fn hide_upgrade(head: &mut [u8]) {
    const NAME: &[u8] = b"upgrade:";
    for line in head.split_inclusive_mut(|&byte| byte == b'\n') {
        if let Some(name) = line.get_mut(..NAME.len())
            && name.eq_ignore_ascii_case(NAME)
            && let Some(first) = name.first_mut()
        {
            *first = b'x';
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Depart + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.released == 0 && self.body == Framing::Length(0) && !ready!(self.poll_head(cx))? {
            return Poll::Ready(Ok(()));
        }
        if self.released > 0 {
            let most = self.released;
            self.released -= self.pass_on(most, buffer);
            return Poll::Ready(Ok(()));
        }
        self.poll_body(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Depart + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.paced(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.paced(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this at each poll.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.presence.required_until().is_some() && self.stream.poll_departed(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        // What TLS holds is not sent yet.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.paced(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ending(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;

    #[test]
    fn upgrade_is_hidden_in_every_line() {
        let mut head = b"GET /upgrade: HTTP/1.1\r\nUpgrade: a\r\nX: upgrade:\r\nUPGRADE:b\r\n\r\n".to_vec();
        hide_upgrade(&mut head);
        assert_eq!(
            head,
            b"GET /upgrade: HTTP/1.1\r\nxpgrade: a\r\nX: upgrade:\r\nxPGRADE:b\r\n\r\n"
        );
    }

    #[test]
    fn many_upgrade_lines_take_work_in_proportion() {
        let make = |size| {
            ["GET / HTTP/1.1\r\n", &"Upgrade:\r\n".repeat(size), "\r\n"]
                .concat()
                .into_bytes()
        };
        assert_is_linear(50, make, |mut head| hide_upgrade(&mut head));
    }
}
