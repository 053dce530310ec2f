//! The section `[console]`.

use url::Url;

use crate::config::ConfigError;
use crate::config::keys;
use crate::config::values::{Reader, Values};
use crate::console::ConsoleSettings;
use crate::http::connection::Scheme;

const SECTION: &str = "console";

/// `None`: there is no console.
pub fn read(values: &Values, reader: &Reader, has_tls: bool) -> Result<Option<ConsoleSettings>, ConfigError> {
    let addresses = |key| values.list(SECTION, key, |text| text.parse().ok());
    let (plain, secure) = (addresses(&keys::CONSOLE_LISTEN), addresses(&keys::CONSOLE_TLS_LISTEN));
    if let Some(address) = secure.first().filter(|_| !has_tls) {
        let reason = "HTTPS needs a certificate: expected listen and certificates in [admin.tls]";
        return Err(reader.wrong(keys::CONSOLE_TLS_LISTEN.path(SECTION), address, reason));
    }
    let plain = plain.into_iter().map(|address| (Scheme::Http, address));
    let secure = secure.into_iter().map(|address| (Scheme::Https, address));
    let is_on = values.flag(SECTION, &keys::CONSOLE_ENABLED);
    Ok(is_on.then(|| ConsoleSettings {
        listen: plain.chain(secure).collect(),
        url: values
            .text(SECTION, &keys::CONSOLE_URL)
            .and_then(|text| Url::parse(text).ok()),
    }))
}
