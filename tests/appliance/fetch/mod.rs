//! goto with `proxy=true`: the destination's content, and never a way into the network.
//!
//! Destinations are on this machine, so loopback is allowed where a test does not say otherwise.

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
