//! The connection loop of the fast path. Delete it together with `redirect/fast`, and everything still works, slower.
//!
//! Connections of the public listener: plain requests for redirects are answered from the fast path; from the first
//! request that is anything else, the connection is hyper's.
//!
//! What is read and what is written lies in memory that all connections of a thread share, so that one that waits for
//! its next request holds next to nothing.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream as StdStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use crate::http::connection::deadlines::Deadlines;
use crate::http::connection::guard::{Depart, Handover, linger};
use crate::http::connection::set::{ConnectionContext, ConnectionPolicy, ConnectionSlot, LastUsed};
use crate::http::connection::{Scheme, proxy_protocol};
use crate::http::{Head, HeadReader, Peer};
use crate::metrics::Refusal;
use crate::redirect::{Asker, FastPath, Now, Outcome, Waiting};
use crate::tls::TlsStream;

/// Read at a time, and so the longest head that the fast path answers.
const INPUT_BYTES: usize = 16 * 1024;
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
enum Next {
    /// Send what the socket's buffer did not take, then go on.
    Send(Vec<u8>),
    /// Answer a request whose link must be read from the store.
    Wait(Waiting),
    Other,
    Close,
}

#[derive(Debug)]
struct Progress {
    /// Received and not answered yet: seldom anything.
    held: Vec<u8>,
    /// Whether `held` is no whole request.
    wants_more: bool,
    /// Reads a partial head.
    partial: Option<Box<HeadReader>>,
    /// Whether the connection closes after the last response.
    is_last: bool,
    /// Whether that is our decision, so that more may arrive.
    is_cut: bool,
    /// Requests answered since `note_duration`.
    untimed: u64,
    deadlines: Deadlines,
}

