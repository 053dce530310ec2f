//! Serving HTTP/2 on a connection with hyper, within the limits of HTTP/1.1.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::http::connection::frames::Frames;
use crate::http::connection::guard::Handover;
use crate::http::connection::serve::{Service, X_FORWARDED_FOR};
use crate::http::connection::set::{ConnectionContext, LastUsed};
use crate::http::connection::streams::{Next, Streams};
use crate::http::{self, Body, ClientPresence, HeadLimits, Peer, Response};
use crate::metrics::Refusal;

/// Requests at a time. Browsers have few, and each may hold a response.
const STREAMS: u32 = 100;
/// What the client may send of bodies before they are read: for a request, and for all.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What hyper holds of a response that the client does not take.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Requests that were taken back before they were looked at.
const PENDING_RESETS: usize = 20;
/// Requests that were refused for what is wrong with them. Then the connection ends.
const LOCAL_RESETS: usize = 100;

/// Of a body, hyper takes a piece of this size at a time: it takes a piece as a whole, whether the client has room for
/// it or not.
const PIECE_BYTES: usize = 16 * 1024;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Has the requests of a connection served by the task of the connection, so that they end with it.
#[derive(Clone, Default)]
struct SameTask(Arc<Mutex<Vec<Task>>>);

/// Drops the requests that hyper has begun in the very moment in which the connection ended: each holds the list that
/// it is in.
struct DropRest(SameTask);

impl Drop for DropRest {
    fn drop(&mut self) {
        let rest = std::mem::take(&mut *self.0.0.lock());
        drop(rest);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for SameTask {
    fn execute(&self, future: F) {
        self.0.lock().push(Box::pin(future));
    }
}

pub async fn serve(
    handover: Handover<impl AsyncRead + AsyncWrite + Send + Unpin + 'static>,
    service: impl Service,
    context: ConnectionContext,
    activity: &Arc<LastUsed>,
) {
    let Handover {
        stream,
        unread,
        peer,
        slot: _slot,
        ..
    } = handover;
    let streams = Streams::new(Arc::clone(activity), Arc::clone(&context.counts));
    let write_timeout = context.policy.limits.write_timeout;
    let stream = Frames::new(stream, unread, Arc::clone(&streams), write_timeout);
    let tasks = SameTask::default();
    let _rest = DropRest(tasks.clone());
    let answering = Answering {
        service,
        peer,
        context: context.clone(),
        streams: Arc::clone(&streams),
    };
    let connection = builder(tasks.clone(), &context.policy.head).serve_connection(
        TokioIo::new(stream),
        service_fn(move |request| answering.answer(request)),
    );
    let mut connection = pin!(connection);
    let limits = &context.policy.limits;
    let mut running = FuturesUnordered::new();
    let mut stopped = context.stopped.clone();
    let mut stop = pin!(stopped.wait_for(|stopped| *stopped));
    let mut alarm = pin!(tokio::time::sleep_until(Instant::now()));
    let (mut is_draining, mut is_ending) = (false, false);
    let ended = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            running.extend(tasks.0.lock().drain(..));
            // The requests may have something for the connection to send, which wakes this task.
            while let Poll::Ready(Some(())) = running.poll_next_unpin(cx) {}
            let next = if is_ending {
                Next::LookAgain(alarm.deadline())
            } else if is_draining || stop.as_mut().poll(cx).is_ready() {
                is_draining = true;
                match streams.first_request_until() {
                    Some(until) if until > Instant::now() => Next::LookAgain(until.min(alarm.deadline())),
                    _ => Next::End,
                }
            } else {
                streams
                    .next_request(limits)
                    .unwrap_or(Next::LookAgain(alarm.deadline()))
            };
            let next = match next {
                Next::LookAgain(_) if alarm.as_mut().poll(cx).is_ready() => streams.next(limits, Instant::now()),
                next => next,
            };
            match next {
                Next::LookAgain(at) if at == alarm.deadline() => return Poll::Pending,
                Next::LookAgain(at) => alarm.as_mut().reset(at),
                Next::End => {
                    is_ending = true;
                    streams.set_ending();
                    connection.as_mut().graceful_shutdown();
                    alarm.as_mut().reset(Instant::now());
                }
                Next::Abort => return Poll::Ready(Ok(())),
            }
        }
    });
    // A client may end its connection as it likes.
    if let Err(error) = ended.await {
        tracing::trace!(%error, "connection ended");
    }
}

