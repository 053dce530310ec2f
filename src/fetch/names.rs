//! Looking up the addresses of a host.
//!
//! Not by the system's resolver, which returns no TTL, blocks a thread for each query, and cannot be cancelled.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use parking_lot::Mutex;

use crate::fetch::{FetchError, FetchSettings};

const KEPT_NAMES_MAX: usize = 1024;
/// Most addresses of a name; each is checked.
const ADDRESSES_MAX: usize = 32;
/// Upper bound of the TTL: a destination may move.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);
/// Time of one query as a part of the whole: two attempts, because packets get lost.
const PART_OF_TIME: (u32, u32) = (2, 5);

const NAME_SERVERS: &str = "/etc/resolv.conf";
const FILES: [&str; 2] = [NAME_SERVERS, "/etc/hosts"];

type Changed = [Option<SystemTime>; FILES.len()];

pub(super) struct Names {
    timeout: Duration,
    /// Empty: those of the system.
    name_servers: Vec<SocketAddr>,
    sources: Mutex<Sources>,
    kept: Mutex<HashMap<Name, Kept>>,
}

struct Kept {
    addresses: Vec<IpAddr>,
    until: Instant,
}

#[derive(Clone)]
struct Sources {
    hosts: Arc<Hosts>,
    resolver: TokioResolver,
    changed: Changed,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Uses the servers of the settings, else those of the system.
    pub(super) fn new(settings: &FetchSettings) -> Result<Self, String> {
        let sources = Sources::new(&settings.name_servers, settings.connect_timeout, changed(FILES))?;
        Ok(Self {
            timeout: settings.connect_timeout,
            name_servers: settings.name_servers.clone(),
            sources: Mutex::new(sources),
            kept: Mutex::default(),
        })
    }

    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, FetchError> {
        let mut name = Name::from_ascii(host).map_err(FetchError::unreachable)?;
        // Absolute: no search domains.
        name.set_fqdn(true);
        let Sources { hosts, resolver, .. } = self.sources()?;
        let known = known_addresses(&hosts, &name);
        if !known.is_empty() {
            return Ok(known);
        }
        if let Some(kept) = self.kept.lock().get(&name).filter(|kept| kept.until > Instant::now()) {
            return Ok(kept.addresses.clone());
        }
        let looked_up = tokio::time::timeout(self.timeout, resolver.lookup_ip(name.clone())).await;
        let found = match looked_up {
            Ok(Ok(found)) => found,
            Ok(Err(NetError::Timeout)) | Err(_) => return Err(FetchError::TimedOut("looking the name up")),
            Ok(Err(error)) => return Err(FetchError::unreachable(error)),
        };
        // One more shows that there are too many.
        let addresses: Vec<_> = found.iter().take(ADDRESSES_MAX + 1).collect();
        match addresses.len() {
            0 => Err(FetchError::Unreachable("the name has no address".into())),
            1..=ADDRESSES_MAX => {
                let until = found.valid_until().min(Instant::now() + ANSWER_AGE_MAX);
                self.keep(name, &addresses, until);
                Ok(addresses)
            }
            _ => Err(FetchError::forbidden(format!(
                "the name has more than {ADDRESSES_MAX} addresses"
            ))),
        }
    }

    fn keep(&self, name: Name, addresses: &[IpAddr], until: Instant) {
        let now = Instant::now();
        if until <= now {
            return;
        }
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_NAMES_MAX {
            kept.retain(|_, kept| kept.until > now);
        }
        if kept.len() >= KEPT_NAMES_MAX {
            // All are valid; the next look-ups refill it.
            kept.clear();
        }
        let addresses = addresses.to_vec();
        kept.insert(name, Kept { addresses, until });
    }

    /// The resolver and hosts, read again when the system's files change, as in another network.
    fn sources(&self) -> Result<Sources, FetchError> {
        let changed = changed(FILES);
        let mut sources = self.sources.lock();
        if sources.changed != changed {
            *sources = Sources::new(&self.name_servers, self.timeout, changed).map_err(FetchError::unreachable)?;
            self.kept.lock().clear();
        }
        Ok(sources.clone())
    }
}

impl Sources {
    fn new(name_servers: &[SocketAddr], timeout: Duration, changed: Changed) -> Result<Self, String> {
        let hosts = Hosts::from_system().unwrap_or_else(|error| {
            tracing::debug!(%error, "the machine knows no hosts by itself");
            Hosts::default()
        });
        Ok(Self {
            hosts: Arc::new(hosts),
            resolver: resolver(name_servers, timeout)?,
            changed,
        })
    }
}

