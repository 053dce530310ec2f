//! What the operator says about certificates that tinyd orders.

use std::net::IpAddr;

use url::Url;

use crate::tls::Authorities;

/// The directory of Let's Encrypt, which is the default.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

const NAME_MAX_BYTES: usize = 253;
const LABEL_MAX_BYTES: usize = 63;
const PROFILE_MAX_BYTES: usize = 64;

/// How the authority verifies that a name leads to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeKind {
    /// A file by plain HTTP, port 80.
    Http01,
    /// A TLS handshake, port 443.
    TlsAlpn01,
}

impl ChallengeKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }

    /// Where the authority connects to.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http01 => 80,
            Self::TlsAlpn01 => 443,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// Names in lower case and addresses, for one certificate.
    pub domains: Vec<String>,
    pub email: Option<String>,
    pub directory: String,
    pub challenge: ChallengeKind,
    pub profile: Option<String>,
    /// Trusted for connections to the directory, beside the authorities of the system.
    pub authorities: Authorities,
}

/// The form in which names are compared: lower case, addresses in their shortest form.
pub fn normal_domain(text: &str) -> String {
    let address: Option<IpAddr> = text.parse().ok();
    address.map_or_else(|| text.to_ascii_lowercase(), |address| address.to_string())
}

pub fn check_domain(text: &str) -> Result<(), String> {
    const FORM: &str = "expected a name such as go.example.com, or an IP address";
    if text.starts_with("*.") {
        return Err(
            "neither http-01 nor tls-alpn-01 proves control of a wildcard: name each host, or use a certificate file \
            from a client that speaks dns-01"
                .to_owned(),
        );
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if !text.is_ascii() {
        return Err("expected the name in its ASCII form, such as xn--bcher-kva.example".to_owned());
    }
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| {
        let ends = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && label.len() <= LABEL_MAX_BYTES && !ends && label.bytes().all(is_inner)
    };
    // A last label of digits is that of an IPv4 address that is none.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = text.len() <= NAME_MAX_BYTES && text.split('.').all(is_label);
    let is_name = is_name && !text.rsplit('.').next().is_some_and(is_number);
    is_name.then_some(()).ok_or_else(|| FORM.to_owned())
}

pub fn check_directory(text: &str) -> Result<(), String> {
    let url = Url::parse(text).ok();
    let is_directory = |url: &Url| url.scheme() == "https" && url.has_host() && url.username().is_empty();
    // The client of ACME reads it as the URI of a request, which has no user and nothing but ASCII.
    let authority = text
        .parse::<hyper::Uri>()
        .ok()
        .and_then(|uri| uri.into_parts().authority);
    let is_uri = authority.is_some_and(|authority| !authority.as_str().contains('@'));
    let is_directory = is_uri && url.is_some_and(|url| is_directory(&url)) && text.starts_with("https://");
    is_directory
        .then_some(())
        .ok_or_else(|| format!("expected the https URL of an ACME directory, such as {DIRECTORY}"))
}

pub fn check_email(text: &str) -> Result<(), String> {
    // A comma or a question mark would begin something else in a mailto URL.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b",?&%\"<>".contains(&byte);
    let parts = text.split_once('@');
    let is_address = parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    let is_address = is_address && text.bytes().all(is_plain);
    let reason = || "expected one mail address, such as admin@example.com".to_owned();
    is_address.then_some(()).ok_or_else(reason)
}

pub fn check_profile(text: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=PROFILE_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_plain);
    let reason = || "expected the name of a profile of the authority, such as shortlived".to_owned();
    is_name.then_some(()).ok_or_else(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_that_cannot_be_proved_are_refused() {
        for right in [
            "go.example.com",
            "GO.example.com",
            "localhost",
            "192.0.2.7",
            "2001:db8::1",
            "xn--a.example",
        ] {
            assert_eq!(check_domain(right), Ok(()), "{right}");
        }
        for (wrong, reason) in [
            ("*.example.com", "wildcard"),
            ("", "expected a name"),
            ("-a.example", "expected a name"),
            ("a..example", "expected a name"),
            ("a.example.", "expected a name"),
            ("https://a.example", "expected a name"),
            ("a.example:443", "expected a name"),
            ("192.0.2.700", "expected a name"),
            ("[2001:db8::1]", "expected a name"),
            ("bücher.example", "ASCII form"),
        ] {
            let refused = check_domain(wrong).unwrap_err();
            assert!(refused.contains(reason), "{wrong}: {refused}");
        }
    }

    #[test]
    fn other_settings_are_checked() {
        assert!(check_directory(DIRECTORY).is_ok());
        assert!(check_directory("https://127.0.0.1:14000/dir").is_ok());
        for wrong in ["http://ca.example/dir", "ca.example", "https://", "ftp://ca.example"] {
            assert!(
                check_directory(wrong).unwrap_err().contains("expected the https URL"),
                "{wrong}"
            );
        }
        assert!(check_email("admin@example.com").is_ok());
        for wrong in ["admin", "@example.com", "a@b@c", "a@b,c@d", "a b@c", "a@b?cc=d"] {
            assert!(check_email(wrong).is_err(), "{wrong}");
        }
        assert!(check_profile("shortlived").is_ok());
        assert!(check_profile("").is_err() && check_profile("a b").is_err());
    }

    #[test]
    fn names_are_compared_in_their_normal_form() {
        assert_eq!(normal_domain("GO.Example.com"), "go.example.com");
        assert_eq!(normal_domain("2001:DB8:0::1"), "2001:db8::1");
    }
}
