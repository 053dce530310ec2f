//! Files of links that come in and go out: uploads that are spooled on the disk of the store and imported from there,
//! exports and backups that are streamed from a snapshot. The limits hold for all clients together.

mod audit;
mod slots;
mod stream;
mod upload;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc};

pub use slots::ImportSlot;
pub use upload::{Upload, UploadFile, UploadPart};

use crate::http::{Budget, Response};
use crate::kaltura::session::Partners;
use crate::links::file::{self, FileFormat, ImportLog, ImportOptions, ImportReport, OnLines};
use crate::links::{Links, NewDestinations};
use crate::model::{Actor, PartnerId};
use crate::store::{CopyError, Lane, SPACE_LEFT_BYTES, Snapshot, StoreError};
use crate::transfer::slots::{ImportSlots, SpooledBytes};

/// Imports at a time: each takes a core while it reads, and then waits for the one writer. Others wait with their files
/// spooled.
const IMPORTS_MAX: usize = 2;
/// How long a file may take to arrive.
const FILE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Pieces of a file that may wait for the disk.
const SPOOL_PIECES: usize = 16;

/// Why a file is not taken or not sent.
#[derive(Debug)]
pub enum TransferError {
    /// Too many files at a time.
    Busy,
    /// The process ends, and would cut it off.
    Ending,
    NoMemory,
    TooSlow,
    NotMultipart,
    Broken(multer::Error),
    LongField {
        name: String,
        limit: usize,
    },
    NotUtf8 {
        name: String,
    },
    TooLarge {
        limit: u64,
    },
    NoSpace(io::Error),
    Store(StoreError),
    Interrupted,
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why an import did not come to its report.
#[derive(Debug, Clone)]
pub struct ImportFailure {
    pub error: String,
    /// Not of the file.
    pub is_of_the_store: bool,
}

/// How a file is to be imported.
#[derive(Debug, Clone)]
pub struct ImportSettings {
    pub format: FileFormat,
    pub defaults: file::Defaults,
    pub options: ImportOptions,
}

/// A file that has arrived: without a name, on the disk of the store.
#[derive(Debug)]
pub struct SpooledFile {
    file: Arc<File>,
    bytes: SpooledBytes,
}

impl SpooledFile {
    pub const fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

/// Takes files in and sends them out.
#[derive(Debug)]
pub struct Transfers {
    links: Arc<Links>,
    destinations: NewDestinations,
    budget: Arc<Budget>,
    exports: Arc<Semaphore>,
    backups: Arc<Semaphore>,
    imports: Semaphore,
    files: ImportSlots,
}

impl Transfers {
    pub fn new(links: Arc<Links>, destinations: NewDestinations, budget: Arc<Budget>) -> Self {
        Self {
            links,
            destinations,
            budget,
            exports: Arc::new(Semaphore::new(stream::EXPORTS_MAX)),
            backups: Arc::new(Semaphore::new(stream::BACKUPS_MAX)),
            imports: Semaphore::new(IMPORTS_MAX),
            files: ImportSlots::default(),
        }
    }

    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn unless_ending(&self) -> Result<(), TransferError> {
        match self.links.is_ending() {
            true => Err(TransferError::Ending),
            false => Ok(()),
        }
    }

    /// Can wait for a commit, so not on a thread of the runtime.
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let links = Arc::clone(&self.links);
        let taken = tokio::task::spawn_blocking(move || links.store().snapshot()).await;
        taken.unwrap_or(Err(StoreError::Interrupted))
    }

    /// A dump of the whole store, of every partner.
    pub async fn backup(&self) -> Result<Response, TransferError> {
        self.unless_ending()?;
        let permit = stream::permit(&self.backups, &self.budget)?;
        let snapshot = self.snapshot().await?;
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
        Ok(stream::respond(
            permit,
            &self.links,
            "application/octet-stream",
            produce,
            taken,
        ))
    }

    /// The links of a partner, or all, as lines; and how many are left out because their records are damaged.
    pub async fn export(
        &self,
        partner: Option<PartnerId>,
        format: FileFormat,
    ) -> Result<(Response, u64), TransferError> {
        self.unless_ending()?;
        let permit = stream::permit(&self.exports, &self.budget)?;
        // The head of the response has the number of damaged records.
        let counting = |snapshot: &Snapshot| {
            let mut damaged = 0_u64;
            snapshot.for_each(|_, record| damaged += u64::from(record.is_err()))?;
            Ok(damaged)
        };
        let damaged = self.links.store().read_on(Lane::Apart, counting).await?;
        let snapshot = self.snapshot().await?;
        let produce = move |sink: &mut stream::Sink| -> Result<(), CopyError> {
            let writer = file::LinkWriter::new(format, sink)?;
            file::export(&snapshot, partner, writer, || {}).map(drop)
        };
        let content_type = match format {
            FileFormat::JsonLines => "application/x-ndjson",
            FileFormat::Csv => "text/csv; charset=utf-8",
        };
        let response = stream::respond(permit, &self.links, content_type, produce, || {});
        Ok((response, damaged))
    }

