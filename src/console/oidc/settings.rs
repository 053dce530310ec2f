//! The settings of `[console.oidc]`.

use openidconnect::IssuerUrl;
use url::{Host, Url};

use crate::model::PartnerId;
use crate::tls::Authorities;

/// Of a claim, a scope, or the id of a client.
const NAME_MAX_BYTES: usize = 255;

/// Below the base of the console.
pub const CALLBACK_PATH: &str = "sign-in/callback";
pub const START_PATH: &str = "sign-in/oidc";

/// The secret of the client, which nothing shows.
#[derive(Clone, PartialEq, Eq)]
pub struct OidcSecret(String);

impl OidcSecret {
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for OidcSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OidcSecret(…)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcSettings {
    pub issuer: String,
    pub client_id: String,
    /// `None`: a public client.
    pub secret: Option<OidcSecret>,
    /// What identifies somebody.
    pub user_claim: String,
    pub groups_claim: String,
    pub admin_groups: Vec<String>,
    /// Who may sign in; empty: all accounts of the provider.
    pub user_groups: Vec<String>,
    /// Beside `openid`.
    pub scopes: Vec<String>,
    pub partner: PartnerId,
    pub authorities: Authorities,
    /// The base of the console, to which the provider sends people back.
    pub console: Url,
}

impl OidcSettings {
    /// Whether the provider is on this machine and speaks plain HTTP.
    pub(super) fn is_plain(&self) -> bool {
        self.issuer.starts_with("http:")
    }

    /// A page of the console, as browsers open it.
    pub(super) fn url_of(&self, below: &str) -> String {
        format!("{}/{below}", self.console.as_str().trim_end_matches('/'))
    }

    /// To which the provider sends people back.
    pub(super) fn redirect_url(&self) -> String {
        self.url_of(CALLBACK_PATH)
    }
}

/// Refuses what cannot be an issuer. Plain HTTP is for tests on one machine.
pub fn check_issuer(text: &str) -> Result<(), String> {
    const EXPECTED: &str = "expected the https URL of an OpenID provider, such as https://login.example.com, as its \
                            /.well-known/openid-configuration has it in \"issuer\"";
    let url = Url::parse(text).ok().filter(|url| {
        let is_plain = url.query().is_none() && url.fragment().is_none();
        is_plain && url.username().is_empty() && url.password().is_none() && IssuerUrl::new(text.to_owned()).is_ok()
    });
    let is_issuer = |url: &Url| match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Domain(name))) => name == "localhost",
        ("http", Some(Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(Host::Ipv6(address))) => address.is_loopback(),
        _ => false,
    };
    url.is_some_and(|url| is_issuer(&url))
        .then_some(())
        .ok_or_else(|| EXPECTED.to_owned())
}

/// Of a client, a claim or a scope: visible ASCII without what ends a token of OAuth.
pub fn check_name(text: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let is_name = (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_plain);
    let expected = || format!("expected a name of 1 to {NAME_MAX_BYTES} visible ASCII characters without blanks");
    is_name.then_some(()).ok_or_else(expected)
}

/// Of a group, which may have blanks in it.
pub fn check_group(text: &str) -> Result<(), String> {
    let is_group = !text.trim().is_empty() && text.trim() == text && text.len() <= NAME_MAX_BYTES;
    let expected = || format!("expected the name of a group, 1 to {NAME_MAX_BYTES} bytes without blanks around it");
    is_group.then_some(()).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_speak_https_or_are_on_this_machine() {
        for (text, is_right) in [
            ("https://login.example.com", true),
            ("https://login.example.com/realms/one/", true),
            ("http://127.0.0.1:9000", true),
            ("http://[::1]:9000/", true),
            ("http://localhost/", true),
            ("http://login.example.com", false),
            ("https://login.example.com?tenant=1", false),
            ("https://login.example.com/#x", false),
            ("https://me:secret@login.example.com", false),
            ("ftp://login.example.com", false),
            ("login.example.com", false),
            ("", false),
        ] {
            assert_eq!(check_issuer(text).is_ok(), is_right, "{text}");
        }
    }

    #[test]
    fn secret_is_not_shown() {
        assert_eq!(format!("{:?}", OidcSecret::new("hush".to_owned())), "OidcSecret(…)");
    }
}
