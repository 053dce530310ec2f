//! What a list asks for, and what it gets.

use std::collections::BTreeSet;

use crate::model::{LinkId, LinkRef, PartnerId, ShortLink, Status, Timestamp};

/// Sort keys that are held at most to bring a page into an order that no index has for the conditions.
pub const SORT_MAX_LINKS: u64 = 100_000;

/// A question to the store: every condition that is given must hold (docs/kaltura-api.md#lists).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The partner whose links are meant; no query reaches another's.
    pub partner: PartnerId,
    pub ids: Option<BTreeSet<LinkId>>,
    pub users: Option<BTreeSet<String>>,
    pub system_names: Option<BTreeSet<String>>,
    pub unique_id: Option<String>,
    pub statuses: BTreeSet<Status>,
    pub created: TimeRange,
    pub updated: TimeRange,
    /// A link that never expires is in no range.
    pub expires: TimeRange,
    /// In which order; pages [beyond sorting](Query::is_beyond_sorting) are in the order of the first time alone.
    pub order: Order,
    pub page: Page,
}

/// A span of time; both ends belong to it, and `None` is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

impl TimeRange {
    pub const fn is_bounded(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Whether a time (`None` = never) is in it. Never is only in a range without bounds.
    pub fn contains(&self, time: Option<Timestamp>) -> bool {
        match time {
            Some(time) => self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time <= to),
            None => !self.is_bounded(),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!((self.from, self.to), (Some(from), Some(to)) if from > to)
    }
}

/// The order of a list: by some times, then by id. Links that never expire come last either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The times, the most significant first, none of them twice.
    pub times: [Option<TimeOrder>; OrderField::COUNT],
    /// Whether links with equal times come in descending order of their ids.
    pub ids_descend: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOrder {
    pub field: OrderField,
    pub descending: bool,
}

impl Order {
    /// By one time, ties by id in the same direction.
    pub const fn new(field: OrderField, descending: bool) -> Self {
        Self {
            times: [Some(TimeOrder { field, descending }), None, None],
            ids_descend: descending,
        }
    }

    /// The time whose index has this order.
    pub fn of_index(self) -> Option<OrderField> {
        match self.times {
            [Some(time), None, None] if time.descending == self.ids_descend => Some(time.field),
            _ => None,
        }
    }

    /// The time that counts most.
    pub fn first(self) -> TimeOrder {
        let [first, ..] = self.times;
        first.unwrap_or(TimeOrder {
            field: OrderField::Created,
            descending: self.ids_descend,
        })
    }
}

impl Default for Order {
    /// `-createdAt`.
    fn default() -> Self {
        Self::new(OrderField::Created, true)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderField {
    Created,
    Updated,
    Expires,
}

impl OrderField {
    pub const COUNT: usize = 3;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Links on a page; at most 500.
    pub size: usize,
    /// The page, from 1.
    pub index: usize,
}

impl Page {
    pub const fn offset(self) -> usize {
        self.index.saturating_sub(1).saturating_mul(self.size)
    }

    pub const fn end(self) -> usize {
        self.offset().saturating_add(self.size)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub links: Vec<ShortLink>,
    /// How many links fit, on all pages.
    pub total: u64,
}

impl Query {
    /// Whether the page ends beyond the links that are sorted, and no index has the order.
    pub fn is_beyond_sorting(&self) -> bool {
        self.order.of_index().is_none() && self.page.end() as u64 > SORT_MAX_LINKS
    }

    /// Whether no link can fit, because a condition allows nothing.
    pub fn is_impossible(&self) -> bool {
        self.statuses.is_empty()
            || self.ids.as_ref().is_some_and(BTreeSet::is_empty)
            || self.users.as_ref().is_some_and(BTreeSet::is_empty)
            || self.system_names.as_ref().is_some_and(BTreeSet::is_empty)
            || [self.created, self.updated, self.expires]
                .iter()
                .any(TimeRange::is_empty)
    }

    pub fn matches(&self, link: &LinkRef<'_>) -> bool {
        link.partner_id == self.partner
            && self.statuses.contains(&link.status)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&link.id))
            && contains_text(self.users.as_ref(), link.user_id)
            && contains_text(self.system_names.as_ref(), Some(link.system_name))
            && (self.unique_id.is_none() || self.unique_id.as_deref() == link.unique_id)
            && self.created.contains(Some(link.created_at))
            && self.updated.contains(Some(link.updated_at))
            && self.expires.contains(link.expires_at)
    }
}

fn contains_text(wanted: Option<&BTreeSet<String>>, text: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| text.is_some_and(|text| wanted.contains(text)))
}
