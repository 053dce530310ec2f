//! A certificate with its key: reading the files, and judging what is in them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys, SignatureAlgorithm, SignatureScheme};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::model::Timestamp;
use crate::tls::{pem, provider};

const FULL_CHAIN: &str = "expected PEM with the certificate first and the intermediate ones after it";

/// Chains have two to four certificates of two kilobytes each. Clients take no more than 64 KB.
const CHAIN_MAX: usize = 10;
const CHAIN_MAX_BYTES: usize = 32 * 1024;

/// The files of a certificate with its chain, and of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{}: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error(
        "the key in {} is not that of the certificate in {}",
        key.display(),
        certificate.display()
    )]
    OtherKey { certificate: PathBuf, key: PathBuf },
}

/// A certificate that can be served.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// What the operator knows it by: the path of its file.
    pub source: String,
    /// In lower case; those that are addresses too.
    pub names: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub identity: Option<CertificateIdentity>,
    faults: Vec<String>,
    is_broken: bool,
}

/// What an authority knows a certificate by (RFC 9773, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateIdentity {
    pub authority_key: Vec<u8>,
    /// As encoded in the certificate.
    pub serial: Vec<u8>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, names, .. } = self;
        let mut shown = formatter.debug_struct("Certificate");
        shown
            .field("source", source)
            .field("names", names)
            .finish_non_exhaustive()
    }
}

impl Certificate {
    pub fn read(files: &PairFiles) -> Result<Self, CertificateError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|cause| CertificateError::Unreadable {
                path: path.to_owned(),
                cause,
            })
        };
        Self::from_pem(files, &read(&files.certificate)?, &read(&files.key)?)
    }

    /// From what the two files hold.
    pub fn from_pem(files: &PairFiles, chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let unusable = |path: &Path, reason: String| CertificateError::Unusable {
            path: path.to_owned(),
            reason,
        };
        let of_chain = |reason: String| unusable(&files.certificate, reason);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| of_chain(format!("{}: {FULL_CHAIN}", pem::fault(&error))))?;
        let Some(leaf) = chain.first() else {
            return Err(of_chain(format!("holds no certificate: {FULL_CHAIN}")));
        };
        let facts = Facts::of(leaf).map_err(|reason| of_chain(format!("no certificate of X.509: {reason}")))?;
        let (faults, is_broken) = faults_of_chain(&chain);
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| unusable(&files.key, without_key(key, &error).to_owned()))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => CertificateError::OtherKey {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
            },
            error => unusable(&files.key, format!("no key that can be used: {error}")),
        })?;
        Ok(Self {
            key: Arc::new(certified),
            source: files.certificate.display().to_string(),
            names: facts.names,
            not_before: facts.not_before,
            not_after: facts.not_after,
            identity: facts.identity,
            faults,
            is_broken,
        })
    }

    pub(super) const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Whether the files hold the same as before.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }

    /// Why no client can use the chain, whichever authorities it trusts.
    pub fn broken_chain(&self) -> Option<&str> {
        self.is_broken
            .then(|| self.faults.first().map(String::as_str))
            .flatten()
    }

    pub(super) fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }

    pub(super) fn can_sign_any_of(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }

    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| covers(name, host))
    }

    pub fn is_valid(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// What clients will object to, a sentence each.
    pub fn faults(&self, now: Timestamp) -> Vec<String> {
        let mut faults = self.faults.clone();
        if now > self.not_after {
            faults.insert(0, format!("expired at {}", UtcTime(self.not_after)));
        }
        if now < self.not_before {
            faults.insert(0, format!("not valid before {}", UtcTime(self.not_before)));
        }
        if self.names.is_empty() {
            faults.push("has no name: clients read the names of a certificate in subjectAltName only".to_owned());
        }
        faults
    }
}

/// A time as `YYYY-MM-DD HH:MM:SS UTC`.
pub struct UtcTime(pub Timestamp);

impl fmt::Display for UtcTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0.as_unix()) {
            Ok(time) => write!(formatter, "{}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
            Err(_) => write!(formatter, "{}", self.0),
        }
    }
}

/// Whether a name of a certificate is for a host. `*` stands for one label (RFC 9525, section 6.3).
fn covers(name: &str, host: &str) -> bool {
    // Addresses of IPv6 have brackets in URLs only.
    let host = host.trim_matches(['[', ']']);
    let host = host.strip_suffix('.').unwrap_or(host);
    match name.strip_prefix("*.") {
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(host),
    }
}

/// What a certificate says of itself.
struct Facts {
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    identity: Option<CertificateIdentity>,
}

impl Facts {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let of_extension = parsed.extensions().iter().map(|extension| extension.parsed_extension());
        let names = of_extension.filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
        let validity = parsed.validity();
        let authority_key = parsed
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
                _ => None,
            });
        Ok(Self {
            identity: authority_key.map(|key| CertificateIdentity {
                authority_key: key.0.to_vec(),
                serial: parsed.tbs_certificate.raw_serial().to_vec(),
            }),
            names: names.flatten().filter_map(name_of).collect(),
            not_before: Timestamp::from_unix(validity.not_before.timestamp()),
            not_after: Timestamp::from_unix(validity.not_after.timestamp()),
        })
    }
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => {
            let four = || <[u8; 4]>::try_from(*octets).ok().map(std::net::IpAddr::from);
            let six = || <[u8; 16]>::try_from(*octets).ok().map(std::net::IpAddr::from);
            four().or_else(six).map(|address| address.to_string())
        }
        _ => None,
    }
}

