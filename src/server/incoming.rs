//! A new connection, until its first request: the PROXY header, and TLS.

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::http::connection::guard::Handover;
use crate::http::connection::set::{ConnectionContext, LastUsed};
use crate::http::connection::{Scheme, proxy_protocol};
use crate::tls::{self, Protocol, Secure, TlsStream};

/// Registers the connection with the runtime, and reads the PROXY header if it has one.
pub(super) async fn introduced(
    connection: Handover<StdStream>,
    scheme: Scheme,
    context: &ConnectionContext,
) -> io::Result<Handover<TcpStream>> {
    let mut connection = connection.try_map(TcpStream::from_std)?;
    if context.policy.is_announced_by(&connection.peer) {
        proxy_protocol::introduce(&mut connection, scheme, context).await?;
    }
    Ok(connection)
}

/// The same, and the TLS handshake after it.
pub(super) async fn secured(
    connection: Handover<StdStream>,
    tls: &watch::Receiver<Arc<Secure>>,
    context: &ConnectionContext,
    activity: &LastUsed,
) -> io::Result<(Handover<TlsStream>, Protocol)> {
    // From the first byte on: until its handshake is over, it gives way to others.
    activity.begin_handshake(Instant::now());
    let connection = introduced(connection, Scheme::Https, context).await?;
    let secure = Arc::clone(&tls.borrow());
    tls::accept(connection, &secure, context, activity).await
}
