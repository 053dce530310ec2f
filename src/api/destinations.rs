//! The destinations of new links, with the errors of the API.

use crate::kaltura::ApiError;
use crate::links::{NewDestinations, NotNew};
use crate::model::{Destination, FULL_URL_MAX_BYTES, InvalidDestination, RefusedDestination};

pub(super) fn require_new(rules: &NewDestinations, destination: &Destination) -> Result<(), ApiError> {
    rules.check(destination).map_err(|why| match why {
        NotNew::Refused(RefusedDestination::TooLong { limit, .. }) => too_long(limit),
        why => wrong(&why),
    })
}

/// A destination that some version has accepted.
pub(super) fn destination(text: &str) -> Result<Destination, ApiError> {
    Destination::parse(text).map_err(|why| match why {
        InvalidDestination::TooLong => too_long(FULL_URL_MAX_BYTES),
        why => wrong(&why),
    })
}

const fn too_long(length: usize) -> ApiError {
    ApiError::MaxLength {
        property: "fullUrl",
        length,
    }
}

fn wrong(why: &impl std::error::Error) -> ApiError {
    ApiError::WrongFormat {
        property: "fullUrl",
        format: format!("http(s)://host/path: {why}"),
    }
}
