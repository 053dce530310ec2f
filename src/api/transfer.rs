//! The service `tinyd`, which Kaltura's API lacks: backups of the whole store, and links as lines of a file.

use std::error::Error;
use std::io::{self, BufReader, BufWriter, Seek as _, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use multer::{Field, Multipart};
use tokio::sync::mpsc;

use crate::api::body::{NoMemory, broken};
use crate::api::fields::parse_partner;
use crate::api::import_slots::ImportSlot;
use crate::api::{Api, BODY_TIMEOUT, Caller, Outcome, Params, body, caller_of, close_after, requested, stream};
use crate::http::{self, PieceSender, Reservation, Response};
use crate::kaltura::session::Session;
use crate::kaltura::{ApiError, Call, Target};
use crate::links::file::{self, FileFormat};
use crate::links::file::{Conflict, ImportEvent, ImportLog, ImportOptions, export, import};
use crate::links::{AuditLog, Links};
use crate::metrics::ActionName;
use crate::model::PartnerId;
use crate::store::{CopyError, Lane, Snapshot, StoreError};

pub(super) const SERVICE: &str = "tinyd";
/// For the metrics: imports bypass `call`.
const IMPORT: ActionName = (SERVICE, "import");

/// Imports at a time: each takes a core while it reads, and then waits for the one writer. Others wait with their files
/// spooled.
pub(super) const IMPORTS_MAX: usize = 2;
/// Bytes of a request that are read before the session in it has been accepted: room for all fields but the file. The
/// parser searches all of them again with each piece that arrives.
const BEFORE_SESSION_MAX_BYTES: usize = 64 * 1024;
/// Bytes of memory for each byte of the fields: as the parser has it, and as a parameter.
const FIELDS_MEMORY_FACTOR: usize = 3;
/// How long a file may pause: it may come out of a pipe.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a file may take to arrive.
const FILE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The number of links that an export leaves out because their records are damaged.
const X_TINYD_DAMAGED: HeaderName = HeaderName::from_static("x-tinyd-damaged");

/// Largest field of an import that is not the file, in bytes: a session is the longest.
const FIELD_MAX_BYTES: usize = 16 * 1024;
/// How often the client hears of the progress of an import.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Pieces of a file that may wait for the disk.
const SPOOL_PIECES: usize = 16;

/// How a file is to be imported.
struct Import {
    format: FileFormat,
    defaults: file::Defaults,
    options: ImportOptions,
    log: AuditLog,
    slot: ImportSlot,
}

impl Api {
    /// Can wait for a commit, so not on a thread of the runtime.
    async fn snapshot(&self) -> Result<Snapshot, ApiError> {
        let links = Arc::clone(&self.links);
        let taken = tokio::task::spawn_blocking(move || links.store().snapshot()).await;
        Ok(taken.unwrap_or(Err(StoreError::Interrupted))?)
    }

    /// A dump of the whole store, of every partner: for operators.
    pub(super) async fn backup(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.admin_session(params, caller, SERVICE, "backup").await?;
        if !self.is_operator(&session) {
            return Err(ApiError::forbidden(SERVICE, "backup"));
        }
        let permit = stream::permit(&self.backups, &self.budget)?;
        let snapshot = self.snapshot().await?;
        tracing::info!(partner = session.partner.0, "backup started");
        let is_damaged = Arc::new(AtomicBool::new(false));
        let found = Arc::clone(&is_damaged);
        let produce = move |sink: &mut stream::Sink| match snapshot.dump(sink) {
            // The dump says so at its end, which must reach the client.
            Err(CopyError::Damaged(reason)) => {
                tracing::error!(reason, "cannot back up a damaged store");
                found.store(true, Ordering::Relaxed);
                Ok(())
            }
            dumped => dumped,
        };
        let links = Arc::clone(&self.links);
        let taken = move || {
            if !is_damaged.load(Ordering::Relaxed) {
                links.store().note_backup(links.clock().now());
            }
        };
        let response = stream::respond(permit, &self.links, "application/octet-stream", produce, taken);
        Ok(Outcome::Response(response))
    }

    /// Links as lines: those of the session's partner, or for operators, where no partner is named, all.
    pub(super) async fn export(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.admin_session(params, caller, SERVICE, "export").await?;
        let partner = self.partner_meant(params, &session, "export")?;
        let format = file_format(params)?;
        let permit = stream::permit(&self.exports, &self.budget)?;
        // The header must count the damaged records before the first link is sent.
        let counting = |snapshot: &Snapshot| {
            let mut damaged = 0_u64;
            snapshot.for_each(|_, record| damaged += u64::from(record.is_err()))?;
            Ok(damaged)
        };
        let damaged = self.links.store().read_on(Lane::Apart, counting).await?;
        let snapshot = self.snapshot().await?;
        let produce = move |sink: &mut stream::Sink| -> Result<(), CopyError> {
            let writer = file::LinkWriter::new(format, sink)?;
            export(&snapshot, partner, writer, || {}).map(drop)
        };
        let content_type = match format {
            FileFormat::JsonLines => "application/x-ndjson",
            FileFormat::Csv => "text/csv; charset=utf-8",
        };
        let mut response = stream::respond(permit, &self.links, content_type, produce, || {});
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
    ) -> Result<(std::fs::File, Import), ApiError> {
        body::check_encoding(&head.headers)?;
        let boundary = multer::parse_boundary(body::content_type(&head.headers).unwrap_or(""))
            .map_err(|_| ApiError::invalid("Content-Type", "expected multipart/form-data, with the field file last"))?;
        let is_accepted = Arc::new(AtomicBool::new(false));
        let held = self.budget.reserve(0).ok_or(ApiError::Overloaded)?;
        let body = until_accepted(incoming, Arc::clone(&is_accepted), held);
        let mut multipart = Multipart::new(body, boundary);
        let (caller, _presence) = caller_of(head, address, Instant::now());
        // For all fields before the file together: their sender is still unknown.
        let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
        loop {
            let next = tokio::time::timeout_at(deadline, multipart.next_field()).await;
            let next = next.map_err(|_| ApiError::TooSlow)?.map_err(broken)?;
            let Some(mut field) = next else {
                return Err(ApiError::missing("file"));
            };
            let name = field.name().unwrap_or("").to_owned();
            if name != "file" {
                let text = tokio::time::timeout_at(deadline, read_text(&name, &mut field)).await;
                params.insert(&name, text.map_err(|_| ApiError::TooSlow)??)?;
                continue;
            }
            params.merge(of_target.clone());
            let checked = self.check_import(params, &caller).await;
            // Reads on without acceptance too, and forgets it.
            is_accepted.store(true, Ordering::Relaxed);
            let received = match checked {
                Ok(import) => {
                    let spooled = tokio::time::timeout(FILE_TIMEOUT, self.spool(&mut field, import)).await;
                    spooled.unwrap_or(Err(ApiError::TooSlow))
                }
                Err(fault) => Err(fault),
            };
            if received.is_err() {
                discard(&mut field).await;
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
        };
        let defaults = file::Defaults {
            now: self.links.clock().now(),
            partner: options.partner.or(Some(session.partner)),
        };
        Ok(Import {
            format: file_format(params)?,
            defaults,
            options,
            log: self.links.audit_log(caller.actor(&session)),
            slot: self.files.take(session.partner).ok_or(ApiError::Busy)?,
        })
    }

    /// Writes the file to one without a name beside the store.
    async fn spool(&self, field: &mut Field<'_>, mut import: Import) -> Result<(std::fs::File, Import), ApiError> {
        let unwritable = |error: std::io::Error| {
            tracing::error!(%error, "cannot spool the file of an import");
            let reason = format!("cannot buffer the upload on disk: {error}");
            ApiError::NoSpace { reason }
        };
        let links = Arc::clone(&self.links);
        let file = self.links.store().temporary_file().map_err(unwritable)?;
        let (pieces, mut received) = mpsc::channel::<Bytes>(SPOOL_PIECES);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = BufWriter::new(file);
            let mut since_look = stream::SPACE_INTERVAL_BYTES;
            while let Some(piece) = received.blocking_recv() {
                since_look += piece.len() as u64;
                let all = import.slot.grow(piece.len() as u64);
                if since_look >= stream::SPACE_INTERVAL_BYTES {
                    since_look = 0;
                    // A full disk would stop all writes, other partners' too.
                    links.store().check_space(stream::SPACE_LEFT_BYTES + all)?;
                }
                writer.write_all(&piece)?;
            }
            let mut file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.rewind()?;
            Ok((file, import))
        });
        loop {
            let chunk = tokio::time::timeout(PAUSE_TIMEOUT, field.chunk()).await;
            let Some(chunk) = chunk.map_err(|_| ApiError::TooSlow)?.map_err(broken)? else {
                break;
            };
            // An error means that writing has failed; the reason follows below.
            if pieces.send(chunk).await.is_err() {
                break;
            }
        }
        drop(pieces);
        writing.await.map_err(|_| ApiError::Internal)?.map_err(unwritable)
    }

    /// Imports, also after the client has left.
    fn run_import(self: Arc<Self>, file: std::fs::File, wanted: Import, started: Instant) -> Response {
        let (sender, response) = http::stream("application/x-ndjson");
        tokio::spawn(async move {
            let Import {
                format,
                defaults,
                options,
                log,
                slot: _slot,
            } = wanted;
            let lines_read = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&lines_read);
            let importing = async {
                // The semaphore is never closed.
                let _turn = self.imports.acquire().await;
                let file = UntilEnding {
                    file,
                    links: Arc::clone(&self.links),
                };
                let reading = move || file::read(format, BufReader::new(file), defaults);
                let lines = match tokio::task::spawn_blocking(reading).await {
                    Ok(Ok(lines)) => lines,
                    Ok(Err(reason)) => return failed(reason, false),
                    Err(_) => return failed("cannot read the file".to_owned(), false),
                };
                let log = ImportLog {
                    log,
                    format,
                    now: defaults.now,
                };
                let on_lines = Arc::new(move |lines| counted.store(lines, Ordering::Relaxed));
                let (lines, warnings) = self.destinations.clone().watch(self.starts.partners(), lines);
                match import(self.links.store(), lines, options, on_lines, log).await {
                    Ok(mut report) => {
                        warnings.add_to(&mut report);
                        ImportEvent::Report(report)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "import failed");
                        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                        failed(format!("{error}{}", cause.unwrap_or_default()), true)
                    }
                }
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
        let partners = self.starts.partners();
        partners.get(session.partner).is_some_and(|partner| partner.is_operator)
    }

    /// The named partner, else the session's; for operators, `None` for all.
    pub(super) fn partner_meant(
        &self,
        params: &Params,
        session: &Session,
        action: &str,
    ) -> Result<Option<PartnerId>, ApiError> {
        let Some(text) = params.given("partnerId")? else {
            return Ok((!self.is_operator(session)).then_some(session.partner));
        };
        let invalid = || ApiError::invalid("partnerId", "expected a whole number");
        let partner = parse_partner(text).ok_or_else(invalid)?;
        if partner != session.partner && !self.is_operator(session) {
            return Err(ApiError::forbidden(SERVICE, action));
        }
        Ok(Some(partner))
    }
}

fn file_format(params: &Params) -> Result<FileFormat, ApiError> {
    match params.text("fileFormat")? {
        None | Some("") => Ok(FileFormat::JsonLines),
        Some(name) => FileFormat::named(name).ok_or_else(|| ApiError::invalid("fileFormat", "expected jsonl or csv")),
    }
}

async fn read_text(name: &str, field: &mut Field<'_>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > FIELD_MAX_BYTES {
            return Err(ApiError::invalid(name, format!("longer than {FIELD_MAX_BYTES} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::InvalidChar { field: name.to_owned() })
}

fn failed(error: String, is_of_the_store: bool) -> ImportEvent {
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

/// The body of a request, of which the parser, which takes all it can get, gets only a little until its session has
/// been accepted. A request whose file comes later than that waits in vain, until its time is over.
fn until_accepted(
    incoming: Incoming,
    is_accepted: Arc<AtomicBool>,
    mut held: Reservation,
) -> impl futures_util::Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>> {
    let mut body = incoming.into_data_stream();
    let mut read = 0;
    futures_util::stream::poll_fn(move |context| {
        if read > BEFORE_SESSION_MAX_BYTES && !is_accepted.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let polled = body.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            read += chunk.len();
            // An accepted file does not stay in memory.
            if !is_accepted.load(Ordering::Relaxed) && !held.grow(chunk.len() * FIELDS_MEMORY_FACTOR) {
                return Poll::Ready(Some(Err(NoMemory.into())));
            }
        }
        polled.map(|chunk| chunk.map(|chunk| chunk.map_err(Into::into)))
    })
}

/// Stops the reading of a file once the appliance is ending, which does not wait for millions of lines.
struct UntilEnding {
    file: std::fs::File,
    links: Arc<Links>,
}

impl io::Read for UntilEnding {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.links.is_ending() {
            let text = "the appliance is ending: nothing more is imported";
            return Err(io::Error::other(text));
        }
        self.file.read(buffer)
    }
}

/// Reads the rest of a file, for a while: a client that is still sending would not see an answer.
async fn discard(field: &mut Field<'_>) {
    let discarding = async { while let Ok(Some(_)) = field.chunk().await {} };
    let _ = tokio::time::timeout(BODY_TIMEOUT, discarding).await;
}
