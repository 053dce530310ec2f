//! One request to a destination and the head of its answer, on a connection of its own.

use std::sync::Arc;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use url::{Position, Url};

use crate::fetch::FetchError;
use crate::fetch::connect::Stream;
use crate::fetch::headers;
use crate::fetch::places::Place;

/// Read from a connection at a time at most, and so the largest head of an answer.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// What is asked of a destination.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// GET or HEAD.
    pub(super) method: Method,
    /// All headers but the host.
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

/// The connection that an answer comes by, and the place of the fetch: when this is dropped, the one is closed and the other
/// free. Both are kept until then, however early the destination has sent all: what it has sent is in memory.
#[derive(Debug)]
pub(super) struct Line {
    _connection: AbortOnDropHandle<()>,
    _place: Arc<Place>,
}

/// Asks, and waits for the head of the answer. The body comes as fast as it is taken. The connection ends by itself at the
/// deadline.
pub(super) async fn ask(
    stream: Stream,
    url: &Url,
    question: &Question,
    place: Arc<Place>,
    deadline: Instant,
) -> Result<(Response<Incoming>, Line), FetchError> {
    let request = question.to(url)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_MAX_BYTES);
    let (mut sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::broken)?;
    let connection = tokio::spawn(async move {
        match tokio::time::timeout_at(deadline, connection).await {
            Ok(Ok(())) | Err(_) => {}
            // Whoever waits for the answer hears it too.
            Ok(Err(error)) => tracing::trace!(%error, "connection to a destination ended"),
        }
    });
    let line = Line {
        _connection: AbortOnDropHandle::new(connection),
        _place: place,
    };
    let response = sender.send_request(request).await.map_err(FetchError::broken)?;
    if response.status().is_informational() {
        // 101: nobody has asked for another protocol.
        return Err(FetchError::Broken("an informational answer is the last".into()));
    }
    Ok((response, line))
}
