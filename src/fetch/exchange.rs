//! One request to a destination and the head of its answer, on a connection of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use url::{Position, Url};

use crate::fetch::headers;
use crate::fetch::{FetchError, FetchSlot};

/// Also the largest head of a response.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// Read before the head of the final response: hyper skips any number of informational ones.
const BEFORE_HEAD_MAX_BYTES: usize = 2 * BUFFER_MAX_BYTES;

#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
}

impl Question {
    fn to(&self, url: &Url) -> Result<Request<Empty<Bytes>>, FetchError> {
        let target = &url[Position::BeforePath..Position::AfterQuery];
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::try_from(target).map_err(FetchError::broken)?;
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::HOST, headers::host_of(url)?);
        Ok(request)
    }
}

/// The connection of a response, and the slot of the fetch. Both are kept until the client has all, because what the
/// destination sent early is in memory.
#[derive(Debug)]
pub(super) struct Line {
    _connection: AbortOnDropHandle<()>,
    _slot: Arc<FetchSlot>,
}

/// Bounds what is read before the head of the response.
struct Bounded<S> {
    inner: S,
    /// Bytes that may be read; [`ANY_NUMBER`] after the head.
    left: Arc<AtomicUsize>,
}

const ANY_NUMBER: usize = usize::MAX;

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left.load(Ordering::Acquire) == 0 {
            let text = format!("the destination sent {BEFORE_HEAD_MAX_BYTES} bytes and no whole head of an answer");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        let less = |left: usize| (left != ANY_NUMBER).then(|| left.saturating_sub(read));
        let _ = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Sends a request and waits for the head of the response. The connection ends at the deadline.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    url: &Url,
    question: &Question,
    slot: Arc<FetchSlot>,
    deadline: Instant,
) -> Result<(Response<Incoming>, Line), FetchError> {
    let request = question.to(url)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_MAX_BYTES);
    let left = Arc::new(AtomicUsize::new(BEFORE_HEAD_MAX_BYTES));
    let bounded = Bounded {
        inner: stream,
        left: Arc::clone(&left),
    };
    let (mut sender, connection) = builder
        .handshake(TokioIo::new(bounded))
        .await
        .map_err(FetchError::broken)?;
    let connection = tokio::spawn(async move {
        match tokio::time::timeout_at(deadline, connection).await {
            Ok(Ok(())) | Err(_) => {}
            // The caller gets the same error.
            Ok(Err(error)) => tracing::trace!(%error, "connection to a destination ended"),
        }
    });
    let line = Line {
        _connection: AbortOnDropHandle::new(connection),
        _slot: slot,
    };
    let response = sender.send_request(request).await.map_err(FetchError::broken)?;
    left.store(ANY_NUMBER, Ordering::Release);
    if response.status().is_informational() {
        // 101: tinyd asked for no other protocol.
        return Err(FetchError::Broken("an informational answer is the last".into()));
    }
    Ok((response, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use crate::http::per_client::Slots;

    /// Asks a destination that sends `first`, then `rest` for as long as it can, and says how many bytes it could send.
    fn asked(first: &'static str, rest: &'static str, times: usize) -> (Result<usize, FetchError>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(async {
            let (stream, mut destination) = tokio::io::duplex(1024);
            let sending = tokio::spawn(async move {
                let mut sent = 0;
                let mut asked = [0; 1024];
                assert!(destination.read(&mut asked).await.unwrap() > 0);
                for text in std::iter::once(first).chain(std::iter::repeat_n(rest, times)) {
                    if destination.write_all(text.as_bytes()).await.is_err() {
                        break;
                    }
                    sent += text.len();
                }
                sent
            });
            let question = Question {
                method: Method::GET,
                headers: HeaderMap::new(),
            };
            let slots = Arc::<Slots<_>>::default();
            let slot = Arc::new(slots.take([127, 0, 0, 1].into(), 1, 1).unwrap());
            let deadline = Instant::now() + Duration::from_secs(60);
            let url = Url::parse("http://destination.example/").unwrap();
            let asked = ask(stream, &url, &question, slot, deadline).await;
            let read = match asked {
                Ok((response, _line)) => {
                    let body = response.into_body().collect().await;
                    body.map(|body| body.to_bytes().len()).map_err(FetchError::broken)
                }
                Err(error) => Err(error),
            };
            (read, sending.await.unwrap())
        })
    }

    #[test]
    fn a_flood_of_informational_answers_is_bounded() {
        let (answer, sent) = asked("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 1_000_000);
        assert!(matches!(answer, Err(FetchError::Broken(_))));
        assert!(sent <= 2 * BEFORE_HEAD_MAX_BYTES, "{sent} bytes were read");
    }

    #[test]
    fn some_informational_answers_are_passed_over() {
        let first = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        let (answer, _) = asked(first, "0123456789", 100_000);
        assert_eq!(answer.unwrap(), 1_000_000);
    }

    #[test]
    fn endless_chunk_extensions_and_trailers_are_bounded() {
        for first in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: ",
        ] {
            let (body, sent) = asked(first, "aaaaaaaaaa", 1_000_000);
            assert!(matches!(body, Err(FetchError::Broken(_))), "{first}");
            assert!(sent <= 2 * BUFFER_MAX_BYTES, "{first}: {sent} bytes were read");
        }
    }
}
