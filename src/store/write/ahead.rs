//! Changes that are appended to the replication log before any store makes them: what is too long for an entry, or
//! takes too long for the other writers of the log to wait for.

use tokio::sync::oneshot;

use crate::model::{AuditEntry, PartnerId, Timestamp, unix_milliseconds};
use crate::store::Store;
use crate::store::error::{StoreError, WriteError};
use crate::store::format::audit;
use crate::store::format::staged;
use crate::store::journal::redo::Redo;
use crate::store::replication::{Appended, Entry, ImportId};
use crate::store::write::queue::WriterRequest;
use crate::store::write::replicated::Failed;
use crate::store::write::transaction::EntryOutcome;
use crate::store::write::writer::{Health, Writer, WriterState};

/// An entry of the audit log, and how many are kept.
pub type Note = (AuditEntry, u64);

/// An import whose parts are sent to every store, and which does not count before its end.
#[derive(Debug)]
pub struct StagedImport<'s> {
    store: &'s Store,
    id: ImportId,
    parts: u32,
}

impl StagedImport<'_> {
    pub async fn add(&mut self, part: &[u8]) -> Result<(), WriteError> {
        let mut redo = Redo::kept_for_entries();
        redo.staged(&self.id, self.parts, part);
        self.store.append(redo).await?;
        self.parts += 1;
        Ok(())
    }

    /// Has every store write all of its links; false, and none does, if one of those that they replace has changed.
    pub async fn finish(&self, note: Option<&Note>) -> Result<bool, WriteError> {
        let mut redo = Redo::kept_for_entries();
        let (most, entry) = encoded(note)?;
        redo.imported(&self.id, self.parts, (most, &entry));
        let outcome = self.store.append(redo).await?;
        Ok(!outcome.is_void)
    }

    /// Has every store drop the parts, now rather than after a day.
    pub async fn give_up(self) {
        if self.parts > 0 {
            let mut redo = Redo::kept_for_entries();
            redo.parts_dropped(&self.id);
            if let Err(error) = self.store.append(redo).await {
                tracing::warn!(%error, "the parts of an import that has failed stay for a day");
            }
        }
    }
}

fn encoded(note: Option<&Note>) -> Result<(u64, Vec<u8>), WriteError> {
    match note {
        Some((entry, most)) => {
            let entry = audit::encode(entry).map_err(|_| WriteError::Unavailable)?;
            Ok((*most, entry))
        }
        None => Ok((0, Vec::new())),
    }
}

impl Store {
    pub fn is_in_cluster(&self) -> bool {
        self.replicating().is_some()
    }

    /// In a cluster: soft-deletes all links that a user has when the entry is applied, in one transaction of each
    /// store. The note gets their number.
    pub async fn delete_links_of_user(
        &self,
        partner: PartnerId,
        user: &str,
        at: Timestamp,
        note: Option<&Note>,
    ) -> Result<usize, WriteError> {
        let mut redo = Redo::kept_for_entries();
        let (most, entry) = encoded(note)?;
        redo.user_deleted(partner, user, at, (most, &entry));
        Ok(self.append(redo).await?.deleted)
    }

    /// In a cluster: begins an import.
    pub fn stage_import(&self) -> StagedImport<'_> {
        self.stage_import_of(unix_milliseconds())
    }

    /// The same, begun at a moment.
    pub(crate) fn stage_import_of(&self, began_at: i64) -> StagedImport<'_> {
        StagedImport {
            store: self,
            id: staged::import_id(began_at),
            parts: 0,
        }
    }

    async fn append(&self, redo: Redo) -> Result<EntryOutcome, WriteError> {
        let payload = redo.into_bytes().ok_or(WriteError::Unavailable)?;
        self.writer()?.append(payload).await
    }
}

impl Writer {
    /// Appends changes to the replication log and makes them then, as every store does.
    pub async fn append(&self, payload: Vec<u8>) -> Result<EntryOutcome, WriteError> {
        let is_refusing = matches!(self.health(), Health::Refusing(_));
        let replicating = self.replicating();
        if is_refusing || replicating.is_none_or(|replicating| replicating.problem().is_some()) {
            return Err(WriteError::Unavailable);
        }
        let (sender, receiver) = oneshot::channel();
        self.send(WriterRequest::Append(payload, sender)).await?;
        receiver.await.unwrap_or(Err(WriteError::OutcomeUnknown))
    }
}

impl WriterState {
    /// Appends changes to the log and then makes them, and tells the sender what they have come to.
    pub fn append(
        &mut self,
        payload: &[u8],
        sender: oneshot::Sender<Result<EntryOutcome, WriteError>>,
    ) -> Result<(), StoreError> {
        let (outcome, result) = match self.try_to_append(payload) {
            Ok(outcome) => (Ok(outcome), Ok(())),
            Err((outcome, error)) => {
                tracing::error!(%error, "cannot append to the replication log, or make what was appended");
                (Err(outcome), Err(error))
            }
        };
        // The sender may have left.
        let _ = sender.send(outcome);
        result
    }

    pub fn try_to_append(&mut self, payload: &[u8]) -> Result<EntryOutcome, (WriteError, StoreError)> {
        let refused = |reason| Err((WriteError::Unavailable, StoreError::Log(reason)));
        let mut attempts = 0;
        loop {
            let Some(replicated) = &self.replicated else {
                return refused("the store is in no cluster".to_owned());
            };
            if let Some(why) = replicated.halted() {
                return refused(why.to_string());
            }
            let after = replicated.position();
            let entry = Entry::encode_ahead(&after, unix_milliseconds(), payload);
            match replicated.append(after.sequence, &entry) {
                Appended::Stored => {
                    let applied = self.apply_entries(&[entry]);
                    // It is in the log, so that it will be done, here too.
                    return applied.map_err(|failed| {
                        let error = match failed {
                            Failed::Store(error) => error,
                            Failed::Entry(error) => StoreError::Log(error.to_string()),
                        };
                        (WriteError::OutcomeUnknown, error)
                    });
                }
                Appended::Overtaken => self.let_others_pass(&mut attempts)?,
                Appended::Refused(reason) => return refused(reason),
                Appended::Unknown(reason) => return Err((WriteError::OutcomeUnknown, StoreError::Log(reason))),
            }
        }
    }
}
