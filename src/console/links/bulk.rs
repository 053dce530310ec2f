//! Changes of many links: those that are selected, or all that a filter finds. The number is shown before, the
//! progress while it goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use askama::Template;
use hyper::StatusCode;
use parking_lot::Mutex;

use crate::console::cookie::SignedIn;
use crate::console::links::filter::{Filter, read_end};
use crate::console::page::{Frame, Section, html, see_other};
use crate::console::problem::Problem;
use crate::console::request::Fields;
use crate::console::view::{TimeView, plain};
use crate::console::{Console, Page};
use crate::links::{BULK_COMMIT_LINKS, BulkChange, BulkCounts, Links, Scope};
use crate::model::{Actor, Digest, LinkId, grouped};

/// How long the outcome of a change can be looked at.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// Changes that go on, or are kept, at a time.
const JOBS_MAX: usize = 100;
/// Pause between two commits, for the writes of others.
const PAUSE: Duration = Duration::from_millis(20);

/// The changes that are going on, or have ended a while ago.
#[derive(Debug, Default)]
pub struct BulkJobs(Mutex<HashMap<u64, Job>>);

#[derive(Debug, Clone)]
struct Job {
    /// Of the session that began it; nobody else sees it.
    owner: Digest,
    verb: &'static str,
    /// Where to go back to.
    back: String,
    total: usize,
    counts: BulkCounts,
    problem: Option<Problem>,
    is_over: bool,
    at: Instant,
}

#[derive(Debug, Template)]
#[template(path = "bulk_confirm.html")]
struct ConfirmPage {
    frame: Frame,
    verb: &'static str,
    count: usize,
    count_words: String,
    /// Until when, where the end is changed.
    end: Option<EndView>,
    action: String,
    end_text: String,
    /// The ids that are selected; none where the filter selects.
    ids: Vec<LinkId>,
    filter: Filter,
    query: String,
    back: String,
    warning: &'static str,
}

#[derive(Debug)]
enum EndView {
    Never,
    At(TimeView),
}

#[derive(Debug, Template)]
#[template(path = "bulk_progress.html")]
struct ProgressPage {
    frame: Frame,
    verb: &'static str,
    done: String,
    total: String,
    share: usize,
    counts: BulkCounts,
    problem: Option<String>,
    is_over: bool,
    back: String,
}

/// A change, its word in forms, and as people read it.
fn change_of(form: &Fields, now: crate::model::Timestamp) -> Result<(BulkChange, &'static str), Problem> {
    Ok(match form.text("action") {
        "enable" => (BulkChange::Enable, "Switch on"),
        "disable" => (BulkChange::Disable, "Switch off"),
        "delete" => (BulkChange::Delete, "Delete"),
        "restore" => (BulkChange::Restore, "Restore"),
        "extend" => {
            let end = read_end(form.text("end"), now).ok_or(Problem::NoEnd)?;
            (BulkChange::Extend(end), "Change the end of")
        }
        _ => return Err(Problem::NotFound),
    })
}

impl Console {
    /// The ids that a form selects.
    async fn selected(&self, form: &Fields, signed_in: &SignedIn) -> Result<Vec<LinkId>, Problem> {
        if form.text("select") == "all" {
            let filter = Filter::read(form, form.text("for_all") == "1");
            return Ok(self.links.search_ids(filter.to_search(signed_in)).await?);
        }
        Ok(form.all("id").filter_map(|id| id.parse().ok()).collect())
    }

    /// Asks whether so many links are meant.
    pub(in crate::console) async fn confirm_bulk(&self, form: &Fields, signed_in: &SignedIn) -> Page {
        let (change, verb) = change_of(form, self.links.clock().now())?;
        let ids = self.selected(form, signed_in).await?;
        if ids.is_empty() {
            return Err(Problem::NothingSelected);
        }
        let filter = Filter::read(form, form.text("for_all") == "1");
        let is_by_filter = form.text("select") == "all";
        let end = match change {
            BulkChange::Extend(Some(end)) => Some(EndView::At(TimeView::new(end))),
            BulkChange::Extend(None) => Some(EndView::Never),
            _ => None,
        };
        let page = ConfirmPage {
            frame: self.frame(Some(signed_in), Section::None),
            verb,
            count: ids.len(),
            count_words: grouped(ids.len() as u64),
            end,
            action: form.text("action").to_owned(),
            end_text: plain(form.text("end")),
            back: self.list_path(&filter),
            query: filter.to_query(),
            ids: if is_by_filter { Vec::new() } else { ids },
            filter,
            warning: match change {
                BulkChange::Delete => "They stop working at once. Deleted links can be restored.",
                BulkChange::Disable => "They stop working at once.",
                BulkChange::Enable | BulkChange::Restore => "They work at once.",
                BulkChange::Extend(_) => "The change takes effect at once.",
            },
        };
        Ok(html(StatusCode::OK, &page))
    }

