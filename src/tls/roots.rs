//! Certificate authorities that are trusted.

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::tls::{pem, provider};

/// Authorities that the operator names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|error| pem::fault(&error).to_owned())?;
        if certificates.is_empty() {
            return Err("holds no certificate; expected PEM, beginning with -----BEGIN CERTIFICATE-----".to_owned());
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
        Ok(Self(certificates))
    }

    /// These beside the authorities of the system.
    pub fn certificates_with_those_of_system(&self) -> Vec<CertificateDer<'static>> {
        let of_machine = rustls_native_certs::load_native_certs();
        of_machine.certs.into_iter().chain(self.0.iter().cloned()).collect()
    }

    /// These beside the authorities of the system, or beside Mozilla's if it has none.
    pub fn with_those_of_system(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let of_machine = rustls_native_certs::load_native_certs();
        for error in of_machine.errors {
            tracing::warn!(%error, "cannot read a CA certificate of this system");
        }
        let (count, _) = roots.add_parsable_certificates(of_machine.certs);
        if count == 0 {
            tracing::info!("no system CA certificates found; using Mozilla's bundled roots");
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        // Checked when they were read.
        roots.add_parsable_certificates(self.0.iter().cloned());
        roots
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.iter()
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// How tinyd connects to others by HTTP/1.1. It trusts these authorities beside those of the system, and verifies at
/// each connection, which a resumed session would not.
pub fn client_config(authorities: &Authorities) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(authorities.with_those_of_system());
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Why a client has no secure connection, if that is what an error is about: nothing has been sent then.
pub fn failure(error: &std::io::Error) -> Option<String> {
    use rustls::AlertDescription as Alert;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let is_of_handshake = match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::PeerIncompatible(_) => true,
        rustls::Error::AlertReceived(alert) => matches!(
            alert,
            Alert::AccessDenied
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRequired
                | Alert::CertificateUnknown
                | Alert::HandshakeFailure
                | Alert::ProtocolVersion
                | Alert::UnknownCA
                | Alert::UnsupportedCertificate
        ),
        // Later, what was asked for may have been done.
        _ => false,
    };
    is_of_handshake.then(|| match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "its certificate is of an authority that is not trusted here".to_owned()
        }
        error => error.to_string(),
    })
}
