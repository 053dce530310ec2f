//! What the operator says about fetching.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::HostPattern;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert!(Authorities::from_pem(b"").unwrap_err().contains("no certificate"));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Authorities::from_pem(broken).is_err());
    }
}
