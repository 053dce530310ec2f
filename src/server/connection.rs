//! Accepting connections and serving HTTP/1.1 on them.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::http::Response;

/// How long the head of a request may take; it also bounds an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait before accepting again when the process is out of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What a connection may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The read buffer, and so the longest head of a request.
    pub(super) buffer_bytes: usize,
}

/// Answers requests.
pub(super) trait Service: Clone + Send + Sync + 'static {
    /// Answers one request from an address.
    fn respond(&self, request: Request<Incoming>, address: IpAddr) -> impl Future<Output = Response> + Send;
}

/// Accepts and serves connections until `stopped` turns true, then lets those in flight finish.
pub(super) async fn accept(
    listener: TcpListener,
    service: impl Service,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error means that the sender is gone, which also means the end.
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let address = address.ip().to_canonical();
                spawn(stream, address, service.clone(), limits, &graceful);
            }
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
}

/// A connection that was gone before it was accepted says nothing about the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn spawn(stream: TcpStream, address: IpAddr, service: impl Service, limits: Limits, graceful: &GracefulShutdown) {
    // Without it, answers on one connection wait for each other; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.respond(request, address).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(limits.buffer_bytes)
        // Not pipeline_flush: with it, hyper 1.12 never sends its 400 to a request that it cannot parse.
        .serve_connection(TokioIo::new(stream), answer);
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        // How a client ends its connection is its own business.
        if let Err(error) = pin!(watched).await {
            tracing::trace!(%error, "connection ended");
        }
    });
}
