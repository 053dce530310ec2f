//! The service `tinyd`: what Kaltura's API has no words for. Backups of the whole store, and links as lines of a file.

use std::io::{BufReader, BufWriter, Seek as _, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use multer::{Field, Multipart};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use crate::api::{Api, BODY_TIMEOUT, Caller, Outcome, Params, caller_of, requested, stream};
use crate::http::{self, Fault, Interrupted, Response, Target, is_true};
use crate::ks::Session;
use crate::links::{Conflict, ImportOptions, ImportReport, import};
use crate::model::PartnerId;
use crate::rows::{self, Format};
use crate::store::{CopyError, StoreError};

pub(super) const SERVICE: &str = "tinyd";

/// How many links there are, for whoever shows progress.
const X_TINYD_LINKS: HeaderName = HeaderName::from_static("x-tinyd-links");
/// How many links are left out because their records are damaged.
const X_TINYD_DAMAGED: HeaderName = HeaderName::from_static("x-tinyd-damaged");

/// Largest field of an import that is not the file, in bytes: a session is the longest.
const FIELD_MAX_BYTES: usize = 16 * 1024;
/// How often the progress of an import is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Pieces of a file that may wait to be written.
const SPOOL_PIECES: usize = 16;

/// A file that is to be imported, and how.
struct Received {
    file: std::fs::File,
    format: Format,
    defaults: rows::Defaults,
    options: ImportOptions,
}

impl Api {
    /// A dump of the whole store, of every partner: for operators.
    pub(super) async fn backup(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self.admin_session(params, caller, SERVICE, "backup").await?;
        if !self.is_operator(&session) {
            return Err(forbidden("backup"));
        }
        let permit = stream::permit(&self.streams).ok_or(Fault::Busy)?;
        let snapshot = self.links.store().snapshot()?;
        tracing::info!(partner = session.partner.0, "a backup is being made");
        let produce = move |sink: &mut stream::Sink| snapshot.dump(sink);
        let response = stream::respond(permit, "application/octet-stream", produce);
        Ok(Outcome::Response(response))
    }

    /// Links as lines: those of the session's partner, or for operators, where no partner is named, all.
    pub(super) async fn export(&self, params: &Params, caller: &Caller) -> Result<Outcome, Fault> {
        let session = self.admin_session(params, caller, SERVICE, "export").await?;
        let partner = self.partner_meant(params, &session, "export")?;
        let format = file_format(params)?;
        let permit = stream::permit(&self.streams).ok_or(Fault::Busy)?;
        let snapshot = self.links.store().snapshot()?;
        let total: u64 = snapshot.totals()?.iter().sum();
        let produce = move |sink: &mut stream::Sink| -> Result<(), CopyError> {
            let mut writer = rows::Writer::new(format, sink)?;
            for entry in snapshot.iter()? {
                match entry?.1 {
                    Ok(link) if partner.is_none_or(|partner| partner == link.partner_id) => writer.write(&link)?,
                    Ok(_) => {}
                    Err(error @ StoreError::Damaged { .. }) => {
                        tracing::error!(%error, "a link is left out of an export");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(writer.finish()?)
        };
        let content_type = match format {
            Format::JsonLines => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8",
        };
        let mut response = stream::respond(permit, content_type, produce);
        let headers = response.headers_mut();
        headers.insert(X_TINYD_LINKS, HeaderValue::from(total));
        headers.insert(X_TINYD_DAMAGED, HeaderValue::from(self.links.index().damaged()));
        Ok(Outcome::Response(response))
    }

    /// Whether this request is an import, whose body is not to be held in memory.
    pub(super) fn is_import(request: &Request<Incoming>) -> bool {
        let Some(target) = Target::of(request.uri()) else {
            return false;
        };
        let call = http::Call::of(target);
        let is = |text: &Option<_>, name: &str| {
            let text: Option<&str> = text.as_deref();
            text.is_some_and(|text| text.eq_ignore_ascii_case(name))
        };
        is(&call.service, SERVICE) && is(&call.action, "import")
    }

    /// Brings in the links of a file. The answer is JSON Lines: how far it is, then the report or what went wrong.
    pub(super) async fn import(self: Arc<Self>, request: Request<Incoming>, address: IpAddr) -> Response {
        let started = Instant::now();
        let mut params = Params::default();
        match self.receive(request, address, &mut params).await {
            Ok(received) => self.run_import(received),
            Err(fault) => {
                let requested = requested(&params).unwrap_or_default();
                let mut response = fault.respond(&requested.format_of_faults(), started.elapsed());
                // What is left of the body is not read, so nothing can come after it.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(hyper::header::CONNECTION, close);
                response
            }
        }
    }

    /// Reads the fields, checks the session, and puts the file aside, so that no client, however slow, holds up the
    /// writer.
    async fn receive(
        &self,
        request: Request<Incoming>,
        address: IpAddr,
        params: &mut Params,
    ) -> Result<Received, Fault> {
        let (head, incoming) = request.into_parts();
        for (place, key, value) in Target::of(&head.uri).into_iter().flat_map(Target::parameters) {
            params.insert_encoded(place, key, value)?;
        }
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or(""))
            .map_err(|_| Fault::invalid("Content-Type", "expected multipart/form-data, with the field file last"))?;
        let mut multipart = Multipart::new(incoming.into_data_stream(), boundary);
        let caller = caller_of(&head, address);
        loop {
            let next = tokio::time::timeout(BODY_TIMEOUT, multipart.next_field()).await;
            let next = next.map_err(|_| Fault::TooSlow)?.map_err(broken)?;
            let Some(mut field) = next else {
                return Err(Fault::MissingParameter {
                    name: "file".to_owned(),
                });
            };
            let name = field.name().unwrap_or("").to_owned();
            if name != "file" {
                params.insert(&name, read_text(&name, &mut field).await?)?;
                continue;
            }
            return match self.check_import(params, &caller).await {
                Ok((format, defaults, options)) => Ok(Received {
                    file: self.spool(field).await?,
                    format,
                    defaults,
                    options,
                }),
                Err(fault) => {
                    // A client that is still sending would not see an answer.
                    let discarding = async { while let Ok(Some(_)) = field.chunk().await {} };
                    let _ = tokio::time::timeout(BODY_TIMEOUT, discarding).await;
                    Err(fault)
                }
            };
        }
    }

    /// Whether the session may import as the fields say.
    async fn check_import(
        &self,
        params: &Params,
        caller: &Caller,
    ) -> Result<(Format, rows::Defaults, ImportOptions), Fault> {
        let session = self.admin_session(params, caller, SERVICE, "import").await?;
        let options = ImportOptions {
            conflict: match params.given("conflict")? {
                None => Conflict::default(),
                Some(name) => {
                    Conflict::named(name).ok_or_else(|| Fault::invalid("conflict", "expected fail, skip or update"))?
                }
            },
            dry_run: params.text("dryRun")?.is_some_and(is_true),
            keep_going: params.text("keepGoing")?.is_some_and(is_true),
            partner: self.partner_meant(params, &session, "import")?,
        };
        let defaults = rows::Defaults {
            now: self.links.clock().now(),
            partner: options.partner.or(Some(session.partner)),
        };
        Ok((file_format(params)?, defaults, options))
    }

    /// Writes the file into one without a name beside the store.
    async fn spool(&self, mut field: Field<'_>) -> Result<std::fs::File, Fault> {
        let unwritable = |error: std::io::Error| {
            tracing::error!(%error, "the file of an import cannot be put aside");
            Fault::Internal
        };
        let file = self.links.store().temporary_file().map_err(unwritable)?;
        let (pieces, mut received) = mpsc::channel::<Bytes>(SPOOL_PIECES);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = BufWriter::new(file);
            while let Some(piece) = received.blocking_recv() {
                writer.write_all(&piece)?;
            }
            let mut file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.rewind()?;
            Ok(file)
        });
        loop {
            let chunk = tokio::time::timeout(BODY_TIMEOUT, field.chunk()).await;
            match chunk.map_err(|_| Fault::TooSlow)?.map_err(broken)? {
                // If it is not taken, writing has failed, and says why below.
                Some(chunk) => {
                    if pieces.send(chunk).await.is_err() {
                        break;
                    }
                }
                None => break,
            }
        }
        drop(pieces);
        writing.await.map_err(|_| Fault::Internal)?.map_err(unwritable)
    }

    /// Imports, whether or not the client stays to see how it ends.
    fn run_import(self: Arc<Self>, received: Received) -> Response {
        let (mut sender, response) = http::stream("application/x-ndjson");
        let Received {
            file,
            format,
            defaults,
            options,
        } = received;
        tokio::spawn(async move {
            let lines_read = Arc::new(AtomicU64::new(0));
            let told = Arc::clone(&lines_read);
            let importing = async {
                let lines = match rows::read(format, BufReader::new(file), defaults) {
                    Ok(lines) => lines,
                    Err(reason) => return json!({ "error": reason }),
                };
                let on_lines = Arc::new(move |lines| told.store(lines, Ordering::Relaxed));
                match import(self.links.store(), lines, options, on_lines).await {
                    Ok(report) => report_of(&report),
                    Err(error) => {
                        tracing::warn!(%error, "an import has failed");
                        json!({ "error": error.to_string(), "isOfTheStore": true })
                    }
                }
            };
            let mut importing = std::pin::pin!(importing);
            let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
            let mut is_listening = true;
            let end = loop {
                let line = tokio::select! {
                    end = &mut importing => break end,
                    _ = interval.tick(), if is_listening => json!({ "lines": lines_read.load(Ordering::Relaxed) }),
                };
                is_listening = send(&mut sender, &line).await;
            };
            if !send(&mut sender, &end).await {
                sender.abort(Interrupted);
            }
        });
        response
    }

    fn is_operator(&self, session: &Session) -> bool {
        let partners = self.partners.borrow();
        partners.get(session.partner).is_some_and(|partner| partner.is_operator)
    }

    /// The partner whose links are meant: the one named, else the session's, and for operators all (`None`).
    fn partner_meant(&self, params: &Params, session: &Session, action: &str) -> Result<Option<PartnerId>, Fault> {
        let named = match params.given("partnerId")? {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map(PartnerId)
                    .map_err(|_| Fault::invalid("partnerId", "expected a number"))?,
            ),
        };
        match named {
            None if self.is_operator(session) => Ok(None),
            None => Ok(Some(session.partner)),
            Some(partner) if partner == session.partner || self.is_operator(session) => Ok(Some(partner)),
            Some(_) => Err(forbidden(action)),
        }
    }
}

