//! Allow lists of the headers that go to a destination and come back, so that an unknown header does neither.

use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use url::{Position, Url};

use crate::fetch::FetchError;
use crate::http;
use crate::model::Destination;

/// Marks a request of a proxied link, as Kaltura's server does.
const X_KALTURA_PROXY: HeaderName = HeaderName::from_static("x-kaltura-proxy");
const SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");
const X_KALTURA: HeaderName = HeaderName::from_static("x-kaltura");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// The value of both on Kaltura's server.
const DUMP_URL: HeaderValue = HeaderValue::from_static("dumpUrl");
/// Our name in `Via`.
const PSEUDONYM: &str = "tinyd";
const VIA: HeaderValue = HeaderValue::from_static("1.1 tinyd");
const OUR_USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tinyd/", env!("CARGO_PKG_VERSION")));

/// Request headers that are passed on. None identifies the client: no cookies, credentials, address or referrer.
const SENT: [HeaderName; 12] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::USER_AGENT,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::CACHE_CONTROL,
    header::PRAGMA,
];

/// Largest headers of a response, with ours. docs/operating.md states the buffer that a proxy in front needs.
const RETURNED_MAX_BYTES: usize = 8 * 1024;

/// Response headers that are passed on: they describe the content, its lifetime and its restrictions. None changes how
/// a browser treats our host: no cookies, transport security, alternative services, service workers, credentials or
/// reports.
const RETURNED: [HeaderName; 19] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::EXPIRES,
    header::CACHE_CONTROL,
    header::AGE,
    header::DATE,
    header::VARY,
    header::RETRY_AFTER,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::CONTENT_SECURITY_POLICY,
    header::X_FRAME_OPTIONS,
    CROSS_ORIGIN_RESOURCE_POLICY,
];

/// Whether a request came through a proxied link, ours or Kaltura's.
pub fn is_from_proxy(headers: &HeaderMap) -> bool {
    let is_ours = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes());
        // Protocol, receiver, optional comment (RFC 9110, section 7.6.3).
        text.split(',').any(|hop| {
            hop.split_ascii_whitespace()
                .nth(1)
                .is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM))
        })
    };
    headers.contains_key(X_KALTURA_PROXY) || headers.get_all(header::VIA).iter().any(is_ours)
}

/// A service worker from our host would control the whole host.
pub(super) fn is_for_service_worker(headers: &HeaderMap) -> bool {
    headers.contains_key(SERVICE_WORKER)
}

/// Copies the named headers, except hop-by-hop ones.
fn copied(names: &[HeaderName], from: &HeaderMap) -> HeaderMap {
    let mut copies = HeaderMap::with_capacity(names.len() + 8);
    for name in names.iter().filter(|name| !is_of_connection(name, from)) {
        for value in from.get_all(name) {
            copies.append(name.clone(), value.clone());
        }
    }
    copies
}

/// Whether `Connection` names a header, which makes it hop-by-hop (RFC 9110, section 7.6.1).
fn is_of_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    let is_named = |value: &HeaderValue| {
        let mut named = value.as_bytes().split(|&byte| byte == b',');
        named.any(|named| named.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    headers.get_all(header::CONNECTION).iter().any(is_named)
}

/// False for transfer codings other than chunked, which tinyd does not request.
pub(super) fn is_framing_known(destination: &HeaderMap) -> bool {
    let mut codings = destination.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_chunked) && codings.next().is_none()
}

/// The headers of the request to a destination, without `Host`.
pub(super) fn to_send(client: &HeaderMap) -> HeaderMap {
    let mut sent = copied(&SENT, client);
    sent.entry(header::USER_AGENT).or_insert(OUR_USER_AGENT);
    sent.insert(X_KALTURA_PROXY, DUMP_URL);
    sent.insert(header::VIA, VIA);
    sent.insert(header::CONNECTION, HeaderValue::from_static("close"));
    sent
}

pub(super) fn host_of(url: &Url) -> Result<HeaderValue, FetchError> {
    // `url` leaves out a default port.
    let host = &url[Position::BeforeHost..Position::AfterPort];
    HeaderValue::from_str(host).map_err(FetchError::broken)
}

