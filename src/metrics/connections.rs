//! Connections of each listener: accepted, open, and refused or closed for a reason of ours.

use std::sync::Arc;

use crate::metrics::number::{Counter, Gauge};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    Public,
    Admin,
}

impl Listener {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Public, Self::Admin];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Admin => "admin",
        }
    }
}

/// Why a connection or a request was refused, or a connection closed before its client wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The limit of connections in all.
    Connections,
    /// The limit of connections of one address.
    AddressConnections,
    /// The limit of unknown ids that one address may ask for.
    UnknownIdLimit,
    /// The head of a request took too long.
    HeadTimeout,
    /// No request came for too long.
    IdleTimeout,
    /// The client took too long to receive an answer.
    WriteTimeout,
    /// The connection was open for as long as one may be.
    Lifetime,
    /// The limit of requests on one connection.
    Requests,
    /// Not a request, or one whose framing is in doubt.
    Malformed,
    /// The head of a request was too large.
    HeadTooLarge,
    /// The PROXY header was missing or malformed, or no trusted proxy sent it.
    ProxyHeader,
    /// The body of a request took too long.
    BodyTimeout,
    /// Too many failed attempts of one address to start a session.
    StartSession,
    /// The limit of bytes that are held for requests and answers.
    BufferedBytes,
}

/// How many reasons there are.
const REASONS: usize = Refusal::ALL.len();

impl Refusal {
    /// All reasons, in their order.
    pub const ALL: [Self; 14] = [
        Self::Connections,
        Self::AddressConnections,
        Self::UnknownIdLimit,
        Self::HeadTimeout,
        Self::IdleTimeout,
        Self::WriteTimeout,
        Self::Lifetime,
        Self::Requests,
        Self::Malformed,
        Self::HeadTooLarge,
        Self::ProxyHeader,
        Self::BodyTimeout,
        Self::StartSession,
        Self::BufferedBytes,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::AddressConnections => "address_connections",
            Self::UnknownIdLimit => "guesses",
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Lifetime => "lifetime",
            Self::Requests => "requests",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::ProxyHeader => "proxy_header",
            Self::BodyTimeout => "body_timeout",
            Self::StartSession => "start_session",
            Self::BufferedBytes => "buffered_bytes",
        }
    }
}

#[derive(Debug, Default)]
pub struct Connections {
    accepted: Counter,
    open: Gauge,
    // In the order of `Refusal::ALL`.
    refused: [Counter; REASONS],
    shut_out: Counter,
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

    /// Counts a client that is refused everything for a while.
    pub fn shut_out(&self) {
        self.shut_out.increment();
    }

    /// How often a client was refused everything for a while.
    pub fn shut_outs(&self) -> u64 {
        self.shut_out.get()
    }

    pub fn open(&self) -> u64 {
        self.open.get()
    }

    /// How many connections were accepted, how many are open, and how many refusals there were for each reason, in the
    /// order of [`Refusal::ALL`].
    pub fn read(&self) -> (u64, u64, [u64; REASONS]) {
        (
            self.accepted.get(),
            self.open.get(),
            self.refused.each_ref().map(Counter::get),
        )
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
        drop(one);
        assert_eq!((connections.read().0, connections.read().1), (2, 1));
        drop(other);
        assert_eq!((connections.read().0, connections.read().1), (2, 0));
    }

    #[test]
    fn refusals_are_in_the_order_in_which_they_are_read() {
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            let connections = Connections::default();
            connections.refused(refusal);
            let refused = connections.read().2;
            assert_eq!((refused[number], refused.iter().sum::<u64>()), (1, 1), "{refusal:?}");
        }
    }
}
