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
    pub created: TimeRange,
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
            created: TimeRange { from: None, to: None },
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

/// By which time; ties by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchOrder {
    Created,
    Updated,
    Expires,
}
