//! What a search asks for.

use crate::model::{LinkId, PartnerId};
use crate::store::TimeRange;

/// A search among the links of a partner: every condition that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchQuery {
    pub partner: PartnerId,
    /// Exactly this user.
    pub owner: Option<String>,
    /// A part of the system name, the name or the host of the destination, in any case. Empty: any.
    pub text: String,
    /// The link with this id is found too, whatever the text.
    pub id: Option<LinkId>,
    pub state: SearchState,
    /// When this was.
    pub date: SearchDate,
    pub range: TimeRange,
    /// Only links that nobody has opened.
    pub only_unused: bool,
    /// No links of this system name.
    pub without_system_name: Option<String>,
    pub order: SearchOrder,
    pub is_descending: bool,
    pub offset: usize,
    pub limit: usize,
}

impl SearchQuery {
    /// All links of a partner that are not deleted, the newest first.
    pub const fn of(partner: PartnerId) -> Self {
        Self {
            partner,
            owner: None,
            text: String::new(),
            id: None,
            state: SearchState::Present,
            date: SearchDate::Created,
            range: TimeRange { from: None, to: None },
            only_unused: false,
            without_system_name: None,
            order: SearchOrder::Created,
            is_descending: true,
            offset: 0,
            limit: usize::MAX,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchState {
    /// Not deleted.
    Present,
    Works,
    /// Its start is to come.
    Waits,
    Expired,
    Off,
    Deleted,
}

/// A time of a link. One that never starts or expires is in no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchDate {
    Created,
    Updated,
    Starts,
    Expires,
}

/// By what; ties by id. Links that never expire come last either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchOrder {
    Created,
    Updated,
    Expires,
    /// What people call a link, in lower case.
    Title,
    /// Of the destination.
    Host,
    Owner,
    /// As far as they have been written down.
    Clicks,
}
