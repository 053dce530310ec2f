//! Writing: the one writer thread with group commit, its queue, transactions, and recovery after a disk failure.

pub mod ahead;
pub mod audit;
pub mod checkpoint;
pub mod leave;
pub mod log_state;
pub mod outbox;
pub mod parts;
pub mod prepared;
pub mod queue;
pub mod recovery;
pub mod rehearsal;
pub mod replicated;
pub mod staged;
pub mod transaction;
pub mod usage;
pub mod writer;
