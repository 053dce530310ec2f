//! A connection of the event loop: a socket that is registered with no runtime.

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
use crate::server::exchange::{Exchange, Next, Progress};

/// What is left to do for a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing: it can be dropped.
    Over,
    /// All that has arrived is answered.
    Idle,
    /// There is more, for after the other connections' turn.
    Again,
    /// Something that takes a task.
    Unfinished,
}

/// A socket that an event loop reads and writes when its turn comes. Never wakes a task.
#[derive(Debug)]
pub(super) struct LoopStream {
    pub(super) socket: TcpStream,
    /// Whether all that had arrived is read, so that asking the kernel is needless.
    is_drained: bool,
    /// Whether the client has ended its side, or the kernel the connection: of that, there is no more than one event.
    has_ended: bool,
}

impl AsyncRead for LoopStream {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_drained {
            return Poll::Pending;
        }
        let room = buffer.initialize_unfilled();
        let wanted = room.len();
        match rustix::net::recv(&self.socket, room, RecvFlags::empty()) {
            Ok((_, length)) => {
                self.is_drained = length < wanted && !self.has_ended;
                buffer.advance(length);
                Poll::Ready(Ok(()))
            }
            Err(Errno::AGAIN) => Poll::Pending,
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

    /// Answers what has arrived.
    pub(super) fn answer(
        &mut self,
        fast_path: &FastPath,
        policy: &ConnectionPolicy,
        activity: Option<&LastUsed>,
    ) -> Turn {
        let mut exchange = Exchange {
            stream: &mut self.stream,
            fast_path,
            peer: &self.peer,
            policy,
            activity,
            progress: &mut self.progress,
        };
        match exchange.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending if self.progress.wants_more => Turn::Idle,
            Poll::Pending => Turn::Again,
            Poll::Ready(Ok(Next::Close)) if !self.progress.is_cut => Turn::Over,
            Poll::Ready(Ok(Next::Send(unsent))) => {
                self.unsent = unsent;
                Turn::Unfinished
            }
            Poll::Ready(Ok(Next::Close | Next::Wait(_) | Next::Other)) => Turn::Unfinished,
            // A client may end its connection as it likes.
            Poll::Ready(Err(_)) => Turn::Over,
        }
    }

    /// Why the connection has waited too long for a request, if it has.
    pub(super) fn overdue(&self, limits: &Limits, now: Instant) -> Option<Refusal> {
        self.progress.deadlines.overdue(limits, now)
    }
}
