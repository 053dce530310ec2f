//! A certificate authority for tests, with valid and invalid certificates.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// An authority whose certificate is in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate with its chain, and its key, as PEM.
    pub fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        self.issue_by(&rcgen::PKCS_ECDSA_P256_SHA256, names, change)
    }

    /// The same with another kind of key.
    pub fn issue_by(
        &self,
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = params(names);
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = certificate.pem() + &std::fs::read_to_string(self.file()).unwrap();
        (chain, key.serialize_pem())
    }

    /// A certificate for a key, with its chain, as PEM.
    pub fn sign(&self, params: CertificateParams, key: &impl PublicKeyData) -> String {
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        certificate.pem() + &std::fs::read_to_string(self.file()).unwrap()
    }

    /// The configuration line that trusts it.
    pub fn setting(&self) -> String {
        format!("ca_file = {:?}\n", self.file())
    }

    /// The TLS settings of a server with a certificate for these names.
    pub fn certify(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.certify_as(names, |_| {})
    }

    /// The same, with a change before signing.
    pub fn certify_as(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let mut params = params(names);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        config(certificate.der().clone(), &key)
    }

    /// An expired certificate.
    pub fn certify_until_2020(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.certify_as(names, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    /// A certificate that is not valid yet.
    pub fn certify_from_3000(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.certify_as(names, |params| {
            params.not_before = date_time_ymd(3000, 1, 1);
            params.not_after = date_time_ymd(3001, 1, 1);
        })
    }
}

/// The TLS settings of a server with a self-signed certificate.
pub fn self_signed(names: &[&str]) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = params(names).self_signed(&key).unwrap();
    config(certificate.der().clone(), &key)
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn config(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}
