//! Starts appliances, and speaks to them as clients, destinations and name servers do.

pub mod certificates;
pub mod client;
pub mod connections;
pub mod fixture;
pub mod http;
pub mod name_server;
pub mod network;
pub mod origin;
pub mod proxy;
pub mod scrape;
pub mod wire;
