//! Which destinations are fetched: the URL first, then every address that its host has.
//!
//! Connections are made to a [`Checked`] address and to nothing else, and only this module makes one. So what was
//! checked is what is connected to, whatever a name server says in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

use crate::fetch::FetchError;
use crate::fetch::local::is_local;

/// IPv4 that is not public (RFC 6890 and IANA's registry) or must not be reached from a server.
const FORBIDDEN_V4: [Ipv4Net; 16] = [
    // On Linux, 0.0.0.0 is the machine itself.
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    // Shared address space, with some clouds' metadata.
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    // Link-local, with most clouds' metadata.
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    // IETF protocol assignments, with another cloud's metadata.
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    // 6to4 relays.
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    // Multicast.
    v4([224, 0, 0, 0], 4),
    // Reserved, and broadcast.
    v4([240, 0, 0, 0], 4),
    // Public, but a cloud's internal service.
    v4([168, 63, 129, 16], 32),
];

/// Global unicast. Mapped, compatible, translated, unique-local and link-local addresses are outside.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// Parts of it that are not public or embed IPv4.
const FORBIDDEN_V6: [Ipv6Net; 4] = [
    // IETF protocol assignments: Teredo, benchmarking, ORCHID and others.
    v6([0x2001, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0], 32),
    // 6to4.
    v6([0x2002, 0, 0, 0], 16),
    v6([0x3fff, 0, 0, 0], 20),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d]: [u16; 4], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !FORBIDDEN_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            let is_forbidden = FORBIDDEN_V6.iter().any(|network| network.contains(&address));
            GLOBAL_V6.contains(&address) && !is_forbidden && !is_isatap(address)
        }
    }
}

/// Whether the interface identifier embeds IPv4 (ISATAP, RFC 5214).
fn is_isatap(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [_, _, _, _, 0 | 0x200, 0x5efe, _, _])
}

/// An address that the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked(SocketAddr);

impl Checked {
    pub(super) const fn address(self) -> SocketAddr {
        self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) is_https: bool,
    pub(super) host: Host<String>,
    pub(super) port: u16,
}

#[derive(Debug)]
pub(super) struct Policy {
    pub(super) allow: Vec<IpNet>,
    pub(super) ports: Vec<u16>,
    pub(super) listeners: Vec<SocketAddr>,
}

impl Policy {
    pub(super) fn origin(&self, url: &Url) -> Result<Origin, FetchError> {
        let is_https = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(FetchError::forbidden("the scheme is neither http nor https")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::forbidden("the URL has a user name or password"));
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.ports.contains(&port) {
            return Err(FetchError::forbidden(
                "the port is not among those that are connected to",
            ));
        }
        let host = url.host().ok_or(FetchError::forbidden("the URL has no host"))?;
        Ok(Origin {
            is_https,
            host: host.to_owned(),
            port,
        })
    }

    /// Allows the addresses of a host only if each is allowed: one forbidden address shows the intent.
    pub(super) fn check(&self, addresses: &[IpAddr], port: u16) -> Result<Vec<Checked>, FetchError> {
        let checked = addresses.iter().map(|address| {
            self.judge(*address, port)?;
            Ok(Checked(SocketAddr::new(*address, port)))
        });
        checked.collect()
    }

    fn judge(&self, address: IpAddr, port: u16) -> Result<(), FetchError> {
        let unknown = || FetchError::forbidden(format!("unknown whether {address} belongs to this machine"));
        if self.is_listener(address.to_canonical(), port).ok_or_else(unknown)? {
            return Err(FetchError::forbidden(format!(
                "{address} with port {port} is a listener of this appliance"
            )));
        }
        if self.allow.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        if !is_public(address) {
            return Err(FetchError::forbidden(format!(
                "{address} is not public, and not in fetch.allow"
            )));
        }
        if is_local(address).ok_or_else(unknown)? {
            return Err(FetchError::forbidden(format!(
                "{address} is this machine's, and not in fetch.allow"
            )));
        }
        Ok(())
    }