/// What is wrong with the order of a chain, or missing from it.
fn faults_of_chain(chain: &[CertificateDer<'_>]) -> (Vec<String>, bool) {
    let bytes: usize = chain.iter().map(|der| der.len()).sum();
    if chain.len() > CHAIN_MAX || bytes > CHAIN_MAX_BYTES {
        let count = chain.len();
        return (
            vec![format!(
                "the file holds {count} certificates in {bytes} bytes, which clients refuse"
            )],
            true,
        );
    }
    let parsed: Vec<_> = chain.iter().map(|der| X509Certificate::from_der(der)).collect();
    let mut faults = Vec::new();
    for (position, pair) in parsed.windows(2).enumerate() {
        let [Ok((_, one)), Ok((_, next))] = pair else {
            faults.push(format!("certificate {} of the file is none of X.509", position + 2));
            continue;
        };
        if one.issuer().as_raw() != next.subject().as_raw() {
            let (one, next) = (position + 1, position + 2);
            faults.push(format!(
                "certificate {next} of the file did not issue certificate {one}: {FULL_CHAIN}"
            ));
        }
    }
    let is_broken = !faults.is_empty();
    if let [Ok((_, only))] = parsed.as_slice()
        && only.issuer().as_raw() != only.subject().as_raw()
    {
        let issuer = only.issuer();
        faults.push(format!(
            "the file holds no intermediate certificate, and clients will refuse it unless they trust {issuer} \
            itself: use the file with the full chain (fullchain.pem of certbot)"
        ));
    }
    (faults, is_broken)
}

/// Why there is no key in a text. Never part of the text itself.
fn without_key(text: &[u8], error: &PemError) -> &'static str {
    let has = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
    if has(b"ENCRYPTED") {
        "the key is encrypted, and nobody is there to type its passphrase: expected a key without one (openssl pkey)"
    } else if matches!(error, PemError::NoItemsFound) {
        "holds no key: expected PEM, beginning with -----BEGIN PRIVATE KEY-----"
    } else {
        "not PEM: expected a key that begins with -----BEGIN PRIVATE KEY-----"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Authority, files};

    #[test]
    fn names_cover_hosts() {
        for (name, host, is_covered) in [
            ("go.example.org", "go.example.org", true),
            ("go.example.org", "GO.example.org.", true),
            ("go.example.org", "example.org", false),
            ("*.example.org", "go.example.org", true),
            ("*.example.org", "a.go.example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "example.org", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("2001:db8::7", "[2001:db8::7]", true),
        ] {
            assert_eq!(covers(name, host), is_covered, "{name} {host}");
        }
    }

    #[test]
    fn facts_are_read() {
        let (chain, key) =
            Authority::new("root").issue(&["Go.Example.org", "*.example.net", "192.0.2.7"], 1_000, 2_000);
        let certificate = Certificate::from_pem(&files(), chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(certificate.names, ["go.example.org", "*.example.net", "192.0.2.7"]);
        let at = Timestamp::from_unix;
        assert_eq!((certificate.not_before, certificate.not_after), (at(1_000), at(2_000)));
    }

    #[test]
    fn faults_are_named() {
        let (root, other) = (Authority::new("root"), Authority::new("other"));
        let (chain, key) = root.issue(&["a.example"], 1_000, 2_000);
        let leaf = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        let whole = [leaf, &root.pem()].concat();
        let wrong = [leaf, &other.pem()].concat();
        let (nameless, its_key) = root.issue(&[], 1_000, 2_000);
        for (chain, key, now, fault) in [
            (&whole, &key, 1_500, None),
            (&whole, &key, 2_001, Some("expired at 1970-01-01 00:33:20 UTC")),
            (&whole, &key, 999, Some("not valid before 1970-01-01 00:16:40 UTC")),
            (&leaf.to_owned(), &key, 1_500, Some("unless they trust CN=root itself")),
            (
                &wrong,
                &key,
                1_500,
                Some("certificate 2 of the file did not issue certificate 1"),
            ),
            (
                &[&nameless, &*root.pem()].concat(),
                &its_key,
                1_500,
                Some("has no name"),
            ),
        ] {
            let certificate = Certificate::from_pem(&files(), chain.as_bytes(), key.as_bytes()).unwrap();
            let faults = certificate.faults(Timestamp::from_unix(now));
            assert_eq!(faults.len(), usize::from(fault.is_some()), "{faults:?}");
            assert!(fault.is_none_or(|fault| faults[0].contains(fault)), "{faults:?}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_its_reason() {
        let root = Authority::new("root");
        let ((chain, key), (_, other_key)) = (root.issue(&["a"], 0, 9), root.issue(&["a"], 0, 9));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (chain, key, reason) in [
            ("", &*key, "cert.pem: holds no certificate: expected PEM with"),
            (&*key, &*key, "cert.pem: holds no certificate"),
            (broken, &*key, "cert.pem: no certificate of X.509"),
            (&*chain, "", "key.pem: holds no key: expected PEM"),
            (&*chain, &*chain, "key.pem: holds no key"),
            (&*chain, encrypted, "key.pem: the key is encrypted"),
            (
                &*chain,
                &*other_key,
                "the key in key.pem is not that of the certificate in cert.pem",
            ),
        ] {
            let error = Certificate::from_pem(&files(), chain.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(reason), "{error}");
        }
        let missing = PairFiles {
            certificate: "/nonexistent/cert.pem".into(),
            ..files()
        };
        let error = Certificate::read(&missing).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read /nonexistent/cert.pem: No such file"),
            "{error}"
        );
    }
}
