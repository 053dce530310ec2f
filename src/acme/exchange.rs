//! Requests to an authority, over HTTPS only, and what instant-acme does not check in its answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Method, Request, Uri};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::tls::{Authorities, HttpsClient};

/// Longest pause that an authority can ask for, in seconds; what is longer is held here.
const RETRY_AFTER_MAX: u64 = 7 * 24 * 60 * 60;
/// Where renewal information does not say when to read it again.
const RETRY_AFTER_DEFAULT: u64 = 6 * 60 * 60;

/// The client of one authority.
#[derive(Clone)]
pub(super) struct Exchange {
    client: HttpsClient,
    retry_after: Arc<AtomicI64>,
}

impl Exchange {
    /// Trusts the authorities of the system and these.
    pub(super) fn new(authorities: &Authorities) -> Result<Self, String> {
        Ok(Self {
            client: HttpsClient::new(authorities)?,
            retry_after: Arc::default(),
        })
    }

    /// The seconds that the last error asked to wait.
    pub(super) fn asked_pause(&self) -> Option<i64> {
        Some(self.retry_after.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (uri, method) = (request.uri().clone(), request.method().clone());
        let host = uri.host().unwrap_or_default().to_owned();
        let failed = |what: String| Error::Other(format!("{host} {what}").into());
        if uri.scheme() != Some(&Scheme::HTTPS) || host.is_empty() {
            return Err(Error::Other(
                format!("the authority names {}, which is no https URL", shown(&uri)).into(),
            ));
        }
        let answered = self.client.send(request).await;
        let mut response = answered.map_err(|error| Error::Other(error.into()))?;
        let asked = bound_retry_after(response.headers_mut(), &method);
        let status = response.status();
        if !status.is_success() {
            self.retry_after.store(asked.unwrap_or_default(), Ordering::Relaxed);
            let is_problem = serde_json::from_slice::<instant_acme::Problem>(response.body()).is_ok();
            if !is_problem {
                return Err(failed(format!("answered {status} without saying why")));
            }
        } else if method == Method::GET {
            check_directory(response.body()).map_err(failed)?;
        }
        let (parts, body) = response.into_parts();
        Ok(BytesResponse {
            parts,
            body: Box::new(body),
        })
    }
}

impl HttpClient for Exchange {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().ask(request))
    }
}

/// Replaces the header by seconds within bounds, which instant-acme adds to the time without a check. Renewal
/// information always gets one, because instant-acme takes none without it.
fn bound_retry_after(headers: &mut HeaderMap, method: &Method) -> Option<i64> {
    let text = headers.remove(header::RETRY_AFTER);
    let text = text
        .as_ref()
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if is_number {
        Some(text.parse().unwrap_or(u64::MAX))
    } else {
        seconds_until(text)
    };
    let default = (method == Method::GET).then_some(RETRY_AFTER_DEFAULT);
    let seconds = seconds.or(default)?.min(RETRY_AFTER_MAX);
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    i64::try_from(seconds).ok()
}

/// From a date of HTTP.
fn seconds_until(text: &str) -> Option<u64> {
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    let now = u64::try_from(crate::model::Clock::system().now().as_unix()).ok()?;
    Some(date.saturating_sub(now))
}

/// Refuses a directory with URLs that are no https URLs: instant-acme panics at one that is none at all.
fn check_directory(body: &[u8]) -> Result<(), String> {
    let Ok(serde_json::Value::Object(directory)) = serde_json::from_slice(body) else {
        return Err("answered what is no JSON object".to_owned());
    };
    let resources = [
        "newNonce",
        "newAccount",
        "newOrder",
        "revokeCert",
        "keyChange",
        "renewalInfo",
    ];
    for (name, value) in directory.iter().filter(|(name, _)| resources.contains(&name.as_str())) {
        let uri = value.as_str().and_then(|text| Uri::try_from(text).ok());
        if uri.is_none_or(|uri| uri.scheme() != Some(&Scheme::HTTPS)) {
            return Err(format!("has a directory whose {name} is no https URL"));
        }
    }
    Ok(())
}

fn shown(uri: &Uri) -> String {
    crate::acme::problem::printable(&uri.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_bounded() {
        let asked = |value: &str, method: Method| {
            let mut headers = HeaderMap::new();
            if !value.is_empty() {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            }
            let seconds = bound_retry_after(&mut headers, &method);
            let sent = headers
                .get(header::RETRY_AFTER)
                .map(|value| value.to_str().unwrap().parse::<i64>().unwrap());
            assert_eq!(seconds, sent);
            seconds
        };
        assert_eq!(asked("120", Method::POST), Some(120));
        for endless in [
            "18446744073709551615",
            "99999999999999999999999",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(asked(endless, Method::POST), Some(604_800), "{endless}");
        }
        assert_eq!(asked("Thu, 01 Jan 1970 00:00:00 GMT", Method::POST), Some(0));
        for none in ["", "-1", "soon", "1e9"] {
            assert_eq!(
                (asked(none, Method::POST), asked(none, Method::GET)),
                (None, Some(21_600)),
                "{none}"
            );
        }
    }

    #[test]
    fn directories_with_other_urls_are_refused() {
        assert!(check_directory(br#"{"newNonce":"https://ca/n","meta":{"termsOfService":"x"}}"#).is_ok());
        for wrong in [
            r#"{"newNonce":"http://ca/n"}"#,
            r#"{"newOrder":"\u0000"}"#,
            r#"{"newAccount":7}"#,
            "[]",
            "<html>",
        ] {
            assert!(check_directory(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
