//! The whole store as a stream of bytes, and a store made of such a stream: how backups travel.
//!
//! docs/store-format.md describes the bytes. Without its end, a dump is no dump.

use std::fs::File;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, ReadOnlyTable, ReadableTable as _, ReadableTableMetadata as _, Table, WriteTransaction};
use sha1::{Digest as _, Sha1};

use crate::store::Store;
use crate::store::error::{CopyError, StoreError};
use crate::store::files::medium;
use crate::store::files::unfinished::Unfinished;
use crate::store::format::audit;
use crate::store::format::clicks;
use crate::store::format::days;
use crate::store::format::keys::{self, Bytes, Index};
use crate::store::format::outbox::{self, CLICK_POSITION, CountedSource, MOVED, OUTBOX, SOURCES};
use crate::store::format::record;
use crate::store::format::staged;
use crate::store::format::tables::{self, AUDIT, CLICKS, DAYS, STAGED, Tables};
use crate::store::format::values;
use crate::store::read::snapshot::{Snapshot, id_of};
use crate::store::read::verify::Verification;
use crate::store::replication::{ClickMessage, ClickPosition, Position};

/// Follows the progress of long work.
pub trait Progress {
    /// Something of `total` parts begins.
    fn begin(&mut self, what: &'static str, total: u64);

    /// So many more parts are done.
    fn advance(&mut self, parts: u64);
}

#[cfg(any(test, fuzzing))]
impl Progress for () {
    fn begin(&mut self, _: &'static str, _: u64) {}

    fn advance(&mut self, _: u64) {}
}

/// Is given the table, the key and the value of an entry.
type Visit<'v> = &'v mut dyn FnMut(u8, &[u8], &[u8]) -> Result<(), CopyError>;

const MAGIC: &[u8] = b"tinyd dump 2\n";
const END: u8 = 0xff;
/// In place of an entry: why there are no more, a length (4 bytes) and a text.
const REFUSED: u8 = 0xfe;
/// Longest key or value that is read: more than the longest record.
const PART_MAX_BYTES: u32 = 1024 * 1024;

/// The end of a stream and a broken one are the same to the reader of a dump.
const CUT_OFF: CopyError = CopyError::NoDump("it is cut off");

// The numbers of the tables; those of the indexes follow.
const OF_LINKS: u8 = 0;
const OF_COUNTERS: u8 = 1;
const OF_REVOCATIONS: u8 = 2;
const OF_ACTIONS: u8 = 3;
const OF_META: u8 = 4;
const OF_FIRST_INDEX: u8 = 5;
/// Far from the indexes, of which there may be more one day.
const OF_CLICKS: u8 = 128;
const OF_DAYS: u8 = 129;
const OF_AUDIT: u8 = 130;
/// The position in the replication log, so that a copy says which entry comes next.
const OF_REPLICATION: u8 = 131;
/// Without them, an entry that comes next could not put them in force.
const OF_STAGED: u8 = 132;
/// What is known of clicks in a cluster, so that a copy counts on from there.
const OF_SOURCES: u8 = 133;
const OF_MOVED: u8 = 134;
/// Only where a store is written anew in its own place: a message must wait in one store.
const OF_OUTBOX: u8 = 135;

impl Snapshot {
    /// How many entries a dump of it has.
    pub fn entries(&self) -> Result<u64, StoreError> {
        let mut entries = self.meta.len()?;
        let plain = [&self.links, &self.counters, &self.revocations, &self.actions];
        for table in plain.into_iter().chain(
            [&self.clicks, &self.days, &self.audit, &self.staged]
                .into_iter()
                .flatten(),
        ) {
            entries += table.len()?;
        }
        for index in Index::ALL {
            entries += self.index(index).len()?;
        }
        entries += u64::from(self.position().is_some()) + u64::from(self.click_position().is_some());
        let fleet = self.fleet.iter().flat_map(|fleet| [&fleet.sources, &fleet.moved]);
        for table in fleet.flatten() {
            entries += table.len()?;
        }
        Ok(entries)
    }

