//! In which format a request wants its answer.

use crate::kaltura::error::ApiError;
use crate::kaltura::format::Format;
use crate::kaltura::target::{Call, is_true};
use crate::model::whole_number;

/// The parameters that decide how an answer is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Requested<'a> {
    /// `format`.
    pub format: Option<&'a str>,
    /// `callback`.
    pub callback: Option<&'a str>,
    /// `ignoreNull`.
    pub ignore_null: bool,
    /// `proxy`: whether the destination's content is wanted in place of a redirect.
    pub proxy: bool,
}

impl<'a> From<&'a Call<'_>> for Requested<'a> {
    fn from(call: &'a Call<'_>) -> Self {
        Self {
            format: call.format.as_deref(),
            callback: call.callback.as_deref(),
            ignore_null: call.ignore_null.as_deref().is_some_and(is_true),
            proxy: call.proxy.as_deref().is_some_and(is_true),
        }
    }
}

impl Requested<'_> {
    /// The format of an API answer: what is asked for, else XML.
    pub fn format_or_default(self) -> Result<Format, ApiError> {
        let xml = Format::Xml {
            ignore_null: self.ignore_null,
        };
        Ok(self.format()?.unwrap_or(xml))
    }

    /// The format in which to complain about anything, itself included.
    pub fn format_of_faults(self) -> Format {
        self.format_or_default().unwrap_or(Format::DEFAULT)
    }

    /// The format that is asked for; `None` if none is.
    pub fn format(self) -> Result<Option<Format>, ApiError> {
        let Some(text) = self.format.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let format = match whole_number(text) {
            Some(1) => Format::Json,
            Some(2) => Format::Xml {
                ignore_null: self.ignore_null,
            },
            Some(3) => Format::Php,
            Some(9) => {
                let name = || "callback".to_owned();
                let callback = self.callback.ok_or_else(|| ApiError::missing(name()))?;
                Format::jsonp(callback)
                    .ok_or_else(|| ApiError::invalid(name(), "a callback has 1 to 256 characters of 0-9A-Za-z_."))?
            }
            _ => {
                return Err(ApiError::UnknownFormat {
                    format: text.to_owned(),
                });
            }
        };
        Ok(Some(format))
    }
}
