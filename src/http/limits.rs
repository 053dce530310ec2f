//! The limits of a listener: how much of it one client, or all together, may take.

use std::time::Duration;

use ipnet::IpNet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte, or from the start of the connection.
    pub head_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
    /// A request in flight is completed.
    pub lifetime: Duration,
    pub head_bytes: usize,
    pub target_bytes: usize,
    pub headers: usize,
    pub connections: usize,
    /// Per IPv4 address or IPv6 /64.
    pub connections_per_address: Option<usize>,
    /// Per connection.
    pub requests: Option<usize>,
    pub trusted_proxies: Vec<IpNet>,
    /// Whether trusted proxies begin each connection with a PROXY protocol header.
    pub proxy_protocol: bool,
}

#[cfg(test)]
impl Limits {
    pub fn test() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            head_bytes: 16 * 1024,
            target_bytes: 16 * 1024,
            headers: 64,
            connections: 100,
            connections_per_address: None,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            requests: None,
            head_timeout: MINUTE,
            idle_timeout: MINUTE,
            write_timeout: MINUTE,
            lifetime: MINUTE,
        }
    }
}
