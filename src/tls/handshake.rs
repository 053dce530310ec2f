//! From an accepted connection to one that is secured by TLS.

use std::io;

use hyper::StatusCode;
use rustls::HandshakeKind;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::http;
use crate::http::connection::deadlines::drained;
use crate::http::connection::guard::{Handover, linger};
use crate::http::connection::set::{ConnectionContext, LastUsed};
use crate::metrics::{Handshake, Refusal};
use crate::tls::stream::{TlsStream, Transport};
use crate::tls::{Protocol, Secure};

const PLAIN_HTTP: &str = "This is a port for HTTPS, and the request was plain HTTP: use an https URL.";

/// Secures a connection. While that takes, it gives way to others before any idle connection does.
pub async fn accept(
    connection: Handover<TcpStream>,
    secure: &Secure,
    context: &ConnectionContext,
    activity: &LastUsed,
) -> io::Result<(Handover<TlsStream>, Protocol)> {
    let timeout = secure.handshake_timeout;
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(timeout, shake_hands(connection, secure, context, activity)) => accepted,
        () = drained(context.stopped.clone()) => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let accepted = accepted.unwrap_or_else(|elapsed| {
        context.counts.refused(Refusal::TlsTimeout);
        Err(Failure::of(elapsed.into()))
    });
    match accepted {
        Ok(accepted) => {
            activity.rest(std::time::Instant::now());
            Ok(accepted)
        }
        Err(Failure { error, answered }) => {
            if let Some(mut stream) = answered {
                linger(&mut stream).await?;
            }
            Err(error)
        }
    }
}

struct Failure {
    error: io::Error,
    /// The connection, if the client was sent the reason.
    answered: Option<TcpStream>,
}

impl Failure {
    const fn of(error: io::Error) -> Self {
        Self { error, answered: None }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::of(error)
    }
}

async fn shake_hands(
    mut connection: Handover<TcpStream>,
    secure: &Secure,
    context: &ConnectionContext,
    activity: &LastUsed,
) -> Result<(Handover<TlsStream>, Protocol), Failure> {
    let held = std::mem::take(&mut connection.unread);
    let mut transport = None;
    let connection = connection.try_map(|stream| {
        transport = Some(Transport::new(stream, held));
        Ok(())
    })?;
    let mut transport = transport.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
    match transport.first_byte().await? {
        // A port scan, or the health check of a load balancer.
        None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Some(byte) if byte.is_ascii_uppercase() => {
            context.counts.refused(Refusal::PlainHttp);
            let answer = http::refusal(StatusCode::BAD_REQUEST, PLAIN_HTTP, context.clock.now());
            let mut stream = transport.into_stream()?;
            stream.write_all(&answer).await?;
            return Err(Failure {
                error: io::ErrorKind::InvalidData.into(),
                answered: Some(stream),
            });
        }
        Some(_) => activity.greet(),
    }
    let acceptor = TlsAcceptor::from(std::sync::Arc::clone(&secure.config));
    let secured = acceptor.accept(transport).into_fallible().await;
    let mut secured = secured.map_err(|(error, transport)| {
        context.counts.refused(Refusal::TlsHandshake);
        if secure.certificates.all().is_empty() {
            secure.warn_of_no_certificate();
        }
        // The client has an alert, which a reset would take from it.
        let answered = transport.into_stream().ok();
        Failure { error, answered }
    })?;
    let session = secured.get_ref().1;
    context.counts.shook_hands(match session.handshake_kind() {
        Some(HandshakeKind::Resumed) => Handshake::Resumed,
        _ => Handshake::Full,
    });
    let Some(protocol) = Protocol::agreed(session.alpn_protocol()) else {
        // The handshake was the whole answer (RFC 8737, section 3).
        secured.shutdown().await?;
        return Err(Failure {
            error: io::ErrorKind::ConnectionAborted.into(),
            answered: secured.into_inner().0.into_stream().ok(),
        });
    };
    let connection = connection.try_map(|()| Ok(TlsStream::new(secured)))?;
    Ok((connection.restarted(), protocol))
}
