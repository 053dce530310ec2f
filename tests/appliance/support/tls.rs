//! An appliance with TLS, and clients of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::certificates::Authority;
use super::fixture::{Appliance, configuration, folder};
use super::http::{Answer, connect, request_over};
use super::wire::Connection;

pub const NAME: &str = "go.example.org";

/// Settings of TLS on both listeners, with `cert.pem` and `key.pem` beside the configuration, and more of
/// `[public.tls]`.
pub fn settings(more: &str) -> String {
    let listen = "listen = \"127.0.0.1:0\"\ncertificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]\n";
    format!("[public.tls]\n{listen}{more}\n[admin.tls]\n{listen}")
}

/// Writes a certificate with its key.
pub fn write_pair(folder: &Path, (chain, key): &(String, String)) {
    fs::write(folder.join("cert.pem"), chain).unwrap();
    fs::write(folder.join("key.pem"), key).unwrap();
}

/// An appliance with a certificate for [`NAME`], and more settings.
pub fn start_with(authority: &Authority, settings: &str) -> Appliance {
    let folder = folder(&configuration(settings));
    write_pair(folder.path(), &authority.issue(&[NAME], |_| {}));
    Appliance::start_in(folder)
}

pub type Secured = StreamOwned<ClientConnection, TcpStream>;

/// A client, which resumes its sessions.
#[derive(Clone)]
pub struct Client {
    pub config: ClientConfig,
    pub name: String,
}

impl Client {
    /// Trusts the authority, and asks for [`NAME`].
    pub fn new(authority: &Authority) -> Self {
        Self::with_versions(authority, rustls::ALL_VERSIONS)
    }

    pub fn with_versions(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Self::with_provider(authority, provider, versions)
    }

    pub fn with_provider(
        authority: &Authority,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = fs::read(authority.file()).unwrap();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            config,
            name: NAME.to_owned(),
        }
    }

    /// The client's end of TLS, before the handshake.
    pub fn session(&self) -> ClientConnection {
        let name = self.name.clone().try_into().unwrap();
        ClientConnection::new(Arc::new(self.config.clone()), name).unwrap()
    }

    /// Connects; the handshake comes with the first bytes that are sent or read.
    pub fn connect(&self, address: &str) -> Secured {
        StreamOwned::new(self.session(), connect(address))
    }

    /// A connection for several requests.
    pub fn open(&self, address: &str) -> Connection<Secured> {
        Connection {
            stream: self.connect(address),
        }
    }

    /// Whether a request is answered; if not, the server must have refused the handshake.
    pub fn is_served(&self, address: &str, target: &str) -> bool {
        let mut stream = self.connect(address);
        // With TLS 1.3, a client may send a request before it is refused.
        let _ = stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        match stream.read(&mut [0; 4096]) {
            Ok(length) => length > 0,
            Err(error) => {
                assert!(error.to_string().contains("alert"), "{error}");
                false
            }
        }
    }

    /// Sends a request on a connection of its own.
    pub fn get(&self, address: &str, target: &str) -> Answer {
        request_over(self.connect(address), NAME, "GET", target, &[], b"")
    }
}

impl Connection<Secured> {
    /// Waits for the end of the connection, which the server must announce; fails if more bytes arrive.
    pub fn assert_says_goodbye(&mut self) {
        let mut rest = Vec::new();
        // Without close_notify, rustls reports an unexpected end.
        self.stream.read_to_end(&mut rest).expect("close_notify");
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
}

/// The first bytes of a client.
pub fn hello(client: &Client) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.session().write_tls(&mut bytes).unwrap();
    bytes
}

/// The certificate that a client gets on a new connection, which it must trust.
pub fn served_certificate(client: &Client, address: &str) -> CertificateDer<'static> {
    let mut client = client.clone();
    // A resumed session has the certificate of the first.
    client.config.resumption = Resumption::disabled();
    let mut connection = client.connect(address);
    connection.conn.complete_io(&mut connection.sock).unwrap();
    connection.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

/// The first certificate of a chain.
pub fn leaf((chain, _): &(String, String)) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()
}
