//! What the operating system knows of this process.

use procfs::process::{LimitValue, Process};
use procfs::{page_size, ticks_per_second};

use crate::metrics::histogram::as_f64;

/// What the process uses; `None` where the operating system does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessReport {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    /// How many may be open; `None` also if there is no limit.
    pub max_fds: Option<u64>,
    pub threads: Option<u64>,
    /// When it was started, in seconds since 1970.
    pub started_at: i64,
}

impl ProcessReport {
    /// Reads `/proc/self` only: a sandbox may hide the rest of `/proc`, such as the time of the boot.
    pub fn read(started_at: i64) -> Self {
        let process = Process::myself().ok();
        let process = process.as_ref();
        let stat = process.and_then(|process| process.stat().ok());
        let stat = stat.as_ref();
        let files = process.and_then(|process| process.fd_count().ok());
        let limits = process.and_then(|process| process.limits().ok());
        Self {
            cpu_seconds: stat.map(|stat| as_f64(stat.utime + stat.stime) / as_f64(ticks_per_second())),
            resident_bytes: stat.map(|stat| stat.rss * page_size()),
            virtual_bytes: stat.map(|stat| stat.vsize),
            open_fds: files.map(|files| files as u64),
            max_fds: limits.and_then(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(files) => Some(files),
                LimitValue::Unlimited => None,
            }),
            threads: stat.and_then(|stat| u64::try_from(stat.num_threads).ok()),
            started_at,
        }
    }
}
