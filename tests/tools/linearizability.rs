//! Linearizability while the disk fails.

use crate::support::fixture::{configuration, folder};
use crate::support::linearizability::assert_linearizable;
use crate::wrapper::start_with_failing;

pub fn calls_are_linearizable_while_the_disk_fails() {
    let folder = folder(&configuration(""));
    let appliance = start_with_failing("fdatasync", "EIO", "30+150", folder);
    let failed = assert_linearizable(&appliance);
    assert!(failed > 0, "nothing has failed");
}