    /// A form with a file.
    pub fn upload(&self, content_type: &str, body: Incoming) -> Result<Upload, TransferError> {
        Upload::new(content_type, body, &self.budget)
    }

    /// A slot for a file of a partner until it has been imported. To be taken once its session has been accepted.
    pub fn slot(&self, partner: PartnerId) -> Result<ImportSlot, TransferError> {
        self.unless_ending()?;
        self.files.take(partner).ok_or(TransferError::Busy)
    }

    /// Likewise for a file that waits for somebody.
    pub fn slot_to_keep(&self, partner: PartnerId) -> Result<ImportSlot, TransferError> {
        self.unless_ending()?;
        self.files.keep(partner).ok_or(TransferError::Busy)
    }

    /// Writes a file to one without a name beside the store, so that no slow client holds up the writer.
    pub async fn spool(&self, upload: &mut UploadFile, limit: Option<u64>) -> Result<SpooledFile, TransferError> {
        let spooling = self.spool_pieces(upload, limit);
        let spooled = tokio::time::timeout(FILE_TIMEOUT, spooling).await;
        spooled.unwrap_or(Err(TransferError::TooSlow))
    }

    async fn spool_pieces(&self, upload: &mut UploadFile, limit: Option<u64>) -> Result<SpooledFile, TransferError> {
        let unwritable = |error: io::Error| {
            tracing::error!(%error, "cannot spool the file of an import");
            TransferError::NoSpace(error)
        };
        let file = self.links.store().temporary_file().map_err(unwritable)?;
        let (pieces, received) = mpsc::channel::<Bytes>(SPOOL_PIECES);
        let (links, bytes) = (Arc::clone(&self.links), self.files.bytes());
        let writing = tokio::task::spawn_blocking(move || write_pieces(file, received, &links, bytes));
        let mut arrived = 0;
        while let Some(piece) = upload.piece().await? {
            arrived += piece.len() as u64;
            if let Some(limit) = limit.filter(|limit| arrived > *limit) {
                return Err(TransferError::TooLarge { limit });
            }
            // An error means that writing has failed; the reason follows below.
            if pieces.send(piece).await.is_err() {
                break;
            }
        }
        drop(pieces);
        writing
            .await
            .map_err(|_| TransferError::Interrupted)?
            .map_err(unwritable)
    }

    /// Imports a file, in its turn. New destinations are those that the partners allow, whoever imports.
    pub async fn import(
        &self,
        spooled: &SpooledFile,
        settings: ImportSettings,
        by: Actor,
        partners: Arc<Partners>,
        on_lines: OnLines,
    ) -> Result<ImportReport, ImportFailure> {
        // The semaphore is never closed.
        let _turn = self.imports.acquire().await;
        let ImportSettings {
            format,
            defaults,
            mut options,
        } = settings;
        options.obeyed = Some(partners);
        let file = UntilEnding {
            file: Arc::clone(&spooled.file),
            position: 0,
            links: Arc::clone(&self.links),
        };
        let reading = move || file::read(format, BufReader::new(file), defaults);
        let of_the_file = |error| ImportFailure {
            error,
            is_of_the_store: false,
        };
        let lines = match tokio::task::spawn_blocking(reading).await {
            Ok(lines) => lines.map_err(of_the_file)?,
            Err(_) => return Err(of_the_file("cannot read the file".to_owned())),
        };
        let (lines, warnings) = self.destinations.clone().watch(None, lines);
        let log = ImportLog {
            log: self.links.audit_log(by),
            format,
            now: defaults.now,
        };
        match file::import(self.links.store(), lines, options, on_lines, log).await {
            Ok(mut report) => {
                warnings.add_to(&mut report);
                Ok(report)
            }
            Err(error) => {
                tracing::warn!(%error, "import failed");
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Err(ImportFailure {
                    error: format!("{error}{}", cause.unwrap_or_default()),
                    is_of_the_store: true,
                })
            }
        }
    }
}

/// Writes the pieces of a file as they come, while the disk has room.
fn write_pieces(
    file: File,
    mut received: mpsc::Receiver<Bytes>,
    links: &Links,
    mut bytes: SpooledBytes,
) -> io::Result<SpooledFile> {
    let mut writer = BufWriter::new(file);
    let mut since_look = stream::SPACE_INTERVAL_BYTES;
    while let Some(piece) = received.blocking_recv() {
        since_look += piece.len() as u64;
        let all = bytes.grow(piece.len() as u64);
        if since_look >= stream::SPACE_INTERVAL_BYTES {
            since_look = 0;
            // A full disk would stop all writes, other partners' too.
            // As much again is left, because the store grows by about that.
            links.store().check_space(SPACE_LEFT_BYTES + all)?;
        }
        writer.write_all(&piece)?;
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(SpooledFile {
        file: Arc::new(file),
        bytes,
    })
}

/// Reads a file from its start. Stops once the appliance is ending, which does not wait for millions of lines.
struct UntilEnding {
    file: Arc<File>,
    position: u64,
    links: Arc<Links>,
}

impl io::Read for UntilEnding {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.links.is_ending() {
            let text = "the appliance is ending: nothing more is imported";
            return Err(io::Error::other(text));
        }
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
