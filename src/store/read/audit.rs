//! Reading the audit log: the newest entries first, a page at a time.

use crate::model::{AuditAction, AuditEntry, LinkId, PartnerId, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::audit;
use crate::store::read::snapshot::Snapshot;

/// Entries that a page looks at, at most: some milliseconds.
const PAGE_STEPS: usize = if cfg!(test) { 20 } else { 5_000 };
/// Entries that a page has, at most.
const PAGE_MAX: usize = 500;

/// Which entries are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Whose links were changed.
    pub partner: Option<PartnerId>,
    /// Who has changed them.
    pub user: Option<String>,
    pub id: Option<LinkId>,
    pub action: Option<AuditAction>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Only those with a lower number: where the page before has ended.
    pub before: Option<u64>,
    pub limit: usize,
}

impl AuditQuery {
    fn wants(&self, entry: &AuditEntry) -> bool {
        self.partner.is_none_or(|partner| entry.partner == Some(partner))
            && (self.user.is_none() || self.user == entry.by.user)
            && self.id.is_none_or(|id| entry.id == Some(id))
            && self.action.is_none_or(|action| entry.action == action)
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at <= until)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditPage {
    pub entries: Vec<AuditEntry>,
    /// `before` of the next page; none at the end. A page may have fewer entries than the limit, or none, before that.
    pub next: Option<u64>,
}

impl Snapshot {
    /// The newest entries that are wanted. Damaged ones are logged and left out.
    pub fn audit(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let mut page = AuditPage::default();
        let Some(table) = &self.audit else { return Ok(page) };
        let before = query.before.unwrap_or(u64::MAX).to_be_bytes();
        for (step, entry) in table.range(..before.as_slice())?.rev().enumerate() {
            let (key, sealed) = entry?;
            if (step >= PAGE_STEPS || page.entries.len() >= query.limit.min(PAGE_MAX))
                && let Ok(sequence) = audit::sequence_of(key.value())
            {
                page.next = Some(sequence.saturating_add(1));
                break;
            }
            match audit::decode(key.value(), sealed.value()) {
                Ok(entry) if query.wants(&entry) => page.entries.push(entry),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "leaving out a damaged entry of the audit log"),
            }
        }
        Ok(page)
    }
}
