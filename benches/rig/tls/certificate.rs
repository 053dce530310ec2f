//! The certificate that all servers have: self-signed, ECDSA P-256.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;

/// The names it is for. Load generators send no name with an address.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A certificate and its key, in files.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy reads them.
    pub(crate) both: PathBuf,
    pub(crate) der: CertificateDer<'static>,
}

impl Certificate {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate().context("making a key")?;
        let params = CertificateParams::new(NAMES.map(str::to_owned))?;
        let certificate = params.self_signed(&key).context("signing a certificate")?;
        let (cert_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let written = |name: &str, text: &str| -> Result<PathBuf> {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            Ok(file)
        };
        Ok(Self {
            cert: written("cert.pem", &cert_pem)?,
            key: written("key.pem", &key_pem)?,
            both: written("cert-and-key.pem", &format!("{cert_pem}{key_pem}"))?,
            der: certificate.der().clone(),
        })
    }
}
