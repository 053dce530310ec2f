//! A request to the console: where it came from, and what is in it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, Request};
use url::{Host, Url, form_urlencoded};

use crate::console::problem::Problem;
use crate::http::connection::{Arrival, Scheme};
use crate::http::{self, BodyError, BodyLimits, Budget};

/// Longest form: the longest destination, percent-encoded, with room for the rest.
const FORM_MAX_BYTES: usize = 64 * 1024;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The fields of a query or a form, in their order.
#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    pub fn push(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    /// The first value of a field as it was sent; empty where there is none.
    pub fn exact(&self, name: &str) -> &str {
        self.pairs()
            .find(|(other, _)| *other == name)
            .map_or("", |(_, value)| value)
    }

    /// Names and values, as they are.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first value of a field, without blanks around it; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.0.iter().filter(move |(other, _)| other == name);
        fields.map(|(_, value)| value.trim())
    }
}

#[derive(Debug)]
pub struct ConsoleRequest {
    pub method: Method,
    /// Below the base, decoded.
    pub path: Vec<String>,
    pub query: Fields,
    /// As it was sent.
    pub query_text: String,
    pub headers: HeaderMap,
    pub client: IpAddr,
    pub host: String,
    /// Whether the browser speaks HTTPS, if only to a proxy.
    pub is_secure: bool,
    /// Whether a trusted proxy has sent it.
    pub is_from_proxy: bool,
}

impl ConsoleRequest {
    /// `path` is that below the base.
    pub fn new<B>(request: &Request<B>, path: &str, client: IpAddr, url: Option<&Url>) -> Self {
        let headers = request.headers();
        let arrival = request.extensions().get::<Arrival>().copied();
        let arrival = arrival.unwrap_or(Arrival {
            scheme: Scheme::Http,
            is_from_proxy: false,
        });
        let forwarded = headers.get(FORWARDED_PROTO).filter(|_| arrival.is_from_proxy);
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        let host = host.unwrap_or_default().to_ascii_lowercase();
        let is_at_url = url.is_some_and(|url| url.scheme() == "https" && authority_of(url) == host);
        let is_secure = arrival.scheme == Scheme::Https || forwarded.is_some_and(|value| value == "https") || is_at_url;
        let decode = |part: &str| {
            percent_encoding::percent_decode_str(part)
                .decode_utf8_lossy()
                .into_owned()
        };
        Self {
            method: request.method().clone(),
            path: path.split('/').filter(|part| !part.is_empty()).map(decode).collect(),
            query_text: request.uri().query().unwrap_or_default().to_owned(),
            query: Fields::parse(request.uri().query().unwrap_or_default().as_bytes()),
            headers: headers.clone(),
            client,
            host,
            is_secure,
            is_from_proxy: arrival.is_from_proxy,
        }
    }

