//! The forms of settings that are texts: each check says what would be right.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::model::HostPattern;

pub const ADDRESS: &str = "expected IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080";

pub fn parsed<T: FromStr>(text: &str, reason: &str) -> Result<(), String> {
    text.trim().parse::<T>().map(drop).map_err(|_| reason.to_owned())
}

pub fn network(text: &str) -> Result<(), String> {
    let network = parse_network(text)
        .ok_or_else(|| "expected addresses or networks, such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32".to_owned())?;
    // The bits after the prefix would be ignored, which was hardly meant.
    if network.addr() != network.network() {
        return Err(format!("has bits after its prefix: expected {}", network.trunc()));
    }
    Ok(())
}

/// A network, or an address, which is a network of one.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let address = || text.parse().ok().map(|address: IpAddr| address.into());
    text.parse().ok().or_else(address)
}

/// Addresses are compared as IPv4 where they are that, so an IPv4-mapped network would allow nothing.
pub fn allowed_network(text: &str) -> Result<(), String> {
    const MAPPED_PREFIX: u8 = 96;
    network(text)?;
    if let Some(IpNet::V6(v6)) = parse_network(text)
        && let Some(prefix) = v6.prefix_len().checked_sub(MAPPED_PREFIX)
        && let Some(v4) = v6.network().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, prefix)
    {
        return Err(format!("is a network of IPv4: expected {v4}"));
    }
    Ok(())
}

pub fn host(text: &str) -> Result<(), String> {
    text.parse::<HostPattern>().map(drop).map_err(|error| error.to_string())
}

pub fn name_server(text: &str) -> Result<(), String> {
    let address: Option<SocketAddr> = text.parse().ok();
    let reason = || "expected IP:PORT, such as 192.0.2.53:53 or [2001:db8::53]:53".to_owned();
    address
        .filter(|address| address.port() > 0)
        .map(drop)
        .ok_or_else(reason)
}

pub fn base_url(text: &str) -> Result<(), String> {
    let is_base = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let url = url::Url::parse(text).ok().filter(is_base);
    url.map(drop)
        .ok_or_else(|| "expected an http or https URL, such as https://go.example.com".to_owned())
}

pub fn log_level(text: &str) -> Result<(), String> {
    // An unknown level would count as the name of a target.
    let is_level = |text: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&text);
    let is_directive = |one: &str| is_level(one.rsplit('=').next().unwrap_or(one).trim());
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) if text.split(',').all(is_directive) => Ok(()),
        _ => Err("expected error, warn, info, debug, trace, off, or TARGET=LEVEL, separated by commas".to_owned()),
    }
}
