//! What the answers of both listeners have in common: the type of a response, request targets, and the faults of the
//! contract with their headers. Knows no storage and no sessions.

mod fault;
mod response;
mod stream;
mod target;

pub use fault::{Fault, Requested};
pub use response::{
    API_METHODS, Body, RETRY_AFTER_SECONDS, Response, allow, answer, api, bytes, cors_preflight, no_store, stream, text,
};
pub use stream::{Interrupted, PieceSender, Pieces};
pub use target::{Call, Place, Target, decode_lossy, is_true};
