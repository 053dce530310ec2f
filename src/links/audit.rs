//! The audit log: entries are written in the transaction of their change, and read newest first.

use crate::kaltura::session::{Kind, Session};
use crate::links::Links;
use crate::model::{Actor, ActorKind, AuditAction, AuditEntry, PartnerId, ShortLink, Status, Timestamp, Way};
use crate::store::{AuditPage, AuditQuery, Note, StoreError, Transaction};

impl Actor {
    pub fn of(session: &Session, way: Way) -> Self {
        Self {
            partner: Some(session.partner),
            user: session.user.clone(),
            kind: match session.kind {
                Kind::User => ActorKind::User,
                Kind::Admin => ActorKind::Admin,
            },
            way,
        }
    }
}

/// Notes what somebody changes.
#[derive(Debug, Clone)]
pub struct AuditLog {
    by: Actor,
    entries_max: u64,
}

impl AuditLog {
    /// Keeps so many entries; none are noted if that is zero.
    pub const fn new(by: Actor, entries_max: u64) -> Self {
        Self { by, entries_max }
    }

    /// Notes something of the actor's partner, unless `fill` says whose it is, and returns the entry's number.
    pub(super) fn note(
        &self,
        transaction: &mut Transaction<'_>,
        action: AuditAction,
        at: Timestamp,
        fill: impl FnOnce(AuditEntry) -> AuditEntry,
    ) -> Result<Option<u64>, StoreError> {
        let note = self.note_ahead(action, at, fill);
        note.map(|(entry, most)| transaction.append_audit(&entry, most))
            .transpose()
    }

    /// The same, to be noted when the change is made.
    pub(super) fn note_ahead(
        &self,
        action: AuditAction,
        at: Timestamp,
        fill: impl FnOnce(AuditEntry) -> AuditEntry,
    ) -> Option<Note> {
        let is_kept = self.entries_max > 0;
        is_kept.then(|| (fill(self.entry(action, at)), self.entries_max))
    }

    /// Notes that a link has changed.
    pub(super) fn note_link(
        &self,
        transaction: &mut Transaction<'_>,
        old: &ShortLink,
        new: &ShortLink,
    ) -> Result<(), StoreError> {
        let action = match (old.status, new.status) {
            (Status::Deleted, _) => AuditAction::Restore,
            (_, Status::Deleted) => AuditAction::Delete,
            _ => AuditAction::Update,
        };
        let noted = self.note(transaction, action, new.updated_at, |entry| {
            entry.of_link(Some(old), new)
        });
        noted.map(drop)
    }

    pub(super) fn entry(&self, action: AuditAction, at: Timestamp) -> AuditEntry {
        AuditEntry {
            sequence: 0,
            at,
            partner: self.by.partner,
            by: self.by.clone(),
            action,
            id: None,
            changes: Default::default(),
        }
    }

    /// Notes that the links of a user are deleted.
    pub(super) fn note_deleted_user(
        &self,
        transaction: &mut Transaction<'_>,
        at: Timestamp,
        partner: PartnerId,
        user: &str,
        links: usize,
    ) -> Result<(), StoreError> {
        if links == 0 {
            return Ok(());
        }
        let noted = self.note(transaction, AuditAction::DeleteUser, at, |entry| {
            let mut entry = of_deleted_user(entry, partner, user);
            entry.note("links", None, Some(links.to_string()));
            entry
        });
        noted.map(drop)
    }

    /// The same, without the number of links.
    pub(super) fn note_deleted_user_ahead(&self, at: Timestamp, partner: PartnerId, user: &str) -> Option<Note> {
        self.note_ahead(AuditAction::DeleteUser, at, |entry| {
            of_deleted_user(entry, partner, user)
        })
    }
}

fn of_deleted_user(mut entry: AuditEntry, partner: PartnerId, user: &str) -> AuditEntry {
    entry.partner = Some(partner);
    entry.note("userId", Some(user.to_owned()), None);
    entry
}

impl Links {
    /// Keeps so many entries of the audit log; zero turns it off.
    pub fn auditing(self, entries_max: u64) -> Self {
        Self {
            audit_entries: entries_max,
            ..self
        }
    }

    pub const fn audit_log(&self, by: Actor) -> AuditLog {
        AuditLog::new(by, self.audit_entries)
    }

    /// A page of the audit log, the newest entries first.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage, StoreError> {
        self.store.read(move |snapshot| snapshot.audit(&query)).await
    }
}
