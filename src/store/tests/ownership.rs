//! Files made in a folder whose owner is hostile: links that are put in their place reach nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::store::files::compact::compact;
use crate::store::files::disk::{give_to_owner_of, journal_path};
use crate::store::files::medium::{Medium as _, StoreFile};
use crate::store::files::unfinished::unfinished;
use crate::store::tests::open;
use crate::store::*;

/// A store of mode 0604, and a file beside its folder that nobody may touch.
fn with_victim() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    drop(open(&data));
    let (store, victim) = (data.join(FILE_NAME), folder.path().join("victim"));
    fs::set_permissions(&store, Permissions::from_mode(0o604)).unwrap();
    fs::write(&victim, "mine").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o640)).unwrap();
    (folder, store, victim)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn assert_untouched(victim: &Path) {
    assert_eq!(
        (fs::read(victim).unwrap().as_slice(), mode(victim)),
        (&b"mine"[..], 0o640)
    );
}

/// A symbolic link in time, as a service that was taken over would put it there.
#[test]
fn link_in_place_of_a_copy_gets_no_owner_and_no_mode() {
    let (_folder, store, victim) = with_victim();
    let old = fs::metadata(&store).unwrap();
    let database = StoreFile::new(&store).open().unwrap();
    let snapshot = Snapshot::new(&database).unwrap();
    let copied = snapshot.copy_whole_if(&store, &mut (), |_, copy| {
        fs::remove_file(unfinished(&store))?;
        symlink(&victim, unfinished(&store))?;
        give_to_owner_of(&old, copy)?;
        assert_eq!(copy.metadata()?.permissions().mode() & 0o777, 0o604);
        Ok(())
    });
    copied.unwrap();
    assert_untouched(&victim);
}

#[test]
fn compacted_store_keeps_its_owner_and_mode() {
    let (_folder, store, _) = with_victim();
    compact(&store, &mut ()).unwrap();
    assert_eq!(mode(&store), 0o604);
}

#[test]
fn link_in_place_of_the_journal_is_not_followed() {
    let (_folder, store, victim) = with_victim();
    // As long as a journal, so that it would do for one.
    let file = fs::OpenOptions::new().write(true).open(&victim).unwrap();
    file.set_len(crate::store::journal::FILE_BYTES as u64).unwrap();
    symlink(&victim, journal_path(&store)).unwrap();
    let journal = StoreFile::new(&store).create_journal(1).unwrap();
    journal.write_at(0, b"journal").unwrap();
    assert!(fs::read(&victim).unwrap().starts_with(b"mine"));
    assert_eq!((mode(&victim), mode(&journal_path(&store))), (0o640, 0o604));
}

#[test]
fn link_in_place_of_the_probe_is_not_followed() {
    let (_folder, store, victim) = with_victim();
    for name in ["links.probe", "links.probe.unfinished"] {
        symlink(&victim, store.with_file_name(name)).unwrap();
    }
    StoreFile::new(&store).probe().unwrap();
    assert_untouched(&victim);
}
