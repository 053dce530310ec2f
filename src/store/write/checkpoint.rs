//! Checkpoints: bringing the store's file to where the journal is; and making the journal, and ending it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::WriteTransaction;
use tokio::sync::oneshot;

use crate::store::error::StoreError;
use crate::store::format::tables;
use crate::store::journal::{self, Journal};
use crate::store::write::writer::WriterState;

/// How long to wait before trying again to make a journal where that has failed.
const JOURNAL_INTERVAL: Duration = Duration::from_secs(60);

impl WriterState {
    /// Commits to the store's file itself: a checkpoint. The journal is empty then, and takes only records that
    /// follow this commit.
    pub fn commit_durably(&mut self, mut inner: WriteTransaction, sequence: u64) -> Result<(), StoreError> {
        inner.set_quick_repair(true);
        let salt = self.medium.fresh_salt();
        let journal = self.journal.as_ref().map(|_| (salt, journal::FILE_BYTES as u64));
        tables::set_journal(&inner, journal)?;
        inner.commit()?;
        self.uncommitted.clear();
        if let Some(journal) = &mut self.journal {
            journal.restart(salt, sequence);
            self.metrics.journal_bytes.set(0);
        }
        self.only_clicks_since = None;
        self.visibility.reach(sequence);
        Ok(())
    }

    /// Brings the store's file to where the journal is.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        // Readers need not wait for the disk.
        self.make_visible()?;
        let metrics = Arc::clone(&self.metrics);
        let waiting = metrics.wait_for_disk();
        let inner = self.database()?.begin_write()?;
        let sequence = *self.published.borrow();
        self.commit_durably(inner, sequence)?;
        let elapsed = waiting.elapsed();
        metrics.checkpoints.observe_duration(elapsed);
        tracing::debug!(sequence, ?elapsed, "checkpoint");
        Ok(())
    }

    /// Does while nobody writes what a write would wait for: a checkpoint, or making the journal's file.
    pub fn use_idle_time(&mut self) -> Result<(), StoreError> {
        if self.journal.is_some() {
            return self.checkpoint();
        }
        self.ensure_journal();
        Ok(())
    }

    /// A checkpoint that a sender waits for, unless there is nothing to bring there.
    pub fn checkpoint_now(&mut self, sender: oneshot::Sender<()>) -> Result<(), StoreError> {
        if self.journal.as_ref().is_some_and(|journal| !journal.is_empty()) {
            self.checkpoint()?;
        }
        // It may have left.
        let _ = sender.send(());
        Ok(())
    }

    pub fn ensure_journal(&mut self) {
        let failed_since = self.without_journal_since;
        if self.journal.is_some() || failed_since.is_some_and(|since| since.elapsed() < JOURNAL_INTERVAL) {
            return;
        }
        match self.create_journal() {
            Ok(journal) => {
                self.journal = Some(journal);
                self.without_journal_since = None;
            }
            Err(error) => {
                if self.without_journal_since.replace(Instant::now()).is_none() {
                    tracing::warn!(%error, "cannot create the journal; writes take longer");
                }
            }
        }
    }

    fn create_journal(&self) -> Result<Journal, StoreError> {
        let identity = tables::identity_of(&*self.database()?)?;
        let identity = identity.ok_or_else(|| StoreError::damaged(journal::NAME, "the store has no identity"))?;
        Ok(Journal::new(self.medium.create_journal(identity)?, identity))
    }

    /// Leaves a store that is whole without its journal.
    pub fn end_journal(&mut self) {
        // Without one it is whole already; a crash before may have left the file.
        let journal = self.journal.take().filter(Journal::is_in_use);
        let ended = journal.map_or(Ok(()), |_| self.checkpoint());
        match ended {
            // The next one to open the store passes it over if it is still there.
            Ok(()) => drop(self.medium.remove_journal()),
            Err(error) => {
                tracing::warn!(%error, "last checkpoint failed: keep the journal, the next start needs it");
            }
        }
    }
}
