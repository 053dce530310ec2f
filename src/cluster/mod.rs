//! Clusters: boxes that share one set of links through a stream of NATS JetStream.
//!
//! The store does the work: it appends and applies entries, and checks that they continue each other. Here is how
//! entries travel. `nats` alone names async-nats; `log` appends for the writer and finds out about every outcome;
//! `follow` applies what others append; `presence` tells where each box is; `clicks` sends and adds up what all
//! boxes count.

mod clicks;
mod command;
mod connection;
mod copies;
mod copy_format;
mod durability;
mod follow;
mod include;
mod key;
mod log;
mod nats;
mod presence;
mod report;
mod settings;
mod stream;
mod watch;

pub use command::{LostEnd, Unfit, connected, inspect, log_origin, look, lost_end, make_streams, recreate};
pub use connection::Cluster;
pub use copies::{keep as keep_copies, take as take_copy};
pub use include::{KnownBox, StreamStore, include, include_of_leaf};
pub use key::{check as check_seed, generate as generate_key, public_key};
pub use presence::{SKEW_WARNED, in_words};
pub use report::SILENCE;
pub use settings::{ClusterSettings, Reads, Role, check_name, check_server};
pub use stream::{LogLimits, metadata};
