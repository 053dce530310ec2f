//! A link as JSON, with the names of the API: a line of a file, and what the command line reads from the API.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::model::{ShortLink, Timestamp, Usage};

/// Times are Unix times.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkJson<'a> {
    pub id: Cow<'a, str>,
    pub created_at: i64,
    pub updated_at: i64,
    pub expires_at: Option<i64>,
    pub partner_id: u32,
    pub user_id: Option<Cow<'a, str>>,
    pub name: Option<Cow<'a, str>>,
    pub system_name: Cow<'a, str>,
    pub full_url: Cow<'a, str>,
    pub unique_id: Option<Cow<'a, str>>,
    pub status: u8,
    /// In what the API answers, only with `withStartsAt`.
    pub starts_at: Option<i64>,
}

/// Usage of a link. Older servers count no clicks.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageJson {
    pub clicks: Option<u64>,
    pub previews: Option<u64>,
    pub last_used_at: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct UsedLinkJson<'a> {
    #[serde(flatten)]
    pub link: LinkJson<'a>,
    #[serde(flatten)]
    pub usage: UsageJson,
}

impl<'a> From<&'a ShortLink> for LinkJson<'a> {
    fn from(link: &'a ShortLink) -> Self {
        let optional = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        Self {
            id: link.id.as_str().into(),
            created_at: link.created_at.as_unix(),
            updated_at: link.updated_at.as_unix(),
            expires_at: link.expires_at.map(Timestamp::as_unix),
            partner_id: link.partner_id.0,
            user_id: optional(&link.user_id),
            name: optional(&link.name),
            system_name: link.system_name.as_str().into(),
            full_url: link.full_url.as_str().into(),
            unique_id: optional(&link.unique_id),
            status: link.status.number(),
            starts_at: link.starts_at.map(Timestamp::as_unix),
        }
    }
}

impl From<Usage> for UsageJson {
    fn from(usage: Usage) -> Self {
        Self {
            clicks: Some(usage.clicks),
            previews: Some(usage.previews),
            last_used_at: usage.last_used_at.map(Timestamp::as_unix),
        }
    }
}
