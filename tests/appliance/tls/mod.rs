//! HTTPS.

mod handshakes;
mod http2;
mod upgrade;
