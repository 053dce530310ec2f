//! The section `[proxy]`: what is fetched for `goto` with `proxy=true`, and how much of it at a time.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use toml::{Table, Value};

use crate::config::ConfigError;
use crate::config::effective::{addresses, line};
use crate::config::limits::{CONNECTIONS, SECONDS, networks};
use crate::config::read::{Reader, Section};
use crate::fetch::{Authorities, FOLLOW_MAX, FetchSettings, HostPattern};

pub(super) const KEYS: [&str; 14] = [
    "enabled",
    "allow",
    "ports",
    "follow",
    "connect_timeout_seconds",
    "first_byte_timeout_seconds",
    "idle_timeout_seconds",
    "total_timeout_seconds",
    "max_bytes",
    "max_fetches",
    "max_fetches_per_client",
    "trusted_hosts",
    "name_servers",
    "ca_file",
];

/// Bytes of a body. A pebibyte is more than any line sends in a day.
const BYTES: RangeInclusive<usize> = 1..=1 << 50;

/// What leads to the machine itself; Linux takes "no address" for that too.
const LOOPBACKS: [IpNet; 4] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
];
/// Where clouds tell a machine its credentials.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
/// The largest private networks of IPv4 and IPv6 have prefixes of so many bits.
const PRIVATE_PREFIXES: [u8; 2] = [8, 7];

/// Reads the section. What it says must be right even where it is not enabled.
pub(super) fn read(reader: &mut Reader, root: &Section<'_>) -> Result<Option<FetchSettings>, ConfigError> {
    let empty = Table::new();
    let section = reader.section(root, "proxy", &empty, &KEYS)?;
    let is_enabled = reader.flag(&section, "enabled", true)?;
    let settings = settings(reader, &section)?;
    if !is_enabled {
        return Ok(None);
    }
    let warnings = settings.allow.iter().filter_map(warning_of_network);
    let warnings = warnings.chain(settings.trusted_hosts.iter().filter_map(warning_of_host));
    reader.warnings.extend(warnings);
    if settings.fetches_per_client > settings.fetches {
        let (each, all) = (settings.fetches_per_client, settings.fetches);
        reader.warnings.push(format!(
            "proxy.max_fetches_per_client = {each}: more than max_fetches = {all}, so that one client can have them all"
        ));
    }
    Ok(Some(settings))
}

fn settings(reader: &Reader, section: &Section<'_>) -> Result<FetchSettings, ConfigError> {
    let default = FetchSettings::default();
    let total = seconds(reader, section, "total_timeout_seconds", default.total_timeout)?;
    let within_total = |key, default: Duration| {
        let time = seconds(reader, section, key, default.min(total))?;
        if time > total {
            let reason = format!(
                "the fetch has ended by then: expected at most total_timeout_seconds = {}",
                total.as_secs()
            );
            return Err(reader.wrong(section.key(key), time.as_secs(), reason));
        }
        Ok(time)
    };
    let bytes = usize::try_from(default.bytes).unwrap_or(*BYTES.end());
    let fetches = reader.size(section, "max_fetches", default.fetches, CONNECTIONS)?;
    let each = default.fetches_per_client.min(fetches);
    Ok(FetchSettings {
        allow: allowed(reader, section)?,
        ports: ports(reader, section, default.ports)?,
        follow: reader.size(section, "follow", default.follow, 0..=FOLLOW_MAX)?,
        connect_timeout: within_total("connect_timeout_seconds", default.connect_timeout)?,
        first_byte_timeout: within_total("first_byte_timeout_seconds", default.first_byte_timeout)?,
        idle_timeout: within_total("idle_timeout_seconds", default.idle_timeout)?,
        total_timeout: total,
        bytes: reader.size(section, "max_bytes", bytes, BYTES)? as u64,
        fetches,
        fetches_per_client: reader.size(section, "max_fetches_per_client", each, CONNECTIONS)?,
        trusted_hosts: list(reader, section, "trusted_hosts", |text| {
            text.parse::<HostPattern>().map_err(|error| error.to_string())
        })?,
        name_servers: list(reader, section, "name_servers", name_server)?,
        authorities: authorities(reader, section)?,
    })
}

fn seconds(reader: &Reader, section: &Section<'_>, key: &str, default: Duration) -> Result<Duration, ConfigError> {
    let default = usize::try_from(default.as_secs()).unwrap_or(*SECONDS.end());
    Ok(Duration::from_secs(reader.size(section, key, default, SECONDS)? as u64))
}

/// A list of texts, each of which is read by itself.
fn list<T>(
    reader: &Reader,
    section: &Section<'_>,
    key: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    if section.is_empty_list(key) {
        return Ok(Vec::new());
    }
    let texts = reader.texts(section, key)?.unwrap_or_default();
    texts
        .iter()
        .map(|text| read(text).map_err(|reason| reader.wrong(section.key(key), format!("{text:?}"), reason)))
        .collect()
}

fn allowed(reader: &Reader, section: &Section<'_>) -> Result<Vec<IpNet>, ConfigError> {
    let allowed = networks(reader, section, "allow")?;
    // Addresses are compared as IPv4 where they are that, so this one would exempt nothing.
    for network in &allowed {
        if let Some(v4) = unmapped(network) {
            let reason = format!("is a network of IPv4: expected {v4}");
            return Err(reader.wrong(section.key("allow"), format!("\"{network}\""), reason));
        }
    }
    Ok(allowed)
}

/// The network of IPv4 that one of IPv6 stands for.
fn unmapped(network: &IpNet) -> Option<Ipv4Net> {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(v6) = network else {
        return None;
    };
    let prefix = v6.prefix_len().checked_sub(MAPPED_PREFIX)?;
    Ipv4Net::new(v6.network().to_ipv4_mapped()?, prefix).ok()
}

