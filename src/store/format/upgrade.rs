//! Stores of older formats: a copy is set aside, then the file is brought to the present format in one transaction.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, WriteTransaction};

use crate::store::error::StoreError;
use crate::store::files::disk;
use crate::store::files::unfinished::Unfinished;
use crate::store::format::format_1;
use crate::store::format::tables::{self, META, META_FORMAT};

/// Brings a store from one format to the next.
pub type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// The formats that are read: the newest one, and those that the steps lead from, one by one.
#[derive(Debug, Clone, Copy)]
pub struct Formats {
    pub newest: u64,
    pub steps: &'static [Step],
}

pub const FORMATS: Formats = Formats {
    newest: tables::FORMAT,
    steps: &[format_1::seal_all],
};

impl Formats {
    /// The steps that bring a store of this format to the newest one, if they do.
    fn steps_from(self, found: u64) -> Option<&'static [Step]> {
        let missing = usize::try_from(self.newest.checked_sub(found)?).ok()?;
        self.steps.get(self.steps.len().checked_sub(missing)?..)
    }

    pub fn can_read(self, found: u64) -> bool {
        self.steps_from(found).is_some()
    }

    /// Brings a store to the newest format, in one transaction.
    pub fn upgrade(self, database: &Database, found: u64) -> Result<(), StoreError> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        for step in self.steps_from(found).unwrap_or_default() {
            step(&transaction)?;
        }
        transaction.open_table(META)?.insert(META_FORMAT, self.newest)?;
        transaction.commit()?;
        Ok(())
    }
}

/// Copies the journal, if any, and then the file of a store that is not open, so that a downgrade is possible.
pub fn set_aside(path: &Path, format: u64) -> io::Result<PathBuf> {
    let target = path.with_extension(format!("format-{format}.redb"));
    // The copy, and as much again for what the upgrade writes anew.
    disk::check_space(path, 2 * fs::metadata(path)?.len())?;
    let journal = disk::journal_path(path);
    if journal.try_exists()? {
        copy(&journal, &disk::journal_path(&target))?;
    }
    copy(path, &target)?;
    Ok(target)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let unfinished = Unfinished::new(to);
    let mut file = unfinished.create()?;
    let mut from = File::open(from)?;
    disk::give_to_owner_of(&from.metadata()?, &file)?;
    io::copy(&mut from, &mut file)?;
    file.sync_all()?;
    unfinished.publish()
}
