//! Answers that a thread writes while the client takes them.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::http::{self, Budget, Reservation, Response};
use crate::links::Links;
use crate::store::SPACE_LEFT_BYTES;
use crate::transfer::TransferError;

/// Exports at a time; each holds a view of the store and a thread. Backups have places of their own, so that no partner
/// is in an operator's way.
pub(super) const EXPORTS_MAX: usize = 4;
pub(super) const BACKUPS_MAX: usize = 2;
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes that a stream holds: the piece that is written, the one that is read, and those that wait for the client.
const HELD_BYTES: usize = 8 * PIECE_BYTES;
/// Bytes between two looks at the space on the disk.
pub(super) const SPACE_INTERVAL_BYTES: u64 = 16 * 1024 * 1024;
/// How long a client may take for a piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pieces that may wait for the client.
const PIECES_MAX: usize = 4;
/// How long a client may take for a stream without a file: the store can give no space back meanwhile.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Likewise for one with a file.
const STREAM_TIMEOUT: Duration = Duration::from_secs(60 * 60);

pub(super) struct Sink {
    piece: Vec<u8>,
    target: Target,
}

enum Target {
    /// A file without a name, from which the client reads at its own pace. A view of the store, which can give no space
    /// back meanwhile, lasts only until the file is written.
    File {
        file: File,
        links: Arc<Links>,
        since_look: u64,
        written: watch::Sender<u64>,
    },
    /// The client itself, where the disk has no room for a file.
    Client(mpsc::Sender<Bytes>),
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
        let has_gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone");
        match &mut self.target {
            Target::File {
                file,
                links,
                since_look,
                written,
            } => {
                if written.is_closed() {
                    return Err(has_gone());
                }
                *since_look += self.piece.len() as u64;
                if *since_look >= SPACE_INTERVAL_BYTES {
                    *since_look = 0;
                    // A full disk would stop all writes.
                    links.store().check_space(SPACE_LEFT_BYTES)?;
                }
                file.write_all(&self.piece)?;
                written.send_modify(|written| *written += self.piece.len() as u64);
                self.piece.clear();
            }
            Target::Client(pieces) => {
                let piece = mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
                pieces.blocking_send(piece.into()).map_err(|_| has_gone())?;
            }
        }
        Ok(())
    }
}

enum Source {
    File {
        file: Arc<File>,
        written: watch::Receiver<u64>,
        sent: u64,
    },
    Thread(mpsc::Receiver<Bytes>),
}

impl Source {
    /// The next piece; none at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::File { file, written, sent } => {
                // An error means that the thread has ended.
                let is_ended = written.wait_for(|written| written > sent).await.is_err();
                let until = *written.borrow();
                if is_ended && until <= *sent {
                    return Ok(None);
                }
                let piece = piece_at(file, *sent, until).await?;
                *sent += piece.len() as u64;
                Ok(Some(piece.into()))
            }
            Self::Thread(pieces) => Ok(pieces.recv().await),
        }
    }
}

/// A sink and its source, by way of a file where the disk of the store has room for one.
fn channel(links: &Arc<Links>) -> (Sink, Source, Duration) {
    let made = links.store().check_space(SPACE_LEFT_BYTES);
    let made = made.and_then(|()| links.store().temporary_file());
    let made = made.and_then(|file| Ok((file.try_clone()?, Arc::new(file))));
    let piece = Vec::with_capacity(PIECE_BYTES);
    match made {
        Ok((file, readable)) => {
            let (sender, written) = watch::channel(0);
            let target = Target::File {
                file,
                links: Arc::clone(links),
                since_look: 0,
                written: sender,
            };
            let source = Source::File {
                file: readable,
                written,
                sent: 0,
            };
            (Sink { piece, target }, source, STREAM_TIMEOUT)
        }
        Err(error) => {
            tracing::warn!(%error, "no room to spool a stream; sending it directly");
            let (sender, pieces) = mpsc::channel(PIECES_MAX);
            let target = Target::Client(sender);
            (Sink { piece, target }, Source::Thread(pieces), DIRECT_TIMEOUT)
        }
    }
}

/// The next bytes of the file, at most a piece.
async fn piece_at(file: &Arc<File>, offset: u64, written: u64) -> io::Result<Vec<u8>> {
    let file = Arc::clone(file);
    let reading = move || {
        let length = usize::try_from(written - offset).map_or(PIECE_BYTES, |length| length.min(PIECE_BYTES));
        let mut piece = vec![0; length];
        file.read_exact_at(&mut piece, offset)?;
        Ok(piece)
    };
    let read = tokio::task::spawn_blocking(reading).await;
    read.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The right to stream, with the memory for it.
pub(super) type Permit = (OwnedSemaphorePermit, Reservation);

pub(super) fn permit(streams: &Arc<Semaphore>, budget: &Arc<Budget>) -> Result<Permit, TransferError> {
    let slot = Arc::clone(streams).try_acquire_owned();
    let slot = slot.map_err(|_| TransferError::Busy)?;
    Ok((slot, budget.reserve(HELD_BYTES).ok_or(TransferError::NoMemory)?))
}

/// An answer that `produce` writes, on a thread of its own. If it fails, the connection is cut off. `taken` runs once
/// the client has taken all of it.
pub(super) fn respond<E: std::fmt::Display + Send + 'static>(
    permit: Permit,
    links: &Arc<Links>,
    content_type: &'static str,
    produce: impl FnOnce(&mut Sink) -> Result<(), E> + Send + 'static,
    taken: impl FnOnce() + Send + 'static,
) -> Response {
    let (sender, response) = http::stream(content_type);
    let (mut sink, mut source, timeout) = channel(links);
    let producing = tokio::task::spawn_blocking(move || {
        produce(&mut sink).map_err(|error| error.to_string())?;
        sink.flush().map_err(|error| error.to_string())
    });
    tokio::spawn(async move {
        let _permit = permit;
        let end = Instant::now() + timeout;
        loop {
            let piece = match source.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => return tracing::error!(%error, "cannot read a spooled stream"),
            };
            let taken = tokio::time::timeout(PIECE_TIMEOUT, sender.send(piece)).await;
            if !matches!(taken, Ok(Ok(()))) || Instant::now() > end {
                return tracing::info!("client did not take a stream, or not in time");
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
            Ok(Err(reason)) => tracing::error!(reason, "stream interrupted"),
            Err(error) => tracing::error!(%error, "stream did not end"),
        }
    });
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Clock;
    use http_body_util::BodyExt as _;
    use tokio::sync::oneshot;

    /// Far more than any buffer on the way takes.
    const PIECES: u8 = 200;

    #[test]
    fn a_stream_is_written_however_slow_its_client_is() {
        let folder = tempfile::tempdir().unwrap();
        let links = Arc::new(Links::open(folder.path(), Clock::system(), 8).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(async {
            let permit = permit(&Arc::new(Semaphore::new(1)), &Budget::new(HELD_BYTES)).unwrap();
            let (ended, has_ended) = oneshot::channel();
            let (noted, was_taken) = oneshot::channel();
            let produce = |sink: &mut Sink| {
                for number in 0..PIECES {
                    sink.write_all(&vec![number; PIECE_BYTES + 1])?;
                }
                ended.send(()).unwrap();
                io::Result::Ok(())
            };
            let taken = move || noted.send(()).unwrap();
            let response = respond(permit, &links, "text/plain", produce, taken);
            // Before the client has taken anything.
            has_ended.await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            was_taken.await.unwrap();
            let expected = (0..PIECES).flat_map(|number| vec![number; PIECE_BYTES + 1]);
            assert!(body.iter().copied().eq(expected));
        });
    }
}
