//! How a link is answered: Kaltura's object, to the byte, and behind it what only those get who ask for it.

use crate::api::Params;
use crate::kaltura::ApiError;
use crate::kaltura::format::{Object, Value};
use crate::model::{ShortLink, Timestamp, Usage};

/// The name of a link's class.
pub const LINK_CLASS: &str = "KalturaShortLink";

/// Whether the caller wants to know how links have been used, which Kaltura's objects do not say.
pub fn wants_clicks(params: &Params) -> Result<bool, ApiError> {
    params.flag("withClicks")
}

fn fields(link: &ShortLink) -> Vec<(&'static str, Value)> {
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

const fn of(fields: Vec<(&'static str, Value)>) -> Value {
    let class = LINK_CLASS;
    Value::Object(Object { class, fields })
}

/// A link as Kaltura answers it.
pub fn object(link: &ShortLink) -> Value {
    of(fields(link))
}

/// The same, with how it has been used.
pub fn object_with_usage(link: &ShortLink, usage: &Usage) -> Value {
    let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let mut fields = fields(link);
    fields.extend([
        ("clicks", count(usage.clicks)),
        ("previews", count(usage.previews)),
        ("lastUsedAt", usage.last_used_at.map_or(Value::Null, time)),
    ]);
    of(fields)
}