    /// Writes all of it as a dump, each entry checked.
    pub fn dump(&self, sink: impl Write) -> Result<(), CopyError> {
        let mut sink = Hashing::new(sink);
        sink.write_all(MAGIC)?;
        sink.write_all(&self.entries()?.to_be_bytes())?;
        let mut visit = |table, key: &[u8], value: &[u8]| {
            check_entry(table, key, value)?;
            for part in [&[table], &length(key)[..], &length(value), key, value] {
                sink.write_all(part)?;
            }
            Ok(())
        };
        // On a damaged page redb gives an error or panics.
        let written = match catch_unwind(AssertUnwindSafe(|| self.for_each_entry(&mut visit))) {
            Ok(Err(CopyError::Store(error))) if error.is_corruption() => Err(CopyError::Damaged(error.to_string())),
            Ok(written) => written,
            Err(_) => Err(CopyError::Damaged("unreadable page".to_owned())),
        };
        if let Err(CopyError::Damaged(reason)) = &written {
            // So that the reader can say why there is no copy.
            sink.write_all(&[REFUSED])?;
            sink.write_all(&length(reason.as_bytes()))?;
            sink.write_all(reason.as_bytes())?;
            sink.flush()?;
        }
        written?;
        sink.write_all(&[END])?;
        let digest = sink.digest();
        sink.inner.write_all(&digest)?;
        sink.inner.flush()?;
        Ok(())
    }

    /// Calls `visit` with every entry of every table, each table in the order of its keys.
    fn for_each_entry(&self, visit: Visit<'_>) -> Result<(), CopyError> {
        for (number, table) in [
            (OF_LINKS, &self.links),
            (OF_COUNTERS, &self.counters),
            (OF_REVOCATIONS, &self.revocations),
            (OF_ACTIONS, &self.actions),
        ] {
            visit_table(number, table, visit)?;
        }
        for entry in self.meta.iter()? {
            let (key, value) = entry?;
            visit(OF_META, key.value().as_bytes(), &value.value().to_be_bytes())?;
        }
        for (number, index) in (OF_FIRST_INDEX..).zip(Index::ALL) {
            for entry in self.index(index).iter()? {
                visit(number, entry?.0.value(), &[])?;
            }
        }
        for (number, table) in [
            (OF_CLICKS, &self.clicks),
            (OF_DAYS, &self.days),
            (OF_AUDIT, &self.audit),
            (OF_STAGED, &self.staged),
        ] {
            if let Some(table) = table {
                visit_table(number, table, visit)?;
            }
        }
        if let Some(position) = self.position() {
            let key = tables::POSITION.as_bytes();
            visit(OF_REPLICATION, key, &position.seal(key))?;
        }
        if let Some(position) = self.click_position() {
            let key = CLICK_POSITION.as_bytes();
            visit(OF_REPLICATION, key, &position.seal(key))?;
        }
        if let Some(fleet) = &self.fleet {
            for (number, table) in [(OF_SOURCES, &fleet.sources), (OF_MOVED, &fleet.moved)] {
                if let Some(table) = table {
                    visit_table(number, table, visit)?;
                }
            }
        }
        Ok(())
    }

    /// The same with each message of the outbox.
    fn for_each_queued(&self, visit: Visit<'_>) -> Result<(), CopyError> {
        for (counter, message) in self.queued_after(0, usize::MAX)? {
            visit(OF_OUTBOX, &counter.to_be_bytes(), &message)?;
        }
        Ok(())
    }

    /// Copies it into a new file, verifies the copy, and gives it its name only then; else removes it.
    pub fn copy_to(&self, path: &Path, progress: &mut dyn Progress) -> Result<Verification, CopyError> {
        self.copy(path, progress, false, |_, _| Ok(()))
    }

    /// As [`Snapshot::copy_to`], with what only the store itself has, if `check` accepts what the verification of the
    /// unfinished file has found.
    pub fn copy_whole_if(
        &self,
        path: &Path,
        progress: &mut dyn Progress,
        check: impl FnOnce(&Verification, &File) -> Result<(), CopyError>,
    ) -> Result<Verification, CopyError> {
        self.copy(path, progress, true, check)
    }

