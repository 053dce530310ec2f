//! The short link itself.

use crate::model::{LinkId, PartnerId, Timestamp};

/// Whether a link redirects. The numbers are those of `KalturaShortLinkStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Status {
    Disabled = 1,
    Enabled = 2,
    /// Soft-deleted: does not redirect and is seen only by a list that asks for it.
    Deleted = 3,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Disabled, Self::Enabled, Self::Deleted];

    /// The status with this number, if there is one.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Disabled),
            2 => Some(Self::Enabled),
            3 => Some(Self::Deleted),
            _ => None,
        }
    }

    /// The word for the status, as metrics and the command line show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Deleted => "deleted",
        }
    }

    /// The number of the status on the wire and in the store.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A short link, whole (docs/kaltura-api.md#kalturashortlink).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShortLink {
    /// What stands behind `/tiny/`.
    pub id: LinkId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The last second in which it redirects; `None` = it never expires.
    pub expires_at: Option<Timestamp>,
    /// The tenant to whom it belongs.
    pub partner_id: PartnerId,
    /// The user who owns it; at most 100 characters.
    pub user_id: Option<String>,
    /// A name for people; at most 63 characters.
    pub name: Option<String>,
    /// A name for programs; 3 to 63 characters, not unique.
    pub system_name: String,
    /// Where it leads, as it was given; 10 to 8,192 bytes.
    pub full_url: String,
    /// A key chosen by the client, unique within the partner among links that are not deleted; at most 63 characters.
    pub unique_id: Option<String>,
    pub status: Status,
}

/// A short link whose texts are elsewhere, in a record that is being read for instance. The fields are those of
/// [`ShortLink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "ShortLink says what they are")]
pub struct LinkRef<'t> {
    pub id: LinkId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub partner_id: PartnerId,
    pub user_id: Option<&'t str>,
    pub name: Option<&'t str>,
    pub system_name: &'t str,
    pub full_url: &'t str,
    pub unique_id: Option<&'t str>,
    pub status: Status,
}

impl<'t> From<&'t ShortLink> for LinkRef<'t> {
    fn from(link: &'t ShortLink) -> Self {
        Self {
            id: link.id,
            created_at: link.created_at,
            updated_at: link.updated_at,
            expires_at: link.expires_at,
            partner_id: link.partner_id,
            user_id: link.user_id.as_deref(),
            name: link.name.as_deref(),
            system_name: &link.system_name,
            full_url: &link.full_url,
            unique_id: link.unique_id.as_deref(),
            status: link.status,
        }
    }
}

impl From<LinkRef<'_>> for ShortLink {
    fn from(link: LinkRef<'_>) -> Self {
        Self {
            id: link.id,
            created_at: link.created_at,
            updated_at: link.updated_at,
            expires_at: link.expires_at,
            partner_id: link.partner_id,
            user_id: link.user_id.map(str::to_owned),
            name: link.name.map(str::to_owned),
            system_name: link.system_name.to_owned(),
            full_url: link.full_url.to_owned(),
            unique_id: link.unique_id.map(str::to_owned),
            status: link.status,
        }
    }
}
