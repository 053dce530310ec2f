//! Files that clients send as the last field of a multipart form, after the fields that say who sends them and how they
//! are meant.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use multer::{Field, Multipart};
use tokio::time::{Instant, timeout, timeout_at};

use crate::http::{Budget, Reservation};
use crate::transfer::TransferError;

/// How long the fields before the file may take together: their sender is still unknown. Also how long a client whose
/// file is not taken may go on sending it.
const FIELDS_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request that are read before the session in it has been accepted: room for all fields but the file. The
/// parser searches all of them again with each piece that arrives.
const BEFORE_SESSION_MAX_BYTES: usize = 64 * 1024;
/// Bytes of memory for each byte of the fields: as the parser has it, and as a parameter.
const FIELDS_MEMORY_FACTOR: usize = 3;
/// Largest field that is not the file, in bytes: a session is the longest.
const FIELD_MAX_BYTES: usize = 16 * 1024;
/// How long a file may pause: it may come out of a pipe.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The field of the file.
const FILE_FIELD: &str = "file";

/// A form with a file, field by field.
pub struct Upload {
    multipart: Multipart<'static>,
    is_accepted: Arc<AtomicBool>,
    deadline: Instant,
}

pub enum UploadPart {
    Text { name: String, value: String },
    File(UploadFile),
}

/// The file, which has not been read yet.
pub struct UploadFile {
    field: Box<Field<'static>>,
    is_accepted: Arc<AtomicBool>,
}

impl Upload {
    pub(super) fn new(content_type: &str, incoming: Incoming, budget: &Arc<Budget>) -> Result<Self, TransferError> {
        let boundary = multer::parse_boundary(content_type).map_err(|_| TransferError::NotMultipart)?;
        let is_accepted = Arc::new(AtomicBool::new(false));
        let held = budget.reserve(0).ok_or(TransferError::NoMemory)?;
        let body = until_accepted(incoming, Arc::clone(&is_accepted), held);
        Ok(Self {
            multipart: Multipart::new(body, boundary),
            is_accepted,
            deadline: Instant::now() + FIELDS_TIMEOUT,
        })
    }

    /// The next field; none after the last.
    pub async fn next(&mut self) -> Result<Option<UploadPart>, TransferError> {
        let next = timeout_at(self.deadline, self.multipart.next_field()).await;
        let Some(mut field) = next.map_err(|_| TransferError::TooSlow)?? else {
            return Ok(None);
        };
        let name = field.name().unwrap_or("").to_owned();
        if name == FILE_FIELD {
            return Ok(Some(UploadPart::File(UploadFile {
                field: Box::new(field),
                is_accepted: Arc::clone(&self.is_accepted),
            })));
        }
        let value = timeout_at(self.deadline, read_text(&name, &mut field)).await;
        let value = value.map_err(|_| TransferError::TooSlow)??;
        Ok(Some(UploadPart::Text { name, value }))
    }
}

impl UploadFile {
    /// Its name on the client's machine; empty without one.
    pub fn name(&self) -> &str {
        self.field.file_name().unwrap_or_default()
    }

    /// Has the parser take as much as it can get. What it gets is spooled, or forgotten.
    fn accept(&self) {
        self.is_accepted.store(true, Ordering::Relaxed);
    }

    /// The next piece; none at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, TransferError> {
        self.accept();
        let piece = timeout(PAUSE_TIMEOUT, self.field.chunk()).await;
        Ok(piece.map_err(|_| TransferError::TooSlow)??)
    }

    /// Reads the rest, for a while: a client that is still sending would not see an answer.
    pub async fn discard(&mut self) {
        self.accept();
        let discarding = async { while let Ok(Some(_)) = self.field.chunk().await {} };
        let _ = timeout(FIELDS_TIMEOUT, discarding).await;
    }
}

async fn read_text(name: &str, field: &mut Field<'_>) -> Result<String, TransferError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > FIELD_MAX_BYTES {
            return Err(TransferError::LongField {
                name: name.to_owned(),
                limit: FIELD_MAX_BYTES,
            });
        }
    }
    String::from_utf8(bytes).map_err(|_| TransferError::NotUtf8 { name: name.to_owned() })
}

/// The budget has no room for what comes before the file.
#[derive(Debug, thiserror::Error)]
#[error("no memory")]
struct NoMemory;

impl From<multer::Error> for TransferError {
    fn from(error: multer::Error) -> Self {
        match &error {
            multer::Error::StreamReadFailed(cause) if cause.is::<NoMemory>() => Self::NoMemory,
            _ => Self::Broken(error),
        }
    }
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
