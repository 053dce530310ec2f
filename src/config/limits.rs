//! The settings of a listener that say how much of it one client, or all together, may take.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::ConfigError;
use crate::config::read::{Reader, Section};
use crate::http::Limits;

/// Keys of a listener's section that are read here.
pub(super) const KEYS: [&str; 12] = [
    "head_timeout_seconds",
    "idle_timeout_seconds",
    "write_timeout_seconds",
    "lifetime_seconds",
    "max_head_bytes",
    "max_target_bytes",
    "max_headers",
    "max_connections",
    "max_connections_per_address",
    "max_requests_per_connection",
    "trusted_proxies",
    "proxy_protocol",
];

/// Timeouts, in seconds. A day is longer than any of them needs to be.
pub(super) const SECONDS: RangeInclusive<usize> = 1..=86_400;
/// Bytes of a head. Less would refuse ordinary browsers; more is memory that each connection may take.
const HEAD_BYTES: RangeInclusive<usize> = 1024..=1024 * 1024;
/// Bytes of a target. Less would refuse the longest forms of goto; more than that are not parsed.
const TARGET_BYTES: RangeInclusive<usize> = 256..=65_534;
/// Header lines. Browsers send about fifteen and proxies add some; more than 100 are not parsed.
const HEADERS: RangeInclusive<usize> = 16..=100;
/// Connections at a time. Linux has no room for more descriptors in a process.
pub(super) const CONNECTIONS: RangeInclusive<usize> = 1..=1_048_576;
/// What has 0 for "no limit".
const ANY: RangeInclusive<usize> = 0..=1_000_000_000;

/// Those of the public listener where nothing is said.
pub(super) fn of_public() -> Limits {
    Limits {
        // Anybody on a bad line sends a head within that; who does not holds a place for nothing.
        head_timeout: Duration::from_secs(10),
        // A person follows the next link within that or not at all.
        idle_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(30),
        // Clients move to new threads, and to a new program behind a load balancer, within an hour.
        lifetime: Duration::from_secs(3600),
        head_bytes: 16 * 1024,
        target_bytes: 8 * 1024,
        headers: 64,
        // Twice what a load tester opens; some 10 kilobytes of memory each, most of them the kernel's.
        connections: 20_000,
        // An office is one address.
        connections_per_address: None,
        requests: Some(100_000),
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
    }
}

/// Those of the admin listener where nothing is said: its clients are known, and send and fetch more.
pub(super) fn of_admin() -> Limits {
    Limits {
        head_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        // A GET of `add` carries a destination of 8,192 bytes, percent-encoded.
        head_bytes: 64 * 1024,
        target_bytes: 56 * 1024,
        headers: 100,
        connections: 1000,
        ..of_public()
    }
}

/// Reads what a listener's section says.
pub(super) fn read(reader: &Reader, section: &Section<'_>, default: Limits) -> Result<Limits, ConfigError> {
    let seconds = |key, default: Duration| {
        let default = usize::try_from(default.as_secs()).unwrap_or(*SECONDS.end());
        let seconds = reader.size(section, key, default, SECONDS)?;
        Ok::<_, ConfigError>(Duration::from_secs(seconds as u64))
    };
    let optional = |key, default: Option<usize>| {
        let number = reader.size(section, key, default.unwrap_or(0), ANY)?;
        Ok::<_, ConfigError>((number > 0).then_some(number))
    };
    let limits = Limits {
        head_timeout: seconds("head_timeout_seconds", default.head_timeout)?,
        idle_timeout: seconds("idle_timeout_seconds", default.idle_timeout)?,
        write_timeout: seconds("write_timeout_seconds", default.write_timeout)?,
        lifetime: seconds("lifetime_seconds", default.lifetime)?,
        head_bytes: reader.size(section, "max_head_bytes", default.head_bytes, HEAD_BYTES)?,
        target_bytes: reader.size(section, "max_target_bytes", default.target_bytes, TARGET_BYTES)?,
        headers: reader.size(section, "max_headers", default.headers, HEADERS)?,
        connections: reader.size(section, "max_connections", default.connections, CONNECTIONS)?,
        connections_per_address: optional("max_connections_per_address", default.connections_per_address)?,
        requests: optional("max_requests_per_connection", default.requests)?,
        trusted_proxies: networks(reader, section, "trusted_proxies")?,
        proxy_protocol: reader.flag(section, "proxy_protocol", default.proxy_protocol)?,
    };
    if limits.proxy_protocol && limits.trusted_proxies.is_empty() {
        let reason = "nobody is believed: name the proxies in trusted_proxies";
        return Err(reader.wrong(section.key("proxy_protocol"), true, reason));
    }
    Ok(limits)
}

/// A list of networks, or of addresses, which are networks of one.
pub(super) fn networks(reader: &Reader, section: &Section<'_>, key: &str) -> Result<Vec<IpNet>, ConfigError> {
    if section.is_empty_list(key) {
        return Ok(Vec::new());
    }
    let texts = reader.texts(section, key)?.unwrap_or_default();
    let network = |text: &String| {
        let network = text.parse().ok();
        let network = network.or_else(|| text.parse().ok().map(|address: IpAddr| address.into()));
        let reason = "expected addresses or networks, such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32";
        let network: IpNet = network.ok_or_else(|| reader.wrong(section.key(key), format!("{text:?}"), reason))?;
        // What stands after the prefix would be passed over, which was hardly meant.
        if network.addr() != network.network() {
            let reason = format!("has bits after its prefix: expected {}", network.trunc());
            return Err(reader.wrong(section.key(key), format!("{text:?}"), reason));
        }
        Ok(network)
    };
    texts.iter().map(network).collect()
}
