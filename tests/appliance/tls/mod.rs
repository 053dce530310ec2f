//! HTTPS.

mod handshakes;
