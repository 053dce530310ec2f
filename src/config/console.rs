//! The section `[console]`.

use url::Url;

use crate::config::keys;
use crate::config::values::Values;
use crate::console::ConsoleSettings;

const SECTION: &str = "console";

/// `None`: there is no console.
pub fn read(values: &Values) -> Option<ConsoleSettings> {
    values.flag(SECTION, &keys::CONSOLE_ENABLED).then(|| ConsoleSettings {
        url: values
            .text(SECTION, &keys::CONSOLE_URL)
            .and_then(|text| Url::parse(text).ok()),
    })
}
