//! Bodies that are sent piece by piece.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait to be sent.
const PIECES_MAX: usize = 4;

/// The stream was truncated. The log has the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream was interrupted")]
pub struct Interrupted;

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    /// The end, and where to acknowledge it.
    End(Option<oneshot::Sender<()>>),
}

/// The body. Without an explicit end, the connection is aborted, so that no client takes a part for the whole.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    is_interrupted: bool,
    is_over: bool,
}

#[derive(Debug)]
pub struct PieceSender(mpsc::Sender<Piece>);

pub(super) fn pieces() -> (PieceSender, Pieces) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let body = Pieces {
        pieces,
        is_interrupted: false,
        is_over: false,
    };
    (PieceSender(sender), body)
}

impl PieceSender {
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<(), Interrupted> {
        self.0.send(Piece::Bytes(piece.into())).await.map_err(|_| Interrupted)
    }

    /// Ends the stream as a whole one.
    pub async fn end(self) {
        // The client may have disconnected.
        let _ = self.0.send(Piece::End(None)).await;
    }

    /// Ends the stream and waits until the server has taken the last piece. False if the client disconnected before.
    pub async fn end_when_taken(self) -> bool {
        let (sender, taken) = oneshot::channel();
        self.0.send(Piece::End(Some(sender))).await.is_ok() && taken.await.is_ok()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx));
        Poll::Ready(match piece {
            Some(Piece::Bytes(piece)) => Some(Ok(Frame::data(piece))),
            Some(Piece::End(taken)) => {
                if let Some(taken) = taken {
                    let _ = taken.send(());
                }
                self.is_over = true;
                None
            }
            None if !self.is_interrupted => {
                // On the next poll, so that the head and the pieces so far are sent first. The error aborts the
                // connection.
                self.is_interrupted = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {
                self.is_over = true;
                Some(Err(Interrupted))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn interruption_comes_a_turn_after_the_last_piece() {
        let (sender, mut body) = pieces();
        block_on(sender.send("one")).unwrap();
        drop(sender);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut turn = || Pin::new(&mut body).poll_frame(&mut cx).map_ok(Frame::into_data);
        assert!(matches!(turn(), Poll::Ready(Some(Ok(Ok(piece)))) if piece == "one"));
        // In which the server sends what it has.
        assert!(turn().is_pending());
        assert!(matches!(turn(), Poll::Ready(Some(Err(Interrupted)))));
        assert!(matches!(turn(), Poll::Ready(None)));
    }

    #[test]
    fn unended_stream_is_incomplete() {
        let collected = |is_ended: bool| {
            block_on(async {
                let (sender, body) = pieces();
                sender.send("one").await.unwrap();
                sender.send("two").await.unwrap();
                if is_ended {
                    sender.end().await;
                } else {
                    drop(sender);
                }
                body.collect().await.map(http_body_util::Collected::to_bytes)
            })
        };
        let taken = |is_read: bool| {
            block_on(async {
                let (sender, body) = pieces();
                sender.send("one").await.unwrap();
                let reading = async {
                    if is_read {
                        body.collect().await.unwrap();
                    } else {
                        drop(body);
                    }
                };
                tokio::join!(sender.end_when_taken(), reading).0
            })
        };
        assert!(taken(true) && !taken(false));
        assert_eq!(collected(true).unwrap(), "onetwo");
        assert_eq!(collected(false).unwrap_err(), Interrupted);
    }
}
