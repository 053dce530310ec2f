//! When a backup of the store was last taken: a small file beside it, so that a restart does not forget it.
//!
//! Not in the store itself, whose copies would say that they had been backed up when the original last was.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::model::Timestamp;
use crate::store::files::unfinished::Unfinished;

/// When the last backup was taken.
#[derive(Debug, Default)]
pub struct LastBackup {
    at: Mutex<Option<Timestamp>>,
    /// Where it is written down; nowhere for a store that is only read.
    file: Option<PathBuf>,
}

impl LastBackup {
    /// What is written beside a store. A file that says nothing counts as none.
    pub fn open(store: &Path, is_written: bool) -> Self {
        let mut file = store.as_os_str().to_owned();
        file.push(".last-backup");
        let seconds = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        Self {
            at: Mutex::new(seconds.map(Timestamp::from_unix)),
            file: is_written.then(|| file.into()),
        }
    }

    pub fn get(&self) -> Option<Timestamp> {
        *self.at.lock()
    }

    /// Notes a backup. It is known to this process even if it cannot be written down.
    pub fn note(&self, at: Timestamp) -> io::Result<()> {
        *self.at.lock() = Some(at);
        let Some(file) = &self.file else { return Ok(()) };
        let unfinished = Unfinished::new(file);
        let mut written = unfinished.create()?;
        writeln!(written, "{at}")?;
        written.sync_all()?;
        unfinished.publish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backup_time_survives_restarts_unless_read_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("links.redb");
        let at = Timestamp::from_unix(1_778_429_631);
        let reading = LastBackup::open(&store, false);
        reading.note(at).unwrap();
        assert_eq!((reading.get(), LastBackup::open(&store, true).get()), (Some(at), None));
        LastBackup::open(&store, true).note(at).unwrap();
        assert_eq!(LastBackup::open(&store, false).get(), Some(at));
        fs::write(folder.path().join("links.redb.last-backup"), "some day").unwrap();
        assert_eq!(LastBackup::open(&store, true).get(), None);
    }
}