    pub fn path_parts(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// Whether the script sent it, and not somebody who looks at a page.
    pub fn is_by_script(&self) -> bool {
        self.headers.get(FETCH_DEST).is_some_and(|dest| dest == "empty")
    }

    /// Whether a page of another site may have led here: then a browser keeps back the cookie of somebody who is
    /// signed in. Where a browser does not say, as over plain HTTP, that is possible.
    pub fn may_lack_cookie(&self) -> bool {
        self.headers.get(FETCH_SITE).is_none_or(|site| site == "cross-site")
    }

    pub fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Refuses names that this appliance does not have: a page of a stranger whose name leads here (DNS rebinding)
    /// would be one origin with the console. Addresses cannot be led anywhere else.
    pub fn check_host(&self, url: Option<&Url>) -> Result<(), Problem> {
        let name = Url::parse(&format!("http://{}/", self.host)).ok();
        let is_ours = match name.as_ref().and_then(Url::host) {
            Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
            Some(Host::Domain(name)) => {
                name == "localhost"
                    || name.ends_with(".localhost")
                    || url.is_some_and(|url| url.host_str() == Some(name))
            }
            None => false,
        };
        is_ours.then_some(()).ok_or(Problem::UnknownHost)
    }

    /// Refuses writes that a page of another origin has sent. Browsers say from where a write comes.
    ///
    /// A proxy may rewrite the host; where people reach the console is known then.
    pub fn check_origin(&self, url: Option<&Url>) -> Result<(), Problem> {
        let scheme = if self.is_secure { "https" } else { "http" };
        let own = Url::parse(&format!("{scheme}://{}/", self.host)).map(|url| url.origin());
        let is_ours = match self.headers.get(ORIGIN) {
            Some(origin) => {
                let origin = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
                let is_of = |other: &url::Origin| origin.as_ref().is_some_and(|origin| origin.origin() == *other);
                own.is_ok_and(|own| is_of(&own)) || url.is_some_and(|url| is_of(&url.origin()))
            }
            None => self.headers.get(FETCH_SITE).is_some_and(|site| site == "same-origin"),
        };
        is_ours.then_some(()).ok_or(Problem::OtherOrigin)
    }
}

fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Reads a form, which takes memory out of the budget meanwhile.
pub async fn read_form(
    headers: &HeaderMap,
    body: Incoming,
    timeout: Duration,
    budget: &Arc<Budget>,
) -> Result<Fields, Problem> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Problem::NoForm);
    }
    let mut reservation = budget.reserve(0).ok_or(Problem::Overloaded)?;
    let limits = BodyLimits {
        max_bytes: FORM_MAX_BYTES,
        timeout,
    };
    let form = http::read_body(body, limits, &mut reservation).await;
    form.map(|form| Fields::parse(&form)).map_err(|error| match error {
        BodyError::TooLarge => Problem::LongForm,
        BodyError::TooSlow => Problem::SlowForm,
        BodyError::NoMemory => Problem::Overloaded,
        BodyError::Broken(_) => Problem::NoForm,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)], arrival: Arrival, url: Option<&Url>) -> ConsoleRequest {
        let mut builder = Request::builder().uri("/console/links/new?a=1&b=2&a=%20x%20");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = builder.extension(arrival).body(()).unwrap();
        ConsoleRequest::new(&request, "/links/new", "192.0.2.1".parse().unwrap(), url)
    }

    const PLAIN: Arrival = Arrival {
        scheme: Scheme::Http,
        is_from_proxy: false,
    };
    const TLS: Arrival = Arrival {
        scheme: Scheme::Https,
        ..PLAIN
    };
    const PROXY: Arrival = Arrival {
        is_from_proxy: true,
        ..PLAIN
    };

    #[test]
    fn path_and_query_are_decoded() {
        let request = request(&[("host", "localhost")], PLAIN, None);
        assert_eq!(request.path, ["links", "new"]);
        assert_eq!((request.query.text("a"), request.query.text("none")), ("1", ""));
        assert_eq!(request.query.all("a").collect::<Vec<_>>(), ["1", "x"]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let url = Url::parse("https://Links.example.com:8443/console").unwrap();
        for (host, is_ours) in [
            ("127.0.0.1:8081", true),
            ("[::1]:8081", true),
            ("localhost:8081", true),
            ("LINKS.example.com", true),
            ("links.example.com.evil.test", false),
            ("evil.test", false),
            ("127.0.0.1.nip.io", false),
            ("", false),
        ] {
            let request = request(&[("host", host)], PLAIN, Some(&url));
            assert_eq!(request.check_host(Some(&url)).is_ok(), is_ours, "{host}");
        }
    }

    #[test]
    fn writes_come_from_the_own_origin() {
        let url = Url::parse("https://links.example.com/console").unwrap();
        let host = ("host", "links.example.com");
        for (headers, arrival, is_ours) in [
            (&[host, ("origin", "https://links.example.com")][..], TLS, true),
            (&[host, ("origin", "http://links.example.com")], TLS, false),
            // A proxy speaks HTTPS for the configured URL, and may rewrite the host.
            (
                &[("host", "127.0.0.1:8081"), ("origin", "https://links.example.com")],
                PLAIN,
                true,
            ),
            (&[host, ("origin", "https://links.example.com")], PLAIN, true),
            (&[host, ("origin", "https://evil.test")], TLS, false),
            (&[host, ("origin", "null")], TLS, false),
            (&[host, ("origin", "https://links.example.com:444")], TLS, false),
            (&[host], TLS, false),
            (&[host, ("sec-fetch-site", "same-origin")], TLS, true),
            (&[host, ("sec-fetch-site", "cross-site")], TLS, false),
            (
                &[("host", "10.0.0.1:8081"), ("origin", "http://10.0.0.1:8081")],
                PLAIN,
                true,
            ),
            (
                &[("host", "10.0.0.1:8081"), ("origin", "http://10.0.0.1:8082")],
                PLAIN,
                false,
            ),
            (
                &[
                    ("host", "10.0.0.1"),
                    ("origin", "https://10.0.0.1"),
                    ("x-forwarded-proto", "https"),
                ],
                PROXY,
                true,
            ),
            (
                &[
                    ("host", "10.0.0.1"),
                    ("origin", "https://10.0.0.1"),
                    ("x-forwarded-proto", "https"),
                ],
                PLAIN,
                false,
            ),
        ] {
            let request = request(headers, arrival, Some(&url));
            assert_eq!(request.check_origin(Some(&url)).is_ok(), is_ours, "{headers:?}");
        }
    }
}
