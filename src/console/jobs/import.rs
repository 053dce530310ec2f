//! Files that have been uploaded: checked, shown, and imported once their sender has confirmed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::links::file::{ImportReport, OnLines};
use crate::model::Digest;
use crate::transfer::{ImportSettings, ImportSlot, SpooledFile};

/// How long a checked file waits to be confirmed. It takes room on the disk of the store.
pub const WAITS: Duration = Duration::from_secs(10 * 60);
/// How long the outcome of an import can be looked at.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// Files and outcomes at a time.
const JOBS_MAX: usize = 100;

/// The imports that wait, go on, or have ended a while ago.
#[derive(Debug, Default)]
pub struct ImportJobs(Mutex<HashMap<u128, ImportJob>>);

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

#[derive(Debug, Clone)]
pub struct ImportJob {
    /// Of the session that uploaded it; nobody else sees it.
    pub owner: Digest,
    pub name: String,
    pub settings: ImportSettings,
    pub state: ImportState,
    pub progress: Arc<ImportProgress>,
    /// Until it has been imported.
    file: Option<Arc<KeptFile>>,
    at: Instant,
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
    pub fn new(owner: Digest, name: String, settings: ImportSettings, file: Arc<KeptFile>) -> Self {
        Self {
            owner,
            name,
            settings,
            state: ImportState::Checking,
            progress: Arc::default(),
            file: Some(file),
            at: Instant::now(),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.at);
        match self.state {
            ImportState::Checking | ImportState::Importing => false,
            ImportState::Checked(_) => age >= WAITS,
            ImportState::Done(_) | ImportState::Failed(_) => age >= KEPT,
        }
    }
}

impl ImportJobs {
    /// Takes a file that is about to be checked.
    pub fn begin(&self, job: ImportJob) -> Option<u128> {
        self.sweep(Instant::now());
        let mut jobs = self.0.lock();
        if jobs.len() >= JOBS_MAX {
            return None;
        }
        let number = rand::random();
        jobs.insert(number, job);
        Some(number)
    }

    pub fn look_at(&self, number: u128, owner: Digest) -> Option<ImportJob> {
        self.sweep(Instant::now());
        self.0.lock().get(&number).filter(|job| job.owner == owner).cloned()
    }

    /// The job and its file, once, if it waits to be confirmed.
    pub fn confirm(&self, number: u128, owner: Digest) -> Option<(ImportJob, Arc<KeptFile>)> {
        let mut jobs = self.0.lock();
        let job = jobs.get_mut(&number).filter(|job| job.owner == owner)?;
        if !matches!(job.state, ImportState::Checked(_)) {
            return None;
        }
        let file = job.file.take()?;
        job.state = ImportState::Importing;
        Some((job.clone(), file))
    }

    /// Notes how a run has ended.
    pub fn end(&self, number: u128, state: ImportState) {
        if let Some(job) = self.0.lock().get_mut(&number) {
            if !matches!(state, ImportState::Checked(_)) {
                job.file = None;
            }
            job.state = state;
            job.at = Instant::now();
        }
    }

    /// Forgets a file that is not being imported.
    pub fn cancel(&self, number: u128, owner: Digest) {
        self.0
            .lock()
            .retain(|other, job| *other != number || job.owner != owner || matches!(job.state, ImportState::Importing));
    }

    /// Forgets the files of a session that are not being imported.
    pub fn forget(&self, owner: Digest) {
        let mut jobs = self.0.lock();
        jobs.retain(|_, job| job.owner != owner || matches!(job.state, ImportState::Importing));
    }

    /// Forgets what has waited for too long.
    pub fn sweep(&self, now: Instant) {
        self.0.lock().retain(|_, job| !job.is_over(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::file::{Defaults, FileFormat, ImportOptions};
    use crate::model::Timestamp;

    const OWNER: Digest = [1; 20];

    fn job(jobs: &ImportJobs) -> u128 {
        let settings = ImportSettings {
            format: FileFormat::Csv,
            defaults: Defaults {
                now: Timestamp::from_unix(0),
                partner: None,
            },
            options: ImportOptions::default(),
        };
        let job = ImportJob {
            owner: OWNER,
            name: String::new(),
            settings,
            state: ImportState::Checking,
            progress: Arc::default(),
            file: None,
            at: Instant::now(),
        };
        jobs.begin(job).unwrap()
    }

    #[test]
    fn checked_file_waits_for_ten_minutes() {
        let jobs = ImportJobs::default();
        let number = job(&jobs);
        let later = || Instant::now() + WAITS;
        jobs.sweep(later());
        assert!(jobs.look_at(number, OWNER).is_some(), "it is being checked");
        jobs.end(number, ImportState::Checked(Arc::default()));
        assert!(jobs.look_at(number, [2; 20]).is_none());
        jobs.sweep(Instant::now() + WAITS / 2);
        assert!(jobs.look_at(number, OWNER).is_some());
        jobs.sweep(later());
        assert!(jobs.look_at(number, OWNER).is_none());
    }

    #[test]
    fn number_of_jobs_is_bounded() {
        let jobs = ImportJobs::default();
        let numbers: Vec<_> = (0..JOBS_MAX).map(|_| job(&jobs)).collect();
        let state = ImportState::Done(Arc::default());
        jobs.end(numbers[0], state);
        assert_eq!(jobs.0.lock().len(), JOBS_MAX);
        jobs.cancel(numbers[1], [2; 20]);
        assert_eq!(jobs.0.lock().len(), JOBS_MAX);
        jobs.sweep(Instant::now() + KEPT);
        assert_eq!(jobs.0.lock().len(), JOBS_MAX - 1);
        jobs.cancel(numbers[1], OWNER);
        jobs.end(numbers[2], ImportState::Importing);
        jobs.forget(OWNER);
        assert_eq!(jobs.0.lock().len(), 1, "that which is being imported");
    }
}
