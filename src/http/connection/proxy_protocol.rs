//! The header of the PROXY protocol, versions 1 and 2, by which a proxy says for whom a connection is.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::http::Peer;
use crate::http::connection::deadlines::drained;
use crate::http::connection::guard::{Handover, linger};
use crate::http::connection::listener::Scheme;
use crate::http::connection::set::{ConnectionContext, full_for_address};
use crate::metrics::Refusal;

/// Version 2 has a length field; usual headers have some hundred bytes.
const HEADER_MAX_BYTES: usize = 4 * 1024;

const V1_PREFIX: &[u8] = b"PROXY ";
const V1_MAX_BYTES: usize = 107;

#[derive(Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// `None`: a connection of the proxy itself, such as a health check.
    pub client: Option<IpAddr>,
    /// Received after the header.
    pub rest: Vec<u8>,
}

/// Reads the header of a trusted proxy, makes the client that it names the peer, and counts the connection for it.
pub async fn introduce(
    connection: &mut Handover<impl AsyncRead + AsyncWrite + Unpin>,
    scheme: Scheme,
    context: &ConnectionContext,
) -> io::Result<()> {
    let Handover {
        stream,
        unread,
        peer,
        slot,
        ..
    } = connection;
    let limits = &context.policy.limits;
    let header = tokio::select! {
        header = read(stream, limits.head_timeout) => header,
        () = drained(context.stopped.clone()) => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let header = header.inspect_err(|_| context.counts.refused(Refusal::ProxyHeader))?;
    if let Some(client) = header.client {
        *peer = Peer::new(client, &context.policy.proxies);
        if !peer.is_proxy() && !slot.belong_to(client, limits) {
            // Closed without a response, tinyd would look broken to the proxy. Before a handshake, there is nothing
            // that a client would understand.
            if scheme == Scheme::Http {
                stream.write_all(&full_for_address(context.clock.now())).await?;
                linger(stream).await?;
            }
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
    }
    *unread = header.rest;
    Ok(())
}

/// Reads the header at the start of a connection. [`io::ErrorKind::InvalidData`]: none; [`io::ErrorKind::TimedOut`]:
/// too slow.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), timeout: Duration) -> io::Result<ProxyHeader> {
    tokio::time::timeout(timeout, async {
        let mut received = Vec::new();
        loop {
            if let Some((client, length)) = parse(&received)? {
                let rest = received.split_off(length.min(received.len()));
                return Ok(ProxyHeader { client, rest });
            }
            if received.len() > HEADER_MAX_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    })
    .await?
}

/// The client and the length of a header; `None` while it is partial.
fn parse(received: &[u8]) -> io::Result<Option<(Option<IpAddr>, usize)>> {
    // ppp may call a partial line invalid.
    if received.starts_with(V1_PREFIX) {
        let line = received.get(..V1_MAX_BYTES).unwrap_or(received);
        if !line.windows(2).any(|two| two == b"\r\n") {
            return if received.len() < V1_MAX_BYTES {
                Ok(None)
            } else {
                Err(io::ErrorKind::InvalidData.into())
            };
        }
    }
    let header = HeaderResult::parse(received);
    if header.is_incomplete() {
        return Ok(None);
    }
    let (client, length): (Option<IpAddr>, _) = match header {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
                v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
                v1::Addresses::Unknown => None,
            };
            (client, header.header.len())
        }
        HeaderResult::V2(Ok(header)) => {
            let client = match header.addresses {
                v2::Addresses::IPv4(addresses) => Some(addresses.source_address.into()),
                v2::Addresses::IPv6(addresses) => Some(addresses.source_address.into()),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            };
            (client.filter(|_| header.command == v2::Command::Proxy), header.len())
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(Some((client.map(|client| client.to_canonical()), length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> io::Result<ProxyHeader> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let mut stream = bytes;
        let mut header = runtime.block_on(read(&mut stream, Duration::from_secs(60)))?;
        // What has not been received yet comes after what has.
        header.rest.extend_from_slice(stream);
        Ok(header)
    }

    /// A header of version 2: command (0 LOCAL, 1 PROXY), family and protocol, addresses and what follows them.
    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    #[test]
    fn both_versions_name_the_client() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let v6 = [[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]; 2].concat();
        let with_tlv = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
        for (header, client) in [
            (
                b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n".to_vec(),
                Some("203.0.113.7"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n".to_vec(),
                Some("2001:db8::7"),
            ),
            (
                b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 80\r\n".to_vec(),
                Some("203.0.113.7"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (version_2(1, 0x11, &v4), Some("203.0.113.7")),
            (version_2(1, 0x11, &with_tlv), Some("203.0.113.7")),
            (
                version_2(1, 0x21, &[&v6[..], &[0x12, 0x34, 0, 80]].concat()),
                Some("2001:db8::7"),
            ),
            (version_2(0, 0x00, &[]), None),
            (version_2(0, 0x11, &v4), None),
        ] {
            let expected = ProxyHeader {
                client: client.map(|client| client.parse().unwrap()),
                rest: b"GET / HTTP/1.1\r\n".to_vec(),
            };
            let bytes = [&header[..], &expected.rest].concat();
            assert_eq!(read_all(&bytes).unwrap(), expected, "{}", header.escape_ascii());
            for end in 0..header.len() {
                let kind = read_all(&header[..end]).unwrap_err().kind();
                assert_eq!(kind, io::ErrorKind::UnexpectedEof, "{}", header[..end].escape_ascii());
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 10.0.0.1 4711 80\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 99999 80\r\n".to_vec(),
            [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
            version_2(1, 0x11, &[1, 2, 3]),
            version_2(2, 0x11, &[0; 12]),
        ] {
            let kind = read_all(&bytes).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::InvalidData, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn reading_a_header_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300), is_v2 in any::<bool>()) {
            let start: &[u8] = if is_v2 { b"\r\n\r\n\0\r\nQUIT\n" } else { b"PROXY " };
            let _ = read_all(&[start, &bytes].concat());
            let _ = read_all(&bytes);
        }
    }

    #[test]
    fn a_header_in_pieces_takes_work_in_proportion() {
        let make = |size| [b"PROXY TCP4 ".to_vec(), version_2(1, 0x11, &vec![0; size])];
        assert_is_linear(500, make, |headers| {
            for header in headers {
                for end in 0..header.len() {
                    let _ = parse(&header[..end]);
                }
            }
        });
    }
}
