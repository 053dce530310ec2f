//! Dumps, as backups travel: whatever comes after a right beginning, there is a whole store or none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinyd::internals::restore_dump;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("restored");
    let dump = [b"tinyd dump 1\n".as_slice(), &3_u64.to_be_bytes(), data].concat();
    let restored = restore_dump(dump.as_slice(), &path, &mut ());
    assert_eq!(restored.is_ok(), path.exists());
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        usize::from(path.exists())
    );
});
