//! Whether an address is one of this machine's.
//!
//! Asks the kernel each time, because addresses come and go. That sends no packet and needs no list of interfaces, for
//! which a sandbox would have to allow netlink.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use socket2::{Domain, Socket, Type};

/// No machine has these addresses (RFC 5737, RFC 3849). A machine that does, such as a router with
/// `net.ipv6.ip_nonlocal_bind`, has every address.
const NOBODYS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOBODYS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Any port works: no packet is sent.
const DISCARD_PORT: u16 = 9;

/// Whether an address is this machine's; `None` if unknown. Routed IPv6 prefixes are not recognised.
pub(super) fn is_local(address: IpAddr) -> Option<bool> {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return Some(true);
    }
    let (is_there, is_everything_there) = match address {
        IpAddr::V4(address) => (is_an_interfaces(address)?, is_an_interfaces(NOBODYS_V4)?),
        IpAddr::V6(address) => (can_bind(address)?, can_bind(NOBODYS_V6)?),
    };
    if is_there && is_everything_there {
        return is_own_source(address);
    }
    Some(is_there)
}

/// Whether an interface has this address, whatever can be bound or sent from.
fn is_an_interfaces(address: Ipv4Addr) -> Option<bool> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    yes_or_not_there(socket.set_multicast_if_v4(&address))
}

fn can_bind(address: Ipv6Addr) -> Option<bool> {
    match UdpSocket::bind((address, 0)) {
        // The machine has no IPv6.
        Err(_) if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() => Some(false),
        bound => yes_or_not_there(bound.map(drop)),
    }
}

fn yes_or_not_there(answer: io::Result<()>) -> Option<bool> {
    match answer {
        Ok(()) => Some(true),
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Some(false),
        Err(_) => None,
    }
}

/// Whether packets to an address come from it.
fn is_own_source(address: IpAddr) -> Option<bool> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    match socket.connect((address, DISCARD_PORT)) {
        Ok(()) => Some(socket.local_addr().ok()?.ip() == address),
        // No route, so not local.
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_outgoing_addresses_are_local() {
        for ours in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            assert_eq!(is_local(ours.parse().unwrap()), Some(true), "{ours}");
        }
        for others in ["192.0.2.1", "8.8.8.8", "2001:db8::1", "2606:4700:4700::1111"] {
            assert_eq!(is_local(others.parse().unwrap()), Some(false), "{others}");
        }
        // Where there is a way out, it has an address.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert_eq!(is_local(own), Some(true), "{own}");
            assert_eq!(is_own_source(own), Some(true), "{own}");
        }
        assert_eq!(is_own_source(NOBODYS_V6.into()), Some(false));
    }
}
