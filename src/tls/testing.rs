//! Certificates for tests.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm};

use crate::tls::PairFiles;

/// The names of files in errors; nothing is read there.
pub fn files() -> PairFiles {
    PairFiles {
        certificate: "cert.pem".into(),
        key: "key.pem".into(),
    }
}

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(&[], name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with its issuer, and its key, as PEM. Valid between the two, in seconds since 1970.
    pub fn issue(&self, names: &[&str], from: i64, until: i64) -> (String, String) {
        self.issue_for(&rcgen::PKCS_ECDSA_P256_SHA256, names, from, until)
    }

    pub fn issue_for(
        &self,
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
        from: i64,
        until: i64,
    ) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = params(names, "leaf");
        let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds);
        params.not_before = at(u64::try_from(from).unwrap());
        params.not_after = at(u64::try_from(until).unwrap());
        let leaf = params.signed_by(&key, &self.0).unwrap();
        (leaf.pem() + &self.pem(), key.serialize_pem())
    }
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}
