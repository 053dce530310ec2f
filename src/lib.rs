//! tinyd: a single-binary redirect appliance for short links that speaks Kaltura's Short Link API.
//!
//! The rooms, bottom to top; each may use those below it and no other. ARCHITECTURE.md is the map.

pub mod api;
pub mod cli;
pub mod config;
pub mod http;
pub mod ks;
pub mod links;
pub mod model;
pub mod public;
pub mod server;
pub mod store;
pub mod wire;