/// Addresses from the hosts file. If it has one family, the other is not looked up: a private name must not reach a
/// name server.
fn known_addresses(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    let families = [RecordType::AAAA, RecordType::A];
    let of_family = |family| hosts.lookup_static_host(&Query::query(name.clone(), family));
    let known = families.into_iter().filter_map(of_family).map(LookupIp::from);
    known.flat_map(|known| known.iter().collect::<Vec<_>>()).collect()
}

fn changed<const COUNT: usize>(files: [&str; COUNT]) -> [Option<SystemTime>; COUNT] {
    files.map(|file| fs::metadata(file).and_then(|metadata| metadata.modified()).ok())
}

fn resolver(name_servers: &[SocketAddr], timeout: Duration) -> Result<TokioResolver, String> {
    let (config, mut options) = if name_servers.is_empty() {
        of_machine()
    } else {
        (config_of(name_servers), ResolverOpts::default())
    };
    let (part, whole) = PART_OF_TIME;
    options.timeout = timeout * part / whole;
    options.attempts = 1;
    // See `known_addresses`.
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    // `kept` bounds the size of an entry; hickory keeps whole responses of any size.
    options.cache_size = 0;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| error.to_string())
}

fn of_machine() -> (ResolverConfig, ResolverOpts) {
    let read = fs::read(NAME_SERVERS).map_err(|error| error.to_string());
    let parsed = read.and_then(|text| parse_resolv_conf(text).map_err(|error| error.to_string()));
    parsed.unwrap_or_else(|error| {
        // As glibc does.
        tracing::warn!(error, "no name server in {NAME_SERVERS}; using 127.0.0.1");
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
        (config_of(&[local]), ResolverOpts::default())
    })
}

fn config_of(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    ResolverConfig::from_parts(None, Vec::new(), servers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::lookup::Lookup;
    use hickory_resolver::proto::rr::{RData, Record};

    #[test]
    fn resolver_is_rebuilt_when_its_files_change() {
        let settings = FetchSettings {
            name_servers: vec!["127.0.0.1:9".parse().unwrap()],
            ..FetchSettings::for_tests()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _on_runtime = runtime.enter();
        let names = Names::new(&settings).unwrap();
        assert_eq!(names.sources.lock().changed, changed(FILES));
        names.sources.lock().changed = [Some(SystemTime::UNIX_EPOCH), None];
        let before = Arc::clone(&names.sources.lock().hosts);
        let after = names.sources().unwrap();
        assert_eq!(after.changed, changed(FILES));
        assert!(!Arc::ptr_eq(&before, &after.hosts) && Arc::ptr_eq(&names.sources().unwrap().hosts, &after.hosts));
    }

    #[tokio::test]
    async fn cached_names_are_bounded_and_expire() {
        let names = Names::new(&FetchSettings {
            name_servers: vec!["127.0.0.1:9".parse().unwrap()],
            ..FetchSettings::for_tests()
        });
        let names = names.unwrap();
        let (address, later) = (["192.0.2.1".parse().unwrap()], Instant::now() + ANSWER_AGE_MAX);
        let name = |number: usize| Name::from_ascii(format!("n{number}.example.")).unwrap();
        names.keep(name(0), &address, Instant::now());
        assert!(names.kept.lock().is_empty());
        for number in 1..=2 * KEPT_NAMES_MAX + 1 {
            names.keep(name(number), &address, later);
            assert!(names.kept.lock().len() <= KEPT_NAMES_MAX);
        }
        assert_eq!(
            names
                .addresses(&format!("n{}.example", 2 * KEPT_NAMES_MAX + 1))
                .await
                .unwrap(),
            address
        );
    }

    #[test]
    fn hosts_file_prevents_lookups_of_the_other_family() {
        let mut hosts = Hosts::default();
        let mut know = |name: &str, address: IpAddr| {
            let name = Name::from_ascii(name).unwrap();
            let data = RData::from(address);
            let (family, record) = (data.record_type(), Record::from_rdata(name.clone(), 60, data));
            let query = Query::query(name.clone(), family);
            hosts.insert(name, family, Lookup::new_with_max_ttl(query, [record]));
        };
        know("four.example.", "10.0.0.1".parse().unwrap());
        know("both.example.", "10.0.0.2".parse().unwrap());
        know("both.example.", "fd00::2".parse().unwrap());
        let known = |name| known_addresses(&hosts, &Name::from_ascii(name).unwrap());
        assert_eq!(known("four.example."), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(known("both.example.").len(), 2);
        assert!(known("none.example.").is_empty());
    }

    #[test]
    fn modification_time_of_files_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let changed = || changed([path.to_str().unwrap()]);
        assert_eq!(changed(), [None]);
        fs::write(&path, "nameserver 192.0.2.1").unwrap();
        let first = changed();
        assert!(first[0].is_some());
        let later = first[0].unwrap() + Duration::from_secs(1);
        fs::File::open(&path).unwrap().set_modified(later).unwrap();
        assert_ne!(changed(), first);
    }
}
