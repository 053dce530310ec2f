//! What the store asks of the file system: paths beside the store, owners, and free space.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use crate::store::files::unfinished::folder_of;

/// The file of the journal of a store.
pub fn journal_path(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".journal");
    path.into()
}

/// Gives a file the owner, the group and the mode of another one. The open file, and not whatever has its name by
/// now: where root works in a folder of the service's, the service could put a link to any file there.
pub fn give_to_owner_of(other: &fs::Metadata, file: &File) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (other.uid(), other.gid()) {
        fchown(file, Some(other.uid()), Some(other.gid()))?;
    }
    file.set_permissions(other.permissions())
}

/// Space that files beside a store must leave on its disk, in bytes: a full disk would stop all writes.
pub const SPACE_LEFT_BYTES: u64 = 256 * 1024 * 1024;

/// How much of a disk is free, without what is reserved for root, and how large it is, in bytes.
pub fn space(folder: &Path) -> io::Result<(u64, u64)> {
    let of_disk = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(of_disk.f_frsize);
    Ok((bytes(of_disk.f_bavail), bytes(of_disk.f_blocks)))
}

/// Whether the disk of `path` has room for `bytes` more; [`io::ErrorKind::StorageFull`] if not, with how much there is.
pub fn check_space(path: &Path, bytes: u64) -> io::Result<()> {
    const MEBIBYTE: u64 = 1024 * 1024;
    let (free, _) = space(folder_of(path))?;
    if free < bytes {
        let (needed, free) = (bytes.div_ceil(MEBIBYTE), free / MEBIBYTE);
        let text = format!(
            "{needed} MiB may be needed beside {}, and {free} MiB are free",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    Ok(())
}
