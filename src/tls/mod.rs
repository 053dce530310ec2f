//! TLS: the crypto provider, the certificates that are served and those that are trusted, handshakes, and requests to
//! other servers.

mod certificate;
mod certificates;
mod client;
mod handshake;
mod pem;
mod proof;
mod roots;
mod server;
mod settings;
mod stream;
#[cfg(test)]
pub mod testing;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificate::{Certificate, CertificateError, CertificateIdentity, PairFiles, UtcTime};
pub use certificates::Certificates;
pub use client::HttpsClient;
pub use handshake::accept;
pub use proof::{Proof, Proofs};
pub use roots::{Authorities, client_config, failure};
pub use server::{Protocol, Secure, TlsServer};
pub use settings::{MinVersion, TlsSettings};
pub use stream::TlsStream;

/// The only crypto provider of the program. With it, full handshakes take less CPU than with ring, and the key exchange
/// of browsers that withstands quantum computers is there.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
