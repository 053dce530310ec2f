//! TLS: the crypto provider, and the certificates that are trusted.

mod roots;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use roots::Authorities;

/// The only crypto provider of the program. With it, full handshakes take less CPU than with ring, and the key exchange
/// of browsers that withstands quantum computers is there.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
