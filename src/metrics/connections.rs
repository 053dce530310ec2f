//! Connections of each listener: accepted, open, and refused or closed for a reason of ours.

use std::sync::Arc;

use crate::metrics::labels::labels;
use crate::metrics::number::{Counter, Gauge};

labels! {
    pub enum Listener {
        Public = "public",
        Admin = "admin",
    }
}

labels! {
    /// Why a connection or a request was refused, or a connection closed before its client wanted it.
    pub enum Refusal {
        /// The limit of connections in all.
        Connections = "connections",
        /// The limit of connections of one address.
        AddressConnections = "address_connections",
        /// The limit of unknown ids that one address may ask for.
        UnknownIdLimit = "guesses",
        HeadTimeout = "head_timeout",
        IdleTimeout = "idle_timeout",
        /// The client took too long to receive an answer.
        WriteTimeout = "write_timeout",
        /// The connection was open for as long as one may be.
        Lifetime = "lifetime",
        Requests = "requests",
        /// Not a request, or one whose framing is in doubt.
        Malformed = "malformed",
        HeadTooLarge = "head_too_large",
        /// The PROXY header was missing or malformed, or no trusted proxy sent it.
        ProxyHeader = "proxy_header",
        BodyTimeout = "body_timeout",
        /// The limit of bytes that are held for requests and answers.
        BufferedBytes = "buffered_bytes",
        /// Frames of HTTP/2 that ask for nothing, or requests that are taken back, beyond what any client needs.
        FrameFlood = "frame_flood",
        TlsTimeout = "tls_timeout",
        /// A TLS handshake that failed.
        TlsHandshake = "tls_handshake",
        /// Plain HTTP on a port for HTTPS.
        PlainHttp = "plain_http",
    }
}

labels! {
    /// How a connection was secured by TLS.
    pub enum Handshake {
        Full = "full",
        /// With the keys of an earlier connection, and without a certificate.
        Resumed = "resumed",
    }
}

#[derive(Debug, Default)]
pub struct Connections {
    accepted: Counter,
    open: Gauge,
    refused: [Counter; Refusal::ALL.len()],
    handshakes: [Counter; Handshake::ALL.len()],
    shut_outs: Counter,
}

#[derive(Debug, Clone)]
pub struct ConnectionsReport {
    pub listener: Listener,
    pub accepted: u64,
    pub open: u64,
    /// In the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// In the order of [`Handshake::ALL`].
    pub handshakes: [u64; Handshake::ALL.len()],
    /// How often a client was refused everything for a while.
    pub shut_outs: u64,
}

impl Connections {
    /// Counts an accepted connection, which is open until what this returns is dropped.
    pub fn accepted(self: &Arc<Self>) -> OpenConnection {
        self.accepted.increment();
        self.open.move_by(1);
        OpenConnection(Arc::clone(self))
    }

    pub fn refused(&self, refusal: Refusal) {
        if let Some(counter) = self.refused.get(refusal as usize) {
            counter.increment();
        }
    }

    pub fn shook_hands(&self, handshake: Handshake) {
        if let Some(counter) = self.handshakes.get(handshake as usize) {
            counter.increment();
        }
    }

    /// Counts a client that is refused everything for a while.
    pub fn shut_out(&self) {
        self.shut_outs.increment();
    }

    pub fn open(&self) -> u64 {
        self.open.get()
    }

    pub fn read(&self, listener: Listener) -> ConnectionsReport {
        ConnectionsReport {
            listener,
            accepted: self.accepted.get(),
            open: self.open.get(),
            refused: self.refused.each_ref().map(Counter::get),
            handshakes: self.handshakes.each_ref().map(Counter::get),
            shut_outs: self.shut_outs.get(),
        }
    }
}

/// A connection that is open for as long as this lives.
#[derive(Debug)]
pub struct OpenConnection(Arc<Connections>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.move_by(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_open_until_it_is_dropped() {
        let connections = Arc::new(Connections::default());
        let (one, other) = (connections.accepted(), connections.accepted());
        let read = || {
            let report = connections.read(Listener::Public);
            (report.accepted, report.open)
        };
        drop(one);
        assert_eq!(read(), (2, 1));
        drop(other);
        assert_eq!(read(), (2, 0));
    }

    #[test]
    fn refusals_are_in_the_order_in_which_they_are_read() {
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            let connections = Connections::default();
            connections.refused(refusal);
            let refused = connections.read(Listener::Public).refused;
            assert_eq!((refused[number], refused.iter().sum::<u64>()), (1, 1), "{refusal:?}");
        }
    }
}
