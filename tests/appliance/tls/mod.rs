//! HTTPS.

mod command_line;
mod handshakes;
mod http2;
mod http2_protocol;
mod upgrade;