    fn list_path(&self, filter: &Filter) -> String {
        let list = if filter.is_for_all { "all" } else { "links" };
        format!("{}?{}", self.path(list), filter.to_query())
    }

    /// Begins the change that somebody has confirmed, and leads to its progress.
    pub(in crate::console) async fn begin_bulk(&self, form: &Fields, signed_in: &SignedIn) -> Page {
        let (change, verb) = change_of(form, self.links.clock().now())?;
        if change == BulkChange::Restore && !signed_in.is_admin() {
            return Err(Problem::AdministratorsOnly);
        }
        let ids = self.selected(form, signed_in).await?;
        // Others are meant than have been shown: ask again.
        if form.text("count") != ids.len().to_string() {
            return self.confirm_bulk(form, signed_in).await;
        }
        let filter = Filter::read(form, form.text("for_all") == "1");
        let job = Job {
            owner: signed_in.session.digest,
            verb,
            back: self.list_path(&filter),
            total: ids.len(),
            counts: BulkCounts::default(),
            problem: None,
            is_over: false,
            at: Instant::now(),
        };
        let number = self.jobs.begin(job).ok_or(Problem::TooManyJobs)?;
        let (links, jobs) = (Arc::clone(&self.links), Arc::clone(&self.jobs));
        let scope = Scope::of(&signed_in.session);
        let by = signed_in.actor();
        tokio::spawn(async move { run(&links, &jobs, number, ids, scope, change, by).await });
        Ok(see_other(&self.path(&format!("bulk/{number:016x}"))))
    }

    pub(in crate::console) fn bulk_progress(&self, number: &str, signed_in: &SignedIn) -> Page {
        let job = u64::from_str_radix(number, 16)
            .ok()
            .and_then(|number| self.jobs.look_at(number));
        let job = job
            .filter(|job| job.owner == signed_in.session.digest)
            .ok_or(Problem::NotFound)?;
        let done = job.counts.total();
        let page = ProgressPage {
            frame: self.frame(Some(signed_in), Section::None),
            verb: job.verb,
            done: grouped(done as u64),
            total: grouped(job.total as u64),
            share: (done * 100).checked_div(job.total).unwrap_or(100),
            counts: job.counts,
            problem: job.problem.map(|problem| problem.explanation()),
            is_over: job.is_over,
            back: job.back,
        };
        Ok(html(StatusCode::OK, &page))
    }
}

async fn run(
    links: &Links,
    jobs: &BulkJobs,
    number: u64,
    ids: Vec<LinkId>,
    scope: Scope,
    change: BulkChange,
    by: Actor,
) {
    for some in ids.chunks(BULK_COMMIT_LINKS) {
        if links.is_ending() {
            jobs.update(number, |job| job.problem = Some(Problem::Unavailable));
            break;
        }
        match links
            .change_together(some.to_vec(), scope.clone(), change, by.clone())
            .await
        {
            Ok(counts) => jobs.update(number, |job| job.counts.add(counts)),
            Err(error) => {
                jobs.update(number, |job| job.problem = Some(error.into()));
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    jobs.update(number, |job| {
        job.is_over = true;
        job.at = Instant::now();
    });
}

impl BulkJobs {
    fn begin(&self, job: Job) -> Option<u64> {
        let mut jobs = self.0.lock();
        jobs.retain(|_, job| !job.is_over || job.at.elapsed() < KEPT);
        if jobs.values().any(|other| other.owner == job.owner && !other.is_over) {
            return None;
        }
        if jobs.len() >= JOBS_MAX {
            let over = jobs.iter().filter(|(_, job)| job.is_over);
            let oldest = over.min_by_key(|(_, job)| job.at).map(|(number, _)| *number);
            jobs.remove(&oldest?);
        }
        let number = rand::random();
        jobs.insert(number, job);
        Some(number)
    }

    fn look_at(&self, number: u64) -> Option<Job> {
        self.0.lock().get(&number).cloned()
    }

    fn update(&self, number: u64, change: impl FnOnce(&mut Job)) {
        self.0.lock().get_mut(&number).map(change);
    }
}
