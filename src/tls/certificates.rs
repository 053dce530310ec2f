//! The certificates of a listener, and which of them a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::model::{Clock, Timestamp};
use crate::tls::Certificate;

/// Chosen by the name that a client asks for; the first is for clients that name none of them.
#[derive(Debug, Default)]
pub struct Certificates {
    all: Vec<Arc<Certificate>>,
    /// Positions by name or, below a `*`, by the domain after it. What costs less to sign comes first.
    by_name: HashMap<String, Vec<usize>>,
    by_domain: HashMap<String, Vec<usize>>,
    default: Vec<usize>,
}

impl Certificates {
    pub fn new(all: Vec<Arc<Certificate>>) -> Self {
        let (mut by_name, mut by_domain) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut order: Vec<_> = (0..all.len()).collect();
        order.sort_by_key(|&position| all.get(position).is_some_and(|certificate| certificate.is_rsa()));
        let of = |position: usize| all.get(position).map(|certificate| certificate.names.as_slice());
        for &position in &order {
            for name in of(position).unwrap_or_default() {
                let positions = match name.strip_prefix("*.") {
                    Some(domain) => by_domain.entry(domain.to_owned()),
                    None => by_name.entry(name.clone()),
                };
                positions.or_default().push(position);
            }
        }
        // One of the same names for clients that cannot verify the first.
        let is_like_first = |position: &usize| of(*position) == of(0);
        Self {
            default: order.into_iter().filter(is_like_first).collect(),
            all,
            by_name,
            by_domain,
        }
    }

    pub fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }

    pub fn covers(&self, host: &str) -> bool {
        self.all.iter().any(|certificate| certificate.covers(host))
    }

    /// Whether one of them is for a host, and valid.
    pub fn is_any_valid(&self, host: &str, now: Timestamp) -> bool {
        let mut all = self.all.iter();
        all.any(|certificate| certificate.covers(host) && certificate.is_valid(now))
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme], now: Timestamp) -> Option<&Arc<Certificate>> {
        let named = name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        let of_domain = |name: &str| self.by_domain.get(name.split_once('.')?.1);
        let positions = named.and_then(|name| self.by_name.get(&name).or_else(|| of_domain(&name)));
        let candidates = || {
            let positions = positions.unwrap_or(&self.default).iter();
            positions.filter_map(|&position| self.all.get(position))
        };
        // Of a client of TLS 1.2, rustls leaves only schemes that its cipher suites have.
        let fits = |certificate: &&Arc<Certificate>| certificate.can_sign_any_of(schemes);
        // An expired one must not hide one that was ordered since.
        let valid = candidates().filter(|certificate| certificate.is_valid(now)).find(fits);
        // Where none fits, the client says best why.
        valid
            .or_else(|| candidates().find(fits))
            .or_else(|| candidates().next())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(hello.server_name(), hello.signature_schemes(), Clock::system().now());
        chosen.map(|certificate| Arc::clone(certificate.certified()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Authority, files};

    const NOW: Timestamp = Timestamp::from_unix(5);
    const BOTH: [SignatureScheme; 2] = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];

    fn certificates(of: &[(&str, bool)]) -> Certificates {
        let root = Authority::new("root");
        let certificates = of.iter().map(|(name, is_rsa)| {
            let algorithm = if *is_rsa {
                &rcgen::PKCS_RSA_SHA256
            } else {
                &rcgen::PKCS_ECDSA_P256_SHA256
            };
            let (chain, key) = root.issue_for(algorithm, &[name], 0, 9);
            Arc::new(Certificate::from_pem(&files(), chain.as_bytes(), key.as_bytes()).unwrap())
        });
        Certificates::new(certificates.collect())
    }

    #[test]
    fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
        let certificates = certificates(&[
            ("first.example", false),
            ("second.example", false),
            ("*.second.example", false),
        ]);
        for (name, chosen) in [
            (None, "first.example"),
            (Some("unknown.example"), "first.example"),
            (Some("second.example"), "second.example"),
            (Some("SECOND.example."), "second.example"),
            (Some("a.second.example"), "*.second.example"),
            (Some("a.a.second.example"), "first.example"),
        ] {
            let certificate = certificates.choose(name, &BOTH, NOW).unwrap();
            assert_eq!(certificate.names, [chosen], "{name:?}");
        }
        assert!(certificates.covers("b.second.example") && !certificates.covers("third.example"));
        let is_valid = |second| certificates.is_any_valid("first.example", Timestamp::from_unix(second));
        assert!(is_valid(0) && is_valid(9) && !is_valid(10) && !is_valid(-1));
        assert!(!certificates.is_any_valid("third.example", Timestamp::from_unix(0)));
        assert!(Certificates::default().choose(None, &BOTH, NOW).is_none());
    }

    #[test]
    fn of_two_for_a_name_a_client_gets_the_one_that_it_can_verify() {
        let certificates = certificates(&[("a.example", true), ("a.example", false), ("b.example", false)]);
        let rsa = [SignatureScheme::RSA_PSS_SHA256];
        for name in [Some("a.example"), None] {
            let is_rsa = |schemes: &[_]| certificates.choose(name, schemes, NOW).unwrap().is_rsa();
            assert!(!is_rsa(&BOTH));
            assert!(is_rsa(&rsa));
        }
        let only = certificates.choose(Some("b.example"), &rsa, NOW).unwrap();
        assert_eq!(only.names, ["b.example"]);
    }

    #[test]
    fn expired_certificate_hides_no_valid_one() {
        let root = Authority::new("root");
        let make = |until| {
            let (chain, key) = root.issue(&["a.example"], 0, until);
            Arc::new(Certificate::from_pem(&files(), chain.as_bytes(), key.as_bytes()).unwrap())
        };
        let certificates = Certificates::new(vec![make(9), make(99)]);
        for name in [Some("a.example"), None] {
            let until = |second| {
                let chosen = certificates.choose(name, &BOTH, Timestamp::from_unix(second)).unwrap();
                chosen.not_after.as_unix()
            };
            assert_eq!([5, 50, 500].map(until), [9, 99, 9]);
        }
    }
}
