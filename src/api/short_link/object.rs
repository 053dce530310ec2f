//! The objects of links: Kaltura's, to the byte, and behind it fields of tinyd's own for clients that want them.

use crate::api::Params;
use crate::api::short_link::STARTS_AT;
use crate::kaltura::ApiError;
use crate::kaltura::format::Value;
use crate::model::{ShortLink, Timestamp, Usage};

pub const LINK_CLASS: &str = "KalturaShortLink";

pub fn wants_clicks(params: &Params) -> Result<bool, ApiError> {
    params.flag("withClicks")
}

/// Whether objects have a start behind the fields of Kaltura's.
#[derive(Debug, Clone, Copy)]
pub struct ObjectForm {
    pub(super) with_start: bool,
}

pub(super) fn fields(link: &ShortLink) -> Vec<(&'static str, Value)> {
    vec![
        ("id", Value::text(link.id.as_str())),
        ("createdAt", time(link.created_at)),
        ("updatedAt", time(link.updated_at)),
        ("expiresAt", link.expires_at.map_or(Value::Null, time)),
        ("partnerId", Value::Int(link.partner_id.0.into())),
        ("userId", Value::optional_text(link.user_id.as_deref())),
        ("name", Value::optional_text(link.name.as_deref())),
        ("systemName", Value::text(&link.system_name)),
        ("fullUrl", Value::text(&link.full_url)),
        ("uniqueId", Value::optional_text(link.unique_id.as_deref())),
        ("status", Value::Int(link.status.number().into())),
    ]
}

const fn time(time: Timestamp) -> Value {
    Value::Int(time.as_unix())
}

impl ObjectForm {
    pub fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            with_start: params.flag("withStartsAt")?,
        })
    }

    pub fn object(self, link: &ShortLink) -> Value {
        Value::object(LINK_CLASS, self.fields(link))
    }

    pub fn object_with_usage(self, link: &ShortLink, usage: &Usage) -> Value {
        let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
        let mut fields = self.fields(link);
        fields.extend([
            ("clicks", count(usage.clicks)),
            ("previews", count(usage.previews)),
            ("lastUsedAt", usage.last_used_at.map_or(Value::Null, time)),
        ]);
        Value::object(LINK_CLASS, fields)
    }

    fn fields(self, link: &ShortLink) -> Vec<(&'static str, Value)> {
        let mut fields = fields(link);
        if self.with_start {
            fields.push((STARTS_AT, link.starts_at.map_or(Value::Null, time)));
        }
        fields
    }
}
