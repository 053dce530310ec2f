//! A TLS 1.3 client: one connection, one HTTP/1.1 request at a time.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::rig::http::{self, Answer};
use crate::rig::tls::certificate::Certificate;

/// How many tickets a client keeps of a server.
const TICKETS: usize = 8;

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// What connections have in common: the offer, and the tickets of those before.
#[derive(Debug)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Connection {
    http: http::Connection<Stream>,
}

impl Client {
    /// A client that makes a full handshake for each connection.
    pub(crate) fn new(certificate: &Certificate) -> Result<Self> {
        Self::with(certificate, Resumption::disabled())
    }

    /// A client that resumes by the ticket of the connection before.
    pub(crate) fn resuming(certificate: &Certificate) -> Result<Self> {
        Self::with(certificate, Resumption::in_memory_sessions(TICKETS))
    }

    fn with(certificate: &Certificate, resumption: Resumption) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der.clone())?;
        // The same offer as those of wrk and h2load.
        let provider = CryptoProvider {
            cipher_suites: vec![TLS13_AES_256_GCM_SHA384],
            kx_groups: vec![kx_group::X25519],
            ..default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = resumption;
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::try_from("localhost")?,
        })
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> Result<Connection> {
        let http = http::Connection::over(self.handshake(address, self.config.clone())?);
        Ok(Connection { http })
    }

    fn handshake(&self, address: SocketAddr, config: Arc<ClientConfig>) -> Result<Stream> {
        let mut stream = http::connect(address)?;
        let mut session = ClientConnection::new(config, self.name.clone())?;
        while session.is_handshaking() {
            session.complete_io(&mut stream).context("handshake")?;
        }
        Ok(StreamOwned::new(session, stream))
    }

    pub(crate) fn can_use_http2(&self, address: SocketAddr) -> Result<bool> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = self.handshake(address, Arc::new(config))?;
        Ok(stream.conn.alpn_protocol() == Some(b"h2"))
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, address: SocketAddr, target: &str) -> Result<Answer> {
        let (_, answer) = self.get_and_close(address, target)?;
        Ok(answer)
    }

    /// The same, and whether the handshake was full or resumed. The server closes first.
    pub(crate) fn get_and_close(&self, address: SocketAddr, target: &str) -> Result<(HandshakeKind, Answer)> {
        let mut connection = self.connect(address)?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = connection.http.exchange(request.as_bytes())?;
        let stream = connection.http.stream();
        let kind = stream.conn.handshake_kind().context("a handshake that is not done")?;
        match stream.read(&mut [0]) {
            Ok(0) => Ok((kind, answer)),
            // Some servers close TCP only.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok((kind, answer)),
            Ok(_) => bail!("the server sent more than an answer"),
            Err(error) => Err(error).context("waiting for the server to close"),
        }
    }
}

impl Connection {
    pub(crate) fn get(&mut self, target: &str) -> Result<Answer> {
        self.http.get(target)
    }
}
