//! HTTPS.

mod announced;
mod clients;
mod drain;
mod fetches;
mod garbage;
mod handshakes;
mod load;
mod names;
mod reload;
mod requests;
mod sessions;
mod settings;
