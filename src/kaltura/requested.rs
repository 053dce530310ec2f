//! In which format a request wants its answer.

use crate::kaltura::error::ApiError;
use crate::kaltura::format::Format;
use crate::kaltura::target::{Call, is_true};
use crate::model::whole_number;

/// The parameters that decide how an answer is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Requested<'a> {
    pub format: Option<&'a str>,
    pub callback: Option<&'a str>,
    pub ignore_null: bool,
    /// Whether the destination's content is wanted in place of a redirect.
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
    /// The format of an API answer: the requested one, else XML.
    pub fn format_or_default(self) -> Result<Format, ApiError> {
        let ignore_null = self.ignore_null;
        Ok(self.format()?.unwrap_or(Format::Xml { ignore_null }))
    }

    /// The format of an error, also of one about the format.
    pub fn format_of_faults(self) -> Format {
        self.format_or_default().unwrap_or(Format::DEFAULT)
    }

    pub fn format(self) -> Result<Option<Format>, ApiError> {
        let ignore_null = self.ignore_null;
        let Some(text) = self.format.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let format = match whole_number(text) {
            Some(1) => Format::Json,
            Some(2) => Format::Xml { ignore_null },
            Some(3) => Format::Php,
            Some(9) => {
                let callback = self.callback.ok_or_else(|| ApiError::missing("callback"))?;
                let reason = "a callback has 1 to 256 characters of 0-9A-Za-z_.";
                Format::jsonp(callback).ok_or_else(|| ApiError::invalid("callback", reason))?
            }
            _ => {
                let format = text.to_owned();
                return Err(ApiError::UnknownFormat { format });
            }
        };
        Ok(Some(format))
    }
}
