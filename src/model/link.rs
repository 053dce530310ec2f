//! The short link itself.

use crate::model::{LinkId, PartnerId, Timestamp};

/// Whether a link redirects. The numbers are those of `KalturaShortLinkStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Status {
    Disabled = 1,
    Enabled = 2,
    /// Soft-deleted: does not redirect, and lists show it only on request.
    Deleted = 3,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Disabled, Self::Enabled, Self::Deleted];

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

    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A short link (docs/kaltura-api.md#kalturashortlink).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortLink<T = String> {
    /// What stands behind `/tiny/`.
    pub id: LinkId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The first second in which it redirects; `None` = at once. [`Timestamp::NEVER`] only where the id is retired.
    pub starts_at: Option<Timestamp>,
    /// The last second in which it redirects; `None` = it never expires.
    pub expires_at: Option<Timestamp>,
    /// The tenant to whom it belongs.
    pub partner_id: PartnerId,
    /// The user who owns it; at most 100 characters.
    pub user_id: Option<T>,
    /// A name for people; at most 63 characters.
    pub name: Option<T>,
    /// A name for programs; 3 to 63 characters, not unique.
    pub system_name: T,
    /// Where it leads, as it was given; 10 to 8,192 bytes.
    pub full_url: T,
    /// A key chosen by the client, unique within the partner among links that are not deleted; at most 63 characters.
    pub unique_id: Option<T>,
    pub status: Status,
}

/// A short link whose texts are elsewhere, in a record that is being read for instance.
pub type LinkRef<'t> = ShortLink<&'t str>;

impl<T> ShortLink<T> {
    /// Whether another id has taken the place of this one: the link is deleted and starts never again. It was made when
    /// it was changed, and never expires.
    pub fn is_retired(&self) -> bool {
        self.starts_at == Some(Timestamp::NEVER)
    }

    fn map<'t, U>(&'t self, text: impl Fn(&'t T) -> U) -> ShortLink<U> {
        ShortLink {
            id: self.id,
            created_at: self.created_at,
            updated_at: self.updated_at,
            starts_at: self.starts_at,
            expires_at: self.expires_at,
            partner_id: self.partner_id,
            user_id: self.user_id.as_ref().map(&text),
            name: self.name.as_ref().map(&text),
            system_name: text(&self.system_name),
            full_url: text(&self.full_url),
            unique_id: self.unique_id.as_ref().map(&text),
            status: self.status,
        }
    }
}

impl<'t> From<&'t ShortLink> for LinkRef<'t> {
    fn from(link: &'t ShortLink) -> Self {
        link.map(String::as_str)
    }
}

impl From<LinkRef<'_>> for ShortLink {
    fn from(link: LinkRef<'_>) -> Self {
        link.map(|text| (*text).to_owned())
    }
}
