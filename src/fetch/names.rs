//! Looking up the addresses of a host.
//!
//! Not by the system's own resolver: that tells nothing of how long an answer holds, keeps a thread for each question, and
//! goes on when nobody wants the answer any more.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;
use parking_lot::Mutex;

use crate::fetch::{FetchError, FetchSettings};

/// Answers that are kept, as long as their servers say.
const CACHED_ANSWERS: u64 = 1024;
/// Longest for which they are kept all the same: who moves a destination does not want to wait.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest for which it is kept that there is no such name.
const NO_ANSWER_AGE_MAX: Duration = Duration::from_secs(10);
/// A question is asked twice at most, each time for so much of the time for a look-up, because packets get lost.
const PART_OF_TIME: (u32, u32) = (2, 5);

/// Where the machine says whom it asks, and what it knows by itself.
const NAME_SERVERS: &str = "/etc/resolv.conf";
const FILES: [&str; 2] = [NAME_SERVERS, "/etc/hosts"];

/// When files were last changed.
type Changed = [Option<SystemTime>; FILES.len()];

/// Knows the addresses of hosts.
pub(super) struct Names {
    timeout: Duration,
    /// None: those of the machine, whatever these are at the time.
    name_servers: Vec<SocketAddr>,
    /// The resolver, and the files that it was made of.
    resolver: Mutex<(TokioResolver, Changed)>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Asks the servers of the settings, else those of the machine.
    pub(super) fn new(settings: &FetchSettings) -> Result<Self, String> {
        let changed = changed(FILES);
        let resolver = resolver(&settings.name_servers, settings.connect_timeout)?;
        Ok(Self {
            timeout: settings.connect_timeout,
            name_servers: settings.name_servers.clone(),
            resolver: Mutex::new((resolver, changed)),
        })
    }

    /// All addresses of a host.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, FetchError> {
        let mut name = Name::from_ascii(host).map_err(FetchError::unreachable)?;
        // Whole, so that no search domain of the machine is tried behind it.
        name.set_fqdn(true);
        let looked_up = tokio::time::timeout(self.timeout, self.resolver()?.lookup_ip(name)).await;
        match looked_up {
            Ok(Ok(found)) => {
                let addresses: Vec<_> = found.iter().collect();
                if addresses.is_empty() {
                    return Err(FetchError::Unreachable("the name has no address".into()));
                }
                Ok(addresses)
            }
            Ok(Err(NetError::Timeout)) | Err(_) => Err(FetchError::TimedOut("looking the name up")),
            Ok(Err(error)) => Err(FetchError::unreachable(error)),
        }
    }

    /// The resolver; another one if the machine's files are others, as when it has moved to another network.
    fn resolver(&self) -> Result<TokioResolver, FetchError> {
        let changed = changed(FILES);
        let mut current = self.resolver.lock();
        if current.1 != changed {
            let resolver = resolver(&self.name_servers, self.timeout).map_err(FetchError::unreachable)?;
            *current = (resolver, changed);
        }
        Ok(current.0.clone())
    }
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
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    options.cache_size = CACHED_ANSWERS;
    options.positive_max_ttl = Some(ANSWER_AGE_MAX);
    options.negative_max_ttl = Some(NO_ANSWER_AGE_MAX);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| error.to_string())
}

fn of_machine() -> (ResolverConfig, ResolverOpts) {
    let read = fs::read(NAME_SERVERS).map_err(|error| error.to_string());
    let parsed = read.and_then(|text| parse_resolv_conf(text).map_err(|error| error.to_string()));
    parsed.unwrap_or_else(|error| {
        // As the system's own resolver does.
        tracing::warn!(error, "{NAME_SERVERS} names no name servers; 127.0.0.1 is asked");
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

    #[test]
    fn another_resolver_is_made_when_the_files_have_changed() {
        let settings = FetchSettings {
            name_servers: vec!["127.0.0.1:9".parse().unwrap()],
            ..FetchSettings::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _on_runtime = runtime.enter();
        let names = Names::new(&settings).unwrap();
        assert_eq!(names.resolver.lock().1, changed(FILES));
        names.resolver.lock().1 = [Some(SystemTime::UNIX_EPOCH), None];
        names.resolver().unwrap();
        assert_eq!(names.resolver.lock().1, changed(FILES));
    }

    #[test]
    fn when_a_file_was_changed_is_known() {
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
