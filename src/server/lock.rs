//! One process a data folder.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::store::takes_no_writes;

/// It holds the process id of the owner.
const FILE_NAME: &str = "tinyd.lock";

/// The lock on a data folder while this lives. The file stays.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("the data folder {} is already in use by {holder}", folder.display())]
    InUse { folder: PathBuf, holder: String },
    #[error("cannot use the data folder {}: {cause}", folder.display())]
    Io { folder: PathBuf, cause: io::Error },
}

impl DataLock {
    /// Creates the folder if it is missing, and locks it.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |cause| LockError::Io {
            folder: folder.to_owned(),
            cause,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let path = folder.join(FILE_NAME);
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // The folder may belong to another user, who must not choose which file is written.
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path);
        let mut written = match made {
            // Redirects can be served from a disk that takes no writes.
            Err(cause) if takes_no_writes(&cause) && path.exists() => None,
            made => Some(made.map_err(failed)?),
        };
        // Read-only: a file open for writing blocks remounting read-only.
        let file = File::open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let id = fs::read_to_string(&path).unwrap_or_default();
                let holder = match id.trim() {
                    "" => "another process".to_owned(),
                    id => format!("process {id}"),
                };
                return Err(LockError::InUse {
                    folder: folder.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        // For people; a full disk may have no room for it.
        if let Some(written) = &mut written {
            let _ = written
                .set_len(0)
                .and_then(|()| writeln!(written, "{}", std::process::id()));
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_in_place_of_the_lock_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(FILE_NAME)).unwrap();
        assert!(matches!(DataLock::take(folder.path()), Err(LockError::Io { .. })));
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }
}
