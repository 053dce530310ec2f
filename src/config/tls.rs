//! The sections `[public.tls]` and `[admin.tls]`.

use std::fs;

use crate::config::ConfigError;
use crate::config::keys::{self, Key};
use crate::config::values::{FileName, Reader, Values};
use crate::tls::{Authorities, MinVersion, PairFiles, TlsSettings};

impl Reader {
    /// The authorities in a file, if one is named.
    pub fn authorities(&self, values: &Values, section: &'static str, key: &Key) -> Result<Authorities, ConfigError> {
        let action = match section {
            "acme" => "cannot read the certificates of acme.ca_file",
            "console.oidc" => "cannot read the certificates of console.oidc.ca_file",
            "cluster" => "cannot read the certificates of cluster.ca_file",
            _ => "cannot read the certificates of fetch.ca_file",
        };
        let Some(path) = values.path(section, key, self) else {
            return Ok(Authorities::default());
        };
        let pem = fs::read(&path).map_err(|cause| ConfigError::File { path, action, cause })?;
        let shown = format!("{:?}", values.text(section, key).unwrap_or_default());
        Authorities::from_pem(&pem).map_err(|reason| self.wrong(key.path(section), shown, reason))
    }
}

/// `None`: no TLS. `is_issued`: tinyd orders a certificate, so that there need not be files.
pub fn read(
    values: &Values,
    reader: &mut Reader,
    section: &'static str,
    is_issued: bool,
) -> Result<Option<TlsSettings>, ConfigError> {
    let listen = values.list(section, &keys::TLS_LISTEN, |text| text.parse().ok());
    let pairs = values.pairs(section, &keys::CERTIFICATES);
    if listen.is_empty() {
        if !pairs.is_empty() {
            let reason = "expected the addresses that serve HTTPS, such as 0.0.0.0:443";
            return Err(reader.wrong(keys::TLS_LISTEN.path(section), "(missing)", reason));
        }
        if let Some(path) = values.path(section, &keys::CLIENT_CA, reader) {
            let reason = "without listen there is no HTTPS, and clients need no certificate";
            return Err(reader.wrong(keys::CLIENT_CA.path(section), path.display(), reason));
        }
        return Ok(None);
    }
    if pairs.is_empty() && !is_issued {
        let reason = "HTTPS needs a certificate: expected [{ cert = \"fullchain.pem\", key = \"privkey.pem\" }], or \
                      acme.domains for public.tls";
        return Err(reader.wrong(keys::CERTIFICATES.path(section), "(missing)", reason));
    }
    let mut path = |name| match name {
        FileName::Path(text) => Ok(reader.path(text)),
        FileName::Credential(name) => reader.credential(keys::CERTIFICATES.path(section), name),
    };
    let files = pairs.into_iter().map(|[certificate, key]| {
        Ok(PairFiles {
            certificate: path(certificate)?,
            key: path(key)?,
        })
    });
    let certificates = files.collect::<Result<Vec<_>, ConfigError>>()?;
    for (position, files) in certificates.iter().enumerate() {
        reader.check_mode(&files.key);
        let earlier = certificates.get(..position).unwrap_or_default();
        if earlier.iter().any(|other| other.certificate == files.certificate) {
            let file = format!("{:?}", files.certificate.display().to_string());
            return Err(reader.wrong(keys::CERTIFICATES.path(section), file, "named twice"));
        }
    }
    Ok(Some(TlsSettings {
        listen,
        certificates,
        min_version: match values.text(section, &keys::MIN_VERSION) {
            Some("1.3") => MinVersion::Tls13,
            _ => MinVersion::Tls12,
        },
        handshake_timeout: values.seconds(section, &keys::HANDSHAKE_TIMEOUT),
        hsts_seconds: values.number(section, &keys::HSTS),
        client_ca: values.path(section, &keys::CLIENT_CA, reader),
    }))
}
