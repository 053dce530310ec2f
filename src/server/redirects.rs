//! Connections of the public listener: plain requests for redirects are answered from the fast path; from the first
//! request that is anything else, the connection is hyper's.
//!
//! What is read and what is written lies in memory that all connections of a thread share, so that one that waits for
//! its next request holds next to nothing.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream as StdStream;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use crate::public::{FastPath, Now, Outcome, Waiting};
use crate::server::connection::HEAD_TIMEOUT;

/// Most bytes that are read at a time, and so the longest head of a request that the fast path answers.
const INPUT_BYTES: usize = 16 * 1024;
/// Answers that are gathered before they are sent; pipelined requests get them together.
const OUTPUT_BYTES: usize = 64 * 1024;
/// How long a client may take to receive what it has asked for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the connections of a thread share, for as long as one of them is looked at.
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

/// What a connection does next.
#[derive(Debug)]
enum Next {
    /// Send what does not fit into the socket's buffer at the moment, then go on.
    Send(Vec<u8>),
    /// Answer a request whose link is still to be looked for.
    Wait(Waiting),
    /// Leave the rest to hyper.
    Other,
    /// End.
    Close,
}

/// How far a client has come with its requests.
#[derive(Debug)]
struct Progress {
    /// Bytes that were received and not answered yet: seldom any.
    held: Vec<u8>,
    /// Whether they are no whole request.
    wants_more: bool,
    /// Since when a part of a request has been there.
    held_since: Option<Instant>,
    /// Whether the client wants no more than it has been sent.
    is_last: bool,
    /// Whether a request was answered since this was last set to false.
    was_used: bool,
}

impl Progress {
    const fn new() -> Self {
        Self {
            held: Vec::new(),
            wants_more: true,
            held_since: None,
            is_last: false,
            was_used: false,
        }
    }

    /// Answers the requests in what was received, and keeps the rest.
    fn answer(
        &mut self,
        fast_path: &FastPath,
        mut received: &[u8],
        now: &mut Now,
        output: &mut Vec<u8>,
    ) -> Option<Next> {
        now.set(fast_path.now());
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
            match fast_path.answer(received, now, output) {
                Outcome::Answered { consumed, close } => {
                    received = received.get(consumed..).unwrap_or_default();
                    self.note_answer(close);
                }
                Outcome::Waiting(waiting) => break Some(Next::Wait(waiting)),
                Outcome::Partial if received.len() < INPUT_BYTES => {
                    self.wants_more = true;
                    self.held_since.get_or_insert_with(Instant::now);
                    break None;
                }
                // A head that is too long is hyper's to refuse.
                Outcome::Partial | Outcome::Other => break Some(Next::Other),
            }
        };
        self.held = received.to_vec();
        next
    }

    const fn note_answer(&mut self, close: bool) {
        self.is_last = close;
        self.was_used = true;
        self.held_since = None;
    }
}

/// A connection that no runtime knows of yet. Most requests come with their connection, and many clients ask only one; then
/// there is no need to watch it, which takes two system calls.
#[derive(Debug)]
pub(super) struct Newcomer {
    stream: StdStream,
    progress: Progress,
    /// Answers that are still to be sent.
    unsent: Vec<u8>,
}

impl Newcomer {
    pub(super) const fn new(stream: StdStream) -> Self {
        Self {
            stream,
            progress: Progress::new(),
            unsent: Vec::new(),
        }
    }

    /// Answers what has come already; true if that was all. If nothing has, it may be called once more.
    pub(super) fn answer(&mut self, fast_path: &FastPath) -> bool {
        let answered = SCRATCH.with_borrow_mut(|Scratch { input, output, now }| {
            let length = match self.stream.read(input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                read => read?,
            };
            output.clear();
            // What is to be done next is found again by whoever goes on.
            let _ = self
                .progress
                .answer(fast_path, input.get(..length).unwrap_or_default(), now, output);
            let sent = match self.stream.write(output) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                sent => sent,
            };
            self.unsent = output.get(*sent.as_ref().unwrap_or(&0)..).unwrap_or_default().to_vec();
            output.clear();
            sent.map(drop)
        });
        // How a client ends its connection is its own business.
        answered.is_err() || self.progress.is_last && self.unsent.is_empty()
    }

    const fn has_sent_nothing(&self) -> bool {
        !self.progress.was_used && self.progress.held.is_empty()
    }
}

/// A connection that waits for requests.
struct Connection<'c> {
    stream: &'c mut TcpStream,
    fast_path: &'c FastPath,
    progress: Progress,
    /// Ends a connection on which nothing is asked. Moved on only when it rings, because that costs less.
    alarm: Pin<&'c mut Sleep>,
}

