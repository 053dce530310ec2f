//! Import and export: a file is checked first, and imported as it was shown.

mod report;
mod upload;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use askama::Template;
use hyper::StatusCode;

use crate::console::admin::transfer::report::ImportReportView;
use crate::console::cookie::SignedIn;
use crate::console::jobs::{BackgroundJob, FILE_WAIT, ImportJob, ImportState, JobKind, KeptFile};
use crate::console::page::{Frame, Section, html, protect, see_other};
use crate::console::problem::Problem;
use crate::console::request::{ConsoleRequest, Fields};
use crate::console::view::{input_date, plain};
use crate::console::{Console, Page, save_as};
use crate::links::file::{FileFormat, ImportOptions};
use crate::model::validate;
use crate::model::{PartnerId, grouped, whole_number};
use crate::transfer::ImportSlot;

#[derive(Debug, Template)]
#[template(path = "transfer.html")]
struct TransferPage {
    frame: Frame,
    /// For operators to choose from.
    partners: Vec<PartnerId>,
    file_max_bytes: u64,
    file_max: String,
}

#[derive(Debug, Template)]
#[template(path = "transfer_import.html")]
struct ImportPage {
    frame: Frame,
    name: String,
    number: String,
    state: ImportState,
    lines: String,
    share: u64,
    report: Option<ImportReportView>,
    keeps_going: bool,
    minutes: u64,
}

impl Console {
    pub(super) async fn show_transfer(&self, path: &[&str], request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        match *path {
            [] => Ok(self.transfer_page(signed_in)),
            ["export"] => self.export_links(request, signed_in).await,
            [number] => self.import_page(number, signed_in),
            _ => Err(Problem::NotFound),
        }
    }

    pub(super) fn change_transfer(&self, path: &[&str], form: &Fields, signed_in: &SignedIn) -> Page {
        match *path {
            [number, "import"] => self.confirm_import(number, form, signed_in),
            [number, "cancel"] => {
                self.import_of(number, signed_in)?;
                // A session has no more than this one.
                self.jobs.forget_files(signed_in.session.digest);
                Ok(see_other(&self.path("transfer")))
            }
            _ => Err(Problem::NotFound),
        }
    }

    fn transfer_page(&self, signed_in: &SignedIn) -> crate::http::Response {
        let partners = self.starts.partners();
        let page = TransferPage {
            frame: self.frame(Some(signed_in), Section::Transfer),
            partners: if self.is_operator(signed_in) {
                partners.ids().collect()
            } else {
                Vec::new()
            },
            file_max_bytes: upload::FILE_MAX_BYTES,
            file_max: upload::file_max_words(upload::FILE_MAX_BYTES),
        };
        html(StatusCode::OK, &page)
    }

    /// By the rules of the API: the own links, and for operators those of any partner, or all.
    fn partner_meant(&self, fields: &Fields, signed_in: &SignedIn) -> Result<Option<PartnerId>, Problem> {
        let named = match fields.text("partner") {
            "" => None,
            text => Some(
                whole_number(text)
                    .and_then(validate::partner_id)
                    .ok_or(Problem::NotFound)?,
            ),
        };
        let meant = self.starts.partner_meant(signed_in.session.partner, named);
        meant.map_err(|_| Problem::OperatorsOnly)
    }

    async fn export_links(&self, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let format = FileFormat::named(request.query.text("format")).ok_or(Problem::NotFound)?;
        let partner = self.partner_meant(&request.query, signed_in)?;
        let (mut response, damaged) = self.transfers.export(partner, format).await?;
        let (day, extension) = (input_date(Some(self.links.clock().now())), format.name());
        let name = match damaged {
            0 => format!("links-{day}.{extension}"),
            // A browser shows nothing of a download but its name.
            damaged => format!("links-{day}-without-{damaged}-damaged.{extension}"),
        };
        protect(response.headers_mut());
        save_as(response.headers_mut(), &name);
        Ok(response)
    }

    fn import_page(&self, number: &str, signed_in: &SignedIn) -> Page {
        let job = self.import_of(number, signed_in)?;
        let number = job.name();
        let job = job.import().ok_or(Problem::NoUpload)?;
        let state = job.state();
        let lines = job.progress.lines.load(Ordering::Relaxed);
        let of = job.progress.of.load(Ordering::Relaxed);
        let page = ImportPage {
            frame: self.frame(Some(signed_in), Section::Transfer),
            name: plain(&job.name),
            number,
            lines: grouped(lines),
            share: (lines * 100).checked_div(of).unwrap_or_default(),
            report: match &state {
                ImportState::Checked(report) | ImportState::Done(report) => Some(ImportReportView::new(report)),
                _ => None,
            },
            keeps_going: job.settings.options.keep_going,
            minutes: FILE_WAIT.as_secs() / 60,
            state: match state {
                ImportState::Failed(error) => ImportState::Failed(plain(&error)),
                state => state,
            },
        };
        Ok(html(StatusCode::OK, &page))
    }

