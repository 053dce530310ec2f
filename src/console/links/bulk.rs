//! Changes of many links: those that are selected, or all that a filter finds. The number is shown before, the
//! progress while it goes on.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use hyper::StatusCode;

use crate::console::cookie::SignedIn;
use crate::console::jobs::{BackgroundJob, ChangeJob, ChangeWords, JobKind, links};
use crate::console::links::edit::read_time;
use crate::console::links::filter::{Filter, read_end};
use crate::console::page::{Frame, Section, html, see_other};
use crate::console::problem::Problem;
use crate::console::request::Fields;
use crate::console::view::{input_value, plain};
use crate::console::{Console, Page};
use crate::links::{BULK_COMMIT_LINKS, BulkChange, LinkError, Links, Scope};
use crate::model::{Actor, LinkId, Timestamp, grouped};
use crate::store::WriteError;

/// Pause between two commits, for the writes of others.
const PAUSE: Duration = Duration::from_millis(20);

/// The end that a date says, in a field of its own.
const END_BY_DATE: &str = "date";

const ENABLE: ChangeWords = ChangeWords {
    verb: "Switch on",
    done: "switched on",
    already: "switched on",
    refused: "a damaged record",
    warning: "They work at once.",
};
const DISABLE: ChangeWords = ChangeWords {
    verb: "Switch off",
    done: "switched off",
    already: "switched off",
    refused: "a damaged record",
    warning: "They stop working at once.",
};
const DELETE: ChangeWords = ChangeWords {
    verb: "Delete",
    done: "deleted",
    already: "deleted",
    refused: "a damaged record",
    warning: "They stop working at once. Deleted links can be restored.",
};
const RESTORE: ChangeWords = ChangeWords {
    verb: "Restore",
    done: "restored",
    already: "restored",
    refused: "a unique ID that another link has, a new ID, or a damaged record",
    warning: "They work at once.",
};
const EXTEND: ChangeWords = ChangeWords {
    verb: "Change the end of",
    done: "given the new end",
    already: "ending then",
    refused: "a start after the new end, or a damaged record",
    warning: "The change takes effect at once.",
};

#[derive(Debug, Template)]
#[template(path = "bulk_confirm.html")]
struct ConfirmPage {
    frame: Frame,
    title: String,
    count: usize,
    /// Where the end is changed.
    end: Option<EndView>,
    action: String,
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
    /// The value of an input, in UTC.
    At(String),
}

#[derive(Debug, Template)]
#[template(path = "bulk_progress.html")]
struct ProgressPage {
    frame: Frame,
    title: String,
    done: String,
    total: String,
    share: usize,
    stopped: Option<String>,
    outcome: String,
    is_over: bool,
    /// The fields that begin it again, if it was stopped.
    again: Option<Vec<(String, String)>>,
    back: String,
}

/// Until when links are to work.
fn new_end(form: &Fields, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    if form.text("end") == END_BY_DATE {
        let ends = read_time(form.text("ends"), form.text("ends_unix"), None).flatten();
        return ends.map(Some).ok_or(Problem::NoEnd);
    }
    read_end(form.text("end"), now).ok_or(Problem::NoEnd)
}

fn words_of(form: &Fields) -> Result<&'static ChangeWords, Problem> {
    Ok(match form.text("action") {
        "enable" => &ENABLE,
        "disable" => &DISABLE,
        "delete" => &DELETE,
        "restore" => &RESTORE,
        "extend" => &EXTEND,
        _ => return Err(Problem::NotFound),
    })
}

fn change_of(form: &Fields, now: Timestamp) -> Result<BulkChange, Problem> {
    Ok(match form.text("action") {
        "enable" => BulkChange::Enable,
        "disable" => BulkChange::Disable,
        "delete" => BulkChange::Delete,
        "restore" => BulkChange::Restore,
        "extend" => BulkChange::Extend(new_end(form, now)?),
        _ => return Err(Problem::NotFound),
    })
}

impl EndView {
    /// The end in a form, to be confirmed or chosen.
    fn read(form: &Fields, now: Timestamp) -> Result<Option<Self>, Problem> {
        if form.text("action") != "extend" {
            return Ok(None);
        }
        if form.text("end") == END_BY_DATE && form.text("ends").is_empty() {
            return Ok(Some(Self::At(String::new())));
        }
        Ok(Some(match new_end(form, now)? {
            Some(end) => Self::At(input_value(Some(end))),
            None => Self::Never,
        }))
    }
}

fn filter_of(form: &Fields) -> Filter {
    let filter = Filter::read(form, form.text("for_all") == "1");
    // As it is, and not without the blanks around it: that would be another user, or everybody.
    let owner = if filter.is_for_all { form.exact("owner") } else { "" };
    Filter {
        owner: owner.to_owned(),
        ..filter
    }
}

impl Console {
    /// The ids that a form selects.
    async fn selected(&self, form: &Fields, signed_in: &SignedIn) -> Result<Vec<LinkId>, Problem> {
        if form.text("select") == "all" {
            let search = filter_of(form).to_search(signed_in);
            return Ok(self.links.search_ids(search).await?);
        }
        Ok(form.all("id").filter_map(|id| id.parse().ok()).collect())
    }

