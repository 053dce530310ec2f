//! The limits of a listener.

use crate::config::ConfigError;
use crate::config::checks::parse_network;
use crate::config::keys;
use crate::config::values::{Reader, Values};
use crate::http::Limits;

pub fn read(values: &Values, reader: &Reader, section: &'static str) -> Result<Limits, ConfigError> {
    let limits = Limits {
        head_timeout: values.seconds(section, &keys::HEAD_TIMEOUT),
        idle_timeout: values.seconds(section, &keys::IDLE_TIMEOUT),
        write_timeout: values.seconds(section, &keys::WRITE_TIMEOUT),
        lifetime: values.seconds(section, &keys::LIFETIME),
        head_bytes: values.size(section, &keys::HEAD_BYTES),
        target_bytes: values.size(section, &keys::TARGET_BYTES),
        headers: values.size(section, &keys::HEADERS),
        connections: values.size(section, &keys::MAX_CONNECTIONS),
        connections_per_address: values.limit(section, &keys::PER_ADDRESS),
        requests: values.limit(section, &keys::MAX_REQUESTS),
        trusted_proxies: values.list(section, &keys::TRUSTED_PROXIES, parse_network),
        proxy_protocol: values.flag(section, &keys::PROXY_PROTOCOL),
    };
    if limits.proxy_protocol && limits.trusted_proxies.is_empty() {
        let reason = "no proxy is trusted: name the proxies in trusted_proxies";
        return Err(reader.wrong(keys::PROXY_PROTOCOL.path(section), true, reason));
    }
    Ok(limits)
}
