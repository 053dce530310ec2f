//! Networks of clients, and how much of an address is logged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network that counts as one client: an address of IPv4, a /64 of IPv6, because one customer has all of that.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// An address without what identifies people: the first 24 bits of IPv4, the first 48 of IPv6.
pub fn without_host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// Whether many clients may stand behind an address because it is not public: an undeclared proxy, for instance.
pub fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // Carriers and overlays (RFC 6598): 100.64.0.0/10.
            let is_shared = matches!(v4.octets(), [100, 64..128, ..]);
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_network_is_an_address_or_a_64() {
        for (address, network, told) in [
            ("203.0.113.7", "203.0.113.7", "203.0.113.0"),
            ("::ffff:203.0.113.7", "203.0.113.7", "203.0.113.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", "2001:db8:1::"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(client_network(address).to_string(), network);
            assert_eq!(without_host(address).to_string(), told);
        }
    }

    #[test]
    fn non_public_addresses_are_local() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("::ffff:10.0.0.1", true),
            ("203.0.113.7", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }
}
