//! What the answers of both listeners have in common: the type of a response, request targets, and the faults of the
//! contract with their headers. Knows no storage and no sessions.

mod access_log;
mod attendance;
mod budget;
mod fault;
mod head;
mod peer;
mod requested;
mod response;
mod rewrite;
mod stream;
mod target;

pub use access_log::{ACCESS_LOG, AccessLog, LoggedAddress, Subject};
pub use attendance::Attendance;
pub use budget::{Budget, Reservation};
pub use fault::Fault;
pub use head::{BadHead, Framing, Head, HeadLimits, HeadReader, is_host};
pub use peer::{Peer, Proxies};
pub use requested::Requested;
pub use response::{
    API_METHODS, Body, RETRY_AFTER_SECONDS, Response, allow, answer, api, api_bytes, bytes, cors_preflight, date,
    is_about_server, is_empty, no_store, passed_on, refusal, stream, text, turned_away,
};
pub use rewrite::rewrite_request_line;
pub use stream::{Interrupted, PieceSender};
pub use target::{Call, Place, Target, decode_lossy, is_true, merge_slashes};
