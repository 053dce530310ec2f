//! The scheduling priority of threads: redirects come first.
//!
//! What counts is weight, not order: Linux lets a thread that wakes up wait behind several busy ones for milliseconds
//! unless these weigh next to nothing, and their time slices are longer than its own (docs/benchmarks.md). The only
//! lock that a redirect shares with such a thread is that of its shard of the map, while the writer changes it, and its
//! core is free for the writer then.

/// Threads that load the map: redirects of links that are not in it yet wait for them.
pub const LOAD_NICE: i32 = 5;
/// Threads that serve redirects over HTTP/2 and unusual ones, and downloads.
pub const GENERAL_NICE: i32 = 10;
/// All others: those that serve the API, write, or read much of the store. While redirects take whole cores, each still
/// gets a sixtieth of one.
pub const LOWEST_NICE: i32 = 19;

/// The time slice of a thread that redirects, in nanoseconds: shorter than Linux gives by itself, which is 0.7 ms on
/// one core and more on several.
const REDIRECT_SLICE_NS: u64 = 500_000;

/// Gives this thread, and those that it starts, a lower priority than those that redirect; the higher the number, the
/// lower. It cannot be raised again.
pub fn lower(nice: i32) {
    // On Linux, what is meant by "this process" is the thread. Where it is forbidden, everything works as it is.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "cannot lower a thread's priority");
    }
}

/// Has this thread interrupt those whose slices are longer: from Linux 6.12, they would otherwise finish theirs when it
/// wakes up.
pub fn shorten_slice() {
    let shortened = uapi::sched_getattr(0, 0).and_then(|mut attributes| {
        // Under another policy, the operator's, it means something else.
        if attributes.sched_policy == uapi::c::SCHED_OTHER.cast_unsigned() {
            attributes.sched_runtime = REDIRECT_SLICE_NS;
            uapi::sched_setattr(0, &attributes, 0)?;
        }
        Ok(())
    });
    if let Err(error) = shortened {
        tracing::debug!(%error, "cannot shorten a thread's time slice");
    }
}
