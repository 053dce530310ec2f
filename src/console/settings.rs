//! The settings of `[console]`.

use std::net::SocketAddr;

use url::Url;

use crate::console::CONSOLE_PATH;
use crate::console::header::HeaderSettings;
use crate::console::oidc::OidcSettings;
use crate::http::connection::Scheme;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleSettings {
    /// Listeners of its own.
    pub listen: Vec<(Scheme, SocketAddr)>,
    /// The base of its pages as people reach it; `None`: by an address of the admin listener.
    pub url: Option<Url>,
    pub oidc: Option<OidcSettings>,
    /// Who signs in by a header of a trusted proxy.
    pub header: Option<HeaderSettings>,
}

/// Refuses what cannot be the base of the console.
pub fn check_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: {EXPECTED}"))?;
    let is_base = matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && url.query().is_none();
    let is_plain = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    let has_path = url.path().trim_end_matches('/').ends_with(CONSOLE_PATH);
    (is_base && is_plain && has_path)
        .then_some(())
        .ok_or_else(|| EXPECTED.to_owned())
}

const EXPECTED: &str = "expected a URL that ends in /console, such as https://links.example.com/console";
