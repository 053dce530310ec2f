//! The limits of a listener: how much of it one client, or all together, may take.

use std::time::Duration;

use ipnet::IpNet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long the head of a request may take, from its first byte, or from the beginning of the connection.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long a client may take to receive what it has asked for.
    pub write_timeout: Duration,
    /// How long a connection may last; one that has a request in flight then ends after that.
    pub lifetime: Duration,
    /// Largest head of a request, in bytes.
    pub head_bytes: usize,
    /// Longest target of a request, in bytes.
    pub target_bytes: usize,
    /// Most header lines of a request.
    pub headers: usize,
    pub connections: usize,
    /// Most connections at a time from one address of IPv4 or /64 of IPv6; `None`: as many as there are.
    pub connections_per_address: Option<usize>,
    /// Most requests on one connection; `None`: any number.
    pub requests: Option<usize>,
    /// Proxies that may name the client.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether a trusted proxy begins each connection with the header of the PROXY protocol.
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
            connections: 1,
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
