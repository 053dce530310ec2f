//! Writing the audit log, in the transaction of the change that it tells of.

use redb::{AccessGuard, ReadableTable as _, StorageError, Table};

use crate::model::AuditEntry;
use crate::store::error::StoreError;
use crate::store::format::audit;
use crate::store::format::keys::Bytes;
use crate::store::format::tables::AUDIT;
use crate::store::write::transaction::Transaction;

/// The oldest entries are dropped once in so many, because that has its cost too.
pub const DROP_INTERVAL: u64 = if cfg!(test) { 4 } else { 64 };
/// Entries that are dropped at once, at most: more after the limit was lowered.
const DROPPED_MAX: u64 = 1_000;

impl<'t> Transaction<'t> {
    /// Appends an entry and returns its number; now and then drops the oldest ones, so that about `most` are left.
    pub fn append_audit(&mut self, entry: &AuditEntry, most: u64) -> Result<u64, StoreError> {
        self.append_encoded_audit(&audit::encode(entry)?, most)
    }

    pub fn append_encoded_audit(&mut self, encoded: &[u8], most: u64) -> Result<u64, StoreError> {
        let sequence = self.last_audit()?.saturating_add(1);
        self.insert_audit(sequence, encoded)?;
        self.last_audit = Some(sequence);
        // In a cluster, each store finds number and limit, so that other entries before this one do not change it.
        let is_in_cluster = self.is_in_cluster();
        if is_in_cluster {
            self.redo.logged_next(most, encoded);
        } else {
            self.redo.logged(sequence, encoded);
        }
        if sequence.is_multiple_of(DROP_INTERVAL) {
            let oldest = self.audit()?.first()?.and_then(|(key, _)| number_of(&key));
            let oldest = oldest.unwrap_or(0);
            let until = sequence.saturating_sub(most);
            if oldest <= until {
                let until = until.min(oldest.saturating_add(DROPPED_MAX));
                self.remove_audit_until(until)?;
                if !is_in_cluster {
                    self.redo.log_dropped(until);
                }
            }
        }
        Ok(sequence)
    }

    fn last_audit(&mut self) -> Result<u64, StoreError> {
        if let Some(last) = self.last_audit {
            return Ok(last);
        }
        let numbers = |entry: Result<(_, _), StorageError>| entry.map(|(key, _)| number_of(&key)).transpose();
        // A damaged key must not keep anything from being written.
        let last = self.audit()?.iter()?.rev().find_map(numbers).transpose()?;
        Ok(last.unwrap_or(0))
    }

    /// Writes an entry again that tells of what goes on, unless it has been dropped meanwhile.
    pub fn replace_audit(&mut self, sequence: u64, entry: &AuditEntry) -> Result<(), StoreError> {
        let is_there = self.audit()?.get(sequence.to_be_bytes().as_slice())?.is_some();
        if is_there {
            self.put_audit(sequence, &audit::encode(entry)?)?;
        }
        Ok(())
    }

    pub fn put_audit(&mut self, sequence: u64, encoded: &[u8]) -> Result<(), StoreError> {
        self.insert_audit(sequence, encoded)?;
        self.last_audit = None;
        self.redo.logged(sequence, encoded);
        Ok(())
    }

    fn insert_audit(&mut self, sequence: u64, encoded: &[u8]) -> Result<(), StoreError> {
        self.modifications += 1;
        let sealed = audit::sealed(sequence, encoded);
        self.audit()?
            .insert(sequence.to_be_bytes().as_slice(), sealed.as_slice())?;
        Ok(())
    }

    pub fn drop_audit_until(&mut self, last: u64) -> Result<(), StoreError> {
        self.remove_audit_until(last)?;
        self.redo.log_dropped(last);
        Ok(())
    }

    fn remove_audit_until(&mut self, last: u64) -> Result<(), StoreError> {
        self.modifications += 1;
        // All may be gone.
        self.last_audit = None;
        self.audit()?
            .retain_in(..=last.to_be_bytes().as_slice(), |_, _| false)?;
        Ok(())
    }

    /// A store need not have the table yet.
    fn audit(&mut self) -> Result<&mut Table<'t, Bytes, Bytes>, StoreError> {
        let table = match self.audit.take() {
            Some(table) => table,
            None => self.inner.open_table(AUDIT)?,
        };
        Ok(self.audit.insert(table))
    }
}

fn number_of(key: &AccessGuard<'_, Bytes>) -> Option<u64> {
    audit::sequence_of(key.value()).ok()
}
