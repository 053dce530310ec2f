//! Changing many links at a time.

use crate::links::restore::{Attempt, restore};
use crate::links::update::visible;
use crate::links::{AuditLog, LinkError, Links, Scope};
use crate::model::validate;
use crate::model::{Actor, LinkId, ShortLink, Status, Timestamp};
use crate::store::{StoreError, Transaction};

/// Links that one commit changes. Each takes some 40 microseconds, and other writes wait meanwhile.
pub const BULK_COMMIT_LINKS: usize = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkChange {
    Enable,
    Disable,
    Delete,
    Restore,
    /// Until when they work; `None`: without end.
    Extend(Option<Timestamp>),
}

/// What has become of links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BulkCounts {
    pub changed: usize,
    /// They were so already, or are gone.
    pub unchanged: usize,
    /// The change would make them wrong, or their records are damaged.
    pub refused: usize,
}

impl BulkCounts {
    pub const fn add(&mut self, other: Self) {
        self.changed += other.changed;
        self.unchanged += other.unchanged;
        self.refused += other.refused;
    }

    pub const fn total(self) -> usize {
        self.changed + self.unchanged + self.refused
    }
}

enum Changed {
    Yes,
    No,
    Refused,
}

impl Links {
    /// Changes links in one commit, at most [`BULK_COMMIT_LINKS`] of them. A link that cannot be changed does not stop
    /// the others.
    pub async fn change_together(
        &self,
        ids: Vec<LinkId>,
        scope: Scope,
        change: BulkChange,
        by: Actor,
    ) -> Result<BulkCounts, LinkError> {
        let (now, log) = (self.clock.now(), self.audit_log(by));
        let job = move |transaction: &mut Transaction<'_>| {
            let mut counts = BulkCounts::default();
            for id in ids.into_iter().take(BULK_COMMIT_LINKS) {
                let changed = match change {
                    BulkChange::Restore => restore_one(transaction, id, &scope, now, &log),
                    change => change_one(transaction, id, &scope, change, now, &log),
                };
                match changed {
                    Ok(Changed::Yes) => counts.changed += 1,
                    Ok(Changed::No) => counts.unchanged += 1,
                    // A damaged record is found while reading, before anything is changed.
                    Ok(Changed::Refused) | Err(StoreError::Damaged { .. }) => counts.refused += 1,
                    Err(error) => return Err(error),
                }
            }
            Ok(counts)
        };
        Ok(self.store.write(job).await?)
    }
}

fn change_one(
    transaction: &mut Transaction<'_>,
    id: LinkId,
    scope: &Scope,
    change: BulkChange,
    now: Timestamp,
    log: &AuditLog,
) -> Result<Changed, StoreError> {
    let Ok(old) = visible(transaction, id, scope)? else {
        return Ok(Changed::No);
    };
    let mut new = old.clone();
    match change {
        BulkChange::Enable | BulkChange::Restore => new.status = Status::Enabled,
        BulkChange::Disable => new.status = Status::Disabled,
        BulkChange::Delete => new.status = Status::Deleted,
        BulkChange::Extend(expires_at) => new.expires_at = expires_at,
    }
    if new.expires_at != old.expires_at && validate::validity(new.starts_at, new.expires_at).is_err() {
        return Ok(Changed::Refused);
    }
    if new == old {
        return Ok(Changed::No);
    }
    new.updated_at = now;
    transaction.put(Some(&old), new.clone())?;
    log.note_link(transaction, &old, &new)?;
    Ok(Changed::Yes)
}

fn restore_one(
    transaction: &mut Transaction<'_>,
    id: LinkId,
    scope: &Scope,
    now: Timestamp,
    log: &AuditLog,
) -> Result<Changed, StoreError> {
    let is_covered = transaction.get(id)?.is_some_and(|link: ShortLink| scope.covers(&link));
    if !is_covered {
        return Ok(Changed::No);
    }
    Ok(match restore(transaction, id, scope.partner, now, log)? {
        Attempt::Restored(_) => Changed::Yes,
        Attempt::Already(_) | Attempt::Unknown => Changed::No,
        Attempt::Retired | Attempt::UniqueIdTaken(_) => Changed::Refused,
    })
}