    fn copy(
        &self,
        path: &Path,
        progress: &mut dyn Progress,
        is_whole: bool,
        check: impl FnOnce(&Verification, &File) -> Result<(), CopyError>,
    ) -> Result<Verification, CopyError> {
        progress.begin("copying", self.entries()?);
        let fill = |copy: &mut Copy<'_>, progress: &mut dyn Progress| {
            let mut visit = |table, key: &[u8], value: &[u8]| {
                progress.advance(1);
                check_entry(table, key, value)?;
                copy.insert(table, key, value)
            };
            self.for_each_entry(&mut visit)?;
            if is_whole {
                self.for_each_queued(&mut visit)?;
            }
            Ok(())
        };
        build(path, progress, fill, check)
    }
}

fn visit_table(number: u8, table: &ReadOnlyTable<Bytes, Bytes>, visit: Visit<'_>) -> Result<(), CopyError> {
    for entry in table.iter()? {
        let (key, value) = entry?;
        visit(number, key.value(), value.value())?;
    }
    Ok(())
}

/// Makes a store of a dump, verifies it, and gives it its name only then; else removes it.
pub fn restore_dump(dump: impl Read, path: &Path, progress: &mut dyn Progress) -> Result<Verification, CopyError> {
    let mut dump = Hashing::new(dump);
    let magic: [u8; MAGIC.len()] = read_array(&mut dump)?;
    if magic != MAGIC {
        return Err(CopyError::NoDump("it does not begin as one"));
    }
    let entries = u64::from_be_bytes(read_array(&mut dump)?);
    progress.begin("copying", entries);
    let fill = |copy: &mut Copy<'_>, progress: &mut dyn Progress| {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut read = 0;
        loop {
            let [table] = read_array(&mut dump)?;
            if table == END {
                break;
            }
            if table == REFUSED {
                let length = read_array(&mut dump)?;
                read_part(&mut dump, length, &mut value)?;
                return Err(CopyError::Damaged(String::from_utf8_lossy(&value).into_owned()));
            }
            let lengths = (read_array(&mut dump)?, read_array(&mut dump)?);
            read_part(&mut dump, lengths.0, &mut key)?;
            read_part(&mut dump, lengths.1, &mut value)?;
            copy.insert(table, &key, &value)?;
            progress.advance(1);
            read += 1;
        }
        let expected = dump.digest();
        let digest: [u8; 20] = read_array(&mut dump)?;
        if digest != expected || read != entries {
            return Err(CopyError::NoDump("it does not end as it should"));
        }
        Ok(())
    };
    build(path, progress, fill, |_, _| Ok(()))
}

/// Whether an entry is what was written, as far as it tells by itself.
fn check_entry(table: u8, key: &[u8], value: &[u8]) -> Result<(), CopyError> {
    let checked = match table {
        OF_LINKS => id_of(key).and_then(|id| record::read(id, value).map(drop)),
        OF_COUNTERS => values::decode_counts(key, value).map(drop),
        OF_REVOCATIONS => values::decode_until(key, value).map(drop),
        OF_ACTIONS => values::decode_calls(key, value).map(drop),
        OF_CLICKS => clicks::decode(key, value).map(drop),
        OF_DAYS => days::split_key(key).and_then(|_| days::decode(key, value)).map(drop),
        OF_AUDIT => audit::decode(key, value).map(drop),
        OF_STAGED => staged::decode(key, value).map(drop),
        OF_REPLICATION if key == CLICK_POSITION.as_bytes() => ClickPosition::unseal(key, value).map(drop),
        OF_REPLICATION => Position::unseal(key, value).map(drop),
        OF_SOURCES => CountedSource::unseal(key, value).map(drop),
        OF_MOVED => outbox::unseal_moved(key, value).map(drop),
        OF_OUTBOX => ClickMessage::decode(value)
            .map(drop)
            .map_err(|error| StoreError::damaged("clicks_outbox", error)),
        OF_META => Ok(()),
        number => match Index::ALL.get(usize::from(number.saturating_sub(OF_FIRST_INDEX))) {
            Some(index) if keys::id_of(*index, key).is_none() => {
                let reason = format!("{}: malformed key", key.escape_ascii());
                Err(StoreError::damaged(index.name(), reason))
            }
            _ => Ok(()),
        },
    };
    checked.map_err(|error| CopyError::Damaged(error.to_string()))
}

fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn read_array<const N: usize>(dump: &mut impl Read) -> Result<[u8; N], CopyError> {
    let mut bytes = [0; N];
    dump.read_exact(&mut bytes).map_err(|_| CUT_OFF)?;
    Ok(bytes)
}

fn read_part(dump: &mut impl Read, length: [u8; 4], part: &mut Vec<u8>) -> Result<(), CopyError> {
    let length = u32::from_be_bytes(length);
    if length > PART_MAX_BYTES {
        return Err(CopyError::NoDump("an entry is longer than any can be"));
    }
    part.clear();
    match dump.take(length.into()).read_to_end(part) {
        Ok(read) if read == length as usize => Ok(()),
        _ => Err(CUT_OFF),
    }
}

