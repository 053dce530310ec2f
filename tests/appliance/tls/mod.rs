//! HTTPS.

mod announced;
mod clients;
mod command_line;
mod drain;
mod fetches;
mod garbage;
mod handshakes;
mod http2;
mod http2_protocol;
mod load;
mod names;
mod reload;
mod requests;
mod sessions;
mod settings;
mod upgrade;
