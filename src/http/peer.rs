//! The client of a connection: the address at its other end or, behind a trusted proxy, the one that the proxy names.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

/// Networks of proxies that are trusted to name the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    pub const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    address: IpAddr,
    /// Set if the peer is one of them.
    proxies: Option<Arc<Proxies>>,
}

impl Peer {
    pub fn new(address: IpAddr, proxies: &Arc<Proxies>) -> Self {
        let address = address.to_canonical();
        let proxies = proxies.contains(address).then(|| Arc::clone(proxies));
        Self { address, proxies }
    }

    pub const fn address(&self) -> IpAddr {
        self.address
    }

    pub const fn is_proxy(&self) -> bool {
        self.proxies.is_some()
    }

    /// The client of a request by its `X-Forwarded-For` values. Reads them from the right, as far as trusted proxies
    /// wrote them: the client may have sent the rest.
    pub fn client<'v>(&self, forwarded: impl DoubleEndedIterator<Item = &'v [u8]>) -> IpAddr {
        let mut client = self.address;
        let Some(proxies) = &self.proxies else { return client };
        for value in forwarded.rev() {
            for part in value.rsplit(|&byte| byte == b',') {
                let Some(address) = parse(part) else { return client };
                client = address;
                if !proxies.contains(address) {
                    return client;
                }
            }
        }
        client
    }
}

/// Accepts an address with or without a port.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok();
    let address = address.or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;

    #[test]
    fn only_trusted_proxies_name_a_client() {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let proxies = Arc::new(Proxies::new(proxies.to_vec()));
        for (peer, forwarded, client) in [
            ("203.0.113.1", &["198.51.100.9"][..], "203.0.113.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.9"], "198.51.100.9"),
            ("::ffff:10.0.0.1", &["198.51.100.9"], "198.51.100.9"),
            // What a client puts there itself stands to the left.
            ("10.0.0.1", &["1.1.1.1, 198.51.100.9, 10.0.0.2"], "198.51.100.9"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.9 ,\t10.0.0.2"], "198.51.100.9"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.9:4711"], "198.51.100.9"),
            ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("fd00::1", &["2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.9, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["\u{fc}"], "10.0.0.1"),
        ] {
            let peer = Peer::new(peer.parse().unwrap(), &proxies);
            let forwarded = forwarded.iter().map(|value| value.as_bytes());
            assert_eq!(peer.client(forwarded).to_string(), client);
        }
    }

    #[test]
    fn a_long_list_takes_work_in_proportion() {
        let proxies = Arc::new(Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]));
        let peer = Peer::new("10.0.0.1".parse().unwrap(), &proxies);
        let make = |size| ["10.0.0.1,".repeat(size), ",".repeat(size), "1".repeat(size)];
        assert_is_linear(200, make, |values| {
            peer.client(values.iter().map(|value| value.trim_end_matches(',').as_bytes()))
        });
    }
}
