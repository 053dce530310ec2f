//! Kaltura's protocol: formats, sessions, errors and request targets. docs/kaltura-api.md is the specification.

mod access_log;
mod error;
pub mod format;
mod requested;
mod response;
pub mod session;
mod target;

pub use access_log::{ACCESS_LOG, AccessLog, LoggedAddress, Subject};
pub use error::ApiError;
pub use requested::Requested;
pub use response::api_bytes;
pub use target::{Call, ParameterSource, Target, decode_lossy, is_true, merge_slashes};