    /// Asks whether so many links are meant.
    pub(in crate::console) async fn confirm_bulk(&self, form: &Fields, signed_in: &SignedIn) -> Page {
        let words = words_of(form)?;
        let end = EndView::read(form, self.links.clock().now())?;
        let ids = self.selected(form, signed_in).await?;
        if ids.is_empty() {
            return Err(Problem::NothingSelected);
        }
        let filter = filter_of(form);
        let is_by_filter = form.text("select") == "all";
        let page = ConfirmPage {
            frame: self.frame(Some(signed_in), Section::None),
            title: format!("{} {}", words.verb, links(ids.len())),
            count: ids.len(),
            end,
            action: form.text("action").to_owned(),
            back: self.list_path(&filter),
            query: filter.to_query(),
            ids: if is_by_filter { Vec::new() } else { ids },
            filter,
            warning: words.warning,
        };
        Ok(html(StatusCode::OK, &page))
    }

    fn list_path(&self, filter: &Filter) -> String {
        let list = if filter.is_for_all { "all" } else { "links" };
        format!("{}?{}", self.path(list), filter.to_query())
    }

    /// Begins the change that somebody has confirmed, and leads to its progress.
    pub(in crate::console) async fn begin_bulk(&self, form: &Fields, signed_in: &SignedIn) -> Page {
        let (words, change) = (words_of(form)?, change_of(form, self.links.clock().now())?);
        if change == BulkChange::Restore && !signed_in.is_admin() {
            return Err(Problem::AdministratorsOnly);
        }
        let ids = self.selected(form, signed_in).await?;
        // Others are meant than have been shown: ask again.
        if form.text("count") != ids.len().to_string() {
            return self.confirm_bulk(form, signed_in).await;
        }
        let back = self.list_path(&filter_of(form));
        let job = JobKind::Change(ChangeJob::new(words, ids.len(), back, form.clone()));
        let job = self.begin_job(job, signed_in)?;
        let progress = see_other(&self.path(&format!("bulk/{}", job.name())));
        let (store, scope, by) = (
            Arc::clone(&self.links),
            Scope::of(&signed_in.session),
            signed_in.actor(),
        );
        tokio::spawn(async move { run(&store, &job, ids, scope, change, by).await });
        Ok(progress)
    }

    /// For the session that has begun it, and for the administrators of its partner.
    pub(in crate::console) fn bulk_progress(&self, number: &str, signed_in: &SignedIn) -> Page {
        let job = self.jobs.find(number).ok_or(Problem::NotFound)?;
        let change = job.change().ok_or(Problem::NotFound)?;
        let is_own = job.owner.session == signed_in.session.digest;
        if !is_own && (!signed_in.is_admin() || job.owner.partner != signed_in.session.partner) {
            return Err(Problem::NotFound);
        }
        let progress = change.progress();
        let done = progress.counts.total();
        let again = || {
            let fields = change
                .form
                .pairs()
                .filter(|(name, _)| !["token", "count"].contains(name));
            fields.map(|(name, value)| (plain(name), value.to_owned())).collect()
        };
        let page = ProgressPage {
            frame: self.frame(Some(signed_in), Section::None),
            title: change.title(),
            done: grouped(done as u64),
            total: links(change.total),
            share: (done * 100).checked_div(change.total).unwrap_or(100),
            outcome: change.outcome(&progress).join(" "),
            is_over: progress.is_over(),
            again: (is_own && progress.stopped.is_some()).then(again),
            stopped: progress.stopped,
            back: change.back.clone(),
        };
        Ok(html(StatusCode::OK, &page))
    }
}

async fn run(store: &Links, job: &BackgroundJob, ids: Vec<LinkId>, scope: Scope, change: BulkChange, by: Actor) {
    let Some(progress) = job.change() else { return };
    let partner = scope.partner.0;
    for some in ids.chunks(BULK_COMMIT_LINKS) {
        if store.is_ending() {
            progress.stop("the server is being stopped".to_owned(), 0);
            break;
        }
        match store
            .change_together(some.to_vec(), scope.clone(), change, by.clone())
            .await
        {
            Ok(counts) => progress.count(counts),
            Err(error) => {
                tracing::warn!(partner, %error, "change of many links stopped");
                let is_unknown = matches!(error, LinkError::Write(WriteError::OutcomeUnknown));
                progress.stop(cause(&error), if is_unknown { some.len() } else { 0 });
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    progress.end();
    let (words, counts) = (progress.words, progress.progress().counts);
    tracing::info!(
        partner,
        change = words.verb,
        links = counts.total(),
        changed = counts.changed,
        "changed many links"
    );
}

/// Why a commit has failed, for people.
fn cause(error: &LinkError) -> String {
    match error {
        LinkError::Write(error) => error.to_string(),
        _ => "the server could not read the links, and its log says why".to_owned(),
    }
}
