//! The access log: a line for each request, or for one of so many, if the operator wants it.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::{StatusCode, Uri};

use crate::kaltura::{Call, ParameterSource, Target, decode_lossy, merge_slashes};
use crate::model::{LinkId, without_host};

/// The target of its lines, as `log.level` names it.
pub const ACCESS_LOG: &str = "access";

/// Longest name of a service or an action: anything longer could be a session.
const NAME_MAX_BYTES: usize = 32;

/// How much of a client's address is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoggedAddress {
    /// The first 24 bits of IPv4, the first 48 of IPv6.
    #[default]
    Prefix,
    None,
    Full,
}

impl LoggedAddress {
    pub fn redact(self, client: IpAddr) -> Option<IpAddr> {
        match self {
            Self::None => None,
            Self::Prefix => Some(without_host(client)),
            Self::Full => Some(client),
        }
    }
}

#[derive(Debug)]
pub struct AccessLog {
    every: Option<NonZero<usize>>,
    addresses: LoggedAddress,
    seen: AtomicUsize,
}

/// The subject of a request, free of anything that a client made up.
#[derive(Debug)]
pub enum Subject<'a> {
    Tiny(LinkId),
    Goto(LinkId),
    Call(Call<'a>),
    Other,
}

impl<'a> Subject<'a> {
    pub fn from_uri(uri: &'a Uri) -> Self {
        if let Some(id) = merge_slashes(uri.path()).strip_prefix("/tiny/") {
            let id = decode_lossy(ParameterSource::Path, id);
            return LinkId::from_bytes(id.as_bytes()).map_or(Self::Other, Self::Tiny);
        }
        let Some(call) = Target::from_uri(uri).map(Call::from_target) else {
            return Self::Other;
        };
        let id = call.id.as_ref().and_then(|id| LinkId::from_bytes(id.as_bytes()).ok());
        match id {
            Some(id) if call.is_goto() => Self::Goto(id),
            _ => Self::Call(call),
        }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_name = |name: &&str| {
            name.len() <= NAME_MAX_BYTES && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        };
        match self {
            Self::Tiny(id) => write!(out, "tiny {id}"),
            Self::Goto(id) => write!(out, "goto {id}"),
            Self::Call(Call { service, action, .. }) => {
                let [service, action] = [service, action].map(|name| name.as_deref().filter(is_name).unwrap_or("-"));
                write!(out, "{service} {action}")
            }
            Self::Other => out.write_str("other"),
        }
    }
}

impl AccessLog {
    /// Logs one of `every` requests, or none.
    pub const fn new(every: Option<NonZero<usize>>, addresses: LoggedAddress) -> Self {
        Self {
            every,
            addresses,
            seen: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub fn takes_next(&self) -> bool {
        let Some(every) = self.every else { return false };
        self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(every.get())
    }

    /// `elapsed` is how long the answer took, where that was measured.
    pub fn write(
        &self,
        listener: &'static str,
        client: IpAddr,
        method: &str,
        subject: &Subject<'_>,
        status: StatusCode,
        elapsed: Option<Duration>,
    ) {
        let is_known = ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"].contains(&method);
        let method = if is_known { method } else { "-" };
        let client = self.addresses.redact(client);
        tracing::info!(
            target: ACCESS_LOG,
            listener,
            client = client.map(tracing::field::display),
            method,
            %subject,
            status = status.as_u16(),
            elapsed = elapsed.map(tracing::field::debug),
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_was_for_holds_nothing_of_its_client() {
        for (target, subject) in [
            ("/tiny/67mk41xj?ks=secret", "tiny 67mk41xj"),
            ("//tiny//%367mk41xj", "tiny 67mk41xj"),
            ("/tiny/nonsense!", "other"),
            (
                "/api_v3/service/shortlink_shortlink/action/goto/id/67mk41xj/ks/secret",
                "goto 67mk41xj",
            ),
            (
                "/api_v3/?service=shortlink_shortlink&action=goto&id=67mk41xj",
                "goto 67mk41xj",
            ),
            (
                "/api_v3/service/shortlink_shortlink/action/list?ks=secret",
                "shortlink_shortlink list",
            ),
            ("/api_v3/service/djJ8MTIzNDU2N3x/action/%0aForged", "- -"),
            ("/api_v3/", "- -"),
            ("/secret", "other"),
        ] {
            assert_eq!(
                Subject::from_uri(&target.parse().unwrap()).to_string(),
                subject,
                "{target}"
            );
        }
    }

    #[test]
    fn one_of_so_many_is_taken() {
        let log = AccessLog::new(NonZero::new(3), LoggedAddress::None);
        let taken = (0..9).filter(|_| log.takes_next()).count();
        assert_eq!(taken, 3);
        let all = AccessLog::new(NonZero::new(1), LoggedAddress::None);
        assert!(all.takes_next() && all.takes_next());
        assert!(!AccessLog::new(None, LoggedAddress::Full).takes_next());
    }
}
