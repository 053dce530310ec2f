//! The scheduling priority of threads: redirects come first.

/// Threads that serve the API, or write.
pub const API_NICE: i32 = 5;
/// Threads that read much of the store, for one request or in the background.
pub const SCAN_NICE: i32 = 10;

/// Gives this thread, and those that it starts, a lower priority than those that redirect; the higher the number, the
/// lower. It cannot be raised again.
pub fn lower(nice: i32) {
    // On Linux, what is meant by "this process" is the thread. Where it is forbidden, everything works as it is.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "cannot lower a thread's priority");
    }
}
