//! What writes would come to, found out beside the store: its writer has nothing to do with it.

use std::fs::File;

use redb::backends::FileBackend;
use redb::{Builder, ReadableTable as _, TableDefinition, WriteTransaction};

use crate::model::{LinkId, PartnerId, ShortLink, Status};
use crate::store::error::StoreError;
use crate::store::files::medium;
use crate::store::format::keys::{self, Bytes, Index};
use crate::store::format::record;
use crate::store::format::staged::{self, StagedLink};
use crate::store::read::remains::Remains;
use crate::store::read::snapshot::{Snapshot, undeleted};
use crate::store::write::transaction::Replacement;

/// A part of an import has so many bytes, and the rest of a link.
const PART_BYTES: usize = if cfg!(test) { 512 } else { 256 * 1024 };

/// Links as they would be.
const WRITTEN: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("written");
/// Which of them has a unique id of a partner.
const HOLDERS: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("holders");

/// A snapshot with private changes over it, in a temporary file because there may be millions.
pub struct Rehearsal<'s> {
    snapshot: &'s Snapshot,
    changes: WriteTransaction,
}

impl<'s> Rehearsal<'s> {
    /// Keeps the changes in a file that is empty.
    pub fn new(snapshot: &'s Snapshot, file: File) -> Result<Self, StoreError> {
        let database = Builder::new()
            .set_cache_size(medium::CACHE_BYTES)
            .create_with_backend(FileBackend::new(file)?)?;
        let changes = database.begin_write()?;
        changes.open_table(WRITTEN)?;
        changes.open_table(HOLDERS)?;
        Ok(Self { snapshot, changes })
    }

    fn written(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        let written = self.changes.open_table(WRITTEN)?;
        let record = written.get(id.as_bytes())?;
        record.map(|record| record::decode(id, record.value())).transpose()
    }

    pub fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        match self.written(id)? {
            None => self.snapshot.get(id),
            written => Ok(written),
        }
    }

    pub fn holder_of_unique_id(&self, partner: PartnerId, unique_id: &str) -> Result<Option<LinkId>, StoreError> {
        let scope = keys::text_scope(partner, unique_id);
        if let Some(holder) = self.changes.open_table(HOLDERS)?.get(scope.as_slice())? {
            let holder = LinkId::from_bytes(holder.value()).map_err(|error| StoreError::damaged("holders", error))?;
            return Ok(Some(holder));
        }
        for holder in undeleted(self.snapshot.index(Index::UniqueId), Index::UniqueId, &scope, None)? {
            let holder = holder?;
            // If it has been written, it would be found above if it still had the unique id.
            if self.written(holder)?.is_none() {
                return Ok(Some(holder));
            }
        }
        Ok(None)
    }

    pub fn replace_damaged(&mut self, new: &ShortLink) -> Result<Replacement, StoreError> {
        let remains = Remains::of(new.id, |index| self.snapshot.index(index))?;
        let judged = Replacement::judge(&remains, new);
        if judged == Replacement::Done {
            self.put(None, new)?;
        }
        Ok(judged)
    }

    pub fn put(&mut self, old: Option<&ShortLink>, new: &ShortLink) -> Result<(), StoreError> {
        let record = record::encode(new)?;
        let mut written = self.changes.open_table(WRITTEN)?;
        written.insert(new.id.as_bytes(), record.as_slice())?;
        let mut holders = self.changes.open_table(HOLDERS)?;
        if let Some(scope) = old.and_then(held) {
            let is_own = holders
                .get(scope.as_slice())?
                .is_some_and(|id| id.value() == new.id.as_bytes());
            if is_own {
                holders.remove(scope.as_slice())?;
            }
        }
        if let Some(scope) = held(new) {
            holders.insert(scope.as_slice(), new.id.as_bytes())?;
        }
        Ok(())
    }
}

impl Rehearsal<'_> {
    pub const fn is_in_cluster(&self) -> bool {
        self.snapshot.position().is_some()
    }

    /// Calls `take` with what has been written, in parts of an import, until it returns false.
    pub fn for_each_part(&self, mut take: impl FnMut(Vec<u8>) -> bool) -> Result<(), StoreError> {
        let mut part = Vec::new();
        for entry in self.changes.open_table(WRITTEN)?.iter()? {
            let (id, record) = entry?;
            let id = LinkId::from_bytes(id.value()).map_err(|error| StoreError::damaged("written", error))?;
            let replaced = self.snapshot.links.get(id.as_bytes())?;
            if replaced
                .as_ref()
                .is_some_and(|replaced| replaced.value() == record.value())
            {
                continue;
            }
            let scope = held(&record::decode(id, record.value())?);
            let holders = scope.map(|scope| {
                let mut holders = undeleted(self.snapshot.index(Index::UniqueId), Index::UniqueId, &scope, None)?;
                holders.next().transpose()
            });
            let link = StagedLink {
                id,
                replaced: replaced.map(|replaced| staged::hash_of(replaced.value())),
                holder: holders.transpose()?.flatten(),
                record: record.value(),
            };
            link.append_to(&mut part)?;
            if part.len() > PART_BYTES && !take(std::mem::take(&mut part)) {
                return Ok(());
            }
        }
        if !part.is_empty() {
            take(part);
        }
        Ok(())
    }
}

/// The scope of the unique id that a link holds.
fn held(link: &ShortLink) -> Option<Vec<u8>> {
    let unique_id = link.unique_id.as_deref().filter(|_| link.status != Status::Deleted)?;
    Some(keys::text_scope(link.partner_id, unique_id))
}
