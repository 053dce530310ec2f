//! Certificates that prove the control of a name to an authority (tls-alpn-01, RFC 8737). Clients never get them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::{Certificates, provider};

/// The protocol (ALPN) of which a validation asks for nothing else.
pub const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

#[derive(Clone)]
pub struct Proof(Arc<CertifiedKey>);

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Proof").finish_non_exhaustive()
    }
}

impl Proof {
    /// From a certificate and its key (PKCS #8), both as DER.
    pub fn from_der(certificate: Vec<u8>, key: Vec<u8>) -> Result<Self, String> {
        let key = PrivateKeyDer::try_from(key).map_err(str::to_owned)?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| error.to_string())?;
        // Unchecked: webpki takes no certificate with the critical extension that makes it a proof.
        let certified = CertifiedKey::new(vec![CertificateDer::from(certificate)], key);
        Ok(Self(Arc::new(certified)))
    }
}

/// The proofs that are pending, by the name (SNI) that a validation asks for.
pub type Proofs = HashMap<String, Proof>;

/// Chooses between the certificates of clients and the proofs.
#[derive(Debug)]
pub struct Resolver {
    pub certificates: Arc<Certificates>,
    pub proofs: Proofs,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_validation = hello
            .alpn()
            .is_some_and(|mut protocols| protocols.next() == Some(ACME_PROTOCOL) && protocols.next().is_none());
        if !is_validation {
            return self.certificates.resolve(hello);
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        self.proofs.get(&name).map(|proof| Arc::clone(&proof.0))
    }
}
