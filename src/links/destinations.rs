//! The destinations of new links. Older links keep theirs, also through an import.

use std::borrow::Cow;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hyper::Uri;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::{Url, form_urlencoded};

use crate::kaltura;
use crate::kaltura::session::Partners;
use crate::kaltura::{Call, Target};
use crate::links::file::{ImportReport, Line, LineProblem};
use crate::model::{Destination, PartnerId, RefusedDestination, ShortLink, validate};

/// Warnings of an import that are kept; it counts those beyond.
const WARNINGS_MAX: usize = 100;

#[derive(Debug, Clone)]
pub struct NewDestinations {
    max_bytes: usize,
    own: Vec<Own>,
}

/// A host and port under which the appliance's public listener is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    host: String,
    port: u16,
    /// The path under which a proxy serves it, without a slash at the end.
    base: String,
}

/// Why a destination makes no new link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNew {
    #[error(transparent)]
    Refused(#[from] RefusedDestination),
    #[error("a short link of this appliance redirects in a circle (use the page that it leads to)")]
    Loop,
}

impl NewDestinations {
    /// Accepts destinations up to `max_bytes`, unless they are short links of the appliance that people know as
    /// `public_url` and that listens at these public addresses.
    pub fn new(max_bytes: usize, public_url: Option<&str>, listeners: &[SocketAddr]) -> Self {
        let mut own: Vec<Own> = listeners.iter().flat_map(|address| names_of(*address)).collect();
        if let Some(url) = public_url.and_then(|url| Url::parse(url).ok())
            && let Some(host) = host_of(&url)
        {
            // A proxy serves both schemes, and passes requests on to the listener's port.
            let ports = listeners.iter().map(SocketAddr::port).chain([80, 443]);
            let ports = ports.chain(url.port_or_known_default());
            own.extend(ports.map(|port| Own {
                host: host.clone(),
                port,
                base: url.path().trim_end_matches('/').to_owned(),
            }));
        }
        Self { max_bytes, own }
    }

    pub fn check(&self, destination: &Destination) -> Result<(), NotNew> {
        destination.check_new(self.max_bytes)?;
        if self.leads_home(destination.as_str()) {
            return Err(NotNew::Loop);
        }
        Ok(())
    }

    /// Why `add` would refuse a link.
    fn objection(&self, partners: Option<&Partners>, link: &ShortLink) -> Option<String> {
        if let Err(why) = validate::validity(link.starts_at, link.expires_at) {
            return Some(why.to_string());
        }
        let destination = Destination::parse(&link.full_url).ok()?;
        let why = self.refusal(partners, link.partner_id, &destination)?;
        Some(format!("fullUrl: {why}"))
    }

    /// Why `add` would refuse a destination.
    fn refusal(&self, partners: Option<&Partners>, partner: PartnerId, destination: &Destination) -> Option<String> {
        if let Err(why) = self.check(destination) {
            return Some(why.to_string());
        }
        let policy = &partners?.get(partner)?.policy;
        let why = policy.check_destination(destination.as_str()).err()?;
        Some(why.to_string())
    }

    /// Notes the lines that the API would refuse, and passes all lines on. Without partners, not what these do not
    /// allow.
    pub fn watch(
        self,
        partners: Option<Arc<Partners>>,
        lines: impl Iterator<Item = io::Result<Line>> + Send,
    ) -> (impl Iterator<Item = io::Result<Line>> + Send, Warnings) {
        let warnings = Warnings::default();
        let Warnings(noted) = warnings.clone();
        let watched = lines.inspect(move |line| {
            if let Ok(line) = line
                && let Ok(link) = &line.link
                && let Some(why) = self.objection(partners.as_deref(), link)
            {
                let (warned, first) = &mut *noted.lock();
                *warned += 1;
                if first.len() < WARNINGS_MAX {
                    let line = line.number;
                    let reason = format!("{why}; add would refuse it, the import keeps it");
                    first.push(LineProblem { line, reason });
                }
            }
        });
        (watched, warnings)
    }

    /// Whether a URL is a short link of this appliance, as `/tiny` or `goto`, however it is written.
    fn leads_home(&self, full_url: &str) -> bool {
        let Ok(url) = Url::parse(full_url) else { return false };
        let (Some(host), Some(port)) = (host_of(&url), url.port_or_known_default()) else {
            return false;
        };
        let here = self.own.iter().filter(|own| own.host == host && own.port == port);
        let path = plain_path(url.path());
        let mut paths = here.flat_map(|own| [Some(path.as_str()), below(&path, &own.base)]);
        paths.any(|path| path.is_some_and(|path| is_short_link(path, url.query())))
    }
}

/// A path as its last reader sees it: decoded, and without empty segments.
fn plain_path(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    kaltura::merge_slashes(&decoded).into_owned()
}

/// The rest of a path below a base.
fn below<'p>(path: &'p str, base: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(base)?;
    rest.starts_with('/').then_some(rest)
}

/// How many lines of an import the API would refuse, and the first of them.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<(u64, Vec<LineProblem>)>>);

impl Warnings {
    pub fn add_to(self, report: &mut ImportReport) {
        (report.warned, report.warnings) = mem::take(&mut *self.0.lock());
    }
}

/// The host of a URL as it is compared: without the dot that a whole name may end with.
fn host_of(url: &Url) -> Option<String> {
    Some(url.host_str()?.trim_end_matches('.').to_owned())
}

/// The names of a listener in URLs. One that listens everywhere also listens on this machine.
fn names_of(address: SocketAddr) -> Vec<Own> {
    let own = |host: String| Own {
        host,
        port: address.port(),
        base: String::new(),
    };
    let of_address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let is_here = address.ip().is_loopback() || address.ip().is_unspecified();
    let mut names = vec![own(of_address(address.ip()))];
    if is_here {
        let here = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        names.extend(here.map(|ip| own(of_address(ip))));
        names.push(own("localhost".to_owned()));
    }
    names
}

/// Whether a path and a query are those of a redirect: decoded, as a proxy may pass them on, and without empty
/// segments.
fn is_short_link(path: &str, query: Option<&str>) -> bool {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let segments: Vec<_> = decoded
        .split(['/', '\\'])
        .filter(|segment| !segment.is_empty())
        .collect();
    if let [first, _, ..] = segments.as_slice()
        && first.eq_ignore_ascii_case("tiny")
    {
        return true;
    }
    let encoded = segments.iter().map(|segment| match *segment {
        "index.php" | "api_v3" => Cow::Borrowed(*segment),
        segment => utf8_percent_encode(segment, NON_ALPHANUMERIC).into(),
    });
    let path = encoded.collect::<Vec<_>>().join("/");
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    let uri: Result<Uri, _> = format!("/{path}?{query}").parse();
    uri.is_ok_and(|uri| Target::from_uri(&uri).is_some_and(|target| Call::from_target(target).is_goto()))
}
