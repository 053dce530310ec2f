//! Room for connections: the file descriptors that the process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are needed for other things than connections: the store, listeners, runtimes, backups.
const RESERVED: u64 = 128;

/// Takes as many descriptors as the operating system allows, and returns how many of them connections may have.
#[must_use]
pub fn room_for_connections() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    // Where that is refused, there is as much room as there was.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        Err(_) => limits.current,
    };
    let room = current.map_or(u64::MAX, |most| most.saturating_sub(RESERVED).max(1));
    usize::try_from(room).unwrap_or(usize::MAX)
}
