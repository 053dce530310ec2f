//! Clusters of real NATS servers and appliances: no fault loses an acknowledged link or fails a redirect, and all boxes
//! have the same links in the end.

mod boxes;
mod faults;
mod load;
mod operation;
mod partition;
mod servers;

pub use faults::*;
pub use operation::*;
pub use partition::partitioned_box_loses_nothing;
pub use servers::program;