fn builder(tasks: SameTask, head: &HeadLimits) -> http2::Builder<SameTask> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_header_list_size(u32::try_from(head.head_bytes).unwrap_or(u32::MAX));
    builder
}

struct Answering<S> {
    service: S,
    peer: Peer,
    context: ConnectionContext,
    streams: Arc<Streams>,
}

impl<S: Service> Answering<S> {
    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<hyper::Response<Tracked>, Infallible>> + Send + use<S> {
        let checked = check(&request, &self.context.policy.head);
        if let Err((status, _)) = checked {
            let is_too_large = status != StatusCode::BAD_REQUEST;
            let refusal = if is_too_large {
                Refusal::HeadTooLarge
            } else {
                Refusal::Malformed
            };
            self.context.counts.refused(refusal);
        }
        let forwarded = request.headers().get_all(X_FORWARDED_FOR);
        let client = self.peer.client(forwarded.iter().map(HeaderValue::as_bytes));
        let presence = ClientPresence::default();
        request.extensions_mut().insert(presence.clone());
        request.extensions_mut().insert(self.context.arrival(&self.peer));
        let is_head = *request.method() == Method::HEAD;
        let (service, hsts) = (self.service.clone(), self.context.hsts.clone());
        let in_flight = InFlight::begin(Arc::clone(&self.streams));
        async move {
            let mut response = match checked {
                Ok(()) => service.respond(request, client).await,
                Err((status, reason)) => refusal(status, reason),
            };
            // Of HTTP/1.1.
            response.headers_mut().remove(CONNECTION);
            if let Some(hsts) = hsts {
                response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts);
            }
            if is_head {
                leave_body_out(&mut response);
            }
            in_flight.respond(&presence);
            Ok(response.map(|body| Tracked {
                body,
                rest: Bytes::new(),
                in_flight,
            }))
        }
    }
}

/// What HTTP/1.1 requests are refused for too.
fn check<B>(request: &Request<B>, limits: &HeadLimits) -> Result<(), (StatusCode, &'static str)> {
    let bad = |reason| Err((StatusCode::BAD_REQUEST, reason));
    let (uri, headers) = (request.uri(), request.headers());
    if *request.method() == Method::CONNECT {
        return bad("this server is no proxy");
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return bad("the request has more than one host");
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, host) {
        (None, None) => return bad("the request has no host"),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return bad("the request names two hosts: :authority and host differ");
        }
        (Some(host), _) | (None, Some(host)) if !http::is_host(host) => return bad("the host is malformed"),
        _ => {}
    }
    if uri.path_and_query().map_or(0, |target| target.as_str().len()) > limits.target_bytes {
        return Err((StatusCode::URI_TOO_LONG, "the target of the request is too long"));
    }
    if headers.len() > limits.headers || bytes_of(headers) > limits.head_bytes {
        let reason = "the head of the request is too long";
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason));
    }
    Ok(())
}

