//! Connections: accepting them, limits, deadlines, and the strict reader of heads in front of hyper.

pub mod closer;
pub mod deadlines;
pub mod descriptors;
mod frames;
pub mod guard;
pub mod http2;
pub mod listener;
pub mod proxy_protocol;
pub mod serve;
pub mod set;
mod streams;

pub use descriptors::room_for_connections;
pub use listener::{Addresses, Bound, Scheme, bind, inherited};
pub use set::Arrival;
