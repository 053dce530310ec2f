//! A disk for tests, with the files of a store and its journal, that forgets, reorders and tears what was not synced,
//! and that fails when it is told to.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rand::RngExt as _;
use rand::rngs::StdRng;
use redb::{Builder, Database, StorageBackend};

use crate::store::error::OpenError;
use crate::store::files::medium::Medium;
use crate::store::files::overlay::{Base, Overlay};
use crate::store::format::tables;
use crate::store::journal::{self, JournalFile, Replayed};
use crate::store::replication::ReplicationLog;
use crate::store::write::queue::RetryTiming;
use crate::store::{CommitObserver, Store};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// The same for every store, so that the same is done again.
const IDENTITY: u64 = 7;
/// Small, because much is opened and little is read.
const CACHE_BYTES: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Store,
    Journal,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    store: Vec<u8>,
    journal: Vec<u8>,
}

impl Content {
    fn of(&mut self, side: Side) -> &mut Vec<u8> {
        match side {
            Side::Store => &mut self.store,
            Side::Journal => &mut self.journal,
        }
    }
}

/// Something that changes a file, or makes what was changed in it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Write(Side, u64, Arc<[u8]>),
    SetLength(Side, u64),
    Sync(Side),
}

impl Operation {
    const fn side(&self) -> Side {
        match self {
            Self::Write(side, ..) | Self::SetLength(side, _) | Self::Sync(side) => *side,
        }
    }
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
    shown: Content,
    /// What is left after a crash, whatever happens.
    durable: Content,
    /// What was done to each file since its last sync.
    pending: Vec<Operation>,
    log: Vec<Operation>,
    /// Operations so far, failed ones included.
    operations: u64,
    failure: Option<Failure>,
    /// Whether what a crash left was taken for a damaged journal.
    is_cut_off: bool,
    /// The last salt. It begins with what is in the journal, so that nothing there is sealed with one of those to
    /// come, but the same ones are drawn when the same is done again.
    salt: u64,
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

fn apply(content: &mut Content, operation: &Operation) {
    let content = content.of(operation.side());
    match operation {
        Operation::Write(_, offset, data) => {
            let start = usize::try_from(*offset).unwrap();
            let end = start + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(data);
        }
        Operation::SetLength(_, length) => content.resize(usize::try_from(*length).unwrap(), 0),
        Operation::Sync(_) => {}
    }
}

/// Takes from what is pending that which concerns a file.
fn take_pending(pending: &mut Vec<Operation>, side: Side) -> Vec<Operation> {
    pending.extract_if(.., |operation| operation.side() == side).collect()
}

/// What an operation that is carried out makes of what is on the disk and what is pending.
pub(crate) fn carry_out(content: &mut Content, pending: &mut Vec<Operation>, operation: &Operation) {
    match operation {
        Operation::Sync(side) => {
            for operation in take_pending(pending, *side) {
                apply(content, &operation);
            }
        }
        _ => pending.push(operation.clone()),
    }
}

/// What a crash leaves of operations that were not synced: of each file any of their sectors, each as any of the
/// writes to it left it, and any of the lengths.
pub(crate) fn crash(content: &mut Content, pending: &[Operation], rng: &mut StdRng) {
    for side in [Side::Store, Side::Journal] {
        crash_file(
            content.of(side),
            pending.iter().filter(|operation| operation.side() == side),
            rng,
        );
    }
}

fn crash_file<'p>(content: &mut Vec<u8>, pending: impl Iterator<Item = &'p Operation>, rng: &mut StdRng) {
    let share = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
    let mut sectors: BTreeMap<u64, &[u8]> = BTreeMap::new();
    let mut length = content.len();
    for operation in pending {
        match operation {
            Operation::Write(_, offset, data) => {
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
            Operation::SetLength(_, new) if rng.random_bool(share) => length = usize::try_from(*new).unwrap(),
            Operation::SetLength(..) | Operation::Sync(_) => {}
        }
    }
    content.resize(length, 0);
    for (offset, sector) in sectors {
        let start = usize::try_from(offset).unwrap();
        if let Some(side) = content.get_mut(start..start + sector.len()) {
            side.copy_from_slice(sector);
        }
    }
}

impl Disk {
    /// A disk with an empty store on it, all of it synced and nothing of it in the log.
    pub(crate) fn with_store() -> Self {
        let disk = Self::default();
        let database = Builder::new().create_with_backend(disk.clone()).unwrap();
        tables::create(&database, IDENTITY).unwrap();
        database.close().unwrap();
        Self::holding(disk.state().shown.clone())
    }

    /// A disk with this file of a store.
    pub(crate) fn with_file(store: Vec<u8>) -> Self {
        Self::holding(Content {
            store,
            ..Content::default()
        })
    }

    pub(crate) fn holding(content: Content) -> Self {
        let mut hasher = DefaultHasher::new();
        content.journal.hash(&mut hasher);
        let state = State {
            salt: hasher.finish(),
            shown: content.clone(),
            durable: content,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    pub(crate) fn content(&self) -> Content {
        self.state().durable.clone()
    }

    /// Whether a journal on it was taken for damaged.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.state().is_cut_off
    }

    /// Everything that was done to it so far.
    pub(crate) fn log(&self) -> Vec<Operation> {
        self.state().log.clone()
    }

    pub(crate) fn log_length(&self) -> usize {
        self.state().log.len()
    }

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

    /// What is written now, with one bit of the first record of the journal turned.
    pub(crate) fn with_damaged_journal(&self) -> Self {
        let mut content = self.state().shown.clone();
        content.journal[journal::START] ^= 1;
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

    fn sync(&self, side: Side) -> io::Result<()> {
        match self.operate(false) {
            Ok(mut state) => {
                let State {
                    durable, pending, log, ..
                } = &mut *state;
                let operation = Operation::Sync(side);
                carry_out(durable, pending, &operation);
                log.push(operation);
                Ok(())
            }
            Err(error) => {
                // Some of it is on disk. The rest is never written, because the operating system takes it for written;
                // it is shown until its memory is needed for something else.
                let mut state = self.state();
                let state = &mut *state;
                let pending = take_pending(&mut state.pending, side);
                if let Some(rng) = &mut state.rng {
                    let (durable, shown) = (state.durable.of(side), state.shown.of(side));
                    crash_file(durable, pending.iter(), rng);
                    shown.resize(durable.len(), 0);
                    let evicted = [0.0, 0.5, 1.0][rng.random_range(0..3)];
                    for (durable, shown) in durable.chunks(SECTOR_BYTES).zip(shown.chunks_mut(SECTOR_BYTES)) {
                        if durable != shown && rng.random_bool(evicted) {
                            shown.copy_from_slice(durable);
                        }
                    }
                }
                Err(error)
            }
        }
    }

    fn builder() -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        builder
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.operate(true)?.shown.store.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.operate(true)?;
        let start = usize::try_from(offset).unwrap();
        let part = state.shown.store.get(start..start + out.len());
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Operation::SetLength(Side::Store, length))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Operation::Write(Side::Store, offset, data.into()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Side::Store)
    }
}

struct JournalOn(Disk);

impl JournalFile for JournalOn {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.change(Operation::Write(Side::Journal, offset, data.into()))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync(Side::Journal)
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
        let database = opened.map_err(|error| OpenError::Read(error.into()))?;
        match journal::replay(&database, || self.read_journal())? {
            Replayed::Foreign => Err(OpenError::ForeignJournal {
                path: "simulated".into(),
                journal: "simulated".into(),
            }),
            replayed => {
                self.state().is_cut_off |= replayed == Replayed::CutOff;
                Ok(database)
            }
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        self.open_overlay(true).map(drop)
    }

    fn open_read_only(&self) -> Result<Database, OpenError> {
        let database = self.open_overlay(false)?;
        journal::replay(&database, || self.read_journal())?;
        Ok(database)
    }

    /// A file that is made and renamed is there as a whole or not at all; this one can be there in part, which must
    /// make no difference to anybody.
    fn create_journal(&self, identity: u64) -> io::Result<Box<dyn JournalFile>> {
        let content = journal::new_file(identity);
        self.change(Operation::SetLength(Side::Journal, content.len() as u64))?;
        self.change(Operation::Write(Side::Journal, 0, content.into()))?;
        self.sync(Side::Journal)?;
        Ok(Box::new(JournalOn(self.clone())))
    }

    fn remove_journal(&self) -> io::Result<()> {
        self.change(Operation::SetLength(Side::Journal, 0))
    }

    /// The same when the same is done again.
    fn fresh_salt(&self) -> u64 {
        let mut state = self.state();
        state.salt = state.salt.wrapping_add(1);
        state.salt
    }

    fn probe(&self) -> io::Result<()> {
        self.operate(false).map(drop)
    }

    fn replace(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Disk {
    fn read_journal(&self) -> io::Result<Option<Vec<u8>>> {
        let content = self.operate(true)?.shown.journal.clone();
        Ok(Some(content).filter(|content| !content.is_empty()))
    }

    fn open_overlay(&self, verified: bool) -> Result<Database, OpenError> {
        let shown = self
            .operate(true)
            .map_err(|error| OpenError::Read(error.into()))?
            .shown
            .store
            .clone();
        let length = shown.len() as u64;
        let opened = Self::builder()
            .set_check_integrity_on_open(verified)
            .create_with_backend(Overlay::new(shown, length));
        opened.map_err(|error| OpenError::Read(error.into()))
    }
}

/// Opens the store on a disk, with no pause between attempts to open it again, and with checkpoints only where the
/// journal is full, so that the same is done again.
pub(crate) fn open_on(disk: &Disk, observer: Arc<dyn CommitObserver>) -> Result<Store, OpenError> {
    open_with_log(disk, observer, None)
}

/// The same, in a cluster.
pub(crate) fn open_with_log(
    disk: &Disk,
    observer: Arc<dyn CommitObserver>,
    log: Option<Arc<dyn ReplicationLog>>,
) -> Result<Store, OpenError> {
    let pace = RetryTiming {
        reopen_first: Duration::from_millis(1),
        reopen_most: Duration::from_millis(1),
        idle: Duration::MAX,
        idle_after_clicks: Duration::MAX,
    };
    let folder = std::env::temp_dir();
    Store::open_on(
        Arc::new(disk.clone()),
        &folder,
        Some(observer),
        pace,
        log,
        crate::store::WithoutWrites::Fails,
    )
}
