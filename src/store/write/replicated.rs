//! The writer in a cluster: what its jobs change is appended to the replication log before it is acknowledged, and what
//! others have appended is applied.

use std::mem;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rand::RngExt as _;
use redb::WriteTransaction;
use tokio::sync::oneshot;

use crate::model::unix_milliseconds;
use crate::store::error::{StoreError, WriteError};
use crate::store::format::{staged, tables};
use crate::store::journal::record;
use crate::store::journal::redo::{ENTRY, FOLLOWED, Redo, journal_of_entries};
use crate::store::journal::replay::{self, Source};
use crate::store::replication::{Appended, ApplyError, Entry, PAYLOAD_MAX_BYTES, Position};
use crate::store::write::log_state::Replicated;
use crate::store::write::outbox;
use crate::store::write::parts::SentParts;
use crate::store::write::queue::WriterRequest;
use crate::store::write::transaction::{EntryOutcome, Finished, Transaction};
use crate::store::write::writer::{BatchError, Writer, WriterState};

/// Pauses before a writer that was overtaken tries again: at random up to this, doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_DOUBLINGS_MAX: u32 = 4;
/// How often a batch is tried that others overtake. Each time takes some milliseconds.
const ATTEMPTS_MAX: u32 = 100;
/// More changes than this are committed to the store's file itself, because it takes long to make them again.
const JOURNAL_MAX_CHANGES: usize = if cfg!(test) { 8 } else { 10_000 };

/// Why entries were not applied: the store's own failure, or what is wrong with one of them.
pub enum Failed {
    Store(StoreError),
    Entry(ApplyError),
}

impl<E: Into<StoreError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

impl Writer {
    /// Applies entries of the replication log, and returns the position after them.
    pub async fn apply(&self, entries: Vec<Vec<u8>>) -> Result<Position, ApplyError> {
        self.position_after(|sender| WriterRequest::Apply(entries, sender))
            .await
    }

    /// Goes on with the store in another file, which is a later copy of this one, and returns its position.
    pub async fn replace(&self, with: PathBuf) -> Result<Position, ApplyError> {
        self.position_after(|sender| WriterRequest::Replace(with, sender)).await
    }

    async fn position_after(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<Position, ApplyError>>) -> WriterRequest,
    ) -> Result<Position, ApplyError> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.send(request(sender)).await;
        sent.map_err(|_| ApplyError::Unavailable)?;
        receiver.await.unwrap_or(Err(ApplyError::Unavailable))
    }
}

impl WriterState {
    /// Appends what a transaction has changed to the log; false if another entry came first. Then the transaction must
    /// be given up.
    pub fn replicate(
        &self,
        inner: &WriteTransaction,
        finished: &mut Finished,
        sent: &mut SentParts,
    ) -> Result<bool, BatchError> {
        let Some(replicated) = &self.replicated else {
            return Ok(true);
        };
        let refused = |reason: String| (WriteError::Unavailable, StoreError::Log(reason));
        // What was queued before must not go on from a history that is none.
        if let Some(why) = replicated.halted() {
            return Err(refused(why.to_string()));
        }
        let is_long = self.takes_several_entries(finished);
        let (Some(mut payload), Some(digest)) = (finished.redo.take(), finished.digest) else {
            return Err(refused("a change is too long, or has no form in an entry".to_owned()));
        };
        let (mut at, written_at) = (replicated.position(), unix_milliseconds());
        let mut entries = Vec::new();
        let mut append = |digest, payload: &[u8]| {
            let (entry, position) = Entry::encode(&at, digest, written_at, payload);
            let appended = replicated.append(at.sequence, &entry);
            if appended == Appended::Stored {
                at = position;
                entries.push((entry, position));
            }
            appended
        };
        if is_long {
            // Parts change no link, and without the last entry nothing.
            let unchanged = replicated.position().digest;
            let last = sent.send(&payload, written_at, |part| match append(unchanged, part) {
                Appended::Stored => Ok(true),
                Appended::Overtaken => Ok(false),
                Appended::Refused(reason) | Appended::Unknown(reason) => Err(refused(reason)),
            })?;
            let Some(last) = last.and_then(Redo::into_bytes) else {
                return Ok(false);
            };
            payload = last;
        }
        match append(digest, &payload) {
            Appended::Stored => {}
            Appended::Overtaken => return Ok(false),
            Appended::Refused(reason) => return Err(refused(reason)),
            Appended::Unknown(reason) => return Err((WriteError::OutcomeUnknown, StoreError::Log(reason))),
        }
        // From here on the change is made, whatever this store's disk does.
        let parts = if is_long { mem::take(sent) } else { SentParts::default() };
        let put = || {
            for (entry, position) in &entries {
                tables::put_entry(inner, entry, position, replicated.kept_max_bytes)?;
            }
            parts.id().map_or(Ok(()), |id| staged::drop_parts(inner, id))?;
            staged::drop_old(inner, written_at)
        };
        put().map_err(|error| (WriteError::OutcomeUnknown, error))?;
        finished.redo = Some(journal_of_entries(
            ENTRY,
            entries.iter().map(|(entry, _)| entry.as_slice()),
        ));
        finished.position = Some(at);
        Ok(true)
    }

