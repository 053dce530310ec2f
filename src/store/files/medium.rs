//! The files that the store is in, the store's own and its journal: made, opened, and opened again after a failure.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase};
use rustix::io::Errno;

use crate::store::error::{OpenError, StoreError};
use crate::store::files::disk;
use crate::store::files::overlay::Overlay;
use crate::store::files::unfinished::{self, Unfinished};
use crate::store::format::tables;
use crate::store::format::upgrade::{FORMATS, Formats, set_aside};
use crate::store::journal::{self, JournalFile, Replayed};

/// redb's page cache. The map already holds what redirects need, so this serves writes and lists only; redb's own
/// default is 1 GiB.
pub const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// What must fit on the disk before the store is opened again: more than most commits need.
const PROBE_BYTES: usize = 1024 * 1024;

/// Where a database is. The writer opens it again by this after a failure; tests put a disk of their own here.
pub trait Medium: fmt::Debug + Send + Sync + 'static {
    /// Opens the database for writing, once what its journal has is in it durably.
    fn open(&self) -> Result<Database, OpenError>;

    /// Verifies every checksum, after an operation on the database has failed and before it is opened again.
    ///
    /// A sync that fails may leave the operating system with pages in its memory that it takes for written, so that
    /// what is read is no proof of what is stored. That does no harm: pages that a failed commit has written are
    /// referred to by nothing but its header, which is the last thing written, after a sync of its own; and opening
    /// writes the header anew. The simulated disk does all this, and worse.
    fn check(&self) -> Result<(), OpenError>;

    /// Opens it without ever writing to it; what its journal has is added in memory.
    fn open_read_only(&self) -> Result<Database, OpenError>;

    /// The file of a journal of the store with this identity, with all its blocks allocated and whatever records. The
    /// store must not need what was in it.
    fn create_journal(&self, identity: u64) -> io::Result<Box<dyn JournalFile>>;

    fn remove_journal(&self) -> io::Result<()>;

    /// A number that no journal has been sealed with.
    fn fresh_salt(&self) -> u64;

    /// Whether the medium takes writes at present.
    fn probe(&self) -> io::Result<()>;

    /// Puts another file in the place of a store that is closed and needs no journal.
    fn replace(&self, with: &Path) -> io::Result<()>;
}

#[derive(Debug, Clone)]
pub struct StoreFile {
    pub path: PathBuf,
    pub formats: Formats,
}

