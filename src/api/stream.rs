//! Answers that are made while they are sent: by a thread that may read the store, as fast as the client takes them.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::http::{self, Response};

/// Exports that go on at a time; each holds a view of the store and a thread. Backups have places of their own, so that
/// no partner is in an operator's way.
pub(super) const EXPORTS_MAX: usize = 4;
/// Backups that go on at a time.
pub(super) const BACKUPS_MAX: usize = 2;
/// Bytes that are sent together.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that may wait for the client.
const PIECES_MAX: usize = 4;
/// How long a client may take for a piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take for all of them: the store can give no space back that its view of it needs.
const STREAM_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Where the thread writes to.
pub(super) struct Sink {
    pieces: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let sent = self.pieces.blocking_send(piece.into());
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))
    }
}

/// The right to stream, if not too many do.
pub(super) fn permit(streams: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(streams).try_acquire_owned().ok()
}

/// An answer that `produce` writes, on a thread of its own. If it fails, the connection is cut off. `taken` runs once the
/// client has taken all of it.
pub(super) fn respond<E: std::fmt::Display + Send + 'static>(
    permit: OwnedSemaphorePermit,
    content_type: &'static str,
    produce: impl FnOnce(&mut Sink) -> Result<(), E> + Send + 'static,
    taken: impl FnOnce() + Send + 'static,
) -> Response {
    let (sender, response) = http::stream(content_type);
    let (pieces, mut produced) = mpsc::channel(PIECES_MAX);
    let producing = tokio::task::spawn_blocking(move || {
        let mut sink = Sink {
            pieces,
            piece: Vec::with_capacity(PIECE_BYTES),
        };
        produce(&mut sink).map_err(|error| error.to_string())?;
        sink.flush().map_err(|error| error.to_string())
    });
    tokio::spawn(async move {
        let _permit = permit;
        let end = Instant::now() + STREAM_TIMEOUT;
        while let Some(piece) = produced.recv().await {
            let sent = tokio::time::timeout(PIECE_TIMEOUT, sender.send(piece)).await;
            if !matches!(sent, Ok(Ok(()))) || Instant::now() > end {
                tracing::info!("a stream was not taken by its client, or not in time");
                return;
            }
        }
        match producing.await {
            Ok(Ok(())) => {
                let is_taken = tokio::time::timeout(PIECE_TIMEOUT, sender.end_when_taken()).await;
                if is_taken == Ok(true) {
                    // It may write a file. If it panics, that has been logged.
                    let _ = tokio::task::spawn_blocking(taken).await;
                }
            }
            Ok(Err(reason)) => tracing::error!(reason, "a stream was interrupted"),
            Err(error) => tracing::error!(%error, "a stream did not end"),
        }
    });
    response
}