    pub fn takes_several_entries(&self, finished: &Finished) -> bool {
        let length = finished.redo.as_ref().map_or(0, Vec::len);
        self.replicated.is_some() && length > PAYLOAD_MAX_BYTES
    }

    /// Has every store drop the parts of a change that was given up, now rather than after a day. Returns what became
    /// of the change.
    pub fn drop_sent(&mut self, sent: &SentParts, committed: Result<usize, BatchError>) -> Result<usize, BatchError> {
        let Some(id) = sent.id() else { return committed };
        if committed.as_ref().is_err_and(|(_, error)| error.is_of_the_file()) {
            // The store is opened again first.
            return committed;
        }
        self.restore_uncommitted()
            .map_err(|error| (WriteError::Unavailable, error))?;
        let mut redo = Redo::kept_for_entries();
        redo.parts_dropped(id);
        match self.try_to_append(&redo.into_bytes().unwrap_or_default()) {
            Err((_, error)) if error.is_of_the_file() => return Err((WriteError::OutcomeUnknown, error)),
            Err((_, error)) => {
                tracing::warn!(%error, "the parts of a change that was given up stay for a day");
            }
            Ok(_) => {}
        }
        committed
    }

    /// After another writer's entry came first: undoes the batch, applies what there is, and pauses, so that not always
    /// the same writer wins.
    pub fn let_others_pass(&mut self, attempts: &mut u32) -> Result<(), BatchError> {
        let unavailable = |error| (WriteError::Unavailable, error);
        self.restore_uncommitted().map_err(unavailable)?;
        let Some(replicated) = &self.replicated else {
            return Ok(());
        };
        if *attempts >= ATTEMPTS_MAX {
            return Err(unavailable(StoreError::Log("other boxes always came first".to_owned())));
        }
        let before = replicated.position();
        let entries = replicated.read();
        let entries = entries.map_err(|reason| unavailable(StoreError::Log(reason)))?;
        match self.apply_entries(&entries) {
            Ok(_) => {}
            Err(Failed::Store(error)) => return Err(unavailable(error)),
            Err(Failed::Entry(error)) => return Err(unavailable(StoreError::Log(error.to_string()))),
        }
        // Readers must not wait for the next attempt.
        self.make_visible().map_err(unavailable)?;
        if self
            .replicated
            .as_ref()
            .is_some_and(|replicated| replicated.position() == before)
        {
            let reason = format!("nothing that follows entry {} can be applied", before.sequence);
            return Err(unavailable(StoreError::Log(reason)));
        }
        // Not at first: others give way then.
        if *attempts > 0 {
            let most = PAUSE_FIRST * (1 << (*attempts).min(PAUSE_DOUBLINGS_MAX));
            thread::sleep(rand::rng().random_range(Duration::ZERO..most));
        }
        *attempts += 1;
        Ok(())
    }

    /// Applies entries and tells the sender the position after them.
    pub fn apply(
        &mut self,
        entries: &[Vec<u8>],
        sender: oneshot::Sender<Result<Position, ApplyError>>,
    ) -> Result<(), StoreError> {
        let applied = self.apply_entries(entries);
        let position = self.replicated.as_ref().map(Replicated::position);
        let (result, failed) = match applied {
            Ok(_) => (position.ok_or(ApplyError::Unavailable), Ok(())),
            Err(Failed::Entry(error)) => (Err(error), Ok(())),
            Err(Failed::Store(error)) => (Err(ApplyError::Unavailable), Err(error)),
        };
        // The sender may have left.
        drop(sender.send(result));
        failed
    }

    /// Goes on with another store in this one's place; redirects go on from the map meanwhile.
    pub fn replace(
        &mut self,
        with: &Path,
        sender: oneshot::Sender<Result<Position, ApplyError>>,
    ) -> Result<(), StoreError> {
        let replaced = self.try_replace(with);
        let position = self.replicated.as_ref().map(Replicated::position);
        // The sender may have left.
        drop(sender.send(match &replaced {
            Ok(()) => position.ok_or(ApplyError::Unavailable),
            Err(_) => Err(ApplyError::Unavailable),
        }));
        replaced
    }

    fn try_replace(&mut self, with: &Path) -> Result<(), StoreError> {
        // Whole without a journal, in case that this is as far as it comes.
        self.make_visible()?;
        self.journal = None;
        let sequence = *self.published.borrow();
        let inner = self.begin()?;
        self.commit_durably(inner, sequence)?;
        self.metrics.journal_bytes.set(0);
        // A crash before has left none, or the next start passes it over.
        drop(self.medium.remove_journal());
        // What waits there is in no copy.
        outbox::carry_over(&*self.database()?, with)?;
        self.close();
        self.medium.replace(with)?;
        if let Some(replicated) = &self.replicated {
            *replicated.halted.lock() = None;
        }
        self.open().map_err(|error| {
            tracing::error!(%error, "cannot open the new copy of the store");
            StoreError::Closed
        })?;
        Ok(())
    }

