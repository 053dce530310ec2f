//! Making the changes that an entry of the replication log asks for: each store comes to the same, or stops.
//!
//! A decision rests on links and their indexes alone. Where a record is damaged, this store cannot know what the others
//! decide: the error keeps it from going on.

use redb::{ReadableTable, Table};

use crate::model::{AuditEntry, PartnerId, ShortLink, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::keys::Bytes;
use crate::store::format::record as stored_record;
use crate::store::format::staged::{self, StagedLink};
use crate::store::format::tables::{STAGED, STAGED_NAME};
use crate::store::journal::record;
use crate::store::read::snapshot;
use crate::store::replication::ImportId;
use crate::store::write::transaction::Transaction;

impl Transaction<'_> {
    /// Soft-deletes all links that a user has now, whatever the clocks of their writers said, and notes how many.
    pub fn delete_links_of_user(
        &mut self,
        partner: PartnerId,
        user: &str,
        at: Timestamp,
        note: Option<(AuditEntry, u64)>,
    ) -> Result<(), StoreError> {
        let deleted = self.delete_all_of_user(partner, user, None, at)?;
        self.outcome.deleted = deleted;
        if let Some((mut entry, most)) = note.filter(|_| deleted > 0) {
            entry.note("links", None, Some(deleted.to_string()));
            self.append_audit(&entry, most)?;
        }
        Ok(())
    }

    fn delete_all_of_user(
        &mut self,
        partner: PartnerId,
        user: &str,
        until: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<usize, StoreError> {
        let ids = self.links_of_user(partner, user, until, usize::MAX)?;
        for id in &ids {
            let old = self.get(*id)?;
            let old = old.ok_or_else(|| StoreError::damaged("links", format!("{id}: the record is lost")))?;
            let new = ShortLink {
                status: Status::Deleted,
                updated_at: at,
                ..old.clone()
            };
            self.put(Some(&old), new)?;
        }
        Ok(ids.len())
    }

    /// Finishes deletions of users that were interrupted: a cluster knows none that take several commits.
    pub fn finish_deletions(&mut self) -> Result<(), StoreError> {
        for (partner, user, at) in snapshot::deletions_in(&self.tables.meta)? {
            self.delete_all_of_user(partner, &user, Some(at), at)?;
            self.end_deletion(partner, &user)?;
        }
        Ok(())
    }

    /// Keeps a part of an import, out of sight.
    pub fn stage(&mut self, import: &ImportId, number: u32, part: &[u8]) -> Result<(), StoreError> {
        self.modifications += 1;
        let key = staged::key_of(import, number);
        let value = staged::encode(&key, part);
        self.inner
            .open_table(STAGED)?
            .insert(key.as_slice(), value.as_slice())?;
        Ok(())
    }

    /// Writes the links of an import, all or none, and drops its parts.
    pub fn import_staged(
        &mut self,
        import: &ImportId,
        parts: u32,
        note: Option<(AuditEntry, u64)>,
    ) -> Result<(), StoreError> {
        let table = self.inner.open_table(STAGED)?;
        self.outcome.is_void = !self.fits(&table, import, parts)?;
        if !self.outcome.is_void {
            for number in 0..parts {
                for_each_link(&table, import, number, |link| {
                    let old = self.get(link.id)?;
                    self.put(old.as_ref(), stored_record::decode(link.id, link.record)?)?;
                    Ok(true)
                })?;
            }
        }
        drop(table);
        if let Some((entry, most)) = note.filter(|_| !self.outcome.is_void) {
            self.append_audit(&entry, most)?;
        }
        self.drop_staged(import)
    }

    /// What the parts come to, which are dropped.
    pub fn assemble(&mut self, id: &ImportId, parts: u32) -> Result<Vec<u8>, StoreError> {
        let table = self.inner.open_table(STAGED)?;
        let mut payload = Vec::new();
        for number in 0..parts {
            let key = staged::key_of(id, number);
            let part = table.get(key.as_slice())?;
            let part = part.ok_or_else(|| StoreError::damaged(STAGED_NAME, "a part is missing"))?;
            payload.extend_from_slice(staged::decode(&key, part.value())?);
        }
        drop(table);
        self.drop_staged(id)?;
        Ok(payload)
    }

    pub fn drop_staged(&mut self, import: &ImportId) -> Result<(), StoreError> {
        self.modifications += 1;
        staged::drop_parts(self.inner, import)
    }

    /// Whether all parts of an import are there, and the links are still those that it was worked out from.
    fn fits(&self, table: &Table<'_, Bytes, Bytes>, import: &ImportId, parts: u32) -> Result<bool, StoreError> {
        for number in 0..parts {
            if !for_each_link(table, import, number, |link| self.is_as_it_was(&link))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_as_it_was(&self, link: &StagedLink<'_>) -> Result<bool, StoreError> {
        let stored = self.tables.links.get(link.id.as_bytes())?;
        let hash = stored.as_ref().map(|stored| staged::hash_of(stored.value()));
        if hash != link.replaced {
            // A damaged record must not pass for one that was changed.
            let read = stored.map(|stored| stored_record::read(link.id, stored.value()).map(drop));
            return read.transpose().map(|_| false);
        }
        let new = stored_record::read(link.id, link.record);
        // Every store has the same, so it is of a program that knows more.
        let new = new.map_err(|error| StoreError::damaged(record::NAME, error))?;
        match new.unique_id.filter(|_| new.status != Status::Deleted) {
            Some(unique_id) => Ok(self.holder_of_unique_id(new.partner_id, unique_id)? == link.holder),
            None => Ok(true),
        }
    }
}

/// Calls `visit` with the links of a part until it returns false; false too if the part is missing.
fn for_each_link(
    table: &impl ReadableTable<Bytes, Bytes>,
    import: &ImportId,
    number: u32,
    mut visit: impl FnMut(StagedLink<'_>) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let key = staged::key_of(import, number);
    let Some(part) = table.get(key.as_slice())? else {
        return Ok(false);
    };
    for link in staged::links_of(staged::decode(&key, part.value())?) {
        if !visit(link?)? {
            return Ok(false);
        }
    }
    Ok(true)
}