impl Progress {
    fn new() -> Self {
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

    /// Why the connection closes after the next response, if it does.
    fn last_because(&self, policy: &ConnectionPolicy) -> Option<Refusal> {
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
        now.set(fast_path.now());
        self.deadlines.waiting_since = Instant::now();
        self.wants_more = false;
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
            match fast_path.answer(received, now, &asker, output) {
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

    /// Records how long the responses took that were just handed to the kernel.
    fn note_duration(&mut self, fast_path: &FastPath) {
        let answered = std::mem::take(&mut self.untimed);
        if answered > 0 {
            fast_path.took(self.deadlines.waiting_since.elapsed(), answered);
        }
    }

    const fn note_answer(&mut self, close: bool) {
        self.is_last = close;
        self.deadlines.note_request();
    }
}

/// A connection that is not registered with a runtime, which takes two system calls. Many clients send one request with
/// the connection, and need no more than this.
#[derive(Debug)]
pub(super) struct NewConnection {
    stream: StdStream,
    peer: Peer,
    slot: ConnectionSlot,
    progress: Progress,
    unsent: Vec<u8>,
}

impl NewConnection {
    /// While the process drains, its first response is its last.
    pub(super) fn new(stream: StdStream, peer: Peer, slot: ConnectionSlot, is_draining: bool) -> Self {
        let mut progress = Progress::new();
        if is_draining {
            progress.deadlines.drain();
        }
        Self {
            stream,
            peer,
            slot,
            progress,
            unsent: Vec::new(),
        }
    }

    /// Answers what has arrived; true if the connection is done. If nothing had arrived, it may be called once more.
    pub(super) fn answer(&mut self, fast_path: &FastPath, policy: &ConnectionPolicy) -> bool {
        let answered = SCRATCH.with_borrow_mut(|Scratch { input, output, now }| {
            let length = match self.stream.read(input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                read => read?,
            };
            output.clear();
            let received = input.get(..length).unwrap_or_default();
            // The loop in `serve` parses the rest again.
            let _ = self
                .progress
                .answer(fast_path, (&self.peer, policy), received, now, output);
            let sent = match self.stream.write(output) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                sent => sent,
            };
            self.progress.note_duration(fast_path);
            self.unsent = output.get(*sent.as_ref().unwrap_or(&0)..).unwrap_or_default().to_vec();
            output.clear();
            sent.map(drop)
        });
        // A client may end its connection as it likes.
        answered.is_err() || self.progress.is_last && !self.progress.is_cut && self.unsent.is_empty()
    }

    const fn has_sent_nothing(&self) -> bool {
        self.progress.deadlines.requests == 0 && self.progress.held.is_empty()
    }
}

struct Connection<'c, S> {
    stream: &'c mut S,
    fast_path: &'c FastPath,
    peer: &'c Peer,
    context: &'c ConnectionContext,
    activity: &'c LastUsed,
    progress: Progress,
    alarm: Pin<&'c mut Sleep>,
}

/// Serves a connection. Returns it, with what is unread, when its next request is not for the fast path.
pub(super) async fn serve(
    mut connection: NewConnection,
    fast_path: &FastPath,
    context: &ConnectionContext,
    activity: &Arc<LastUsed>,
) -> io::Result<Option<Handover<TcpStream>>> {
    let policy = &context.policy;
    let is_announced = policy.is_announced_by(&connection.peer);
    // The request may have arrived while other connections were accepted.
    if !is_announced && connection.has_sent_nothing() && connection.answer(fast_path, policy) {
        return Ok(None);
    }
    let NewConnection {
        stream,
        peer,
        slot,
        mut progress,
        unsent,
    } = connection;
    let mut handover = Handover::new(TcpStream::from_std(stream)?, peer, slot);
    if is_announced {
        proxy_protocol::introduce(&mut handover, Scheme::Http, context).await?;
        progress.held = std::mem::take(&mut handover.unread);
        progress.wants_more = progress.held.is_empty();
    }
    go_on(handover, progress, unsent, fast_path, context, activity).await
}

/// The same for a connection that is secured.
pub(super) async fn serve_secured(
    connection: Handover<TlsStream>,
    fast_path: &FastPath,
    context: &ConnectionContext,
    activity: &LastUsed,
) -> io::Result<Option<Handover<TlsStream>>> {
    go_on(connection, Progress::new(), Vec::new(), fast_path, context, activity).await
}

async fn go_on<S: AsyncRead + AsyncWrite + Depart + Unpin>(
    mut handover: Handover<S>,
    mut progress: Progress,
    unsent: Vec<u8>,
    fast_path: &FastPath,
    context: &ConnectionContext,
    activity: &LastUsed,
) -> io::Result<Option<Handover<S>>> {
    let policy = &context.policy;
    // A busy connection may have used up the task's budget when it gets here.
    let mut stopped = context.stopped.clone();
    let mut stop = pin!(unconstrained(stopped.wait_for(|stopped| *stopped)));
    if *context.stopped.borrow() && !progress.deadlines.is_draining() {
        progress.deadlines.drain();
    }
    let alarm = progress.deadlines.alarm(&policy.limits);
    let mut connection = Connection {
        stream: &mut handover.stream,
        fast_path,
        peer: &handover.peer,
        context,
        activity,
        progress,
        alarm: pin!(tokio::time::sleep_until(alarm)),
    };
    if !unsent.is_empty() {
        connection.send(&unsent).await?;
    }
    loop {
        let next = std::future::poll_fn(|cx| {
            let polled = connection.poll(cx);
            if !connection.progress.deadlines.is_draining() && stop.as_mut().poll(cx).is_ready() {
                let ends = connection.progress.deadlines.drain();
                connection.alarm.as_mut().reset(ends);
            }
            match polled {
                Poll::Pending => connection.poll_alarm(cx).map(|()| Ok(Next::Close)),
                polled => polled,
            }
        });
        match next.await? {
            Next::Send(rest) => connection.send(&rest).await?,
            Next::Wait(waiting) => connection.wait(waiting).await?,
            Next::Other => {
                let Progress { held, deadlines, .. } = connection.progress;
                (handover.unread, handover.deadlines) = (held, deadlines);
                return Ok(Some(handover));
            }
            Next::Close => {
                if connection.progress.is_cut {
                    Box::pin(linger(&mut handover.stream)).await?;
                } else if S::SAYS_GOODBYE {
                    connection.shut_down().await?;
                }
                return Ok(None);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn wait(&mut self, waiting: Waiting) -> io::Result<()> {
        let (mut now, since) = (Now::default(), Instant::now());
        now.set(self.fast_path.now());
        let mut answer = Vec::new();
        self.activity.work();
        self.fast_path.wait(waiting, &now, &mut answer).await;
        self.activity.rest(Instant::now().into_std());
        self.progress.held.drain(..waiting.consumed());
        self.progress.note_answer(waiting.close());
        self.send(&answer).await?;
        self.fast_path.took(since.elapsed(), 1);
        Ok(())
    }

    /// Answers what has arrived, until there is no more or something else must be done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        SCRATCH.with_borrow_mut(|Scratch { input, output, now }| {
            output.clear();
            while !self.progress.is_last {
                let Some(received) = ready!(self.poll_input(cx, input))? else {
                    return Poll::Ready(Ok(Next::Close));
                };
                let asker = (self.peer, &*self.context.policy);
                let before = self.progress.deadlines.requests;
                let next = self.progress.answer(self.fast_path, asker, received, now, output);
                // A client that sends a head byte by byte counts as idle, and may be evicted.
                if self.progress.deadlines.requests > before {
                    self.activity.rest(self.progress.deadlines.waiting_since.into_std());
                }
                let unsent = self.try_send(cx, output);
                self.progress.note_duration(self.fast_path);
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
            let reason = self.progress.last_because(&self.context.policy);
            if let Some(reason) = reason.filter(|_| self.progress.is_cut) {
                self.context.counts.refused(reason);
            }
            Poll::Ready(Ok(Next::Close))
        })
    }

    /// What is held and, if that is no whole request, what the socket has. `None` at the end of the stream.
    fn poll_input<'i>(&mut self, cx: &mut Context<'_>, input: &'i mut [u8]) -> Poll<io::Result<Option<&'i [u8]>>> {
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
            let is_partial = matches!(reader.read(held, &self.context.policy.head), Ok(Head::Partial));
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

    async fn shut_down(&mut self) -> io::Result<()> {
        let shutting_down = tokio::time::timeout(self.context.policy.limits.write_timeout, self.stream.shutdown());
        shutting_down.await?
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let sending = tokio::time::timeout(self.context.policy.limits.write_timeout, sending);
        sending.await.unwrap_or_else(|elapsed| {
            self.context.counts.refused(Refusal::WriteTimeout);
            Err(elapsed.into())
        })
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (deadlines, limits) = (&self.progress.deadlines, &self.context.policy.limits);
        if let Some(reason) = ready!(deadlines.poll(self.alarm.as_mut(), limits, cx)) {
            self.context.counts.refused(reason);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::connection::set::{ConnectionSet, Gate};
    use crate::kaltura::{AccessLog, LoggedAddress};
    use crate::links::Links;
    use crate::model::Clock;
    use crate::model::work::assert_is_linear;
    use crate::redirect::{Tiny, UnknownIdLimit};
    use std::net::TcpListener;
    use tokio::sync::watch;
    use tokio::task::yield_now;

    /// Serves a client that sends these bytes one by one.
    fn serve_in_pieces(fast_path: &FastPath, bytes: &[u8]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (_stop, stopped) = watch::channel(false);
        let gate = Gate::test(stopped);
        runtime.unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_nodelay(true).unwrap();
            let (stream, address) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let accepted = gate
                .admit(&stream, address.ip(), Scheme::Http, &ConnectionSet::default())
                .unwrap();
            let connection = NewConnection::new(stream, accepted.peer, accepted.slot, false);
            let context = gate.context(accepted.policy, Scheme::Http);
            let activity = Arc::new(LastUsed::default());
            let serving = serve(connection, fast_path, &context, &activity);
            let sending = async {
                for byte in bytes {
                    client.write_all(&[*byte]).unwrap();
                    yield_now().await;
                }
                drop(client);
            };
            let (served, ()) = tokio::join!(serving, sending);
            assert!(served.unwrap().is_none());
        });
    }

    #[test]
    fn a_head_in_pieces_is_not_parsed_for_each() {
        let folder = tempfile::tempdir().unwrap();
        let links = Arc::new(Links::open(folder.path(), Clock::system(), 8).unwrap());
        let guesses = UnknownIdLimit::new(Arc::new(0.into()), false, Arc::default());
        let access_log = AccessLog::new(None, LoggedAddress::None);
        let fast_path = FastPath::new(
            links,
            Tiny::Hop,
            Arc::new(guesses),
            Arc::default(),
            Arc::new(access_log),
        );
        let make = |size| format!("GET /tiny/67mk41xj HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(size));
        assert_is_linear(1_000, make, |head| serve_in_pieces(&fast_path, head.as_bytes()));
    }
}