/// Serves a connection; gives it back, with what was received and not answered, when its next request is for the general
/// server.
pub(super) async fn serve(
    mut newcomer: Newcomer,
    fast_path: &FastPath,
    stopped: &mut watch::Receiver<bool>,
) -> io::Result<Option<(TcpStream, Vec<u8>)>> {
    // By now all connections that waited to be accepted have been, and the request may have come.
    if newcomer.has_sent_nothing() && newcomer.answer(fast_path) {
        return Ok(None);
    }
    let mut stream = TcpStream::from_std(newcomer.stream)?;
    // A connection that is always busy has used up what a task may do at a time when it gets here.
    let mut stop = pin!(unconstrained(stopped.wait_for(|stopped| *stopped)));
    let mut is_stopping = false;
    let mut connection = Connection {
        stream: &mut stream,
        fast_path,
        progress: newcomer.progress,
        alarm: pin!(tokio::time::sleep(HEAD_TIMEOUT)),
    };
    connection.send(&newcomer.unsent).await?;
    loop {
        let next = std::future::poll_fn(|context| {
            let polled = connection.poll(context);
            is_stopping = is_stopping || stop.as_mut().poll(context).is_ready();
            match polled {
                // What has been asked is answered, and nothing more is to come.
                Poll::Pending if is_stopping => Poll::Ready(Ok(Next::Close)),
                polled => polled,
            }
        });
        match next.await? {
            Next::Send(rest) => {
                connection.send(&rest).await?;
                if is_stopping {
                    return Ok(None);
                }
            }
            Next::Wait(waiting) => {
                let mut now = Now::default();
                now.set(fast_path.now());
                let mut answer = Vec::new();
                fast_path.wait(waiting, &now, &mut answer).await;
                connection.progress.held.drain(..waiting.consumed());
                connection.progress.note_answer(waiting.close());
                connection.send(&answer).await?;
            }
            Next::Other => {
                let held = connection.progress.held;
                return Ok(Some((stream, held)));
            }
            Next::Close => return Ok(None),
        }
    }
}

impl Connection<'_> {
    /// Answers what has been received, until there is nothing more or something else must be done.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Next>> {
        SCRATCH.with_borrow_mut(|Scratch { input, output, now }| {
            output.clear();
            while !self.progress.is_last {
                let Some(received) = ready!(self.poll_input(context, input))? else {
                    return Poll::Ready(Ok(Next::Close));
                };
                let next = self.progress.answer(self.fast_path, received, now, output);
                let sent = self.try_send(context, output);
                let unsent = sent.map(|sent| output.get(sent..).unwrap_or_default().to_vec());
                output.clear();
                let unsent = unsent?;
                if !unsent.is_empty() {
                    return Poll::Ready(Ok(Next::Send(unsent)));
                }
                if let Some(next) = next {
                    return Poll::Ready(Ok(next));
                }
            }
            Poll::Ready(Ok(Next::Close))
        })
    }

    /// What was received before and, if that is no whole request, what the socket has. `None` at the end of the stream,
    /// and when nothing has come for too long.
    fn poll_input<'i>(&mut self, context: &mut Context<'_>, input: &'i mut [u8]) -> Poll<io::Result<Option<&'i [u8]>>> {
        let held = &mut self.progress.held;
        let mut buffer = ReadBuf::new(input);
        // It is never longer than the buffer, from which it came.
        buffer.put_slice(held);
        if self.progress.wants_more {
            if Pin::new(&mut *self.stream)
                .poll_read(context, &mut buffer)?
                .is_pending()
            {
                return self.poll_alarm(context).map(|()| Ok(None));
            }
            if buffer.filled().len() == held.len() {
                return Poll::Ready(Ok(None));
            }
        }
        *held = Vec::new();
        let length = buffer.filled().len();
        Poll::Ready(Ok(input.get(..length)))
    }

    /// Sends what the socket's buffer takes at once, and returns how much that was.
    fn try_send(&mut self, context: &mut Context<'_>, output: &[u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        match Pin::new(&mut *self.stream).poll_write(context, output) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(0),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        tokio::time::timeout(WRITE_TIMEOUT, self.stream.write_all(bytes)).await?
    }

    /// Ready when the connection has been waiting for a request for too long.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.alarm.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let deadline = match self.progress.held_since {
                Some(since) => since + HEAD_TIMEOUT,
                None if self.progress.was_used => now + HEAD_TIMEOUT,
                None => now,
            };
            if deadline <= now {
                return Poll::Ready(());
            }
            self.progress.was_used = false;
            self.alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
