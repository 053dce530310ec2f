//! Room for connections: the file descriptors that the process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the store, backups, and connections that are closing.
const RESERVED: u64 = 128;
/// For the event loop, the runtime and the listeners of a redirect thread.
const RESERVED_FOR_THREAD: u64 = 12;

/// Raises the limit of descriptors as far as possible, and returns how many connections may use.
pub fn room_for_connections(threads: usize) -> usize {
    let limits = getrlimit(Resource::Nofile);
    let reserved = RESERVED + RESERVED_FOR_THREAD * threads as u64;
    let raised = Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    // If that fails, the limit stays.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        Err(_) => limits.current,
    };
    // With very few, connections get half of them.
    let room = current.map_or(u64::MAX, |most| most.saturating_sub(reserved).max(most / 2));
    usize::try_from(room).unwrap_or(usize::MAX)
}
