//! The jobs of a partner: what its administrators change and import at the moment, and what they have.

use std::sync::atomic::Ordering;

use askama::Template;
use hyper::StatusCode;

use crate::console::Console;
use crate::console::cookie::SignedIn;
use crate::console::jobs::{BackgroundJob, ChangeJob, ImportJob, ImportState, JobKind, links};
use crate::console::page::{Frame, Section, html};
use crate::console::view::{TimeView, plain};
use crate::http::Response;
use crate::links::file::ImportReport;
use crate::model::grouped;

#[derive(Debug, Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    frame: Frame,
    jobs: Vec<JobView>,
    is_live: bool,
}

#[derive(Debug)]
struct JobView {
    title: String,
    user: String,
    began: TimeView,
    /// For the style sheet.
    class: &'static str,
    state: &'static str,
    outcome: String,
    /// Its page, if that may be seen.
    path: Option<String>,
}

impl Console {
    pub(super) fn jobs_page(&self, signed_in: &SignedIn) -> Response {
        let jobs = self.jobs.of_partner(signed_in.session.partner);
        let page = JobsPage {
            frame: self.frame(Some(signed_in), Section::Jobs),
            is_live: jobs.iter().any(|job| job.is_running()),
            jobs: jobs.iter().map(|job| self.job_view(job, signed_in)).collect(),
        };
        html(StatusCode::OK, &page)
    }

    fn job_view(&self, job: &BackgroundJob, signed_in: &SignedIn) -> JobView {
        let is_own = job.owner.session == signed_in.session.digest;
        let (title, [class, state], outcome, path) = match &job.kind {
            JobKind::Change(change) => {
                let (state, outcome) = state_of_change(change);
                let path = self.path(&format!("bulk/{}", job.name()));
                (change.title(), state, outcome, Some(path))
            }
            JobKind::Import(import) => {
                let (state, outcome) = state_of_import(import);
                let path = self.path(&format!("transfer/{}", job.name()));
                (
                    format!("Import {}", plain(&import.name)),
                    state,
                    outcome,
                    is_own.then_some(path),
                )
            }
        };
        JobView {
            title,
            user: plain(&job.owner.user),
            began: TimeView::new(job.began),
            class,
            state,
            outcome,
            path,
        }
    }
}

const RUNNING: &str = "waits";
const DONE: &str = "works";
const FAILED: &str = "expired";

fn state_of_change(change: &ChangeJob) -> ([&'static str; 2], String) {
    let progress = change.progress();
    let outcome = change.outcome(&progress).join(" ");
    match (&progress.stopped, progress.is_over()) {
        (Some(why), _) => ([FAILED, "Stopped"], format!("The reason: {why}. {outcome}")),
        (None, true) => ([DONE, "Done"], outcome),
        (None, false) => {
            let reached = grouped(progress.counts.total() as u64);
            ([RUNNING, "Running"], format!("{reached} of {}.", links(change.total)))
        }
    }
}

fn state_of_import(import: &ImportJob) -> ([&'static str; 2], String) {
    let lines = || {
        let lines = grouped(import.progress.lines.load(Ordering::Relaxed));
        format!("{lines} lines read.")
    };
    let counts = |report: &ImportReport| {
        let [added, updated, refused] = [report.added, report.updated, report.refused].map(grouped);
        format!("{added} added, {updated} replaced, {refused} refused.")
    };
    match import.state() {
        ImportState::Checking => ([RUNNING, "Being checked"], lines()),
        ImportState::Checked(_) => (
            [RUNNING, "Waits"],
            "Until the person who uploaded it confirms.".to_owned(),
        ),
        ImportState::Importing => ([RUNNING, "Running"], lines()),
        ImportState::Done(report) if report.applied => ([DONE, "Done"], counts(&report)),
        ImportState::Done(_) => (
            [FAILED, "Refused"],
            "Nothing was imported, because lines were refused.".to_owned(),
        ),
        ImportState::Failed(why) => ([FAILED, "Failed"], plain(&why)),
    }
}
