//! What a link has been used for: how often, by whom, and when last.

use crate::model::{Day, Timestamp};

/// A redirect, by the kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// A person has followed the link.
    Click,
    /// A program has looked where it leads: a preview, a crawler, a HEAD.
    Preview,
}

/// How a link has been used in all. Who has used it is not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub clicks: u64,
    /// Redirects of programs that look at links before people do, and of HEAD.
    pub previews: u64,
    /// The last click; `None` if there was none. Previews do not count, because they say nothing about people.
    pub last_used_at: Option<Timestamp>,
}

impl Usage {
    pub fn note(&mut self, visit: Visit, now: Timestamp) {
        match visit {
            Visit::Click => {
                self.clicks = self.clicks.saturating_add(1);
                self.last_used_at = self.last_used_at.max(Some(now));
            }
            Visit::Preview => self.previews = self.previews.saturating_add(1),
        }
    }

    pub fn of(visit: Visit, at: Timestamp) -> Self {
        let mut usage = Self::default();
        usage.note(visit, at);
        usage
    }

    pub fn add(&mut self, other: &Self) {
        self.clicks = self.clicks.saturating_add(other.clicks);
        self.previews = self.previews.saturating_add(other.previews);
        self.last_used_at = self.last_used_at.max(other.last_used_at);
    }

    pub const fn visits(&self) -> u64 {
        self.clicks.saturating_add(self.previews)
    }
}

/// How a link, or all links of a partner, have been used on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DailyUsage {
    pub day: Day,
    pub clicks: u64,
    pub previews: u64,
}
