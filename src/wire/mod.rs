//! What an answer is made of, and the four formats it can be written in (contract, section 3).
//!
//! Knows nothing of links, sessions or HTTP: a [`Value`] goes in, bytes come out.

mod json;
mod php;
mod value;
mod xml;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use value::{Exception, Object, Value};

/// Longest JSONP callback name, in bytes; jQuery's have about 40.
const CALLBACK_MAX_BYTES: usize = 256;

/// The format of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// `format=1`.
    Json,
    /// `format=2`, and where none is given. `ignore_null` leaves null fields out instead of writing an empty element.
    Xml {
        /// The request's `ignoreNull`.
        ignore_null: bool,
    },
    /// `format=3`: PHP's `serialize()`.
    Php,
    /// `format=9`: JSON in a call of the named function.
    Jsonp {
        /// A checked name, see [`Format::jsonp`].
        callback: String,
    },
}

impl Format {
    /// What is used where no format is given.
    pub const DEFAULT: Self = Self::Xml { ignore_null: false };

    /// JSONP for a callback, if its name has only characters of `[0-9A-Za-z_.]` and is not empty.
    #[must_use]
    pub fn jsonp(callback: &str) -> Option<Self> {
        let fits = !callback.is_empty()
            && callback.len() <= CALLBACK_MAX_BYTES
            && callback
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        fits.then(|| Self::Jsonp {
            callback: callback.to_owned(),
        })
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Xml { .. } => "text/xml; charset=utf-8",
            Self::Php => "text/plain; charset=utf-8",
            Self::Jsonp { .. } => "application/javascript; charset=utf-8",
        }
    }

    /// Writes a result. `elapsed` is the time the request has taken so far, which XML answers carry.
    #[must_use]
    pub fn render(&self, value: &Value, elapsed: Duration) -> Vec<u8> {
        match self {
            Self::Json => json::document(value),
            Self::Xml { ignore_null } => xml::document(value, *ignore_null, elapsed),
            Self::Php => php::document(value),
            Self::Jsonp { callback } => json::call(callback, value),
        }
    }
}

/// Whether XML 1.0 allows the character (production `Char`). What it forbids is refused in every input, so that any
/// answer can be written in any format.
#[must_use]
pub const fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}