    /// Applies entries up to the first that cannot be applied. Returns what the last one has come to.
    pub fn apply_entries(&mut self, entries: &[Vec<u8>]) -> Result<EntryOutcome, Failed> {
        match self.try_entries(entries) {
            Err((_, Failed::Store(error))) => {
                if error.is_of_the_file() {
                    return Err(Failed::Store(error));
                }
                self.restore_uncommitted()?;
                Err(Failed::Store(error))
            }
            Err((whole, Failed::Entry(error))) => {
                self.restore_uncommitted()?;
                if whole > 0 {
                    self.apply_entries(entries.get(..whole).unwrap_or_default())?;
                }
                if let Some(replicated) = self.replicated.as_ref().filter(|_| error.is_final()) {
                    tracing::error!(%error, "stopped applying the replication log");
                    *replicated.halted.lock() = Some(error.clone());
                }
                Err(Failed::Entry(error))
            }
            Ok(outcome) => Ok(outcome),
        }
    }

    /// Applies all entries in one transaction, or none; then the number of the first that cannot be applied.
    fn try_entries(&mut self, entries: &[Vec<u8>]) -> Result<EntryOutcome, (usize, Failed)> {
        let Some(replicated) = &self.replicated else {
            return Err((0, Failed::Entry(ApplyError::Unavailable)));
        };
        if let Some(why) = replicated.halted() {
            return Err((0, Failed::Entry(why)));
        }
        let (mut at, kept_max_bytes) = (replicated.position(), replicated.kept_max_bytes);
        let kind = if replicated.only_follows() { FOLLOWED } else { ENTRY };
        let before = at.sequence;
        let mut make = || -> Result<_, (usize, Failed)> {
            let whole = |error: StoreError| (0, Failed::Store(error));
            let sequence = *self.published.borrow() + 1;
            let inner = self.begin().map_err(whole)?;
            let mut transaction =
                Transaction::open(&inner, self.observer.is_some(), Redo::not_kept()).map_err(whole)?;
            transaction.digest = Some(at.digest);
            let mut applied = Vec::new();
            for (number, bytes) in entries.iter().enumerate() {
                let is_new = apply_one(&mut transaction, &mut at, bytes, kept_max_bytes);
                if is_new.map_err(|error| (number, error))? {
                    applied.push(bytes.as_slice());
                }
            }
            let (outcome, is_long) = (transaction.outcome, transaction.modifications > JOURNAL_MAX_CHANGES);
            let finished = transaction.finish(sequence).map_err(whole)?;
            let payload = (!is_long).then(|| journal_of_entries(kind, applied));
            Ok((inner, finished, payload, sequence, outcome))
        };
        let (inner, finished, payload, sequence, outcome) = make()?;
        let whole = |error: StoreError| (0, Failed::Store(error));
        if at.sequence == before {
            drop(inner);
            return self.restore_uncommitted().map(|()| outcome).map_err(whole);
        }
        let is_alone = payload.is_none();
        self.sync(inner, is_alone, sequence, payload, false).map_err(whole)?;
        self.metrics.move_links(finished.links);
        self.publish(sequence, finished.changes).map_err(whole)?;
        if let Some(replicated) = &self.replicated {
            replicated.reach(at);
        }
        Ok(outcome)
    }
}

/// Makes the changes of an entry that follows the position, which then is after it; false for one that has been
/// applied.
fn apply_one(
    transaction: &mut Transaction<'_>,
    at: &mut Position,
    bytes: &[u8],
    kept_max_bytes: u64,
) -> Result<bool, Failed> {
    let entry = Entry::decode(bytes).map_err(Failed::Entry)?;
    let sequence = entry.position.sequence;
    if sequence <= at.sequence && entry.position.cluster == at.cluster {
        let kept = tables::entry(transaction.inner, sequence)?;
        return match kept {
            Some(kept) if kept != bytes => Err(Failed::Entry(ApplyError::Fork { sequence })),
            _ => Ok(false),
        };
    }
    entry.check_follows(at).map_err(Failed::Entry)?;
    transaction.outcome = EntryOutcome::default();
    match replay::apply(transaction, entry.payload, Source::Entry) {
        Ok(()) => {}
        // Its hash continues the chain, so that it is what was written: by a program that knows more.
        Err(StoreError::Damaged {
            table: record::NAME,
            reason,
        }) => return Err(Failed::Entry(ApplyError::Newer { sequence, what: reason })),
        // What the others decide with an intact record, this store cannot tell.
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(%error, sequence, "an entry of the replication log concerns a damaged record");
            return Err(Failed::Entry(ApplyError::Diverged { sequence }));
        }
        Err(error) => return Err(error.into()),
    }
    if entry.states_digest && transaction.digest != Some(entry.position.digest) {
        return Err(Failed::Entry(ApplyError::Diverged { sequence }));
    }
    *at = replay::put_entry(transaction, bytes, &entry, kept_max_bytes)?;
    Ok(true)
}