fn bytes_of(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

/// hyper does this for HTTP/1.1 only.
fn leave_body_out(response: &mut Response) {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::Left(Full::default());
}

fn refusal(status: StatusCode, reason: &str) -> Response {
    let mut response = http::text(status, format!("{reason}\n"));
    http::no_store(response.headers_mut());
    response
}

/// A request, until hyper has the last piece of its response or the client has taken it back.
struct InFlight {
    streams: Arc<Streams>,
    number: usize,
}

impl InFlight {
    fn begin(streams: Arc<Streams>) -> Self {
        let number = streams.begin();
        Self { streams, number }
    }

    fn respond(&self, presence: &ClientPresence) {
        self.streams.wait_for(self.number, presence);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.streams.end(self.number);
    }
}

struct Tracked {
    body: Body,
    /// What hyper has not taken of the last piece.
    rest: Bytes,
    in_flight: InFlight,
}

impl hyper::body::Body for Tracked {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = <Body as hyper::body::Body>::Error;

    /// hyper asks for a piece once the client had room for a part of the one before.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.rest.is_empty() {
            let frame = Pin::new(&mut self.body).poll_frame(cx);
            let InFlight { streams, number } = &self.in_flight;
            streams.set_unsent(*number, frame.is_ready());
            match frame {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        } else {
            let InFlight { streams, number } = &self.in_flight;
            streams.set_unsent(*number, true);
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (of_body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::connection::Scheme;
    use crate::http::connection::set::{ConnectionSet, Gate};
    use std::net::IpAddr;
    use tokio::io::AsyncWriteExt as _;
    use tokio::sync::watch;

    /// Never answers.
    #[derive(Clone)]
    struct Silent(Arc<()>);

    impl Service for Silent {
        async fn respond(&self, _: Request<Incoming>, _: IpAddr) -> Response {
            let _held = Arc::clone(&self.0);
            std::future::pending().await
        }
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
    }

    /// A header block, without compression.
    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let literal = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
        let fields = fields
            .iter()
            .map(|(name, value)| [vec![0], literal(name), literal(value)].concat());
        fields.collect::<Vec<_>>().concat()
    }

    #[tokio::test]
    async fn nothing_is_left_of_requests_when_a_connection_ends() {
        let get = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", "/"),
        ];
        // hyper ends the connection with the request that it refuses, right after it has begun the others.
        let connect = [(":method", "CONNECT"), (":authority", "a"), ("content-length", "5")];
        let requests = (0..50).map(|number| frame(1, 5, 2 * number + 1, &block(&get)));
        let bytes = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, b""),
            requests.collect::<Vec<_>>().concat(),
            frame(1, 4, 101, &block(&connect)),
        ];
        let held = Arc::new(());
        let (_stop, stopped) = watch::channel(false);
        let gate = Gate::test(stopped);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        let accepted = gate
            .admit(&stream, address.ip(), Scheme::Https, &ConnectionSet::default())
            .unwrap();
        let context = gate.context(accepted.policy, Scheme::Https);
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(&bytes.concat()).await.unwrap();
        let peer = Peer::new(address.ip(), &Arc::default());
        let handover = Handover::new(ours, peer, accepted.slot);
        serve(handover, Silent(Arc::clone(&held)), context, &Arc::default()).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    const LIMITS: HeadLimits = HeadLimits {
        head_bytes: 200,
        target_bytes: 50,
        headers: 3,
    };

    fn check_of(uri: &str, headers: &[(&str, &str)]) -> Result<(), u16> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), &LIMITS).map_err(|(status, _)| status.as_u16())
    }

    #[test]
    fn hosts_and_sizes_are_checked() {
        let long = format!("https://a/{}", "x".repeat(50));
        let value = "x".repeat(200);
        for (uri, headers, checked) in [
            ("https://a/", &[][..], Ok(())),
            ("https://a/", &[("host", "A")], Ok(())),
            ("/", &[("host", "a")], Ok(())),
            ("https://a/", &[("host", "b")], Err(400)),
            ("https://a/", &[("host", "a"), ("host", "a")], Err(400)),
            ("https://u@a/", &[], Err(400)),
            ("/", &[], Err(400)),
            ("/", &[("host", "a/b")], Err(400)),
            (&*long, &[], Err(414)),
            ("https://a/", &[("a", "1"), ("b", "1"), ("c", "1")], Ok(())),
            (
                "https://a/",
                &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")],
                Err(431),
            ),
            ("https://a/", &[("a", &*value)], Err(431)),
        ] {
            assert_eq!(check_of(uri, headers), checked, "{uri} {headers:?}");
        }
    }
}
