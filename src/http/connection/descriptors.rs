//! Room for connections: the file descriptors that the process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are needed for other things than connections: the store, backups, connections that are about to
/// be closed.
const RESERVED: u64 = 128;
/// Those of each thread that serves redirects: its runtime and its listeners.
const RESERVED_FOR_THREAD: u64 = 8;

/// Takes as many descriptors as the operating system allows, and returns how many of them connections may have.
pub fn room_for_connections(threads: usize) -> usize {
    let limits = getrlimit(Resource::Nofile);
    let reserved = RESERVED + RESERVED_FOR_THREAD * threads as u64;
    let raised = Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    // Where that is refused, there is as much room as there was.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        Err(_) => limits.current,
    };
    // Where there are hardly any, connections have half of them.
    let room = current.map_or(u64::MAX, |most| most.saturating_sub(reserved).max(most / 2));
    usize::try_from(room).unwrap_or(usize::MAX)
}
