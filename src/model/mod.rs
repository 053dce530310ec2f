//! What a short link is: ids, owners, status, times and destinations, with the rules
//! that hold for each. Knows no parameters, no storage and no HTTP.

mod destination;
mod id;
mod link;
mod time;

pub use destination::{Destination, FULL_URL_MAX_BYTES, InvalidDestination};
pub use id::{ID_MAX_BYTES, ID_MIN_BYTES, InvalidId, LinkId, PartnerId};
pub use link::{ShortLink, Status};
pub use time::{Clock, Timestamp};
