//! What tests of ACME see: the certificate that is served, and the one that is stored.

use std::fs;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use rcgen::CertificateParams;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificates::Authority;
use super::http::connect;

/// Accepts every certificate, which the test looks at itself.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The certificate (DER) that a handshake for this name gets, and the protocol that was agreed.
fn shake(address: &str, name: &str, protocols: &[&[u8]]) -> io::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = connect(address);
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    let leaf = session.peer_certificates().unwrap()[0].to_vec();
    let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
    if protocol.as_deref() == Some(b"acme-tls/1") {
        // The server says no more.
        let mut stream = StreamOwned::new(session, stream);
        assert_eq!(stream.read_to_end(&mut Vec::new())?, 0);
    }
    Ok((leaf, protocol))
}

pub fn handshake(address: &str, name: &str) -> io::Result<Vec<u8>> {
    shake(address, name, &[b"http/1.1"]).map(|(leaf, _)| leaf)
}

/// The certificate (DER) that clients get for a name.
#[track_caller]
pub fn served(address: &str, name: &str) -> Vec<u8> {
    handshake(address, name).unwrap()
}

/// The same for a validation by tls-alpn-01.
pub fn proof(address: &str, name: &str) -> io::Result<Vec<u8>> {
    let (leaf, protocol) = shake(address, name, &[b"acme-tls/1"])?;
    assert_eq!(protocol.as_deref(), Some(&b"acme-tls/1"[..]));
    Ok(leaf)
}

pub fn names(leaf: &[u8]) -> Vec<String> {
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    names.value.general_names.iter().map(|name| name.to_string()).collect()
}

/// Puts a certificate of an unknown issuer, valid from and until so many days from now, into the data folder of an
/// appliance that is not running. Returns the certificate (DER).
pub fn store(folder: &TempDir, directory: &str, name: &str, from_days: i64, until_days: i64) -> Vec<u8> {
    let folder = folder.path().join("data/acme");
    fs::create_dir_all(&folder).unwrap();
    let days = |days: i64| {
        let moved = jiff::Timestamp::now().as_second() + days * 86_400;
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(moved).unwrap())
    };
    let (chain, key) = Authority::new().issue(&[name], |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (days(from_days), days(until_days));
        params.use_authority_key_identifier_extension = true;
    });
    let text = format!("directory: {directory}\nprofile: \n{key}{chain}");
    fs::write(folder.join("certificate.pem"), text).unwrap();
    CertificateDer::from_pem_slice(chain.as_bytes()).unwrap().to_vec()
}
