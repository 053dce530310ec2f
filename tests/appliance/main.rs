//! The real binary, spawned on port 0 in a folder of its own.

#![allow(
    unreachable_pub,
    reason = "what a test binary shares among its modules reaches nobody else"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking"
)]

mod bad_input;
mod cli;
mod clicks;
mod client_habits;
mod clients;
mod corpus;
mod crowd;
mod damage;
mod destinations;
mod durability;
mod fast_path;
mod faults;
mod fixture;
mod flood;
mod forgiving;
mod formats;
mod guesses;
mod guide;
mod http;
mod imports;
mod limits;
mod linearizability;
mod links;
mod listing;
mod metrics;
mod multirequest;
mod pages;
mod paths;
mod proxied;
mod proxies;
mod redbot;
mod redirects;
mod request_bounds;
mod resources;
mod restart;
mod sessions;
mod settings;
mod slow_clients;
mod status;
mod systemd;
mod terminal;
mod transfer;
mod wire;
