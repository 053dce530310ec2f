//! Looking up the addresses of a host.
//!
//! Not by the system's own resolver: that tells nothing of how long an answer holds, keeps a thread for each question, and
//! goes on when nobody wants the answer any more.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;

use crate::fetch::{FetchError, FetchSettings};

/// Answers that are kept, as long as their servers say.
const CACHED_ANSWERS: u64 = 1024;
/// Longest for which they are kept all the same: who moves a destination does not want to wait.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest for which it is kept that there is no such name.
const NO_ANSWER_AGE_MAX: Duration = Duration::from_secs(10);
/// A question is asked twice at most, each time for so much of the time for a look-up, because packets get lost.
const PART_OF_TIME: (u32, u32) = (2, 5);

/// Knows the addresses of hosts.
pub(super) struct Names {
    resolver: TokioResolver,
    timeout: Duration,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Asks the servers of the settings, else those of the machine. To be called on the runtime that asks.
    pub(super) fn new(settings: &FetchSettings) -> Result<Self, String> {
        let (config, mut options) = if settings.name_servers.is_empty() {
            read_system_conf().unwrap_or_else(|error| {
                // As the system's own resolver does.
                tracing::warn!(%error, "no name servers of this machine are known; asking 127.0.0.1");
                let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
                (config_of(&[local]), ResolverOpts::default())
            })
        } else {
            (config_of(&settings.name_servers), ResolverOpts::default())
        };
        let (part, whole) = PART_OF_TIME;
        options.timeout = settings.connect_timeout * part / whole;
        options.attempts = 1;
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.cache_size = CACHED_ANSWERS;
        options.positive_max_ttl = Some(ANSWER_AGE_MAX);
        options.negative_max_ttl = Some(NO_ANSWER_AGE_MAX);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self {
            resolver: builder.build().map_err(|error| error.to_string())?,
            timeout: settings.connect_timeout,
        })
    }

    /// All addresses of a host.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, FetchError> {
        let mut name = Name::from_ascii(host).map_err(FetchError::unreachable)?;
        // Whole, so that no search domain of the machine is tried behind it.
        name.set_fqdn(true);
        let looked_up = tokio::time::timeout(self.timeout, self.resolver.lookup_ip(name)).await;
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
