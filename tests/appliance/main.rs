//! Tests of the real binary, started on port 0 in its own folder.

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

mod api;
mod connections;
mod console;
mod disk;
mod fetch;
mod process;
mod redirect;
mod support;
mod tls;
