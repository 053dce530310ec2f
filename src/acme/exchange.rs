//! Requests to an authority: over verified TLS, each on a connection of its own, and bounded in time and size.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use crate::tls::{self, Authorities};

/// To look the name up, to connect to one address, and to shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a name; the first that answers is taken.
const ADDRESSES_MAX: usize = 8;
/// From the request to the end of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A chain has some 10 KB.
const BODY_MAX_BYTES: usize = 1024 * 1024;
const HEAD_MAX_BYTES: usize = 64 * 1024;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tinyd/", env!("CARGO_PKG_VERSION")));

/// Longest pause that an authority can ask for, in seconds; what is longer is held here.
const RETRY_AFTER_MAX: u64 = 7 * 24 * 60 * 60;
/// Where renewal information does not say when to read it again.
const RETRY_AFTER_DEFAULT: u64 = 6 * 60 * 60;

/// The client of one authority.
#[derive(Clone)]
pub(super) struct Exchange {
    connector: TlsConnector,
    retry_after: Arc<AtomicI64>,
}

impl Exchange {
    /// Trusts the authorities of the system and these.
    pub(super) fn new(authorities: &Authorities) -> Result<Self, String> {
        let config = tls::client_config(authorities)?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            retry_after: Arc::default(),
        })
    }

    /// The seconds that the last error asked to wait.
    pub(super) fn asked_pause(&self) -> Option<i64> {
        Some(self.retry_after.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)
    }

    async fn ask(self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (uri, method) = (request.uri().clone(), request.method().clone());
        let host = uri.host().unwrap_or_default().to_owned();
        let failed = |what: String| Error::Other(format!("{host} {what}").into());
        if uri.scheme() != Some(&Scheme::HTTPS) || host.is_empty() {
            return Err(Error::Other(
                format!("the authority names {}, which is no https URL", shown(&uri)).into(),
            ));
        }
        let stream = self.connect(&host, uri.port_u16().unwrap_or(443)).await;
        let stream = stream.map_err(|error| Error::Other(format!("cannot connect to {host}: {error}").into()))?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        *request.uri_mut() = Uri::try_from(target).map_err(|error| failed(error.to_string()))?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let authority = HeaderValue::try_from(authority).map_err(|error| failed(error.to_string()))?;
        request.headers_mut().insert(header::HOST, authority);
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let answered = timeout(ANSWER_TIMEOUT, answer(stream, request)).await;
        let answered = answered.map_err(|_| failed(format!("did not answer within {ANSWER_TIMEOUT:?}")))?;
        let mut response = answered.map_err(|error| failed(format!("sent no valid answer: {error}")))?;
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

    async fn connect(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>, String> {
        let too_long = |what: &str| format!("{what} took longer than {CONNECT_TIMEOUT:?}");
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let looked_up = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((bare, port))).await;
        let looked_up = looked_up.map_err(|_| too_long("looking the name up"))?;
        let mut failure = "the name has no address".to_owned();
        let mut connected = None;
        for address in looked_up.map_err(|error| error.to_string())?.take(ADDRESSES_MAX) {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    connected = Some(stream);
                    break;
                }
                Ok(Err(error)) => failure = error.to_string(),
                Err(_) => failure = too_long("connecting"),
            }
        }
        let stream = connected.ok_or(failure)?;
        let name = match bare.parse::<IpAddr>() {
            Ok(address) => ServerName::IpAddress(address.into()),
            Err(_) => ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?,
        };
        let secured = timeout(CONNECT_TIMEOUT, self.connector.connect(name, stream)).await;
        let secured = secured.map_err(|_| too_long("the TLS handshake"))?;
        secured.map_err(|error| error.to_string())
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

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn answer(
    stream: TlsStream<TcpStream>,
    request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Bytes>, AnyError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "connection to an authority ended");
        }
    }));
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, BODY_MAX_BYTES).collect().await?;
    Ok(Response::from_parts(parts, body.to_bytes()))
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
