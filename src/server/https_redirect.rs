//! `public.plain = "redirect"`: from plain HTTP to HTTPS.

use std::sync::Arc;

use hyper::header::{HOST, HeaderMap, HeaderValue, LOCATION};
use hyper::http::uri::Authority;
use hyper::{StatusCode, Uri};
use tokio::sync::watch;

use crate::http::{self, Response};
use crate::model::Clock;
use crate::tls::Secure;

/// Answered over plain HTTP: an authority asks before there is a certificate.
const CHALLENGES: &str = "/.well-known/acme-challenge/";
const HTTPS_PORT: u16 = 443;

#[derive(Debug)]
pub(super) struct HttpsRedirect {
    /// Host and port of `public.url`.
    authority: Option<Authority>,
    /// Of the listener, for clients that name the host.
    port: u16,
    tls: watch::Receiver<Arc<Secure>>,
}

impl HttpsRedirect {
    /// `url` is the base of short URLs, `port` that of the listener for HTTPS.
    pub(super) fn new(url: Option<&str>, port: u16, tls: watch::Receiver<Arc<Secure>>) -> Self {
        let url = url.and_then(|url| url.parse::<Uri>().ok());
        let authority = url.and_then(|url| {
            let authority = url.authority()?;
            match url.scheme_str() {
                Some("https") => Some(authority.clone()),
                _ => with_port(authority.host(), port).parse().ok(),
            }
        });
        Self { authority, port, tls }
    }

    /// The response that sends a client to HTTPS. `None`: serve it here, because no valid certificate has the host's
    /// name.
    pub(super) fn respond(&self, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
        // `OPTIONS *` is about this server.
        if uri.path().starts_with(CHALLENGES) || !uri.path().starts_with('/') {
            return None;
        }
        let certificates = Arc::clone(&self.tls.borrow().certificates);
        let asked = || headers.get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
        let (host, authority) = match &self.authority {
            Some(authority) => (authority.host().to_owned(), authority.to_string()),
            None => asked().map(|asked| (asked.host().to_owned(), with_port(asked.host(), self.port)))?,
        };
        if !certificates.is_any_valid(&host, Clock::system().now()) {
            return None;
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let location = HeaderValue::try_from(format!("https://{authority}{target}")).ok()?;
        let mut response = http::answer(StatusCode::PERMANENT_REDIRECT);
        response.headers_mut().insert(LOCATION, location);
        // Browsers would keep it for ever, even when there is no HTTPS any more.
        http::no_store(response.headers_mut());
        Some(response)
    }
}

fn with_port(host: &str, port: u16) -> String {
    if port == HTTPS_PORT {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}