fn ports(reader: &Reader, section: &Section<'_>, default: Vec<u16>) -> Result<Vec<u16>, ConfigError> {
    let Some(value) = section.table.get("ports") else {
        return Ok(default);
    };
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let port = |item: &Value| item.as_integer().and_then(|port| u16::try_from(port).ok());
    let ports: Option<Vec<_>> = items.iter().map(|item| port(item).filter(|port| *port > 0)).collect();
    ports.filter(|ports| !ports.is_empty()).ok_or_else(|| {
        let reason = "expected at least one port from 1 to 65535, such as [80, 443]";
        reader.wrong(section.key("ports"), value, reason)
    })
}

fn name_server(text: &str) -> Result<SocketAddr, String> {
    let address: Option<SocketAddr> = text.parse().ok();
    let address = address.filter(|address| address.port() > 0);
    address.ok_or_else(|| "expected IP:PORT, such as 192.0.2.53:53 or [2001:db8::53]:53".to_owned())
}

fn authorities(reader: &Reader, section: &Section<'_>) -> Result<Authorities, ConfigError> {
    let Some(text) = reader.text(section, "ca_file")? else {
        return Ok(Authorities::default());
    };
    if text.is_empty() {
        return Err(reader.wrong(section.key("ca_file"), "\"\"", "expected the path of a file"));
    }
    let path = reader.path(text);
    let pem = fs::read(&path).map_err(|cause| ConfigError::File {
        path,
        action: "the certificates of proxy.ca_file cannot be read",
        cause,
    })?;
    Authorities::from_pem(&pem).map_err(|reason| reader.wrong(section.key("ca_file"), format!("{text:?}"), reason))
}

fn warning_of_network(network: &IpNet) -> Option<String> {
    let [v4, v6] = PRIVATE_PREFIXES;
    let holds = |address: IpAddr| network.contains(&address);
    let overlaps = |loopback: &IpNet| loopback.contains(network) || network.contains(loopback);
    let is_v6 = matches!(network, IpNet::V6(_));
    let what = if network.prefix_len() < if is_v6 { v6 } else { v4 } {
        "is larger than any private network: whoever may make links reads whatever this machine reaches"
    } else if LOOPBACKS.iter().any(overlaps) {
        "has addresses of this machine: whoever may make links reads what its services answer, all but tinyd's own"
    } else if METADATA.into_iter().any(holds) {
        "has the address at which clouds tell machines their credentials: whoever may make links reads them"
    } else {
        return None;
    };
    Some(format!("proxy.allow: {network} {what}"))
}

fn warning_of_host(pattern: &HostPattern) -> Option<String> {
    let pattern = pattern.to_string();
    let is_broad = pattern.strip_prefix("*.").is_some_and(|rest| !rest.contains('.'));
    is_broad.then(|| {
        format!("proxy.trusted_hosts: {pattern} trusts all of a top-level domain: strangers' content acts as yours")
    })
}

/// The settings as a line of the log.
pub(super) fn in_force(settings: Option<&FetchSettings>) -> String {
    let Some(settings) = settings else {
        return line("proxy", &[("enabled", &false)]);
    };
    let name_servers = match settings.name_servers.as_slice() {
        [] => "(the machine's)".to_owned(),
        servers => addresses(servers),
    };
    line(
        "proxy",
        &[
            ("enabled", &true),
            ("allow", &words(&settings.allow)),
            ("ports", &words(&settings.ports)),
            ("follow", &settings.follow),
            ("connect_timeout_seconds", &settings.connect_timeout.as_secs()),
            ("first_byte_timeout_seconds", &settings.first_byte_timeout.as_secs()),
            ("idle_timeout_seconds", &settings.idle_timeout.as_secs()),
            ("total_timeout_seconds", &settings.total_timeout.as_secs()),
            ("max_bytes", &settings.bytes),
            ("max_fetches", &settings.fetches),
            ("max_fetches_per_client", &settings.fetches_per_client),
            ("trusted_hosts", &words(&settings.trusted_hosts)),
            ("name_servers", &name_servers),
            ("ca_file", &format!("({})", settings.authorities.count())),
        ],
    )
}

/// The keys whose values differ, all of which are read at the start only.
pub(super) fn differences(one: Option<&FetchSettings>, other: Option<&FetchSettings>) -> Vec<&'static str> {
    let (one, other) = match (one, other) {
        (None, None) => return Vec::new(),
        (Some(one), Some(other)) => (one, other),
        _ => return vec!["proxy.enabled"],
    };
    let differences = [
        ("proxy.allow", one.allow != other.allow),
        ("proxy.ports", one.ports != other.ports),
        ("proxy.follow", one.follow != other.follow),
        (
            "proxy.connect_timeout_seconds",
            one.connect_timeout != other.connect_timeout,
        ),
        (
            "proxy.first_byte_timeout_seconds",
            one.first_byte_timeout != other.first_byte_timeout,
        ),
        ("proxy.idle_timeout_seconds", one.idle_timeout != other.idle_timeout),
        ("proxy.total_timeout_seconds", one.total_timeout != other.total_timeout),
        ("proxy.max_bytes", one.bytes != other.bytes),
        ("proxy.max_fetches", one.fetches != other.fetches),
        (
            "proxy.max_fetches_per_client",
            one.fetches_per_client != other.fetches_per_client,
        ),
        ("proxy.trusted_hosts", one.trusted_hosts != other.trusted_hosts),
        ("proxy.name_servers", one.name_servers != other.name_servers),
        ("proxy.ca_file", one.authorities != other.authorities),
    ];
    let differing = differences.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(key, _)| key).collect()
}

fn words<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
