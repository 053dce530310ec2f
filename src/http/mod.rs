//! What the answers of both listeners have in common: the type of a response, request targets, and the faults of the
//! contract with their headers. Knows no storage and no sessions.

mod budget;
pub mod connection;
mod head;
mod limits;
mod peer;
pub mod per_client;
mod presence;
mod request_body;
mod response;
mod rewrite;
mod stream;

pub use budget::{Budget, Reservation};
pub use head::{BadHead, Framing, Head, HeadLimits, HeadReader, is_host};
pub use limits::Limits;
pub use peer::{Peer, Proxies};
pub use presence::ClientPresence;
pub use request_body::{BodyError, BodyLimits, read_body};
pub use response::{
    API_METHODS, Body, READ_METHODS, RETRY_AFTER_SECONDS, Response, allow, answer, bytes, cors_preflight, date,
    forbid_indexing, is_about_server, is_empty, joined, no_store, passed_on, permit_any_origin, refusal, stream, text,
    turned_away,
};
pub use rewrite::rewrite_request_line;
pub use stream::{Interrupted, PieceSender};
