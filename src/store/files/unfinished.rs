//! Files that have their name only once they are whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is being made under another name. Unless it is published, it is removed.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    /// None once it has its name.
    unfinished: Option<PathBuf>,
}

impl Unfinished {
    /// The file that is to be called `path`; nothing is there yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            unfinished: Some(unfinished(path)),
        }
    }

    pub fn path(&self) -> &Path {
        self.unfinished.as_deref().unwrap_or(&self.path)
    }

    /// Creates it, readable by its owner only, in place of what a crash has left there. A symbolic link is not
    /// followed.
    pub fn create(&self) -> io::Result<File> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path())
    }

    /// Gives it its name, and syncs the folder that holds it. Its content must have been synced.
    pub fn publish(mut self) -> io::Result<()> {
        fs::rename(self.path(), &self.path)?;
        self.unfinished = None;
        File::open(folder_of(&self.path))?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            // Perhaps it was never made; and if it cannot be removed, the next one takes its place.
            let _ = fs::remove_file(unfinished);
        }
    }
}

/// The name under which a file is made that is to be called `path`.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    path.with_file_name(name)
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new("."))
}