fn forbidden(action: &str) -> Fault {
    Fault::ServiceForbidden {
        service: SERVICE.to_owned(),
        action: action.to_owned(),
    }
}

fn broken(error: multer::Error) -> Fault {
    Fault::invalid("body", format!("broken multipart: {error}"))
}

fn file_format(params: &Params) -> Result<Format, Fault> {
    match params.text("fileFormat")? {
        None | Some("") => Ok(Format::JsonLines),
        Some(name) => Format::named(name).ok_or_else(|| Fault::invalid("fileFormat", "expected jsonl or csv")),
    }
}

async fn read_text(name: &str, field: &mut Field<'_>) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    loop {
        let chunk = tokio::time::timeout(BODY_TIMEOUT, field.chunk()).await;
        let Some(chunk) = chunk.map_err(|_| Fault::TooSlow)?.map_err(broken)? else {
            break;
        };
        bytes.extend_from_slice(&chunk);
        if bytes.len() > FIELD_MAX_BYTES {
            return Err(Fault::invalid(name, format!("longer than {FIELD_MAX_BYTES} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| Fault::InvalidChar { field: name.to_owned() })
}

fn report_of(report: &ImportReport) -> Json {
    let problems: Vec<_> = report
        .problems
        .iter()
        .map(|(line, reason)| json!({ "line": line, "reason": reason }))
        .collect();
    json!({
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "skipped": report.skipped,
        "refused": report.refused,
        "problems": problems,
        "applied": report.applied,
    })
}

/// Sends a line; false if nobody takes it any more.
async fn send(sender: &mut http_body_util::channel::Sender<Bytes, Interrupted>, line: &Json) -> bool {
    let sent = tokio::time::timeout(BODY_TIMEOUT, sender.send_data(format!("{line}\n").into())).await;
    matches!(sent, Ok(Ok(())))
}
