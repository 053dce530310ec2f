//! A disk for tests that forgets, reorders and tears what was not synced, and that fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rand::RngExt as _;
use rand::rngs::StdRng;
use redb::{Builder, Database, StorageBackend};

use crate::store::error::OpenError;
use crate::store::medium::Medium;
use crate::store::overlay::{Base, Overlay};
use crate::store::writer::Backoff;
use crate::store::{CommitObserver, Store, tables};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Small, because much is opened and little is read.
const CACHE_BYTES: usize = 1024 * 1024;

/// Something that changes the disk, or makes what was changed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Write(u64, Arc<[u8]>),
    SetLength(u64),
    Sync,
}

/// Operations that fail: `count` of them from number `first`, reads included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// As the operating system numbers errors.
    pub(crate) errno: i32,
    pub(crate) reads_too: bool,
}

#[derive(Default)]
struct State {
    /// What reads show: the operating system's memory.
    shown: Vec<u8>,
    /// What is left after a crash, whatever happens.
    durable: Vec<u8>,
    /// What was done since the last sync.
    pending: Vec<Operation>,
    /// Everything that was done.
    log: Vec<Operation>,
    /// Operations so far, failed ones included.
    operations: u64,
    failure: Option<Failure>,
    rng: Option<StdRng>,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

fn apply(content: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write(offset, data) => {
            let start = usize::try_from(*offset).unwrap();
            let end = start + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(data);
        }
        Operation::SetLength(length) => content.resize(usize::try_from(*length).unwrap(), 0),
        Operation::Sync => {}
    }
}

/// What operations make of a content.
pub(crate) fn apply_all(content: &mut Vec<u8>, operations: &[Operation]) {
    operations.iter().for_each(|operation| apply(content, operation));
}

/// What a crash leaves of operations that were not synced: any of their sectors, each as any of the writes to it left
/// it, and any of the lengths.
pub(crate) fn crash(content: &mut Vec<u8>, pending: &[Operation], rng: &mut StdRng) {
    let share = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
    let mut sectors: BTreeMap<u64, &[u8]> = BTreeMap::new();
    let mut length = content.len();
    for operation in pending {
        match operation {
            Operation::Write(offset, data) => {
                assert_eq!(
                    *offset % SECTOR_BYTES as u64,
                    0,
                    "a write that does not begin with a sector"
                );
                for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                    if rng.random_bool(share) {
                        sectors.insert(offset + (number * SECTOR_BYTES) as u64, sector);
                    }
                }
            }
            Operation::SetLength(new) if rng.random_bool(share) => length = usize::try_from(*new).unwrap(),
            Operation::SetLength(_) | Operation::Sync => {}
        }
    }
    content.resize(length, 0);
    for (offset, sector) in sectors {
        let start = usize::try_from(offset).unwrap();
        if let Some(place) = content.get_mut(start..start + sector.len()) {
            place.copy_from_slice(sector);
        }
    }
}

impl Disk {
    /// A disk with an empty store on it, all of it synced and nothing of it in the log.
    pub(crate) fn with_store() -> Self {
        let disk = Self::default();
        let database = Builder::new().create_with_backend(disk.clone()).unwrap();
        tables::create(&database).unwrap();
        database.close().unwrap();
        Self::holding(disk.state().shown.clone())
    }

    /// A disk that holds this.
    pub(crate) fn holding(content: Vec<u8>) -> Self {
        let state = State {
            shown: content.clone(),
            durable: content,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        self.state().durable.clone()
    }

    /// Everything that was done to it so far.
    pub(crate) fn log(&self) -> Vec<Operation> {
        self.state().log.clone()
    }

    pub(crate) fn log_length(&self) -> usize {
        self.state().log.len()
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Has operations fail; `rng` decides what a failed sync leaves.
    pub(crate) fn fail(&self, failure: Failure, rng: StdRng) {
        let mut state = self.state();
        state.failure = Some(failure);
        state.rng = Some(rng);
    }

    /// What would be there after a crash now.
    pub(crate) fn crashed(&self, rng: &mut StdRng) -> Self {
        let state = self.state();
        let mut content = state.durable.clone();
        crash(&mut content, &state.pending, rng);
        Self::holding(content)
    }

    fn operate(&self, is_read: bool) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.operations += 1;
        let number = state.operations;
        let errno = state.failure.and_then(|failure| {
            let range = failure.first..failure.first + failure.count;
            (range.contains(&number) && (failure.reads_too || !is_read)).then_some(failure.errno)
        });
        match errno {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(state),
        }
    }

    fn change(&self, operation: Operation) -> io::Result<()> {
        let mut state = self.operate(false)?;
        apply(&mut state.shown, &operation);
        state.log.push(operation.clone());
        state.pending.push(operation);
        Ok(())
    }

    fn builder() -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        builder
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.operate(true)?.shown.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.operate(true)?;
        let start = usize::try_from(offset).unwrap();
        let part = state.shown.get(start..start + out.len());
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Operation::SetLength(length))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Operation::Write(offset, data.into()))
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.operate(false) {
            Ok(mut state) => {
                let pending = std::mem::take(&mut state.pending);
                apply_all(&mut state.durable, &pending);
                state.log.push(Operation::Sync);
                Ok(())
            }
            Err(error) => {
                // Some of it is on disk. The rest is never written, because the operating system takes it for written;
                // it is shown until its memory is needed for something else.
                let mut state = self.state();
                let state = &mut *state;
                let pending = std::mem::take(&mut state.pending);
                if let Some(rng) = &mut state.rng {
                    crash(&mut state.durable, &pending, rng);
                    state.shown.resize(state.durable.len(), 0);
                    let evicted = [0.0, 0.5, 1.0][rng.random_range(0..3)];
                    let sectors = state
                        .durable
                        .chunks(SECTOR_BYTES)
                        .zip(state.shown.chunks_mut(SECTOR_BYTES));
                    for (durable, shown) in sectors {
                        if durable != shown && rng.random_bool(evicted) {
                            shown.copy_from_slice(durable);
                        }
                    }
                }
                Err(error)
            }
        }
    }
}

impl Base for Vec<u8> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(self.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Medium for Disk {
    fn open(&self) -> Result<Database, OpenError> {
        let opened = Self::builder().create_with_backend(self.clone());
        opened.map_err(|error| OpenError::Read(error.into()))
    }

    fn check(&self) -> Result<(), OpenError> {
        self.open_overlay(true).map(drop)
    }

    fn open_read_only(&self) -> Result<Database, OpenError> {
        self.open_overlay(false)
    }

    fn probe(&self) -> io::Result<()> {
        self.operate(false).map(drop)
    }
}

impl Disk {
    fn open_overlay(&self, verified: bool) -> Result<Database, OpenError> {
        let shown = self
            .operate(true)
            .map_err(|error| OpenError::Read(error.into()))?
            .shown
            .clone();
        let length = shown.len() as u64;
        let opened = Self::builder()
            .set_check_integrity_on_open(verified)
            .create_with_backend(Overlay::on(shown, length));
        opened.map_err(|error| OpenError::Read(error.into()))
    }
}

/// Opens the store on a disk, with no pause between attempts to open it again.
pub(crate) fn open_on(disk: &Disk, observer: Arc<dyn CommitObserver>) -> Result<Store, OpenError> {
    let backoff = Backoff {
        first: std::time::Duration::from_millis(1),
        most: std::time::Duration::from_millis(1),
    };
    Store::open_on(Arc::new(disk.clone()), &std::env::temp_dir(), Some(observer), backoff)
}
