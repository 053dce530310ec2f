//! Accepting connections, and serving HTTP/1.1 on them with hyper.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::net::SocketFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::sync::watch;

use crate::http::Response;

/// How long the head of a request may take; it also bounds an idle connection.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait before accepting again when the process is out of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Answers requests.
pub(super) trait Service: Clone + Send + Sync + 'static {
    /// Answers one request from an address.
    fn respond(&self, request: Request<Incoming>, address: IpAddr) -> impl Future<Output = Response> + Send;
}

/// Accepts connections and has them served until `stopped` turns true, then lets those in flight finish: those whose
/// watcher is still there. The streams do not block, and no runtime knows of them yet: that costs two system calls, and
/// `serve` may have no need of it.
///
/// # Errors
/// When the runtime cannot watch the listener.
pub(super) async fn accept(
    listener: TcpListener,
    mut stopped: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, IpAddr, &GracefulShutdown),
) -> io::Result<()> {
    #[allow(
        deprecated,
        reason = "what took its place is unsafe, for objects that may change their descriptor; a listener never does"
    )]
    let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.async_io(Interest::READABLE, accept_one) => accepted,
            // An error means that the sender is gone, which also means the end.
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, address)) => serve(stream, address, &graceful),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted; trying again");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // Nobody new while the others finish.
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

fn accept_one(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, address) = rustix::net::acceptfrom_with(listener, flags)?;
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    let address = address.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), address.ip().to_canonical()))
}

/// A connection that was gone before it was accepted says nothing about the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Serves a connection to its end. The head of a request may have at most `buffer_bytes`.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: IpAddr,
    service: impl Service,
    buffer_bytes: usize,
    watcher: Watcher,
) {
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.respond(request, address).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(buffer_bytes)
        // Not pipeline_flush: with it, hyper 1.12 never sends its 400 to a request that it cannot parse.
        .serve_connection(TokioIo::new(stream), answer);
    // How a client ends its connection is its own business.
    if let Err(error) = pin!(watcher.watch(connection)).await {
        tracing::trace!(%error, "connection ended");
    }
}
