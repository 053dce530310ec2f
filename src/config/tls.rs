//! The sections `[public.tls]` and `[admin.tls]`.

use crate::config::ConfigError;
use crate::config::keys;
use crate::config::values::{FileName, Reader, Values};
use crate::tls::{MinVersion, PairFiles, TlsSettings};

/// `None`: no TLS.
pub fn read(values: &Values, reader: &mut Reader, section: &'static str) -> Result<Option<TlsSettings>, ConfigError> {
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
    if pairs.is_empty() {
        let reason = "HTTPS needs a certificate: expected [{ cert = \"fullchain.pem\", key = \"privkey.pem\" }]";
        return Err(reader.wrong(keys::CERTIFICATES.path(section), "(missing)", reason));
    }
    let path = |name| match name {
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
    for files in &certificates {
        reader.check_mode(&files.key);
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
