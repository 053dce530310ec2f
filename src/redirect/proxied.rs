//! `goto` with `proxy=true`: the destination's content in place of a redirect.

use hyper::header::{self, HeaderMap, HeaderValue};

use crate::fetch::{FetchError, Fetcher, Wanted};
use crate::http::Response;
use crate::kaltura::ApiError;
use crate::model::LinkId;
use crate::redirect::Client;

pub(super) async fn fetch(
    fetcher: &Fetcher,
    id: LinkId,
    location: &HeaderValue,
    head_only: bool,
    client: Client<'_>,
) -> Result<Response, ApiError> {
    let wanted = Wanted {
        link: id,
        // `Location` is visible ASCII.
        destination: location.to_str().unwrap_or_default(),
        head_only,
        headers: client.headers,
        client: client.address,
        presence: client.presence,
    };
    fetcher.fetch(wanted).await.map_err(|error| {
        tracing::debug!(%id, %error, "a destination was not fetched");
        let id = id.as_str().to_owned();
        match error {
            FetchError::Forbidden(_) => ApiError::DestinationForbidden { id },
            FetchError::Unreachable(_) | FetchError::Broken(_) | FetchError::TooLarge(_) => {
                ApiError::DestinationUnreachable { id }
            }
            FetchError::TimedOut(_) => ApiError::DestinationTimeout { id },
            FetchError::Loop => ApiError::ProxyLoop { id },
            FetchError::Busy => ApiError::TooManyFetches,
        }
    })
}

/// Whether a request wants the content from its first byte on. Players request the rest in many parts, which are one
/// visit, and some request two bytes first, as a trial.
pub(super) fn is_from_the_beginning(headers: &HeaderMap) -> bool {
    let range = headers.get(header::RANGE).map(HeaderValue::as_bytes);
    range.is_none_or(|range| {
        let range = range.to_ascii_lowercase();
        range.starts_with(b"bytes=0-") && range != b"bytes=0-1"
    })
}
