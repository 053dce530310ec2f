//! Clusters of real NATS servers and appliances: no fault loses an acknowledged link or fails a redirect, and all boxes
//! have the same links in the end.

mod boxes;
mod copies;
mod faults;
mod keys;
mod load;
mod operation;
mod partition;
mod servers;

pub use copies::{box_away_for_too_long_goes_on_from_a_copy, copy_waits_for_room_on_the_servers};
pub use faults::*;
pub use keys::edge_with_a_key_reads_the_log_and_cannot_write;
pub use operation::*;
pub use partition::partitioned_server_is_left;
pub use servers::program;
