//! What goes on without the request that began it: changes of many links, and imports. It ends when the server does.

mod change;
mod import;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use change::{ChangeJob, ChangeWords, links};
pub use import::{FILE_WAIT, ImportJob, ImportState, KeptFile};

use crate::model::{Digest, PartnerId, Timestamp};

/// How long the outcome of a job can be looked at.
const KEPT: Duration = Duration::from_secs(60 * 60);
const JOBS_MAX: usize = 100;

/// The jobs that wait, run, or have ended a while ago, by number.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<HashMap<u128, Arc<BackgroundJob>>>);

#[derive(Debug)]
pub struct BackgroundJob {
    pub number: u128,
    pub owner: JobOwner,
    pub began: Timestamp,
    pub kind: JobKind,
}

/// Who has begun a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOwner {
    pub session: Digest,
    pub partner: PartnerId,
    pub user: String,
}

#[derive(Debug)]
pub enum JobKind {
    Change(ChangeJob),
    Import(ImportJob),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// For its owner, until this moment.
    Waiting(Instant),
    /// Forgotten at this moment.
    Over(Instant),
}

impl BackgroundJob {
    fn stage(&self) -> Stage {
        match &self.kind {
            JobKind::Change(job) => job.stage(),
            JobKind::Import(job) => job.stage(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.stage() == Stage::Running
    }

    /// In paths.
    pub fn name(&self) -> String {
        format!("{:032x}", self.number)
    }

    pub const fn change(&self) -> Option<&ChangeJob> {
        match &self.kind {
            JobKind::Change(job) => Some(job),
            JobKind::Import(_) => None,
        }
    }

    pub const fn import(&self) -> Option<&ImportJob> {
        match &self.kind {
            JobKind::Import(job) => Some(job),
            JobKind::Change(_) => None,
        }
    }
}

impl Jobs {
    /// Takes a job that is about to run. `None` if there are too many; a session changes links once at a time.
    pub fn begin(&self, owner: JobOwner, began: Timestamp, kind: JobKind) -> Option<Arc<BackgroundJob>> {
        self.sweep(Instant::now());
        let mut jobs = self.0.lock();
        let changes = |other: &BackgroundJob| {
            other.owner.session == owner.session && other.change().is_some() && other.is_running()
        };
        if matches!(kind, JobKind::Change(_)) && jobs.values().any(|other| changes(other)) {
            return None;
        }
        if jobs.len() >= JOBS_MAX {
            let over = jobs.iter().filter_map(|(number, job)| match job.stage() {
                Stage::Over(until) => Some((until, *number)),
                Stage::Running | Stage::Waiting(_) => None,
            });
            let (_, oldest) = over.min()?;
            jobs.remove(&oldest);
        }
        let job = Arc::new(BackgroundJob {
            number: rand::random(),
            owner,
            began,
            kind,
        });
        jobs.insert(job.number, Arc::clone(&job));
        Some(job)
    }

    /// By its name in a path.
    pub fn find(&self, name: &str) -> Option<Arc<BackgroundJob>> {
        let number = u128::from_str_radix(name, 16).ok()?;
        self.sweep(Instant::now());
        self.0.lock().get(&number).cloned()
    }

    /// The jobs of a partner, the newest first.
    pub fn of_partner(&self, partner: PartnerId) -> Vec<Arc<BackgroundJob>> {
        self.sweep(Instant::now());
        let jobs = self.0.lock();
        let mut of_partner: Vec<_> = jobs
            .values()
            .filter(|job| job.owner.partner == partner)
            .cloned()
            .collect();
        of_partner.sort_by_key(|job| (std::cmp::Reverse(job.began), job.number));
        of_partner
    }

    /// Forgets the files of a session that nobody has had imported.
    pub fn forget_files(&self, session: Digest) {
        let is_forgotten =
            |job: &BackgroundJob| job.owner.session == session && job.import().is_some_and(ImportJob::is_unconfirmed);
        self.0.lock().retain(|_, job| !is_forgotten(job));
    }

    /// Forgets what has been kept for long enough.
    pub fn sweep(&self, now: Instant) {
        self.0.lock().retain(|_, job| match job.stage() {
            Stage::Running => true,
            Stage::Waiting(until) | Stage::Over(until) => now < until,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::file::{Defaults, FileFormat, ImportOptions};
    use crate::transfer::ImportSettings;

    fn owner(session: u8) -> JobOwner {
        JobOwner {
            session: [session; 20],
            partner: PartnerId(7),
            user: "jane".to_owned(),
        }
    }

    fn begin(jobs: &Jobs, session: u8, kind: JobKind) -> Option<Arc<BackgroundJob>> {
        jobs.begin(owner(session), Timestamp::from_unix(i64::from(session)), kind)
    }

    fn change() -> JobKind {
        JobKind::Change(ChangeJob::of_test(10))
    }

    fn import() -> JobKind {
        let settings = ImportSettings {
            format: FileFormat::Csv,
            defaults: Defaults {
                now: Timestamp::from_unix(0),
                partner: None,
            },
            options: ImportOptions::default(),
        };
        JobKind::Import(ImportJob::without_file(settings))
    }

    fn end(job: &BackgroundJob) {
        match &job.kind {
            JobKind::Change(change) => change.end(),
            JobKind::Import(import) => import.end(ImportState::Done(Arc::default())),
        }
    }

    #[test]
    fn checked_file_waits_for_ten_minutes() {
        let jobs = Jobs::default();
        let job = begin(&jobs, 1, import()).unwrap();
        let is_there = || jobs.find(&job.name()).is_some();
        jobs.sweep(Instant::now() + FILE_WAIT);
        assert!(is_there(), "it is being checked");
        job.import().unwrap().end(ImportState::Checked(Arc::default()));
        jobs.sweep(Instant::now() + FILE_WAIT / 2);
        assert!(is_there());
        jobs.sweep(Instant::now() + FILE_WAIT);
        assert!(!is_there());
    }

    #[test]
    fn outcome_is_kept_for_an_hour() {
        let jobs = Jobs::default();
        for (session, kind) in [(1, change()), (2, import())] {
            let job = begin(&jobs, session, kind).unwrap();
            jobs.sweep(Instant::now() + KEPT);
            assert!(jobs.find(&job.name()).is_some(), "it is running");
            end(&job);
            jobs.sweep(Instant::now() + KEPT / 2);
            assert!(jobs.find(&job.name()).is_some());
            jobs.sweep(Instant::now() + KEPT);
            assert!(jobs.find(&job.name()).is_none());
        }
    }

    #[test]
    fn session_runs_one_change_at_a_time() {
        let jobs = Jobs::default();
        let first = begin(&jobs, 1, change()).unwrap();
        assert!(begin(&jobs, 1, change()).is_none());
        assert!(begin(&jobs, 1, import()).is_some() && begin(&jobs, 2, change()).is_some());
        end(&first);
        assert!(begin(&jobs, 1, change()).is_some());
        let numbers: Vec<_> = jobs
            .of_partner(PartnerId(7))
            .iter()
            .map(|job| job.owner.session[0])
            .collect();
        assert_eq!(numbers, [2, 1, 1, 1], "the newest first");
        assert!(jobs.of_partner(PartnerId(8)).is_empty());
    }

    #[test]
    fn number_of_jobs_is_bounded() {
        let jobs = Jobs::default();
        let all: Vec<_> = (0..100)
            .map(|session| begin(&jobs, session, change()).unwrap())
            .collect();
        assert_eq!(all.len(), JOBS_MAX);
        assert!(begin(&jobs, 200, change()).is_none(), "none may be forgotten");
        end(&all[5]);
        end(&all[3]);
        assert!(begin(&jobs, 200, change()).is_some());
        assert!(jobs.find(&all[5].name()).is_none(), "the oldest that is over");
        assert!(jobs.find(&all[3].name()).is_some());
    }

    #[test]
    fn files_of_a_session_are_forgotten() {
        let jobs = Jobs::default();
        let change = begin(&jobs, 1, change()).unwrap();
        let [checked, importing] = [(); 2].map(|()| {
            let job = begin(&jobs, 1, import()).unwrap();
            job.import().unwrap().end(ImportState::Checked(Arc::default()));
            job
        });
        importing.import().unwrap().end(ImportState::Importing);
        jobs.forget_files([2; 20]);
        assert!(jobs.find(&checked.name()).is_some());
        jobs.forget_files([1; 20]);
        assert!(jobs.find(&checked.name()).is_none());
        assert!(jobs.find(&importing.name()).is_some() && jobs.find(&change.name()).is_some());
    }
}
