//! Copies on a full disk.

use std::fs;
use std::process::Command;

use crate::support::fixture::{binary, configuration, folder};
use crate::support::transfer::{complained, line};
use crate::wrapper::{REMOUNT, unshare};

/// The tools report the full disk and leave no file behind.
pub fn copy_on_a_full_disk_leaves_no_file() {
    let folder = folder(&configuration(""));
    let file = folder.path().join("links.jsonl");
    let lines: String = (0..5_000)
        .map(|number| line(&format!("{number:05}"), ",\"partnerId\":1"))
        .collect();
    fs::write(&file, lines).unwrap();
    let script = format!(
        "
        cd \"$1\"; mkdir small; mount -t tmpfs -o size=256k tmpfs small
        \"$0\" import --store links.redb links.jsonl || exit 1
        \"$0\" backup --store links.redb small/backup.redb && exit 2
        {REMOUNT},size=$(($(stat -c %s links.redb) * 3 / 2)) tmpfs small
        cp links.redb small/ && ! \"$0\" compact --store small/links.redb || exit 3
        rm small/links.redb
        test -z \"$(ls -A small)\" || exit 4"
    );
    let wrapper = unshare(&["-m"]);
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .args(["bash", "-c", &script, binary()])
        .arg(folder.path());
    let output = command.output().unwrap();
    let error = complained(&output, 0);
    assert!(error.contains("no backup was written to small/backup.redb"), "{error}");
    assert!(error.contains("may be needed beside small/links.redb"), "{error}");
}
