//! The section `[fetch]`: what tinyd fetches for `goto` with `proxy=true`, and how much of it at a time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::ConfigError;
use crate::config::checks::parse_network;
use crate::config::keys::{self, Key};
use crate::config::values::{Reader, Values};
use crate::fetch::FetchSettings;
use crate::model::HostPattern;

const SECTION: &str = "fetch";

/// What leads to the machine itself; Linux takes "no address" for that too.
const LOOPBACKS: [IpNet; 4] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
];
/// Where machines in clouds read their credentials.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
/// The largest private networks of IPv4 and IPv6 have prefixes of so many bits.
const PRIVATE_PREFIXES: [u8; 2] = [8, 7];

/// The settings, which must be right even where fetching is off; none there.
pub fn read(values: &Values, reader: &mut Reader) -> Result<Option<FetchSettings>, ConfigError> {
    let settings = settings(values, reader)?;
    if !values.flag(SECTION, &keys::FETCH_ENABLED) {
        return Ok(None);
    }
    let warnings = settings.allow.iter().filter_map(warning_of_network);
    let hosts = settings.trusted_hosts.iter();
    let warnings = warnings.chain(hosts.filter_map(warning_of_host));
    reader.warnings.extend(warnings);
    if settings.fetches_per_client > settings.fetches {
        let (each, all) = (settings.fetches_per_client, settings.fetches);
        reader.warnings.push(format!(
            "fetch.max_fetches_per_client = {each}: more than max_fetches = {all}, so one client can take them all"
        ));
    }
    Ok(Some(settings))
}

fn settings(values: &Values, reader: &Reader) -> Result<FetchSettings, ConfigError> {
    let total = values.seconds(SECTION, &keys::TOTAL_TIMEOUT);
    // A default gives way to a shorter total.
    let within_total = |key: &Key| -> Result<Duration, ConfigError> {
        let time = values.seconds(SECTION, key);
        if time > total && values.is_set(SECTION, key) {
            let total = total.as_secs();
            let reason = format!("the fetch has ended by then: expected at most total_timeout_seconds = {total}");
            return Err(reader.wrong(key.path(SECTION), time.as_secs(), reason));
        }
        Ok(time.min(total))
    };
    let fetches = values.size(SECTION, &keys::MAX_FETCHES);
    let each = values.size(SECTION, &keys::FETCHES_PER_CLIENT);
    let is_said = values.is_set(SECTION, &keys::FETCHES_PER_CLIENT);
    Ok(FetchSettings {
        allow: values.list(SECTION, &keys::ALLOW, parse_network),
        ports: values.ports(SECTION, &keys::PORTS),
        follow: values.size(SECTION, &keys::FOLLOW),
        connect_timeout: within_total(&keys::CONNECT_TIMEOUT)?,
        first_byte_timeout: within_total(&keys::FIRST_BYTE_TIMEOUT)?,
        idle_timeout: within_total(&keys::FETCH_IDLE_TIMEOUT)?,
        total_timeout: total,
        bytes: values.number(SECTION, &keys::FETCH_BYTES),
        fetches,
        fetches_per_client: if is_said { each } else { each.min(fetches) },
        trusted_hosts: values.list(SECTION, &keys::TRUSTED_HOSTS, |text| text.parse().ok()),
        name_servers: values.list(SECTION, &keys::NAME_SERVERS, |text| text.parse().ok()),
        authorities: reader.authorities(values, SECTION, &keys::CA_FILE)?,
    })
}

fn warning_of_network(network: &IpNet) -> Option<String> {
    let [v4, v6] = PRIVATE_PREFIXES;
    let holds = |address: IpAddr| network.contains(&address);
    let overlaps = |loopback: &IpNet| loopback.contains(network) || network.contains(loopback);
    let is_v6 = matches!(network, IpNet::V6(_));
    let what = if network.prefix_len() < if is_v6 { v6 } else { v4 } {
        "is larger than any private network: every link author can read what this machine reaches"
    } else if LOOPBACKS.iter().any(overlaps) {
        "has addresses of this machine: every link author can read what its services serve, tinyd excepted"
    } else if METADATA.into_iter().any(holds) {
        "has the metadata address of clouds: every link author can read the credentials there"
    } else {
        return None;
    };
    Some(format!("fetch.allow: {network} {what}"))
}

fn warning_of_host(pattern: &HostPattern) -> Option<String> {
    let pattern = pattern.to_string();
    let is_broad = pattern.strip_prefix("*.").is_some_and(|rest| !rest.contains('.'));
    is_broad.then(|| {
        format!("fetch.trusted_hosts: {pattern} trusts all of a top-level domain: strangers' content acts as yours")
    })
}
