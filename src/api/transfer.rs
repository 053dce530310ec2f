//! The service `tinyd`, which Kaltura's API lacks: backups of the whole store, and links as lines of a file.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};

use crate::access::OtherPartner;
use crate::api::body::broken;
use crate::api::fields::parse_partner;
use crate::api::{Api, BODY_TIMEOUT, Caller, Outcome, Params, body, caller_of, close_after, requested};
use crate::http::{self, PieceSender, Response};
use crate::kaltura::session::Session;
use crate::kaltura::{ApiError, Call, Target};
use crate::links::file::{self, FileFormat};
use crate::links::file::{Conflict, ImportEvent, ImportOptions};
use crate::metrics::ActionName;
use crate::model::{Actor, PartnerId};
use crate::transfer::{ImportFailure, ImportSettings, ImportSlot, SpooledFile, TransferError, UploadPart};

pub(super) const SERVICE: &str = "tinyd";
/// For the metrics: imports bypass `call`.
const IMPORT: ActionName = (SERVICE, "import");

/// The number of links that an export leaves out because their records are damaged.
const X_TINYD_DAMAGED: HeaderName = HeaderName::from_static("x-tinyd-damaged");

/// How often the client hears of the progress of an import.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// How a file is to be imported.
struct Import {
    settings: ImportSettings,
    by: Actor,
    slot: ImportSlot,
}

impl Api {
    /// A dump of the whole store, of every partner: for operators.
    pub(super) async fn backup(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.admin_session(params, caller, SERVICE, "backup").await?;
        if !self.is_operator(&session) {
            return Err(ApiError::forbidden(SERVICE, "backup"));
        }
        let response = self.transfers.backup().await?;
        tracing::info!(partner = session.partner.0, "backup started");
        Ok(Outcome::Response(response))
    }

    /// Links as lines: those of the session's partner, or for operators, where no partner is named, all.
    pub(super) async fn export(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.admin_session(params, caller, SERVICE, "export").await?;
        let partner = self.partner_meant(params, &session, "export")?;
        let format = file_format(params)?;
        let (mut response, damaged) = self.transfers.export(partner, format).await?;
        let headers = response.headers_mut();
        headers.insert(X_TINYD_DAMAGED, HeaderValue::from(damaged));
        Ok(Outcome::Response(response))
    }

    /// Whether this request is an import, whose body must not be held in memory.
    pub(super) fn is_import(request: &Request<Incoming>) -> bool {
        let target = Target::from_uri(request.uri());
        target.is_some_and(|target| Call::from_target(target).is(SERVICE, "import"))
    }

    /// Imports the links of a file. The answer is JSON Lines: the progress, then the report or the failure.
    pub(super) async fn import(self: Arc<Self>, request: Request<Incoming>, address: IpAddr) -> Response {
        let started = Instant::now();
        let (head, incoming) = request.into_parts();
        let mut of_target = Params::default();
        let mut params = Params::default();
        let received = match Self::read_target(&head, &mut of_target) {
            Ok(()) => self.receive(&head, incoming, address, &of_target, &mut params).await,
            Err(fault) => Err(fault),
        };
        match received {
            Ok((file, import)) => self.run_import(file, import, started),
            Err(fault) => {
                params.merge(of_target);
                self.count(IMPORT, Some(&fault), started);
                let requested = requested(&params).unwrap_or_default();
                let mut response = fault.respond(&requested.format_of_faults(), started.elapsed());
                close_after(&mut response);
                response
            }
        }
    }

    /// Reads the fields, checks the session, and spools the file, so that no slow client holds up the writer.
    async fn receive(
        &self,
        head: &hyper::http::request::Parts,
        incoming: Incoming,
        address: IpAddr,
        of_target: &Params,
        params: &mut Params,
    ) -> Result<(SpooledFile, Import), ApiError> {
        if let Some(edge) = self.edge() {
            return Err(edge);
        }
        body::check_encoding(&head.headers)?;
        let content_type = body::content_type(&head.headers).unwrap_or("");
        let mut upload = self.transfers.upload(content_type, incoming)?;
        let (caller, _presence) = caller_of(head, address, Instant::now());
        loop {
            let mut upload = match upload.next().await? {
                None => return Err(ApiError::missing("file")),
                Some(UploadPart::Text { name, value }) => {
                    params.insert(&name, value)?;
                    continue;
                }
                Some(UploadPart::File(upload)) => upload,
            };
            params.merge(of_target.clone());
            let received = match self.check_import(params, &caller).await {
                Ok(import) => match self.transfers.spool(&mut upload, None).await {
                    Ok(file) => Ok((file, import)),
                    Err(error) => Err(error.into()),
                },
                Err(fault) => Err(fault),
            };
            if received.is_err() {
                upload.discard().await;
            }
            return received;
        }
    }