    /// Whether a connection to this address would reach tinyd itself; `None` if unknown.
    fn is_listener(&self, address: IpAddr, port: u16) -> Option<bool> {
        let of_port = self.listeners.iter().filter(|listener| listener.port() == port);
        for listener in of_port {
            let listening = listener.ip().to_canonical();
            // A wildcard listener is reached by every local address, and a wildcard target reaches every listener.
            if listening == address || address.is_unspecified() || listening.is_unspecified() && is_local(address)? {
                return Some(true);
            }
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> Policy {
        Policy {
            allow: vec!["10.1.2.0/24".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
            ports: vec![80, 443, 8080],
            listeners: vec!["127.0.0.1:8080".parse().unwrap(), "[::]:443".parse().unwrap()],
        }
    }

    fn is_forbidden<T>(result: &Result<T, FetchError>) -> bool {
        matches!(result, Err(FetchError::Forbidden(_)))
    }

    #[test]
    fn each_range_is_refused_from_first_to_last_address() {
        for (first, last) in [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.88.99.0", "192.88.99.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "255.255.255.255"),
            ("168.63.129.16", "168.63.129.16"),
        ] {
            let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().unwrap(), last.parse().unwrap());
            let number = |address: Ipv4Addr| u32::from(address);
            assert!(!is_public(first.into()) && !is_public(last.into()), "{first}");
            for beside in [number(first).checked_sub(1), number(last).checked_add(1)]
                .into_iter()
                .flatten()
            {
                assert!(is_public(Ipv4Addr::from(beside).into()), "{}", Ipv4Addr::from(beside));
            }
        }
    }

    #[test]
    fn only_public_ipv6_addresses_are_fetched() {
        for (address, public) in [
            ("::", false),
            ("::1", false),
            ("::7f00:1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", false),
            ("::ffff:0:7f00:1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::808:808", false),
            ("64:ff9b:1::1", false),
            ("100::1", false),
            ("1fff:ffff::", false),
            ("2000::", true),
            ("2001::1", false),
            ("2001:0:7f00:1::", false),
            ("2001:1ff:ffff::1", false),
            ("2001:200::", true),
            ("2001:db7:ffff::", true),
            ("2001:db8::1", false),
            ("2001:db8:ffff:ffff::", false),
            ("2001:db9::", true),
            ("2001:ffff:ffff::", true),
            ("2002:7f00:1::", false),
            ("2002:ffff:ffff::", false),
            ("2003::", true),
            ("2606:4700:4700::1111", true),
            ("2606:4700::5efe:7f00:1", false),
            ("2606:4700::200:5efe:a00:1", false),
            ("2606:4700::1:5efe:a00:1", true),
            ("3ffe:ffff::", true),
            ("3fff::", false),
            ("3fff:fff:ffff::", false),
            ("3fff:1000::", true),
            ("3fff:ffff:ffff::", true),
            ("4000::", false),
            ("5f00::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn allowed_networks_are_fetched_own_listeners_never() {
        let policy = policy();
        let judge = |address: &str, port| policy.check(&[address.parse().unwrap()], port);
        assert!(judge("10.1.2.3", 80).is_ok());
        assert!(is_forbidden(&judge("10.1.3.3", 80)));
        // An IPv4-mapped network is not the one that was allowed.
        assert!(is_forbidden(&judge("::ffff:10.1.2.3", 80)));
        assert!(judge("127.0.0.1", 80).is_ok());
        assert!(is_forbidden(&judge("127.0.0.1", 8080)));
        assert!(judge("127.0.0.2", 8080).is_ok());
        // It listens on every address there.
        assert!(is_forbidden(&judge("127.0.0.1", 443)));
        assert!(is_forbidden(&judge("127.9.9.9", 443)));

        let all = Policy {
            allow: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            ..policy
        };
        let judge = |address: &str, port| all.check(&[address.parse().unwrap()], port);
        assert!(judge("169.254.169.254", 80).is_ok());
        for listener in ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert!(is_forbidden(&judge(listener, 8080)), "{listener}");
        }
        for listener in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            assert!(is_forbidden(&judge(listener, 443)), "{listener}");
        }
    }

    #[test]
    fn one_forbidden_address_refuses_them_all() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let policy = policy();
        let checked = policy.check(&addresses(&["10.1.2.3", "10.1.2.4"]), 80).unwrap();
        let checked: Vec<_> = checked
            .into_iter()
            .map(|checked| checked.address().to_string())
            .collect();
        assert_eq!(checked, ["10.1.2.3:80", "10.1.2.4:80"]);
        assert!(is_forbidden(
            &policy.check(&addresses(&["10.1.2.3", "192.168.0.1"]), 80)
        ));
        assert!(is_forbidden(&policy.check(&addresses(&["::1", "10.1.2.3"]), 80)));
    }

    #[test]
    fn a_url_leads_to_a_port_that_is_allowed_and_says_no_user() {
        let policy = policy();
        let origin = |url: &str| policy.origin(&Url::parse(url).unwrap());
        let good = origin("HTTPS://Example.com/a").unwrap();
        assert_eq!((good.is_https, good.port), (true, 443));
        assert_eq!(good.host, Host::Domain("example.com".to_owned()));
        assert_eq!(
            origin("http://0x7f.1:8080/").unwrap().host,
            Host::<String>::Ipv4(Ipv4Addr::LOCALHOST)
        );
        for wrong in [
            "http://example.com:81/",
            "https://example.com:0/",
            "http://user@example.com/",
            "http://:password@example.com/",
            "ftp://example.com:80/",
            "file:///etc/passwd",
            "gopher://example.com:80/",
        ] {
            assert!(is_forbidden(&origin(wrong)), "{wrong}");
        }
    }

    proptest! {
        /// Against the standard library's own words for the same things.
        #[test]
        fn local_names_are_not_public(number in any::<u32>(), bits in any::<u128>()) {
            let v4 = Ipv4Addr::from(number);
            let is_special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!(is_special && is_public(v4.into())));
            for v6 in [v4.to_ipv6_mapped(), v4.to_ipv6_compatible()] {
                prop_assert!(!is_public(v6.into()));
            }
            let v6 = Ipv6Addr::from(bits);
            let is_special = v6.is_loopback() || v6.is_multicast() || v6.is_unique_local()
                || v6.is_unicast_link_local() || v6.is_unspecified() || v6.to_ipv4().is_some();
            prop_assert!(!(is_special && is_public(v6.into())));
        }
    }
}