/// Makes a store under another name, verifies it and renames it.
fn build(
    path: &Path,
    progress: &mut dyn Progress,
    fill: impl FnOnce(&mut Copy<'_>, &mut dyn Progress) -> Result<(), CopyError>,
    check: impl FnOnce(&Verification, &File) -> Result<(), CopyError>,
) -> Result<Verification, CopyError> {
    let unfinished = Unfinished::new(path);
    let file = unfinished.create()?;
    let database = Builder::new()
        .set_cache_size(medium::CACHE_BYTES)
        .create_with_backend(FileBackend::new(file.try_clone()?)?)?;
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    fill(&mut Copy::open(&transaction)?, progress)?;
    transaction.commit()?;
    database.close()?;
    // Of a file that was just made, redb gives unused space back only when it is closed for the second time.
    Builder::new().open(unfinished.path())?.close()?;
    let verification = {
        let store = Store::open_verified(unfinished.path())?;
        let snapshot = store.snapshot()?;
        progress.begin("verifying", snapshot.totals()?.iter().sum());
        snapshot.verify(|| progress.advance(1))?
    };
    check(&verification, &file)?;
    unfinished.publish()?;
    Ok(verification)
}

/// A store that is being filled, entry by entry.
struct Copy<'t> {
    tables: Tables<'t>,
    clicks: Table<'t, Bytes, Bytes>,
    days: Table<'t, Bytes, Bytes>,
    audit: Table<'t, Bytes, Bytes>,
    transaction: &'t WriteTransaction,
}

impl<'t> Copy<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            tables: Tables::open(transaction)?,
            clicks: transaction.open_table(CLICKS)?,
            days: transaction.open_table(DAYS)?,
            audit: transaction.open_table(AUDIT)?,
            transaction,
        })
    }

    fn insert(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), CopyError> {
        const MALFORMED: CopyError = CopyError::NoDump("an entry is malformed");
        let table = match table {
            OF_LINKS => &mut self.tables.links,
            OF_COUNTERS => &mut self.tables.counters,
            OF_REVOCATIONS => &mut self.tables.revocations,
            OF_ACTIONS => &mut self.tables.actions,
            OF_CLICKS => &mut self.clicks,
            OF_DAYS => &mut self.days,
            OF_AUDIT => &mut self.audit,
            OF_REPLICATION if key == CLICK_POSITION.as_bytes() => {
                outbox::set_click_position(self.transaction, ClickPosition::unseal(key, value)?)?;
                return Ok(());
            }
            OF_SOURCES => {
                self.transaction.open_table(SOURCES)?.insert(key, value)?;
                return Ok(());
            }
            OF_MOVED => {
                self.transaction.open_table(MOVED)?.insert(key, value)?;
                return Ok(());
            }
            OF_OUTBOX => {
                let counter = u64::from_be_bytes(key.try_into().map_err(|_| MALFORMED)?);
                self.transaction.open_table(OUTBOX)?.insert(counter, value)?;
                return Ok(());
            }
            OF_REPLICATION => {
                tables::set_position(self.transaction, &Position::unseal(key, value)?)?;
                return Ok(());
            }
            OF_STAGED => {
                // Only in a cluster is there such a table.
                let mut staged = self.transaction.open_table(STAGED).map_err(StoreError::from)?;
                staged.insert(key, value)?;
                return Ok(());
            }
            OF_META => {
                let name = std::str::from_utf8(key).map_err(|_| MALFORMED)?;
                let value = value.try_into().map_err(|_| MALFORMED)?;
                self.tables.meta.insert(name, u64::from_be_bytes(value))?;
                return Ok(());
            }
            number => {
                let position = usize::from(number - OF_FIRST_INDEX);
                let (_, table) = self.tables.indexes.iter_mut().nth(position).ok_or(MALFORMED)?;
                table.insert(key, ())?;
                return Ok(());
            }
        };
        table.insert(key, value)?;
        Ok(())
    }
}

/// Passes bytes on and keeps their digest.
struct Hashing<T> {
    inner: T,
    hash: Sha1,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha1::new(),
        }
    }

    fn digest(&self) -> [u8; 20] {
        self.hash.clone().finalize().into()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(buffer.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
