//! The service `shortlink_shortlink` (docs/kaltura-api.md#short-links).

mod actions;
pub mod object;
mod patch;
pub mod profile;
pub mod query;

use crate::api::fields::Fields;
use crate::kaltura::ApiError;
use crate::model::{Status, whole_number};

pub const SERVICE: &str = "shortlink_shortlink";
/// The parameter that holds a link.
const LINK: &str = "shortLink";
/// The field of a link that is tinyd's own.
const STARTS_AT: &str = "startsAt";

/// Values that a filter may list at most.
const IN_VALUES_MAX: usize = 1_000;

fn status(fields: &Fields<'_>, name: &str) -> Result<Option<Status>, ApiError> {
    let Some(text) = fields.text(name)? else {
        return Ok(None);
    };
    let status = whole_number(text).and_then(Status::from_number);
    status.map(Some).ok_or_else(|| ApiError::InvalidEnum {
        value: text.to_owned(),
        name: fields.name(name),
        kind: "KalturaShortLinkStatus",
    })
}
