//! The form with a file. Its token comes before the file, which gets no place without it.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};

use crate::console::admin::transfer::format_of_name;
use crate::console::cookie::SignedIn;
use crate::console::jobs::{ImportJob, KeptFile};
use crate::console::problem::Problem;
use crate::console::request::{ConsoleRequest, Fields};
use crate::console::{Console, Page, required};
use crate::links::file::{Conflict, Defaults, FileFormat, ImportOptions};
use crate::store::{Health, WriteError};
use crate::transfer::{ImportSettings, UploadFile, UploadPart};

/// Largest file: more than two million links in CSV.
pub const FILE_MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Room for the other fields of the form.
const REST_MAX_BYTES: u64 = 64 * 1024;

pub fn file_max_words(bytes: u64) -> String {
    format!("{} MB", bytes / 1024 / 1024)
}

impl Console {
    /// Takes a file, and has it checked.
    pub(in crate::console) async fn upload(
        &self,
        request: &ConsoleRequest,
        body: Incoming,
        signed_in: Option<&SignedIn>,
    ) -> Page {
        let kind = request.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let mut upload = self.transfers.upload(kind.unwrap_or_default(), body)?;
        let mut form = Fields::default();
        loop {
            match upload.next().await? {
                Some(UploadPart::Text { name, value }) => form.push(name, value),
                Some(UploadPart::File(mut file)) => {
                    let taken = self.take_file(request, &form, &mut file, signed_in).await;
                    if taken.is_err() {
                        file.discard().await;
                    }
                    return taken;
                }
                None => {
                    self.check_sender(&form, signed_in)?;
                    return Err(Problem::NoFile);
                }
            }
        }
    }

    /// Whether the sender of a form may import.
    fn check_sender<'s>(&self, form: &Fields, signed_in: Option<&'s SignedIn>) -> Result<&'s SignedIn, Problem> {
        let signed_in = required(signed_in)?;
        if !self.key.is_form_token(signed_in, form.text("token")) {
            return Err(Problem::OldForm);
        }
        if !signed_in.is_admin() {
            return Err(Problem::AdministratorsOnly);
        }
        Ok(signed_in)
    }

    async fn take_file(
        &self,
        request: &ConsoleRequest,
        form: &Fields,
        file: &mut UploadFile,
        signed_in: Option<&SignedIn>,
    ) -> Page {
        let signed_in = self.check_sender(form, signed_in)?;
        if self.links.health() == Health::ReadOnly {
            return Err(WriteError::ReadOnly.into());
        }
        let length = request.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > FILE_MAX_BYTES + REST_MAX_BYTES) {
            return Err(Problem::LargeFile(FILE_MAX_BYTES));
        }
        let name = file.name().to_owned();
        let settings = self.settings_of(form, &name, signed_in)?;
        let partner = signed_in.session.partner;
        // A session has one file at a time.
        self.jobs.forget_files(signed_in.session.digest);
        let kept = self.transfers.slot_to_keep(partner)?;
        let slot = self.transfers.slot(partner)?;
        let spooled = self.transfers.spool(file, Some(FILE_MAX_BYTES)).await?;
        if spooled.bytes() == 0 {
            return Err(Problem::NoFile);
        }
        let file = Arc::new(KeptFile::new(spooled, kept));
        let job = ImportJob::new(name, settings, Arc::clone(&file));
        self.begin_check(job, signed_in, file, slot)
    }

    fn settings_of(&self, form: &Fields, name: &str, signed_in: &SignedIn) -> Result<ImportSettings, Problem> {
        let partner = self.partner_meant(form, signed_in)?;
        let format = match form.text("format") {
            "" => format_of_name(name).ok_or(Problem::UnknownFormat)?,
            format => FileFormat::named(format).ok_or(Problem::NotFound)?,
        };
        Ok(ImportSettings {
            format,
            defaults: Defaults {
                now: self.links.clock().now(),
                partner: partner.or(Some(signed_in.session.partner)),
            },
            options: ImportOptions {
                conflict: Conflict::named(form.text("conflict")).ok_or(Problem::NotFound)?,
                dry_run: false,
                keep_going: form.text("keep_going") == "1",
                partner,
                ..ImportOptions::default()
            },
        })
    }
}
