//! Deleting links, and bringing them back.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::links::{AuditLog, LinkError, Links, Scope, UpdateError};
use crate::model::{Actor, LinkId, PartnerId, ShortLink, Status, Timestamp};
use crate::store::{StoreError, Transaction, TransactionEnd};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreOutcome {
    Restored,
    /// It was not deleted.
    Already(Status),
    /// Its id is retired.
    Retired,
    /// Another link has its unique id now.
    UniqueIdTaken,
    Unknown,
    Damaged,
}

/// A link that has been deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    pub link: ShortLink,
    /// The status that it had.
    pub was: Status,
}

impl Links {
    pub async fn delete(&self, id: LinkId, scope: Scope, by: Actor) -> Result<Deleted, LinkError> {
        let was = Arc::new(Mutex::new(Status::Enabled));
        let noted = Arc::clone(&was);
        let edit = move |old: &ShortLink| {
            *noted.lock() = old.status;
            Ok(ShortLink {
                status: Status::Deleted,
                ..old.clone()
            })
        };
        let deleted = self.update(id, scope, by, edit).await;
        let link = deleted.map_err(|(UpdateError::Link(error) | UpdateError::Refused(error))| error)?;
        let was = *was.lock();
        Ok(Deleted { link, was })
    }

    /// Enables a deleted link again.
    pub async fn restore(&self, id: LinkId, partner: PartnerId, by: Actor) -> Result<ShortLink, LinkError> {
        self.restore_as(id, partner, Status::Enabled, by).await
    }

    /// Brings a deleted link back with this status.
    pub async fn restore_as(
        &self,
        id: LinkId,
        partner: PartnerId,
        status: Status,
        by: Actor,
    ) -> Result<ShortLink, LinkError> {
        let (clock, log) = (self.clock.clone(), self.audit_log(by));
        let job = move |transaction: &mut Transaction<'_>| {
            Ok(match bring_back(transaction, id, partner, status, clock.now(), &log)? {
                Attempt::Restored(link) => Ok(link),
                Attempt::Retired => Err(LinkError::Retired),
                Attempt::UniqueIdTaken(unique_id) => Err(LinkError::UniqueIdTaken(unique_id)),
                Attempt::Already(_) | Attempt::Unknown => Err(LinkError::NotFound),
            })
        };
        self.store.write(job).await?
    }

    /// Enables the deleted links among these again, in one transaction. A dry run only reports.
    pub async fn restore_all(
        &self,
        ids: Vec<LinkId>,
        partner: PartnerId,
        dry_run: bool,
        by: Actor,
    ) -> Result<Vec<(LinkId, RestoreOutcome)>, LinkError> {
        let (now, log) = (self.clock.now(), self.audit_log(by));
        let job = move |transaction: &mut Transaction<'_>| {
            let outcomes = ids.into_iter().map(|id| {
                let outcome = match restore(transaction, id, partner, now, &log) {
                    Ok(Attempt::Restored(_)) => RestoreOutcome::Restored,
                    Ok(Attempt::Already(status)) => RestoreOutcome::Already(status),
                    Ok(Attempt::Retired) => RestoreOutcome::Retired,
                    Ok(Attempt::UniqueIdTaken(_)) => RestoreOutcome::UniqueIdTaken,
                    Ok(Attempt::Unknown) => RestoreOutcome::Unknown,
                    // Found while reading; the others go on.
                    Err(StoreError::Damaged { .. }) => RestoreOutcome::Damaged,
                    Err(error) => return Err(error),
                };
                Ok((id, outcome))
            });
            let outcomes = outcomes.collect::<Result<Vec<_>, StoreError>>()?;
            Ok((
                if dry_run {
                    TransactionEnd::Abort
                } else {
                    TransactionEnd::Commit
                },
                outcomes,
            ))
        };
        Ok(self.store.write_alone(job).await?)
    }
}

pub(super) enum Attempt {
    Restored(ShortLink),
    Already(Status),
    Retired,
    UniqueIdTaken(String),
    Unknown,
}

/// Enables a deleted link again.
pub(super) fn restore(
    transaction: &mut Transaction<'_>,
    id: LinkId,
    partner: PartnerId,
    now: Timestamp,
    log: &AuditLog,
) -> Result<Attempt, StoreError> {
    bring_back(transaction, id, partner, Status::Enabled, now, log)
}

fn bring_back(
    transaction: &mut Transaction<'_>,
    id: LinkId,
    partner: PartnerId,
    status: Status,
    now: Timestamp,
    log: &AuditLog,
) -> Result<Attempt, StoreError> {
    let Some(old) = transaction.get(id)?.filter(|link| link.partner_id == partner) else {
        return Ok(Attempt::Unknown);
    };
    if old.status != Status::Deleted {
        return Ok(Attempt::Already(old.status));
    }
    if old.is_retired() {
        return Ok(Attempt::Retired);
    }
    if let Some(unique_id) = &old.unique_id
        && transaction.holder_of_unique_id(partner, unique_id)?.is_some()
    {
        return Ok(Attempt::UniqueIdTaken(unique_id.clone()));
    }
    let new = ShortLink {
        status,
        updated_at: now,
        ..old.clone()
    };
    transaction.put(Some(&old), new.clone())?;
    log.note_link(transaction, &old, &new)?;
    Ok(Attempt::Restored(new))
}
