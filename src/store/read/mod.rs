//! Reading: snapshots, lists, the scan that loads the map, and verification.

pub mod audit;
pub mod inspection;
pub mod limit;
pub mod list;
pub mod outbox;
pub mod query;
pub mod rank;
pub mod remains;
pub mod scan;
pub mod snapshot;
pub mod verify;