    /// Whether the session may import as the fields say. Only then does the file get a place.
    async fn check_import(&self, params: &Params, caller: &Caller) -> Result<Import, ApiError> {
        let session = self.admin_session(params, caller, SERVICE, "import").await?;
        let options = ImportOptions {
            conflict: match params.given("conflict")? {
                None => Conflict::default(),
                Some(name) => Conflict::named(name)
                    .ok_or_else(|| ApiError::invalid("conflict", "expected fail, skip or update"))?,
            },
            dry_run: params.flag("dryRun")?,
            keep_going: params.flag("keepGoing")?,
            partner: self.partner_meant(params, &session, "import")?,
            ..ImportOptions::default()
        };
        let defaults = file::Defaults {
            now: self.links.clock().now(),
            partner: options.partner.or(Some(session.partner)),
        };
        let settings = ImportSettings {
            format: file_format(params)?,
            defaults,
            options,
        };
        let slot = self.transfers.slot(session.partner)?;
        let by = caller.actor(&session);
        Ok(Import { settings, by, slot })
    }

    /// Imports, also after the client has left.
    fn run_import(self: Arc<Self>, file: SpooledFile, wanted: Import, started: Instant) -> Response {
        let (sender, response) = http::stream("application/x-ndjson");
        tokio::spawn(async move {
            let Import {
                settings,
                by,
                slot: _slot,
            } = wanted;
            let lines_read = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&lines_read);
            let importing = async {
                let on_lines = Arc::new(move |lines| counted.store(lines, Ordering::Relaxed));
                let partners = self.starts.partners();
                let imported = self.transfers.import(&file, settings, by, partners, on_lines).await;
                imported.map_or_else(failed, ImportEvent::Report)
            };
            let mut importing = std::pin::pin!(importing);
            let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
            let mut is_listening = true;
            let end = loop {
                let line = tokio::select! {
                    end = &mut importing => break end,
                    _ = interval.tick(),
                        if is_listening => ImportEvent::Progress { lines: lines_read.load(Ordering::Relaxed) },
                };
                is_listening = send(&sender, &line).await;
            };
            // Faults of the file concern its sender, and stand in the report.
            let fault = match end {
                ImportEvent::Failed { is_of_the_store, .. } => is_of_the_store.then_some(ApiError::Internal),
                _ => None,
            };
            self.count(IMPORT, fault.as_ref(), started);
            if send(&sender, &end).await {
                sender.end().await;
            }
        });
        response
    }

    fn is_operator(&self, session: &Session) -> bool {
        self.starts.is_operator(session.partner)
    }

    /// The named partner, else the session's; for operators, `None` for all.
    pub(super) fn partner_meant(
        &self,
        params: &Params,
        session: &Session,
        action: &str,
    ) -> Result<Option<PartnerId>, ApiError> {
        let invalid = || ApiError::invalid("partnerId", "expected a whole number");
        let named = params.given("partnerId")?;
        let named = named.map(|text| parse_partner(text).ok_or_else(invalid)).transpose()?;
        let meant = self.starts.partner_meant(session.partner, named);
        meant.map_err(|OtherPartner| ApiError::forbidden(SERVICE, action))
    }
}

fn file_format(params: &Params) -> Result<FileFormat, ApiError> {
    match params.text("fileFormat")? {
        None | Some("") => Ok(FileFormat::JsonLines),
        Some(name) => FileFormat::named(name).ok_or_else(|| ApiError::invalid("fileFormat", "expected jsonl or csv")),
    }
}

fn failed(failure: ImportFailure) -> ImportEvent {
    let ImportFailure { error, is_of_the_store } = failure;
    ImportEvent::Failed { error, is_of_the_store }
}

/// Sends a line; false if the client takes no more.
async fn send(sender: &PieceSender, event: &ImportEvent) -> bool {
    let Ok(mut line) = serde_json::to_vec(event) else {
        return false;
    };
    line.push(b'\n');
    let sent = tokio::time::timeout(BODY_TIMEOUT, sender.send(line)).await;
    matches!(sent, Ok(Ok(())))
}

impl From<TransferError> for ApiError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Busy => Self::Busy,
            TransferError::Ending => Self::Restarting,
            TransferError::NoMemory => Self::Overloaded,
            TransferError::TooSlow => Self::TooSlow,
            TransferError::NotMultipart => {
                Self::invalid("Content-Type", "expected multipart/form-data, with the field file last")
            }
            TransferError::Broken(error) => broken(&error),
            TransferError::LongField { name, limit } => Self::invalid(&name, format!("longer than {limit} bytes")),
            TransferError::NotUtf8 { name } => Self::InvalidChar { field: name },
            TransferError::TooLarge { limit } => Self::TooLarge {
                limit_bytes: usize::try_from(limit).unwrap_or(usize::MAX),
            },
            TransferError::NoSpace(error) => Self::NoSpace {
                reason: format!("cannot buffer the upload on disk: {error}"),
            },
            TransferError::Store(error) => error.into(),
            TransferError::Interrupted => Self::Internal,
        }
    }
}