    /// An import of this session; nobody else sees it.
    fn import_of(&self, number: &str, signed_in: &SignedIn) -> Result<Arc<BackgroundJob>, Problem> {
        let job = self.jobs.find(number).filter(|job| job.import().is_some());
        let job = job.filter(|job| job.owner.session == signed_in.session.digest);
        job.ok_or(Problem::NoUpload)
    }

    /// Has a file checked, and leads to the outcome.
    fn begin_check(&self, job: ImportJob, signed_in: &SignedIn, file: Arc<KeptFile>, slot: ImportSlot) -> Page {
        let (progress, partners, by) = (Arc::clone(&job.progress), self.starts.partners(), signed_in.actor());
        let mut settings = job.settings.clone();
        settings.options.dry_run = true;
        let job = self.begin_job(JobKind::Import(job), signed_in)?;
        let outcome = see_other(&self.path(&format!("transfer/{}", job.name())));
        let (transfers, jobs) = (Arc::clone(&self.transfers), Arc::clone(&self.jobs));
        tokio::spawn(async move {
            let checked = transfers.import(&file.spooled, settings, by, partners, progress.count());
            let state = match checked.await {
                Ok(report) => ImportState::Checked(Arc::new(report)),
                Err(failure) => ImportState::Failed(failure.error),
            };
            if let Some(import) = job.import() {
                import.end(state);
            }
            let jobs = Arc::downgrade(&jobs);
            // None of these waits for somebody.
            drop((transfers, job, file, slot));
            tokio::time::sleep(FILE_WAIT).await;
            if let Some(jobs) = jobs.upgrade() {
                jobs.sweep(Instant::now());
            }
        });
        Ok(outcome)
    }

    /// Imports the file that was shown.
    fn confirm_import(&self, number: &str, form: &Fields, signed_in: &SignedIn) -> Page {
        let job = self.import_of(number, signed_in)?;
        let import = job.import().ok_or(Problem::NoUpload)?;
        let slot = self.transfers.slot(signed_in.session.partner)?;
        let outcome = see_other(&self.path(&format!("transfer/{}", job.name())));
        // Who confirms twice sees how the first goes on.
        let Some(file) = import.confirm() else {
            return Ok(outcome);
        };
        let mut settings = import.settings.clone();
        settings.options = ImportOptions {
            keep_going: settings.options.keep_going || form.text("keep_going") == "1",
            ..settings.options
        };
        settings.defaults.now = self.links.clock().now();
        let (transfers, partners) = (Arc::clone(&self.transfers), self.starts.partners());
        let (partner, by) = (signed_in.session.partner, signed_in.actor());
        let on_lines = import.progress.count();
        tokio::spawn(async move {
            let _slot = slot;
            let imported = transfers.import(&file.spooled, settings, by, partners, on_lines);
            let state = match imported.await {
                Ok(report) => {
                    let (added, updated) = (report.added, report.updated);
                    tracing::info!(
                        partner = partner.0,
                        added,
                        updated,
                        applied = report.applied,
                        "file imported"
                    );
                    ImportState::Done(Arc::new(report))
                }
                Err(failure) => ImportState::Failed(failure.error),
            };
            if let Some(import) = job.import() {
                import.end(state);
            }
        });
        Ok(outcome)
    }
}

/// The format that a name says.
fn format_of_name(name: &str) -> Option<FileFormat> {
    let extension = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "csv" | "tsv" => Some(FileFormat::Csv),
        "jsonl" | "ndjson" | "json" => Some(FileFormat::JsonLines),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_from_the_name() {
        for (name, format) in [
            ("links.csv", Some(FileFormat::Csv)),
            ("Links 2026.CSV", Some(FileFormat::Csv)),
            ("a.csv.jsonl", Some(FileFormat::JsonLines)),
            ("links.ndjson", Some(FileFormat::JsonLines)),
            ("links.xlsx", None),
            ("csv", None),
            ("", None),
        ] {
            assert_eq!(format_of_name(name), format, "{name}");
        }
    }
}
