//! Stores of many links, made once by `tinyd import` and kept under `target/bench/stores` for the next run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::rig::links::{self, GENERATION, Kind};
use crate::rig::report::say;
use crate::rig::{interrupt, machine, tinyd};

const STORE: &str = "links.redb";
/// How long the import took, in seconds, beside the store it made.
const TOOK: &str = "import-seconds";

/// A store that is there.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The data folder it is in.
    pub(crate) folder: PathBuf,
    pub(crate) import_seconds: f64,
}

impl Prepared {
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(STORE)
    }

    pub(crate) fn file_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(self.file())?.len())
    }

    /// Copies it into an empty data folder, for appliances that change it or need one each.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::copy(self.file(), folder.join(STORE))
            .with_context(|| format!("copying a store to {}", folder.display()))?;
        Ok(())
    }
}

/// The store of the first `count` links of a kind; imports it if it is not there yet.
pub(crate) fn prepared(kind: Kind, count: u64) -> Result<Prepared> {
    let stores = machine::output()?.join("stores");
    fs::create_dir_all(&stores)?;
    let name = format!("{}-{count}-v{GENERATION}", kind.name());
    let folder = stores.join(&name);
    let took = folder.join(TOOK);
    if !took.exists() {
        let unfinished = stores.join(format!("{name}.unfinished"));
        // Of a run that was cut off.
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir_all(&unfinished)?;
        interrupt::remove_on_interrupt(&unfinished);
        import(kind, count, &unfinished).inspect_err(|_| {
            let _ = fs::remove_dir_all(&unfinished);
        })?;
        // A folder without its last file would be taken for nothing.
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&unfinished, &folder)?;
    }
    let import_seconds = fs::read_to_string(&took)?.trim().parse()?;
    Ok(Prepared { folder, import_seconds })
}

fn import(kind: Kind, count: u64, folder: &Path) -> Result<()> {
    say(&format!("importing {count} links ({})", kind.name()));
    let lines = folder.join("links.jsonl");
    links::write_lines(&lines, kind, count)?;
    let started = Instant::now();
    let store = folder.join(STORE);
    tinyd::run(&["import", "--store", &store.to_string_lossy(), &lines.to_string_lossy()])?;
    let took = started.elapsed().as_secs_f64();
    fs::remove_file(&lines)?;
    fs::write(folder.join(TOOK), format!("{took:.3}\n"))?;
    Ok(())
}
