//! Kaltura's protocol: formats, sessions, errors and request targets. docs/kaltura-api.md is the specification.

mod access_log;
mod error;
pub mod format;
mod requested;
pub mod session;
mod target;

pub use access_log::{ACCESS_LOG, AccessLog, LoggedAddress, Subject};
pub use error::ApiError;
pub use requested::Requested;
pub use target::{Call, ParameterSource, Target, decode_lossy, is_true, merge_slashes};

use hyper::StatusCode;

use crate::http::{self, Response};
use crate::kaltura::format::Format;

/// An answer of the API, for pages of any origin and no cache.
pub fn respond(status: StatusCode, format: &Format, body: Vec<u8>) -> Response {
    let mut response = http::bytes(status, format.content_type(), body);
    http::no_store(response.headers_mut());
    http::permit_any_origin(response.headers_mut());
    response
}
