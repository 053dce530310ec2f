//! An appliance with TLS, and clients of it.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::certificates::Authority;
use super::fixture::{Appliance, configuration, folder};
use super::http::{Answer, connect, request_over};

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
        let mut roots = RootCertStore::empty();
        let pem = fs::read(authority.file()).unwrap();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
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

    /// Connects; the handshake comes with the first bytes that are sent or read.
    pub fn connect(&self, address: &str) -> Secured {
        let name = self.name.clone().try_into().unwrap();
        let session = ClientConnection::new(Arc::new(self.config.clone()), name).unwrap();
        StreamOwned::new(session, connect(address))
    }

    /// Sends a request on a connection of its own.
    pub fn get(&self, address: &str, target: &str) -> Answer {
        request_over(self.connect(address), NAME, "GET", target, &[], b"")
    }
}
