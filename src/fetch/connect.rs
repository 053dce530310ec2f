//! Connecting to an address that was checked, and TLS on top.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::pki_types::{IpAddr as CertifiedIp, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use url::Host;

use crate::fetch::FetchError;
use crate::fetch::policy::{Checked, Origin};
use crate::tls::{self, Authorities};

/// Before the next address is tried in parallel (RFC 8305, section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
const ADDRESSES_MAX: usize = 6;

pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Connects to the address that answers first.
pub(super) async fn connect(addresses: &[Checked]) -> Result<TcpStream, FetchError> {
    let mut untried = in_turns(addresses).into_iter().take(ADDRESSES_MAX);
    let mut attempts = FuturesUnordered::new();
    let mut failure = FetchError::Unreachable("no address".into());
    loop {
        match untried.next() {
            Some(address) => attempts.push(TcpStream::connect(address.address())),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let ended = if untried.len() > 0 {
            // When that fails or takes too long, the next address has its turn.
            let ended = tokio::time::timeout(NEXT_ADDRESS_AFTER, attempts.next()).await;
            ended.unwrap_or_default()
        } else {
            attempts.next().await
        };
        match ended {
            Some(Ok(stream)) => {
                // A request is sent in one write.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some(Err(error)) => failure = FetchError::unreachable(error),
            None => {}
        }
    }
}

/// IPv6 and IPv4 alternate, each in the order of the name servers.
fn in_turns(addresses: &[Checked]) -> Vec<Checked> {
    let of_family = |is_ipv6| {
        let is_meant = move |checked: &&Checked| checked.address().is_ipv6() == is_ipv6;
        addresses.iter().filter(is_meant).copied()
    };
    let (mut six, mut four) = (of_family(true), of_family(false));
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len() {
        ordered.extend(six.next());
        ordered.extend(four.next());
    }
    ordered
}

/// TLS to destinations. Certificates are always verified.
pub(super) struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Trusts the authorities of the system, or Mozilla's if it has none, and those of the settings.
    pub(super) fn new(more: &Authorities) -> Result<Self, String> {
        let config = tls::client_config(more)?;
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Verifies that the server is the host of the URL.
    pub(super) async fn secure(&self, stream: TcpStream, origin: &Origin) -> Result<Stream, FetchError> {
        if !origin.is_https {
            return Ok(Either::Left(stream));
        }
        let name = match &origin.host {
            Host::Domain(name) => {
                // Certificates have no trailing dot.
                let name = name.strip_suffix('.').unwrap_or(name).to_owned();
                ServerName::try_from(name).map_err(FetchError::unreachable)?
            }
            Host::Ipv4(address) => ServerName::IpAddress(CertifiedIp::from(IpAddr::from(*address))),
            Host::Ipv6(address) => ServerName::IpAddress(CertifiedIp::from(IpAddr::from(*address))),
        };
        let stream = self.0.connect(name, stream).await.map_err(FetchError::unreachable)?;
        Ok(Either::Right(stream))
    }
}
