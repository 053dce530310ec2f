//! Building responses.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};

use crate::http::stream::{Interrupted, PieceSender, pieces};
use crate::model::Timestamp;

pub type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Interrupted>>;

pub type Response = hyper::Response<Body>;

/// Whether the body is a whole one of length 0.
pub fn is_empty(response: &Response) -> bool {
    matches!(response.body(), Either::Left(body) if body.is_end_stream())
}

pub const READ_METHODS: &str = "GET, HEAD, OPTIONS";
/// The methods of the API (docs/kaltura-api.md#methods).
pub const API_METHODS: &str = "POST, GET, HEAD, OPTIONS";

pub const RETRY_AFTER_SECONDS: u64 = 1;

/// In seconds (docs/kaltura-api.md#methods).
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("86400");
const METHODS: HeaderValue = HeaderValue::from_static(API_METHODS);
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("Origin, X-Requested-With, Content-Type, Accept, Range, Cache-Control");

pub fn answer(status: StatusCode) -> Response {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// A 200 response sent piece by piece, not cacheable.
pub fn stream(content_type: &'static str) -> (PieceSender, Response) {
    let (sender, pieces) = pieces();
    let mut response = Response::new(Either::Right(pieces.boxed_unsync()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    no_store(headers);
    (sender, response)
}

/// A response whose body comes from elsewhere. An error of the body means that it is truncated.
pub fn passed_on<B>(body: B) -> Response
where
    B: hyper::body::Body<Data = Bytes, Error = Interrupted> + Send + 'static,
{
    Response::new(Either::Right(body.boxed_unsync()))
}

pub fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    typed(status, content_type, Either::Left(Full::new(body.into())))
}

/// As [`bytes()`], of several that follow each other: none of them is copied.
pub fn joined(status: StatusCode, content_type: &'static str, pieces: impl IntoIterator<Item = Bytes>) -> Response {
    let body = Joined(pieces.into_iter().collect());
    typed(status, content_type, Either::Right(body.boxed_unsync()))
}

fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A body whose length is known, unlike that of a stream.
struct Joined(VecDeque<Bytes>);

impl hyper::body::Body for Joined {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    bytes(status, "text/plain; charset=utf-8", body)
}

/// A serialised error response, after which the connection closes.
pub fn refusal(status: StatusCode, reason: &str, now: Timestamp) -> Vec<u8> {
    let phrase = status.canonical_reason().unwrap_or_default();
    let date = date(now);
    let length = reason.len() + 1;
    format!(
        "HTTP/1.1 {} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n\
         cache-control: no-store\r\nconnection: close\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n{reason}\n",
        status.as_str(),
    )
    .into_bytes()
}

/// The same for a client that exceeds a limit of connections.
pub fn turned_away(status: StatusCode, retry_after_seconds: u64, now: Timestamp) -> Vec<u8> {
    let phrase = status.canonical_reason().unwrap_or_default();
    let date = date(now);
    format!(
        "HTTP/1.1 {} {phrase}\r\nretry-after: {retry_after_seconds}\r\ncache-control: no-store\r\nconnection: close\r\n\
         content-length: 0\r\ndate: {date}\r\n\r\n",
        status.as_str(),
    )
    .into_bytes()
}

pub fn date(now: Timestamp) -> String {
    let seconds = u64::try_from(now.as_unix()).unwrap_or_default();
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

pub fn no_store(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

pub fn forbid_indexing(headers: &mut HeaderMap) {
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex"));
}

pub fn permit_any_origin(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

/// The answer to OPTIONS on the API: any origin may call it (docs/kaltura-api.md#methods).
pub fn cors_preflight() -> Response {
    let mut response = answer(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    permit_any_origin(headers);
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE),
        (header::ALLOW, METHODS),
    ] as [(HeaderName, HeaderValue); 4]
    {
        headers.insert(name, value);
    }
    response
}

/// `OPTIONS *` (RFC 9110, section 9.3.7).
pub fn is_about_server<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.uri().path() == "*"
}

/// Answers OPTIONS with the methods, and others with 405.
pub fn allow(method: &Method, methods: &'static str) -> Response {
    let mut response = if method == Method::OPTIONS {
        answer(StatusCode::NO_CONTENT)
    } else {
        text(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("method not allowed; allowed are {methods}\n"),
        )
    };
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
