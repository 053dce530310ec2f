//! A connection whose socket is registered with no runtime: of the event loop, or new.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::http::connection::set::{ConnectionPolicy, ConnectionSlot, LastUsed};
use crate::http::{Limits, Peer};
use crate::metrics::Refusal;
use crate::redirect::FastPath;
use crate::server::exchange::{FastExchange, Next, Progress};

/// Reads before other connections have their turn.
const READS_TOGETHER: u8 = 4;

/// What is left to do for a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing: it can be dropped.
    Over,
    /// All that has arrived is answered.
    Idle,
    /// There is more, for after the other connections' turn.
    Again,
    /// Something that only a task can do.
    NeedsTask,
}

/// A socket that an event loop reads and writes when its turn comes. Never wakes a task.
#[derive(Debug)]
pub(super) struct LoopStream {
    pub(super) socket: TcpStream,
    /// Whether all that had arrived is read, so that asking the kernel is needless.
    is_drained: bool,
    /// Whether the client has ended its side, or the kernel the connection: of that, there is no more than one event.
    has_ended: bool,
    /// In this turn.
    reads_left: u8,
}

impl LoopStream {
    /// Reads as much as there is, or fits.
    fn receive(&mut self, room: &mut [u8]) -> Result<usize, Errno> {
        let (_, length) = rustix::net::recv(&self.socket, &mut *room, RecvFlags::empty())?;
        self.is_drained = (1..room.len()).contains(&length) && !self.has_ended;
        Ok(length)
    }
}

impl AsyncRead for LoopStream {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_drained || self.reads_left == 0 {
            return Poll::Pending;
        }
        self.reads_left -= 1;
        match self.receive(buffer.initialize_unfilled()) {
            Ok(length) => {
                buffer.advance(length);
                Poll::Ready(Ok(()))
            }
            Err(Errno::AGAIN) => {
                self.is_drained = true;
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncWrite for LoopStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN) => Poll::Pending,
            sent => Poll::Ready(Ok(sent?)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Many clients send one request with the connection, and need no more than this.
#[derive(Debug)]
pub(super) struct LoopConnection {
    pub(super) stream: LoopStream,
    pub(super) peer: Peer,
    pub(super) slot: ConnectionSlot,
    pub(super) progress: Progress,
    /// What the socket's buffer did not take of a response.
    pub(super) unsent: Vec<u8>,
}

impl AsFd for LoopConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.socket.as_fd()
    }
}

impl LoopConnection {
    /// While the process drains, its first response is its last.
    pub(super) fn new(socket: TcpStream, peer: Peer, slot: ConnectionSlot, is_draining: bool) -> Self {
        let mut progress = Progress::new();
        if is_draining {
            progress.deadlines.drain();
        }
        let stream = LoopStream {
            socket,
            is_drained: false,
            has_ended: false,
            reads_left: 0,
        };
        Self {
            stream,
            peer,
            slot,
            progress,
            unsent: Vec::new(),
        }
    }

    /// Something has arrived, and maybe the end.
    pub(super) const fn note_arrival(&mut self, has_ended: bool) {
        self.stream.is_drained = false;
        self.stream.has_ended = has_ended;
    }

    /// Answers what came with the connection, unless that begins with a PROXY header.
    pub(super) fn begin(&mut self, fast_path: &FastPath, policy: &ConnectionPolicy, now: &mut Instant) -> Turn {
        if policy.is_announced_by(&self.peer) {
            return Turn::NeedsTask;
        }
        self.answer(fast_path, policy, None, now, &[])
    }

    /// Reads what has arrived into `room`, for `answer`, if it is the beginning of a request. Returns its length: 0
    /// where `answer` has to read, which then meets the end of the stream by itself.
    pub(super) fn read_ahead(&mut self, room: &mut [u8]) -> usize {
        if !self.progress.awaits_request() {
            return 0;
        }
        self.stream.receive(room).unwrap_or_default()
    }

    /// Answers what has arrived at `now`, which becomes the time after that: first what was read ahead.
    pub(super) fn answer(
        &mut self,
        fast_path: &FastPath,
        policy: &ConnectionPolicy,
        activity: Option<&LastUsed>,
        now: &mut Instant,
        arrived: &[u8],
    ) -> Turn {
        self.stream.reads_left = READS_TOGETHER - u8::from(!arrived.is_empty());
        let mut exchange = FastExchange {
            stream: &mut self.stream,
            fast_path,
            peer: &self.peer,
            policy,
            activity,
            progress: &mut self.progress,
            arrived,
        };
        match exchange.poll(&mut Context::from_waker(Waker::noop()), now) {
            Poll::Pending if self.progress.wants_more && self.stream.is_drained => Turn::Idle,
            Poll::Pending => Turn::Again,
            Poll::Ready(Ok(Next::Close)) if !self.progress.is_cut => Turn::Over,
            Poll::Ready(Ok(Next::Send(unsent))) => {
                self.unsent = unsent;
                Turn::NeedsTask
            }
            Poll::Ready(Ok(Next::Close | Next::Wait(_) | Next::Other)) => Turn::NeedsTask,
            // A client may end its connection as it likes.
            Poll::Ready(Err(_)) => Turn::Over,
        }
    }

    /// Why the connection has waited too long for a request, if it has.
    pub(super) fn overdue(&self, limits: &Limits, now: Instant) -> Option<Refusal> {
        self.progress.deadlines.overdue(limits, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;

    use tokio::sync::watch;

    use crate::http::connection::Scheme;
    use crate::http::connection::set::{ConnectionSet, Gate};
    use crate::links::Links;
    use crate::model::Clock;
    use crate::server::exchange::INPUT_BYTES;

    const REQUEST_BYTES: usize = 1024;

    /// Turns of a client that sends so many requests at once, until there are no more, and how often it was answered.
    fn turns_of(requests: usize) -> (Vec<Turn>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let links = Arc::new(Links::open(folder.path(), Clock::system(), 8).unwrap());
        let fast_path = FastPath::test(links);
        let (_stop, stopped) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let head = "GET /tiny/67mk41xj HTTP/1.1\r\nHost: a\r\nX: ";
        let request = format!("{head}{}\r\n\r\n", "x".repeat(REQUEST_BYTES - head.len() - 4));
        client.write_all(request.repeat(requests).as_bytes()).unwrap();
        let accepted = Gate::test(stopped)
            .admit(&stream, address.ip(), Scheme::Http, &ConnectionSet::default())
            .unwrap();
        let mut connection = LoopConnection::new(stream, accepted.peer, accepted.slot, false);
        let mut turns = Vec::new();
        while turns.last() != Some(&Turn::Idle) {
            turns.push(connection.answer(&fast_path, &accepted.policy, None, &mut Instant::now(), &[]));
        }
        drop(connection);
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        (turns, answers.matches("HTTP/1.1 ").count())
    }

    #[test]
    fn client_that_sends_much_leaves_others_their_turns() {
        let of_turn = usize::from(READS_TOGETHER) * INPUT_BYTES / REQUEST_BYTES;
        assert_eq!(turns_of(of_turn - 1), (vec![Turn::Idle], of_turn - 1));
        assert_eq!(turns_of(of_turn + 2), (vec![Turn::Again, Turn::Idle], of_turn + 2));
    }
}
