//! Connections of both listeners: heads, timeouts, limits and eviction.

mod client_address;
mod corpus;
mod flood;
mod limits;
mod slow_clients;
