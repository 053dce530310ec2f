//! Accepting connections, and serving HTTP/1.1 on them with hyper.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use rustix::net::SocketFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::sync::watch;

use crate::http::connection::guard::{Depart, Exchange, Guard, Handover};
use crate::http::connection::listener::{BACKLOG, Listening, Scheme};
use crate::http::connection::set::ConnectionContext;
use crate::http::connection::set::LastUsed;
use crate::http::{Body, Response};

/// Pause when the process is out of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Connections accepted in a row before others have their turn.
pub const ACCEPTED_TOGETHER: i32 = 32;
/// Least time between log lines about it.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The smallest buffer that hyper accepts.
const BUFFER_MIN_BYTES: usize = 16 * 1024;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

pub trait Service: Clone + Send + Sync + 'static {
    fn respond(&self, request: Request<Incoming>, client: IpAddr) -> impl Future<Output = Response> + Send;
}

/// When a listener does what. The process drains from the first on, and takes no connections from the second on.
#[derive(Debug, Clone)]
pub struct Signals {
    pub stopped: watch::Receiver<bool>,
    pub ending: watch::Receiver<bool>,
}

/// Accepts connections until the process ends, and hands them to `serve`, with whether the process is draining. They
/// are non-blocking and not registered with a runtime, which costs two system calls that `serve` may not need.
pub async fn accept(
    Listening {
        scheme,
        listener,
        is_inherited,
    }: Listening,
    signals: Signals,
    serve: impl Fn(TcpStream, IpAddr, Scheme, bool),
) -> io::Result<()> {
    #[allow(
        deprecated,
        reason = "what took its place is unsafe, for objects that may change their descriptor; a listener never does"
    )]
    let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
    for (is_draining, signal) in [(false, signals.stopped), (true, signals.ending)] {
        accept_until(signal, &listener, |stream, address| {
            serve(stream, address, scheme, is_draining)
        })
        .await;
    }
    // The next process serves the queue of an inherited listener; no process would serve that of another.
    if is_inherited {
        return Ok(());
    }
    // Bounded, because clients go on connecting.
    for number in 1..=BACKLOG {
        match accept_one(listener.get_ref()) {
            Ok((stream, address)) => serve(stream, address, scheme, true),
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => break,
        }
        if number % ACCEPTED_TOGETHER == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn accept_until(
    mut signal: watch::Receiver<bool>,
    listener: &AsyncFd<TcpListener>,
    serve: impl Fn(TcpStream, IpAddr),
) {
    let mut trouble = AcceptTrouble::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.async_io(Interest::READABLE, accept_one) => accepted,
            _ = signal.wait_for(|is_over| *is_over) => return,
        };
        match accepted {
            Ok((stream, address)) => serve(stream, address),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                trouble.log(&error);
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Limits log lines about accept errors. Connections accepted in between, as others close, do not reset it.
#[derive(Debug, Default)]
pub struct AcceptTrouble {
    logged: Option<Instant>,
}

impl AcceptTrouble {
    pub fn log(&mut self, error: &io::Error) {
        if self.is_news(Instant::now()) {
            tracing::warn!(%error, "cannot accept connections; retrying");
        }
    }

    fn is_news(&mut self, now: Instant) -> bool {
        let is_news = self
            .logged
            .is_none_or(|logged| now.saturating_duration_since(logged) >= ACCEPT_LOG_INTERVAL);
        if is_news {
            self.logged = Some(now);
        }
        is_news
    }
}

pub fn accept_one(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, address) = rustix::net::acceptfrom_with(listener, flags)?;
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    let address = address.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), address.ip().to_canonical()))
}

/// A connection that closed before it was accepted is no problem of the listener.
pub fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

pub async fn serve(
    handover: Handover<impl AsyncRead + AsyncWrite + Depart + Send + Unpin + 'static>,
    service: impl Service,
    context: ConnectionContext,
    activity: &Arc<LastUsed>,
) {
    let Handover {
        stream,
        unread,
        deadlines,
        peer,
        slot: _slot,
    } = handover;
    let exchange = Exchange::new(Arc::clone(activity));
    let (hsts, arrival) = (context.hsts.clone(), context.arrival(&peer));
    let buffer_bytes = context.policy.head.head_bytes.max(BUFFER_MIN_BYTES);
    let stream = Guard::new(stream, unread, deadlines, context, Arc::clone(&exchange));
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let (service, peer, exchange) = (service.clone(), peer.clone(), Arc::clone(&exchange));
        let hsts = hsts.clone();
        async move {
            request.extensions_mut().insert(exchange.presence().clone());
            request.extensions_mut().insert(arrival);
            // HTTP/1.0 has no chunks: the end of the connection delimits a body of unknown length.
            let may_end_with_connection = request.version() == Version::HTTP_10;
            let forwarded = request.headers().get_all(X_FORWARDED_FOR);
            let client = peer.client(forwarded.iter().map(HeaderValue::as_bytes));
            let mut response = service.respond(request, client).await;
            if let Some(hsts) = hsts {
                response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts);
            }
            if exchange.is_last() {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Tracked {
                body,
                exchange,
                may_end_with_connection,
            }))
        }
    });
    let connection = http1::Builder::new()
        // The guard has the timeouts.
        .header_read_timeout(None)
        .max_buf_size(buffer_bytes)
        // The guard ends the input as soon as hyper has the last response, which is not sent yet.
        .half_close(true)
        // Not pipeline_flush: with it, hyper 1.12 never sends its 400 to a request that it cannot parse.
        .serve_connection(TokioIo::new(stream), answer);
    // A client may end its connection as it likes.
    if let Err(error) = connection.await {
        tracing::trace!(%error, "connection ended");
    }
}

/// A body that tells the exchange when hyper has all of it.
struct Tracked {
    body: Body,
    exchange: Arc<Exchange>,
    may_end_with_connection: bool,
}

impl hyper::body::Body for Tracked {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if self.may_end_with_connection && matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.exchange.tear();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.exchange.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_errors_are_logged_once_a_minute() {
        let (mut trouble, start) = (AcceptTrouble::default(), Instant::now());
        let logged = (0..1_500).filter(|tries| trouble.is_news(start + ACCEPT_BACKOFF * *tries));
        assert_eq!(logged.collect::<Vec<_>>(), [0, 600, 1_200]);
    }
}
