//! Compacting the file of a store that is not open.

use std::fs::{self, File};
use std::path::Path;

use crate::store::error::CopyError;
use crate::store::files::disk;
use crate::store::files::medium::StoreFile;
use crate::store::read::verify::Verification;
use crate::store::{Medium as _, Progress, Snapshot};

#[derive(Debug)]
pub struct Compaction {
    pub before: u64,
    pub after: u64,
}

/// Copies a store into a new file, without what deleted and replaced entries have left, and puts it in the old one's
/// place once it has been verified; else leaves that as it was. redb's own compaction works in place, where a crash or
/// a mistake has nothing to go back to.
pub fn compact(path: &Path, progress: &mut dyn Progress) -> Result<Compaction, CopyError> {
    let old = fs::metadata(path)?;
    let before = old.len();
    disk::check_space(path, before)?;
    // A copy has checksums of its own, which would hide that those of the original are wrong.
    drop(StoreFile::new(path).open_verified()?);
    // For writing, which locks it and repairs the traces of a crash first.
    let database = StoreFile::new(path).open()?;
    let snapshot = Snapshot::new(&database)?;
    let check = |found: &Verification, copy: &File| match found.problems.first() {
        Some(problem) => Err(CopyError::Damaged(problem.clone())),
        // Another user may serve it.
        None => Ok(disk::give_to_owner_of(&old, copy)?),
    };
    snapshot.copy_whole_if(path, progress, check)?;
    drop(snapshot);
    Ok(Compaction {
        before,
        after: fs::metadata(path)?.len(),
    })
}
