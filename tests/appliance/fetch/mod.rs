//! goto with `proxy=true`: the content of the destination, and no access to the internal network.
//!
//! Upstreams run on this machine, so loopback is allowed unless a test says otherwise.

mod broken;
mod content;
mod download;
mod faults;
mod following;
mod headers;
mod limits;
mod loops;
mod names;
mod passing;
mod secure;
mod slow;