/// The headers for the client. `url` is the destination.
pub(super) fn to_return(destination: &HeaderMap, status: StatusCode, url: &Url, is_trusted: bool) -> HeaderMap {
    let mut returned = copied(&RETURNED, destination);
    if let Some(location) = location_of(destination, url).filter(|_| status.is_redirection())
        && let Ok(location) = HeaderValue::try_from(Destination::location_of(location.as_str()))
    {
        returned.insert(header::LOCATION, location);
    }
    if !returned.contains_key(header::CACHE_CONTROL) && !returned.contains_key(header::EXPIRES) {
        // A cache with a default lifetime would serve a deleted link.
        returned.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    // As Kaltura's server does, for players that read playlists. The content is public anyway.
    let any_origin = HeaderValue::from_static("*");
    returned
        .entry(header::ACCESS_CONTROL_ALLOW_ORIGIN)
        .or_insert(any_origin);
    returned.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(kind) = returned.get_mut(header::CONTENT_TYPE)
        && kind
            .as_bytes()
            .to_ascii_lowercase()
            .starts_with(b"multipart/x-mixed-replace")
    {
        // Its parts may have headers, cookies among them.
        *kind = HeaderValue::from_static("application/octet-stream");
    }
    returned.insert(header::VIA, VIA);
    returned.insert(X_KALTURA, DUMP_URL);
    http::forbid_indexing(&mut returned);
    if !is_trusted {
        // Foreign content must not run as our origin. Appended: the destination's own policy holds too.
        returned.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    }
    returned
}

/// Refuses larger headers, which proxies in front could not buffer. Dropping some would change the content or its
/// restrictions.
pub(super) fn check_size(returned: &HeaderMap) -> Result<(), FetchError> {
    // A line has a colon, a space and CR LF.
    let lines = returned
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    let bytes: usize = lines.sum();
    if bytes > RETURNED_MAX_BYTES {
        let text = format!("headers of {bytes} bytes, more than the {RETURNED_MAX_BYTES} that are passed on");
        return Err(FetchError::Broken(text.into()));
    }
    Ok(())
}

/// The length of the body that HEAD leaves out.
pub(super) fn length_of(destination: &HeaderMap) -> Option<u64> {
    let mut lengths = destination.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next()?.to_str().ok()?.parse().ok()?;
    // Ambiguous with another length or a transfer coding.
    let is_sure = lengths.next().is_none() && !destination.contains_key(header::TRANSFER_ENCODING);
    is_sure.then_some(length)
}

/// The target of a redirect, relative to the destination.
pub(super) fn location_of(destination: &HeaderMap, url: &Url) -> Option<Url> {
    let location = destination.get(header::LOCATION)?;
    // Not UTF-8: an older encoding, whose bytes count.
    let text = match std::str::from_utf8(location.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => percent_encoding::percent_encode(location.as_bytes(), percent_encoding::CONTROLS).to_string(),
    };
    let location = url.join(&text).ok()?;
    matches!(location.scheme(), "http" | "https").then_some(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn request_through_a_proxied_link_is_recognised() {
        for (name, value, is_proxied) in [
            ("x-kaltura-proxy", "", true),
            ("via", "1.1 tinyd", true),
            ("via", "1.0 fred, HTTP/1.1 TinyD (comment)", true),
            ("via", "1.1 nottinyd, 1.1 vegur", false),
            ("via", "tinyd", false),
            ("x-kaltura", "dumpUrl", false),
        ] {
            assert_eq!(is_from_proxy(&headers(&[(name, value)])), is_proxied, "{name}: {value}");
        }
    }

    #[test]
    fn client_is_not_identified_to_the_destination() {
        let sent = to_send(&headers(&[
            ("accept", "text/html"),
            ("range", "bytes=0-1"),
            ("cookie", "a=b"),
            ("authorization", "Basic YTpi"),
            ("x-forwarded-for", "203.0.113.7"),
            ("referer", "https://example.com/"),
            ("connection", "x-mine"),
            ("x-mine", "1"),
            ("host", "tinyd.example"),
        ]));
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["accept", "connection", "range", "user-agent", "via", "x-kaltura-proxy"]
        );
        assert_eq!(sent["connection"], "close");
    }

    #[test]
    fn a_location_is_that_of_the_destination() {
        let url = Url::parse("https://example.com/a/b?c").unwrap();
        for (location, absolute) in [
            ("d", Some("https://example.com/a/d")),
            ("/d?e#f", Some("https://example.com/d?e#f")),
            ("//other.example/", Some("https://other.example/")),
            ("http://[::1]/", Some("http://[::1]/")),
            ("javascript:alert(1)", None),
            ("data:text/html,a", None),
            ("http://", None),
        ] {
            let found = location_of(&headers(&[("location", location)]), &url).map(String::from);
            assert_eq!(found.as_deref(), absolute, "{location}");
        }
    }

    #[test]
    fn a_host_has_a_port_where_it_is_not_the_usual_one() {
        for (url, host) in [
            ("http://Example.com:80/a", "example.com"),
            ("https://example.com:8443", "example.com:8443"),
            ("http://[2001:db8::1]:81/", "[2001:db8::1]:81"),
        ] {
            assert_eq!(host_of(&Url::parse(url).unwrap()).unwrap(), host);
        }
    }
}
