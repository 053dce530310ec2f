//! What the operator says about TLS of a listener.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::PairFiles;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    Tls12,
    Tls13,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    pub listen: Vec<SocketAddr>,
    /// The first is for clients that ask for none of them by name.
    pub certificates: Vec<PairFiles>,
    pub min_version: MinVersion,
    pub handshake_timeout: Duration,
    /// The `max-age` of Strict-Transport-Security; 0: no such header.
    pub hsts_seconds: u64,
    /// Authorities of clients; with them, each client must have a certificate.
    pub client_ca: Option<PathBuf>,
}
