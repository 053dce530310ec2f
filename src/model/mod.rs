//! What a short link is: ids, owners, status, times and destinations, with the rules
//! that hold for each. Knows no parameters, no storage and no HTTP.

mod audit;
mod cores;
mod destination;
mod host;
mod id;
mod link;
mod network;
mod number;
mod policy;
pub mod priority;
pub mod shown;
mod time;
mod usage;
pub mod validate;
#[cfg(test)]
pub(crate) mod work;

pub use audit::{Actor, ActorKind, AuditAction, AuditEntry, FieldChange, Way};
pub use cores::cores;
pub use destination::{Destination, FULL_URL_MAX_BYTES, InvalidDestination, RefusedDestination};
pub use host::{HostPattern, InvalidHost};
pub use id::{ID_MAX_BYTES, ID_MIN_BYTES, LinkId, PartnerId};
pub use link::{LinkRef, ShortLink, Status};
pub use network::{client_network, is_local, without_host};
pub use number::{grouped, whole_number};
pub use policy::{ForbiddenHost, LinkPolicy};
pub use time::{Clock, Day, Timestamp, unix_milliseconds};
pub use usage::{DailyUsage, Usage, Visit};
pub use validate::is_xml_char;

/// Problems that a verification or an import lists; beyond it they are only counted.
pub const PROBLEMS_LISTED_MAX: usize = 100;

/// Names a session without telling it: the SHA-1 of the KS.
pub type Digest = [u8; 20];
