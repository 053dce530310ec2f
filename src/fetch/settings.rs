//! What the operator says about fetching.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use url::Host;

use crate::tls::Authorities;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSettings {
    pub allow: Vec<IpNet>,
    pub ports: Vec<u16>,
    /// At most [`FOLLOW_MAX`].
    pub follow: usize,
    /// For the look-up, and again for connecting.
    pub connect_timeout: Duration,
    /// With the TLS handshake.
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
    pub total_timeout: Duration,
    pub bytes: u64,
    pub fetches: usize,
    /// Per IPv4 address or IPv6 /64.
    pub fetches_per_client: usize,
    /// Hosts without `Content-Security-Policy: sandbox`.
    pub trusted_hosts: Vec<HostPattern>,
    /// Empty: those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// Trusted beside the system's.
    pub authorities: Authorities,
}

pub const FOLLOW_MAX: usize = 3;

#[cfg(test)]
impl FetchSettings {
    pub fn for_tests() -> Self {
        Self {
            allow: Vec::new(),
            ports: vec![80],
            follow: 0,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(2),
            total_timeout: Duration::from_secs(2),
            bytes: 1024,
            fetches: 1,
            fetches_per_client: 1,
            trusted_hosts: Vec::new(),
            name_servers: Vec::new(),
            authorities: Authorities::default(),
        }
    }
}

/// A host, or `*.` and a domain: every host below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// Lower case.
    name: String,
    is_wildcard: bool,
}

impl HostPattern {
    /// `host` as [`url::Url::host_str`] returns it.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.is_wildcard {
            return host == self.name;
        }
        let before = host.strip_suffix(self.name.as_str());
        before.is_some_and(|before| before.len() > 1 && before.ends_with('.'))
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wildcard = if self.is_wildcard { "*." } else { "" };
        write!(formatter, "{wildcard}{}", self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a host such as www.example.com, or *.example.com for all below one")]
pub struct InvalidHost;

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let (host, is_wildcard) = match text.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (text, false),
        };
        let host = Host::parse(host).map_err(|_| InvalidHost)?;
        let is_domain = matches!(host, Host::Domain(_));
        let name = host.to_string();
        let name = name.strip_suffix('.').unwrap_or(&name);
        if is_wildcard && !is_domain || name.contains('*') || name.is_empty() {
            return Err(InvalidHost);
        }
        Ok(Self {
            name: name.to_owned(),
            is_wildcard,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_or_all_below_one_are_trusted() {
        let matches = |pattern: &str, host: &str| pattern.parse::<HostPattern>().unwrap().matches(host);
        assert!(matches("www.Example.com", "www.example.com"));
        assert!(matches("www.example.com", "www.example.com."));
        assert!(!matches("www.example.com", "example.com"));
        assert!(!matches("example.com", "www.example.com"));
        assert!(matches("*.example.com", "a.b.example.com"));
        assert!(!matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "evilexample.com"));
        assert!(!matches("*.example.com", ".example.com"));
        assert!(matches("münchen.example", "xn--mnchen-3ya.example"));
        assert!(matches("127.0.0.1", "127.0.0.1"));
        assert!(matches("[::1]", "[::1]"));
        for wrong in [
            "",
            "*",
            "*.",
            "*.127.0.0.1",
            "a/b",
            "http://a",
            "a:80",
            "a@b",
            "a b",
            "a.*.b",
            "a?b",
            "**.a",
        ] {
            assert_eq!(wrong.parse::<HostPattern>(), Err(InvalidHost), "{wrong}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert!(Authorities::from_pem(b"").unwrap_err().contains("no certificate"));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Authorities::from_pem(broken).is_err());
    }
}
