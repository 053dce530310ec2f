//! A file that has been uploaded: checked, shown, and imported once its sender has confirmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::console::jobs::{KEPT, Stage};
use crate::links::file::{ImportReport, OnLines};
use crate::transfer::{ImportSettings, ImportSlot, SpooledFile};

/// How long a checked file waits to be confirmed. It takes room on the disk of the store.
pub const FILE_WAIT: Duration = Duration::from_secs(10 * 60);

/// A file, and the right to keep it.
#[derive(Debug)]
pub struct KeptFile {
    pub spooled: SpooledFile,
    _slot: ImportSlot,
}

impl KeptFile {
    pub const fn new(spooled: SpooledFile, slot: ImportSlot) -> Self {
        Self { spooled, _slot: slot }
    }
}

#[derive(Debug)]
pub struct ImportJob {
    pub name: String,
    pub settings: ImportSettings,
    pub progress: Arc<ImportProgress>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    state: ImportState,
    since: Instant,
    /// Until it has been imported.
    file: Option<Arc<KeptFile>>,
}

#[derive(Debug, Default)]
pub struct ImportProgress {
    pub lines: AtomicU64,
    /// Known once the file has been checked.
    pub of: AtomicU64,
}

#[derive(Debug, Clone)]
pub enum ImportState {
    Checking,
    /// What would happen.
    Checked(Arc<ImportReport>),
    Importing,
    Done(Arc<ImportReport>),
    Failed(String),
}

impl ImportState {
    pub const fn is_running(&self) -> bool {
        matches!(self, Self::Checking | Self::Importing)
    }
}

impl ImportProgress {
    /// Counts the lines of a run from its start.
    pub fn count(self: &Arc<Self>) -> OnLines {
        self.of.store(self.lines.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        let progress = Arc::clone(self);
        Arc::new(move |lines| progress.lines.store(lines, Ordering::Relaxed))
    }
}

impl ImportJob {
    /// A file that is about to be checked.
    pub fn new(name: String, settings: ImportSettings, file: Arc<KeptFile>) -> Self {
        Self::with(name, settings, Some(file))
    }

    fn with(name: String, settings: ImportSettings, file: Option<Arc<KeptFile>>) -> Self {
        Self {
            name,
            settings,
            progress: Arc::default(),
            held: Mutex::new(Held {
                state: ImportState::Checking,
                since: Instant::now(),
                file,
            }),
        }
    }

    pub fn state(&self) -> ImportState {
        self.held.lock().state.clone()
    }

    /// Whether nobody has had it imported, or tried to.
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self.held.lock().state, ImportState::Checking | ImportState::Checked(_))
    }

    /// The file, once, if it waits to be confirmed.
    pub fn confirm(&self) -> Option<Arc<KeptFile>> {
        let mut held = self.held.lock();
        if !matches!(held.state, ImportState::Checked(_)) {
            return None;
        }
        let file = held.file.take()?;
        held.state = ImportState::Importing;
        Some(file)
    }

    /// Notes how a run has ended.
    pub fn end(&self, state: ImportState) {
        let mut held = self.held.lock();
        if !matches!(state, ImportState::Checked(_)) {
            held.file = None;
        }
        held.state = state;
        held.since = Instant::now();
    }

    pub(super) fn stage(&self) -> Stage {
        let held = self.held.lock();
        match held.state {
            ImportState::Checking | ImportState::Importing => Stage::Running,
            ImportState::Checked(_) => Stage::Waiting(held.since + FILE_WAIT),
            ImportState::Done(_) | ImportState::Failed(_) => Stage::Over(held.since + KEPT),
        }
    }

    #[cfg(test)]
    pub(super) fn without_file(settings: ImportSettings) -> Self {
        Self::with(String::new(), settings, None)
    }
}
