//! The values of answers, and the four formats for them (docs/kaltura-api.md#formats). Knows nothing of links, sessions
//! or HTTP.

mod json;
mod php;
mod value;
mod xml;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use value::{Exception, Value};

/// Longest JSONP callback name, in bytes; jQuery's have about 40.
const CALLBACK_MAX_BYTES: usize = 256;

/// The format of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    Json,
    /// `format=2`, and where none is given. `ignore_null` leaves null fields out instead of writing an empty element.
    Xml {
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
    /// For requests that name no format.
    pub const DEFAULT: Self = Self::Xml { ignore_null: false };

    /// JSONP for a callback, if its name has only characters of `[0-9A-Za-z_.]` and is not empty.
    pub fn jsonp(callback: &str) -> Option<Self> {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
        let fits = (1..=CALLBACK_MAX_BYTES).contains(&callback.len()) && callback.bytes().all(is_of_name);
        fits.then(|| Self::Jsonp {
            callback: callback.to_owned(),
        })
    }

    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Xml { .. } => "text/xml; charset=utf-8",
            Self::Php => "text/plain; charset=utf-8",
            Self::Jsonp { .. } => "application/javascript; charset=utf-8",
        }
    }

    /// `elapsed` is the time of the request so far, which XML answers carry.
    pub fn render(&self, value: &Value, elapsed: Duration) -> Vec<u8> {
        match self {
            Self::Json => json::document(value),
            Self::Xml { ignore_null } => xml::document(value, *ignore_null, elapsed),
            Self::Php => php::document(value),
            Self::Jsonp { callback } => json::call(callback, value),
        }
    }
}

/// Writes a list item by item, so that no item has to be kept.
#[derive(Debug)]
pub struct ListWriter<'f> {
    format: &'f Format,
    items: Vec<u8>,
    count: usize,
}

impl<'f> ListWriter<'f> {
    pub const fn new(format: &'f Format) -> Self {
        Self {
            format,
            items: Vec::new(),
            count: 0,
        }
    }

    /// Bytes of the items so far.
    pub const fn bytes(&self) -> usize {
        self.items.len()
    }

    /// The next item, as it will be written.
    pub fn item(&self, item: &Value) -> Vec<u8> {
        match self.format {
            Format::Json => json::item(self.count, json::document(item)),
            Format::Jsonp { .. } => json::item(self.count, json::in_script(item).into_bytes()),
            Format::Xml { ignore_null } => xml::item(item, *ignore_null),
            Format::Php => php::item(self.count, item),
        }
    }

    pub fn push(&mut self, item: &[u8]) {
        // No more than is needed: it may become long.
        self.items.reserve_exact(item.len());
        self.items.extend_from_slice(item);
        self.count += 1;
    }

    pub fn finish(mut self, elapsed: Duration) -> Vec<u8> {
        let (begin, end) = match self.format {
            Format::Json => ("[".to_owned(), "]".to_owned()),
            Format::Jsonp { callback } => (format!("{callback}(["), "]);".to_owned()),
            Format::Xml { .. } => (xml::BEGIN.to_owned(), xml::end(elapsed)),
            Format::Php => (format!("a:{}:{{", self.count), "}".to_owned()),
        };
        // In place: it may be long.
        self.items.reserve_exact(begin.len() + end.len());
        self.items.splice(0..0, begin.into_bytes());
        self.items.extend_from_slice(end.as_bytes());
        self.items
    }
}
