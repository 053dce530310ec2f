//! tinyd: a single-binary redirect appliance for short links that speaks Kaltura's Short Link API.
//!
//! The rooms, bottom to top; each may use those below it and no other. ARCHITECTURE.md is the map.

pub mod model;
pub mod metrics;
pub mod wire;
pub mod ks;
pub mod store;
pub mod rows;
pub mod links;
pub mod http;
pub mod fetch;
pub mod public;
pub mod api;
pub mod config;
pub mod server;
pub mod cli;
