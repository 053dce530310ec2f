//! tinyd: a single-binary redirect appliance for short links that speaks Kaltura's Short Link API.
//!
//! The rooms, bottom to top; each may use those below it and no other. docs/architecture.md is the map.

mod model;
mod metrics;
mod http;
mod tls;
mod kaltura;
mod store;
mod links;
mod cluster;
mod access;
mod fetch;
mod acme;
mod redirect;
mod transfer;
mod api;
mod admin;
mod console;
mod config;
mod server;
mod cli;

pub use cli::main;

/// What benchmarks and fuzz targets measure and feed. Not an interface: it changes with the rooms.
#[doc(hidden)]
pub mod internals {
    #[cfg(fuzzing)]
    pub use crate::api::{fuzz_parameters, fuzz_references};
    #[cfg(fuzzing)]
    pub use crate::console::fuzz_console;
    pub use crate::http::{Head, HeadLimits, Peer};
    pub use crate::kaltura::session::{Claims, Kind, Partner, Partners, Secret, mint, mint_v1, redact, verify};
    pub use crate::kaltura::{AccessLog, LoggedAddress};
    pub use crate::kaltura::{Call, Target};
    pub use crate::links::file::{Defaults, FileFormat, LinkWriter, read};
    pub use crate::links::{Draft, Links};
    pub use crate::model::priority::shorten_slice;
    pub use crate::model::{
        Actor, ActorKind, Clock, Destination, LinkId, LinkPolicy, LinkRef, PartnerId, ShortLink, Status, Timestamp,
        Visit, Way,
    };
    pub use crate::redirect::{Ahead, Asker, FastPath, Now, Tiny, UnknownIdLimit};
    #[cfg(fuzzing)]
    pub use crate::store::fuzz_record;
    pub use crate::store::{ReadLimit, StoreError, Transaction, Visitor, restore_dump};
}
