//! The service `system`: no session needed.

use crate::api::Outcome;
use crate::kaltura::format::Value;
use crate::model::Clock;

pub(super) fn ping() -> Outcome {
    Value::Bool(true).into()
}

pub(super) fn get_time(clock: &Clock) -> Outcome {
    Value::Int(clock.now().as_unix()).into()
}

/// tinyd's own: which of Kaltura's it is like, no number says.
pub(super) fn get_version() -> Outcome {
    Value::text(env!("CARGO_PKG_VERSION")).into()
}
