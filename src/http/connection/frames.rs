//! The frames of HTTP/2 that a client sends, counted before hyper sees them: frames that ask for nothing are cheap to
//! send, and each takes work here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::http::connection::deadlines::WriteAlarm;
use crate::http::connection::streams::Streams;

/// The connection preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Frames that ask for nothing which a client may send in any case. Browsers send about ten.
const FREE_FRAMES: u64 = 1_000;
/// More of them for each request.
const FRAMES_FOR_A_REQUEST: u64 = 20;
/// And one more for so many bytes that it was sent: it says when it has room for more.
const BYTES_FOR_A_FRAME: u64 = 512;
/// Requests that a client may take back in any case, beside half of all. People leave pages.
const FREE_RESETS: u64 = 100;

/// Follows the frames in what is read.
#[derive(Debug)]
pub(super) struct FrameCounter {
    /// What is still to come of the preface or of a frame's payload.
    skipped: usize,
    header: [u8; HEADER_BYTES],
    filled: usize,
    idle_frames: u64,
    requests: u64,
    resets: u64,
    /// Whether a head has begun and not ended.
    pub is_head_open: bool,
}

impl FrameCounter {
    pub const fn new() -> Self {
        Self {
            skipped: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            filled: 0,
            idle_frames: 0,
            requests: 0,
            resets: 0,
            is_head_open: false,
        }
    }

    /// False: the client has sent more than it may, after so many bytes were sent to it.
    pub fn read(&mut self, mut bytes: &[u8], sent: u64) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skipped.min(bytes.len());
            self.skipped -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = (HEADER_BYTES - self.filled).min(bytes.len());
            let (of_header, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, b""));
            if let Some(room) = self.header.get_mut(self.filled..self.filled + wanted) {
                room.copy_from_slice(of_header);
            }
            self.filled += wanted;
            bytes = rest;
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                self.note();
            }
        }
        let allowed = FREE_FRAMES + self.requests * FRAMES_FOR_A_REQUEST + sent / BYTES_FOR_A_FRAME;
        self.idle_frames <= allowed && self.resets <= FREE_RESETS + self.requests / 2
    }

    fn note(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skipped = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            DATA if self.skipped > 0 || flags & END_STREAM != 0 => {}
            HEADERS => {
                self.requests += 1;
                self.is_head_open = flags & END_HEADERS == 0;
            }
            CONTINUATION => {
                self.is_head_open &= flags & END_HEADERS == 0;
                self.idle_frames += 1;
            }
            RST_STREAM => self.resets += 1,
            _ => self.idle_frames += 1,
        }
    }
}

/// A stream for hyper that counts frames and times writes.
pub(super) struct Frames<S> {
    stream: S,
    unread: Vec<u8>,
    counter: FrameCounter,
    sent: u64,
    streams: Arc<Streams>,
    write_timeout: Duration,
    write_alarm: WriteAlarm,
}

impl<S> Frames<S> {
    pub fn new(stream: S, unread: Vec<u8>, streams: Arc<Streams>, write_timeout: Duration) -> Self {
        Self {
            stream,
            unread,
            counter: FrameCounter::new(),
            sent: 0,
            streams,
            write_timeout,
            write_alarm: WriteAlarm::default(),
        }
    }

    /// Fails a write when the client accepts nothing for too long.
    fn paced<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let timeout = self.write_timeout;
        let counts = self.streams.counts();
        self.write_alarm.pace(cx, written, counts, || Instant::now() + timeout)
    }

    fn counted(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let written = self.paced(cx, written);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.sent += *bytes as u64;
            self.streams.note_sent();
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, was_open) = (buffer.filled().len(), self.counter.is_head_open);
        if self.unread.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        } else {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(self.unread.get(..length).unwrap_or_default());
            self.unread.drain(..length);
        }
        let sent = self.sent;
        if !self
            .counter
            .read(buffer.filled().get(before..).unwrap_or_default(), sent)
        {
            self.streams.note_flood();
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.counter.is_head_open || was_open {
            self.streams.note_head(self.counter.is_head_open);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.counted(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.counted(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What TLS holds is not sent yet.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.paced(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.paced(cx, shut_down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + payload, 0x55);
        frame
    }

    /// How many of these a client may send after a preface.
    fn most(frames: &[(u8, u8, usize)], sent: u64) -> usize {
        let mut counter = FrameCounter::new();
        assert!(counter.read(&[0x55; PREFACE_BYTES], 0));
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|&(kind, flags, payload)| frame(kind, flags, payload))
            .collect();
        (0..5_000).take_while(|_| counter.read(&bytes, sent)).count()
    }

    #[test]
    fn floods_end_and_requests_do_not() {
        for (frames, allowed) in [
            (&[(SETTINGS, 0, 6)][..], 1_000),
            (&[(PING, 0, 8)], 1_000),
            (&[(WINDOW_UPDATE, 0, 4)], 1_000),
            (&[(DATA, 0, 0)], 1_000),
            (&[(0x42, 0, 100)], 1_000),
            (&[(HEADERS, 0, 10), (CONTINUATION, 0, 10)], 5_000),
            (&[(CONTINUATION, 0, 0)], 1_000),
            // A request, taken back at once.
            (&[(HEADERS, 5, 30), (RST_STREAM, 0, 4)], 200),
            (&[(HEADERS, 5, 30), (HEADERS, 5, 30), (RST_STREAM, 0, 4)], 5_000),
            (&[(HEADERS, 4, 30), (DATA, 1, 0)], 5_000),
            (&[(DATA, 0, 100)], 5_000),
        ] {
            assert_eq!(most(frames, 0), allowed, "{frames:?}");
        }
        // Of a large answer, a client says many times that it has room for more.
        assert_eq!(most(&[(WINDOW_UPDATE, 0, 4)], 512 * 500), 1_500);
    }

    #[test]
    fn frames_in_pieces_count_alike() {
        let bytes = [
            vec![0x55; PREFACE_BYTES],
            frame(HEADERS, 0, 300),
            frame(CONTINUATION, 4, 5),
            frame(PING, 0, 8),
        ];
        for size in [1, 2, 7, 9, 100, 1_000] {
            let mut counter = FrameCounter::new();
            let mut was_open = false;
            for piece in bytes.concat().chunks(size) {
                assert!(counter.read(piece, 0));
                was_open |= counter.is_head_open;
            }
            assert_eq!(
                (counter.requests, counter.idle_frames, counter.filled),
                (1, 2, 0),
                "{size}"
            );
            assert!(!counter.is_head_open && (was_open || size > 300));
        }
    }
}
