//! Bodies: form, JSON and multipart (docs/kaltura-api.md#bodies).

use std::convert::Infallible;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use crate::api::json;
use crate::api::params::{PARAMETERS_MAX, Params, text_of, too_many_parameters};
use crate::http::{self, BodyError, BodyLimits, Reservation};
use crate::kaltura::{ApiError, ParameterSource};

/// The name of a body in errors.
const BODY: &str = "body";
const JSON: &str = "application/json";
/// Enough of a content coding to recognise it; the registered names have up to 14 bytes.
const CODING_SHOWN_BYTES: usize = 32;

/// Bytes of memory for each byte of a body: the body itself, its parameters, and the cost of growing meanwhile.
const MEMORY_FACTOR: usize = 4;

/// Reads a body into memory, with room for its parameters.
pub(super) async fn read<B>(incoming: B, limits: BodyLimits, reservation: &mut Reservation) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let body = http::read_body(incoming, limits, reservation)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge => ApiError::TooLarge {
                limit_bytes: limits.max_bytes,
            },
            BodyError::TooSlow => ApiError::TooSlow,
            BodyError::NoMemory => ApiError::Overloaded,
            BodyError::Broken(error) => ApiError::invalid(BODY, format!("cannot read the request body: {error}")),
        })?;
    if !reservation.grow(body.len() * (MEMORY_FACTOR - 1)) {
        return Err(ApiError::Overloaded);
    }
    Ok(body)
}

/// Reads the parameters of a body. Reads on after a fault.
pub(super) async fn parse(headers: &HeaderMap, body: Bytes, params: &mut Params) -> Result<(), ApiError> {
    if body.is_empty() {
        return Ok(());
    }
    check_encoding(headers)?;
    match media_type(headers).as_deref() {
        None | Some("application/x-www-form-urlencoded") => parse_form(&body, params),
        Some(JSON) => json::insert(params, BODY, &body),
        Some("multipart/form-data") => parse_multipart(headers, body, params).await,
        Some(other) => {
            let reason = format!(
                "{other} is not served: send application/x-www-form-urlencoded, application/json or multipart/form-data"
            );
            Err(ApiError::invalid("Content-Type", reason))
        }
    }
}

/// Refuses a body in a content coding: a few bytes could unpack to gigabytes.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let values = headers.get_all(CONTENT_ENCODING).into_iter();
    let codings = values.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let is_none = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
    match codings.map(<[u8]>::trim_ascii).find(|coding| !is_none(coding)) {
        None => Ok(()),
        Some(coding) => {
            let shown = coding
                .iter()
                .take(CODING_SHOWN_BYTES)
                .filter(|byte| byte.is_ascii_graphic());
            let coding = shown.map(|&byte| char::from(byte)).collect();
            Err(ApiError::ContentEncoding { coding })
        }
    }
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).as_deref() == Some(JSON)
}

/// The media type in lower case, without its parameters.
fn media_type(headers: &HeaderMap) -> Option<String> {
    Some(content_type(headers)?.split(';').next()?.trim().to_ascii_lowercase())
}

pub(super) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

pub(super) fn broken(error: &multer::Error) -> ApiError {
    ApiError::invalid(BODY, format!("broken multipart: {error}"))
}

fn parse_form(body: &[u8], params: &mut Params) -> Result<(), ApiError> {
    let text = text_of(BODY, body)?.trim_end_matches(['\r', '\n']);
    let mut all = Ok(());
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        all = all.and(params.insert_encoded(ParameterSource::Query, key, value));
    }
    all
}

async fn parse_multipart(headers: &HeaderMap, body: Bytes, params: &mut Params) -> Result<(), ApiError> {
    let boundary = multer::parse_boundary(content_type(headers).unwrap_or("")).map_err(|error| broken(&error))?;
    let stream = futures_util::stream::once(async move { Ok::<_, Infallible>(body) });
    let mut multipart = multer::Multipart::new(stream, boundary);
    let mut fields = 0;
    while let Some(field) = multipart.next_field().await.map_err(|error| broken(&error))? {
        fields += 1;
        if fields > PARAMETERS_MAX {
            return Err(too_many_parameters(BODY));
        }
        let name = field.name().unwrap_or("").to_owned();
        let value = field.bytes().await.map_err(|error| broken(&error))?;
        // Clients that upload files put everything else into one field.
        if name == "json" {
            json::insert(params, &name, &value)?;
            continue;
        }
        let value = String::from_utf8(value.into()).map_err(|_| ApiError::InvalidChar { field: name.clone() })?;
        params.insert(&name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn parsed(content_type: &'static str, body: &[u8]) -> Result<Params, ApiError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let mut params = Params::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(parse(&headers, Bytes::copy_from_slice(body), &mut params))?;
        Ok(params)
    }

    const TYPES: [&str; 3] = [
        "application/x-www-form-urlencoded",
        "application/json",
        "multipart/form-data; boundary=x",
    ];

    #[test]
    fn bodies_take_work_in_proportion() {
        let make = |size: usize| {
            [
                (TYPES[0], "a[]=b&c:d=e&=&".repeat(size)),
                (TYPES[1], format!("{{\"a\":[{}1]}}", "1,[],{},null,".repeat(size))),
                (TYPES[1], "[".repeat(size)),
                (
                    TYPES[2],
                    "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n".repeat(size),
                ),
                (TYPES[2], "\r\n--".repeat(size)),
                (TYPES[2], format!("--x\r\n{}\r\n", "a: b\r\n".repeat(size))),
            ]
        };
        assert_is_linear(60, make, |bodies| {
            bodies.map(|(content_type, body)| parsed(content_type, body.as_bytes()).is_ok())
        });
    }

    proptest! {
        #[test]
        fn parsing_is_total_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for content_type in TYPES {
                let _ = parsed(content_type, &bytes);
            }
            let part = [b"--x\r\nContent-Disposition: form-data; \
                name=\"".as_slice(), &bytes, b"\"\r\n\r\n", &bytes, b"\r\n--x--"];
            let _ = parsed(TYPES[2], &part.concat());
            let _ = parsed(TYPES[1], &[b"{\"a\":\"", bytes.as_slice(), b"\"}"].concat());
        }

        #[test]
        fn multipart_reads_back_as_what_was_written(name in "[a-z]{1,8}", value in "[ -~äß日]{0,20}") {
            prop_assume!(name != "json" && !value.contains("--x"));
            let body = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n--x--\r\n");
            let params = parsed(TYPES[2], body.as_bytes()).unwrap();
            prop_assert_eq!(params.text(&name).unwrap(), Some(value.as_str()));
        }
    }
}
