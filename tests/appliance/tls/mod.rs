//! HTTPS.

mod handshakes;
mod http2;
