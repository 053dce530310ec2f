//! The disk: what kind of file system a folder is on, and how often it syncs.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What is written before each sync.
pub(crate) const SYNCED_BYTES: usize = 512;

/// The kind of the file system, as `stat` calls it; an error if it is one in memory, where nothing is ever synced.
pub(crate) fn file_system(folder: &Path) -> Result<String> {
    let output = Command::new("stat")
        .args(["-f", "-c", "%T"])
        .arg(folder)
        .output()
        .context("running stat of coreutils")?;
    let kind = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if ["tmpfs", "ramfs"].contains(&kind.as_str()) {
        bail!(
            "{} is on {kind}, where a sync costs nothing; set CARGO_TARGET_DIR and TMPDIR to folders on a disk",
            folder.display()
        );
    }
    Ok(kind)
}

/// What the disk can do at most for one thread that waits for every sync.
pub(crate) fn syncs_a_second(folder: &Path, overwrite: bool) -> Result<f64> {
    let path = folder.join("syncs");
    let mut file = File::create(&path)?;
    let block = [7; SYNCED_BYTES];
    file.write_all(&block)?;
    file.sync_all()?;
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(1) {
        if overwrite {
            file.rewind()?;
        }
        file.write_all(&block)?;
        file.sync_data().context("syncing")?;
        count += 1;
    }
    let rate = f64::from(count) / started.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}
