//! The section `[acme]`.

use std::net::SocketAddr;

use crate::acme::{AcmeSettings, ChallengeKind, normal_domain};
use crate::config::ConfigError;
use crate::config::keys;
use crate::config::values::{Reader, Values};
use crate::tls::TlsSettings;

const SECTION: &str = "acme";

/// Names of one certificate that Let's Encrypt issues.
const DOMAINS_MAX: usize = 100;

/// Whether tinyd orders certificates. What it orders may still be wrong.
pub fn is_on(values: &Values) -> bool {
    !values
        .list(SECTION, &keys::ACME_DOMAINS, |text| Some(text.to_owned()))
        .is_empty()
}

/// `None`: nothing is ordered.
pub fn read(
    values: &Values,
    reader: &mut Reader,
    listen: &[SocketAddr],
    tls: Option<&TlsSettings>,
) -> Result<Option<AcmeSettings>, ConfigError> {
    let authorities = reader.authorities(values, SECTION, &keys::ACME_CA_FILE)?;
    let mut domains = values.list(SECTION, &keys::ACME_DOMAINS, |text| Some(normal_domain(text)));
    let count = domains.len();
    let mut seen = std::collections::HashSet::new();
    domains.retain(|domain| seen.insert(domain.clone()));
    if domains.is_empty() {
        return Ok(None);
    }
    if count > DOMAINS_MAX {
        let reason = format!("expected at most {DOMAINS_MAX} names in a certificate");
        return Err(reader.wrong(keys::ACME_DOMAINS.path(SECTION), format!("({count} names)"), reason));
    }
    let Some(tls) = tls else {
        let reason = "a certificate needs a listener: expected public.tls.listen, such as 0.0.0.0:443";
        return Err(reader.wrong(keys::ACME_DOMAINS.path(SECTION), domains.join(" "), reason));
    };
    let challenge = match values.text(SECTION, &keys::ACME_CHALLENGE) {
        Some("tls-alpn-01") => ChallengeKind::TlsAlpn01,
        _ => ChallengeKind::Http01,
    };
    let (section, addresses) = match challenge {
        ChallengeKind::Http01 => ("public.listen", listen),
        ChallengeKind::TlsAlpn01 => ("public.tls.listen", &*tls.listen),
    };
    let (name, port) = (challenge.name(), challenge.port());
    if addresses.iter().all(|address| address.port() != port) {
        reader.warnings.push(format!(
            "acme.challenge = {name}: the authority connects to port {port}, which no address of {section} has; \
            forward it to one of them"
        ));
    }
    let text = |key| values.text(SECTION, key).map(str::to_owned);
    Ok(Some(AcmeSettings {
        domains,
        email: text(&keys::ACME_EMAIL),
        directory: text(&keys::ACME_DIRECTORY).unwrap_or_default(),
        challenge,
        profile: text(&keys::ACME_PROFILE),
        authorities,
    }))
}
