//! Patterns of hosts.

use std::fmt;
use std::str::FromStr;

use url::Host;

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

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    fn a_pattern_matches_a_host_or_all_below_one() {
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
}
