//! How an import is noted in the audit log: in one entry.

use crate::links::AuditLog;
use crate::links::file::FileFormat;
use crate::model::{AuditAction, AuditEntry, PartnerId, Timestamp};
use crate::store::{Note, StoreError, Transaction};

#[derive(Debug, Clone)]
pub struct ImportLog {
    pub log: AuditLog,
    pub format: FileFormat,
    pub now: Timestamp,
}

impl ImportLog {
    /// Notes what has been imported so far, in the entry that tells of it if there is one.
    pub(super) fn note(
        &self,
        transaction: &mut Transaction<'_>,
        counts: &[(&str, u64)],
        partner: Option<PartnerId>,
        noted: Option<u64>,
    ) -> Result<Option<u64>, StoreError> {
        let fill = |entry| self.filled(entry, counts, partner);
        match noted {
            None => self.log.note(transaction, AuditAction::Import, self.now, fill),
            Some(sequence) => {
                let entry = fill(self.log.entry(AuditAction::Import, self.now));
                transaction.replace_audit(sequence, &entry)?;
                Ok(noted)
            }
        }
    }

    /// What is to be noted once the links are written.
    pub(super) fn note_ahead(&self, counts: &[(&str, u64)], partner: Option<PartnerId>) -> Option<Note> {
        self.log.note_ahead(AuditAction::Import, self.now, |entry| {
            self.filled(entry, counts, partner)
        })
    }

    fn filled(&self, mut entry: AuditEntry, counts: &[(&str, u64)], partner: Option<PartnerId>) -> AuditEntry {
        entry.partner = partner;
        entry.note("fileFormat", None, Some(self.format.name().to_owned()));
        for (name, count) in counts.iter().filter(|(_, count)| *count > 0) {
            entry.note(name, None, Some(count.to_string()));
        }
        entry
    }
}
