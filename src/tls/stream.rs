//! A connection secured by TLS.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::TcpStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream as ServerStream;

use crate::http::connection::guard::{Depart, Migrate};

/// Enough for a client hello; it is freed once read.
const FIRST_BYTES: usize = 4 * 1024;

#[derive(Debug)]
enum Socket {
    Registered(TcpStream),
    /// On its way to another runtime.
    Detached(StdStream),
    Nowhere,
}

/// What TLS runs on: the socket, and what was read from it before.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
    held: Vec<u8>,
}

impl Transport {
    pub(super) const fn new(stream: TcpStream, held: Vec<u8>) -> Self {
        Self {
            socket: Socket::Registered(stream),
            held,
        }
    }

    /// The first byte, which the handshake will read again; `None` at the end of the stream.
    pub(super) async fn first_byte(&mut self) -> io::Result<Option<u8>> {
        if self.held.is_empty()
            && let Socket::Registered(stream) = &mut self.socket
        {
            self.held.reserve_exact(FIRST_BYTES);
            stream.read_buf(&mut self.held).await?;
        }
        Ok(self.held.first().copied())
    }

    pub(super) fn into_stream(self) -> io::Result<TcpStream> {
        match self.socket {
            Socket::Registered(stream) => Ok(stream),
            Socket::Detached(_) | Socket::Nowhere => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.socket {
            Socket::Registered(stream) => Ok(Pin::new(stream)),
            Socket::Detached(_) | Socket::Nowhere => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn change(&mut self, change: impl FnOnce(Socket) -> io::Result<Socket>) -> io::Result<()> {
        self.socket = change(std::mem::replace(&mut self.socket, Socket::Nowhere))?;
        Ok(())
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return self.stream()?.poll_read(cx, buffer);
        }
        let length = self.held.len().min(buffer.remaining());
        buffer.put_slice(self.held.get(..length).unwrap_or_default());
        self.held.drain(..length);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

/// On the heap, because its state is large and moves from the handshake to the task that serves the connection.
pub struct TlsStream(Box<ServerStream<Transport>>);

impl fmt::Debug for TlsStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

impl TlsStream {
    pub(super) fn new(secured: ServerStream<Transport>) -> Self {
        Self(Box::new(secured))
    }

    fn secured(&mut self) -> Pin<&mut ServerStream<Transport>> {
        Pin::new(&mut self.0)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.secured().poll_read(cx, buffer);
        // The client waits for the answer to what it asked of TLS itself, such as another handshake.
        if self.0.get_ref().1.wants_write() {
            let _ = self.secured().poll_flush(cx);
        }
        read
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.secured().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.secured().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.secured().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.secured().poll_shutdown(cx)
    }
}

/// The length of a record that may hold an alert and nothing else: its header, two bytes and, with TLS 1.3, the type
/// and the tag.
const ALERT_MAX_BYTES: usize = 5 + 2 + 1 + 16;

impl Depart for TlsStream {
    const SAYS_GOODBYE: bool = true;

    /// A client says that it closes, and then closes: its last record is there while nothing reads.
    fn poll_departed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Socket::Registered(stream) = &self.0.get_ref().0.socket else {
            return Poll::Pending;
        };
        let mut room = [MaybeUninit::uninit(); ALERT_MAX_BYTES + 1];
        let mut peeked = ReadBuf::uninit(&mut room);
        match ready!(stream.poll_peek(cx, &mut peeked)) {
            Ok(1..) if !is_alert(peeked.filled()) => Poll::Pending,
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    fn tear(&self) {
        if let Socket::Registered(stream) = &self.0.get_ref().0.socket {
            Depart::tear(stream);
        }
    }
}

/// Whether a record is an alert: by its type or, encrypted, by its length, which no request has.
fn is_alert(record: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const APPLICATION_DATA: u8 = 23;
    match record.first() {
        Some(&ALERT) => true,
        Some(&APPLICATION_DATA) => record.len() == ALERT_MAX_BYTES,
        _ => false,
    }
}

impl Migrate for TlsStream {
    type Detached = Self;

    fn detach(mut self) -> io::Result<Self> {
        self.0.get_mut().0.change(|socket| match socket {
            Socket::Registered(stream) => stream.into_std().map(Socket::Detached),
            other => Ok(other),
        })?;
        Ok(self)
    }

    fn attach(mut detached: Self) -> io::Result<Self> {
        detached.0.get_mut().0.change(|socket| match socket {
            Socket::Detached(stream) => TcpStream::from_std(stream).map(Socket::Registered),
            other => Ok(other),
        })?;
        Ok(detached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_told_from_requests() {
        let encrypted = |length: usize| [&[23, 3, 3, 0, 19][..], &vec![0; length - 5]].concat();
        for (record, is_one) in [
            (vec![21, 3, 3, 0, 2, 1, 0], true),
            (encrypted(ALERT_MAX_BYTES), true),
            (encrypted(ALERT_MAX_BYTES + 1), false),
            (encrypted(ALERT_MAX_BYTES - 1), false),
            (vec![22, 3, 3], false),
        ] {
            assert_eq!(is_alert(&record), is_one, "{record:?}");
        }
    }
}
