//! Starts appliances, and acts as their clients, upstreams, resolvers and service manager.

pub mod acme;
pub mod browser;
pub mod certificates;
pub mod client;
pub mod connections;
pub mod fixture;
pub mod http;
pub mod http2;
pub mod kaltura;
pub mod linearizability;
pub mod manager;
pub mod name_server;
pub mod openid;
pub mod origin;
pub mod proxy;
pub mod scrape;
pub mod slow;
pub mod stage;
pub mod status;
pub mod tls;
pub mod transfer;
pub mod wire;
