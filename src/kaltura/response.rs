//! Responses of the API.

use std::time::Duration;

use hyper::StatusCode;

use crate::http::{Response, bytes, no_store, permit_any_origin};
use crate::kaltura::format::{Format, Value};

/// An answer of the API: a value in a format, for pages of any origin and no cache. `elapsed` is the time the request
/// has taken so far.
pub fn api(status: StatusCode, format: &Format, value: &Value, elapsed: Duration) -> Response {
    api_bytes(status, format, format.render(value, elapsed))
}

/// As [`api`], with a value that has been written already.
pub fn api_bytes(status: StatusCode, format: &Format, body: Vec<u8>) -> Response {
    let mut response = bytes(status, format.content_type(), body);
    let headers = response.headers_mut();
    no_store(headers);
    permit_any_origin(headers);
    response
}