impl StoreFile {
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            formats: FORMATS,
        }
    }

    fn unreadable(&self, source: impl Into<StoreError>) -> OpenError {
        OpenError::Unreadable {
            path: self.path.clone(),
            source: source.into(),
        }
    }

    fn refused(&self, error: redb::DatabaseError) -> OpenError {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(self.path.clone()),
            redb::DatabaseError::Storage(redb::StorageError::Corrupted(_)) => OpenError::Damaged(self.path.clone()),
            error => self.unreadable(error),
        }
    }

    /// Makes a new store if there is no file. Under another name first: a crash leaves either none or a whole one.
    pub fn create_if_missing(&self) -> Result<(), OpenError> {
        if self.path.try_exists().map_err(|error| self.unreadable(error))? {
            return Ok(());
        }
        create(&self.path).map_err(|error| self.unreadable(error))
    }

    fn open_for_writing(&self) -> Result<Database, OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        // Opening for writing changes the file, so its format is checked before, if that can be.
        let found = match builder.open_read_only(&self.path) {
            Ok(database) => self.check_format(&database)?,
            // Its last user crashed, so it must be repaired; for a look, in memory.
            Err(redb::DatabaseError::RepairAborted) => self.check_format(&self.open_overlay(false)?)?,
            Err(error) => return Err(self.refused(error)),
        };
        if found != self.formats.newest {
            // The upgrade gives everything a new checksum: what is damaged would then pass for whole.
            drop(self.open_whole()?);
            let copy = set_aside(&self.path, found).map_err(|error| self.unreadable(error))?;
            tracing::warn!(
                "{} has format {found} and is brought to format {}. To go back: end tinyd, rename {} to {}, the \
                 file beside it that ends in .journal likewise if there is one, and start the older program; what was \
                 written since is lost then",
                self.path.display(),
                self.formats.newest,
                copy.display(),
                self.path.display(),
            );
        }
        let database = builder.open(&self.path).map_err(|error| self.refused(error))?;
        if found != self.formats.newest {
            self.formats.upgrade(&database, found)?;
        }
        match journal::replay(&database, || self.read_journal())? {
            Replayed::Whole => {}
            // For experts.
            Replayed::CutOff => self.keep_journal("damaged"),
            Replayed::Foreign => return Err(self.foreign_journal()),
            Replayed::Unused => {
                let content = self.read_journal().unwrap_or_default();
                // It may belong to a store that was here before, and will be again.
                if content.is_some_and(|content| journal::is_used(&content)) {
                    self.keep_journal("old");
                }
            }
        }
        tables::ensure_identity(&database)?;
        Ok(database)
    }

    fn foreign_journal(&self) -> OpenError {
        OpenError::ForeignJournal {
            path: self.path.clone(),
            journal: disk::journal_path(&self.path),
        }
    }

    /// Gives the file of the journal another name, under which nothing is written to it.
    fn keep_journal(&self, why: &str) {
        let from = disk::journal_path(&self.path);
        let named = |number: u32| {
            let mut name = from.clone().into_os_string();
            name.push(format!(".{why}"));
            if number > 1 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        // An earlier one may be the only copy.
        let to = (1..=u32::MAX)
            .map(named)
            .find(|name| matches!(name.try_exists(), Ok(false)));
        let Some(to) = to else { return };
        match fs::rename(&from, &to) {
            Ok(()) => tracing::warn!(
                "a journal that is not this store's, or not whole, is kept as {}",
                to.display()
            ),
            Err(error) => tracing::warn!(%error, "{} could not be kept", from.display()),
        }
    }

    /// What is in the file of the journal, if there is one.
    fn read_journal(&self) -> io::Result<Option<Vec<u8>>> {
        // Something else may have its name by now: a link, or what has no end.
        let file = match without_links().read(true).open(disk::journal_path(&self.path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("the journal is not a regular file"));
        }
        let mut content = Vec::new();
        file.take(JOURNAL_MAX_BYTES).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Makes the file of a journal. Zeros are really written, so that no later sync has to write down where they are.
    fn make_journal(&self, identity: u64) -> io::Result<()> {
        // The journal must not be what fills the disk.
        disk::check_space(&self.path, 2 * journal::FILE_BYTES as u64)?;
        let unfinished = Unfinished::new(&disk::journal_path(&self.path));
        let mut file = unfinished.create()?;
        // Another user may serve the store later.
        disk::give_to_owner_of(&fs::metadata(&self.path)?, &file)?;
        file.write_all(&journal::new_file(identity))?;
        file.sync_all()?;
        unfinished.publish()
    }

    /// As [`Medium::open_read_only`], with every checksum verified, which takes a look at every page.
    pub fn open_verified(&self) -> Result<Database, OpenError> {
        self.open_view(true)
    }

    /// Opens the file for reading, brought to the newest format in memory.
    fn open_view(&self, verified: bool) -> Result<Database, OpenError> {
        unless_damaged(&self.path, || {
            let mut database = if verified {
                self.open_whole()?
            } else {
                self.open_overlay(false)?
            };
            let found = self.check_format(&database)?;
            if found != self.formats.newest {
                if !verified {
                    drop(database);
                    database = self.open_whole()?;
                }
                self.formats.upgrade(&database, found)?;
            }
            match journal::replay(&database, || self.read_journal())? {
                Replayed::Whole | Replayed::Unused => {}
                // A verification reports it. Redirects can be served from the rest.
                Replayed::Foreign if verified => return Err(self.foreign_journal()),
                Replayed::CutOff if verified => {
                    let reason = "it is cut off or damaged: what was acknowledged last is lost";
                    return Err(StoreError::damaged(journal::NAME, reason).into());
                }
                Replayed::Foreign | Replayed::CutOff => {}
            }
            Ok(database)
        })
    }

    /// As [`Self::open_overlay`], if every page has the checksum that it should.
    fn open_whole(&self) -> Result<Database, OpenError> {
        let mut database = self.open_overlay(false)?;
        // A check as part of the opening would pass over a damaged commit, and take the one before it.
        match database.check_integrity() {
            Ok(true) => Ok(database),
            Ok(false) => Err(OpenError::Damaged(self.path.clone())),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Opens the file with all changes kept in memory.
    fn open_overlay(&self, verified: bool) -> Result<Database, OpenError> {
        let file = File::open(&self.path).map_err(|error| self.unreadable(error))?;
        match file.try_lock_shared() {
            // A file system without locks has no lock to respect.
            Ok(()) => {}
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(self.path.clone())),
            Err(TryLockError::Error(error)) => return Err(self.unreadable(error)),
        }
        let length = file.metadata().map_err(|error| self.unreadable(error))?.len();
        if length == 0 {
            // redb would take it for a new one.
            return Err(OpenError::Foreign(self.path.clone()));
        }
        let mut builder = Builder::new();
        let opened = builder
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(verified)
            .create_with_backend(Overlay::new(file, length));
        opened.map_err(|error| self.refused(error))
    }

    /// The format of a store, if it is one that can be used.
    fn check_format(&self, database: &impl ReadableDatabase) -> Result<u64, OpenError> {
        let path = self.path.clone();
        match tables::format_of(database)? {
            Some(found) if self.formats.can_read(found) => Ok(found),
            Some(found) if found > self.formats.newest => Err(OpenError::Newer {
                path,
                found,
                known: self.formats.newest,
            }),
            _ => Err(OpenError::Foreign(path)),
        }
    }
}

/// Opens a store or reads in it: on files that something else has changed, redb panics or finds a page that is none.
pub fn unless_damaged<R>(path: &Path, open: impl FnOnce() -> Result<R, OpenError>) -> Result<R, OpenError> {
    let damaged = || OpenError::Damaged(path.to_owned());
    match panic::catch_unwind(AssertUnwindSafe(open)) {
        Ok(Err(OpenError::Read(error))) if error.is_corruption() => Err(damaged()),
        Ok(opened) => opened,
        Err(_) => Err(damaged()),
    }
}

impl Medium for StoreFile {
    fn open(&self) -> Result<Database, OpenError> {
        unless_damaged(&self.path, || self.open_for_writing())
    }

    fn check(&self) -> Result<(), OpenError> {
        // The journal has checksums of its own.
        unless_damaged(&self.path, || self.open_overlay(true)).map(drop)
    }

    fn open_read_only(&self) -> Result<Database, OpenError> {
        self.open_view(false)
    }

    fn create_journal(&self, identity: u64) -> io::Result<Box<dyn JournalFile>> {
        let (path, mut options) = (disk::journal_path(&self.path), without_links());
        options.read(true).write(true);
        match options.open(&path) {
            // What a crash has left serves again.
            Ok(file) if is_journal_of(&file, identity)? => return Ok(Box::new(file)),
            Err(error) if !matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::LOOP)) => {
                return Err(error);
            }
            _ => {}
        }
        self.make_journal(identity)?;
        Ok(Box::new(options.open(path)?))
    }

    fn remove_journal(&self) -> io::Result<()> {
        fs::remove_file(disk::journal_path(&self.path))
    }

    fn fresh_salt(&self) -> u64 {
        rand::random()
    }

    fn probe(&self) -> io::Result<()> {
        let unfinished = Unfinished::new(&self.path.with_extension("probe"));
        // Not zeros, for which some file systems allocate nothing. Before the file is opened, because a file open for
        // writing blocks remounting read-only.
        let content = vec![0xa5; PROBE_BYTES];
        let written = unfinished.create().and_then(|mut file| {
            file.write_all(&content)?;
            file.sync_all()
        });
        let removed = fs::remove_file(unfinished.path());
        written.and(removed)
    }

    fn replace(&self, with: &Path) -> io::Result<()> {
        fs::rename(with, &self.path)?;
        File::open(unfinished::folder_of(&self.path))?.sync_all()
    }
}

impl JournalFile for File {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// So much of a journal is read at most: several times what one has.
const JOURNAL_MAX_BYTES: u64 = 4 * journal::FILE_BYTES as u64;

fn is_journal_of(file: &File, identity: u64) -> io::Result<bool> {
    let mut head = [0; journal::START];
    if file.metadata()?.len() != journal::FILE_BYTES as u64 {
        return Ok(false);
    }
    file.read_exact_at(&mut head, 0)?;
    Ok(journal::owner_of(&head) == Some(identity))
}

fn create(path: &Path) -> Result<(), StoreError> {
    let unfinished = Unfinished::new(path);
    let database = Builder::new().create_with_backend(FileBackend::new(unfinished.create()?)?)?;
    tables::create(&database, rand::random())?;
    database.close()?;
    Ok(unfinished.publish()?)
}

/// Opens no symbolic link in a file's place: the folder may belong to another user.
fn without_links() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed());
    options
}
