//! What the operating system knows of this process.

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};

use crate::metrics::histogram::as_f64;

/// What the process uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessReport {
    /// CPU time, user and kernel, in seconds.
    pub cpu_seconds: f64,
    /// Memory that is in RAM, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Open files and sockets.
    pub open_fds: u64,
    /// How many may be open; `None` if there is no limit.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
    /// When it was started, in seconds since 1970.
    pub started_at: f64,
}

impl ProcessReport {
    /// Asks `/proc`; `None` where that is not mounted.
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::try_read().ok()
    }

    fn try_read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let seconds = |ticks: u64| as_f64(ticks) / as_f64(ticks_per_second());
        Ok(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            resident_bytes: stat.rss * page_size(),
            virtual_bytes: stat.vsize,
            open_fds: process.fd_count()? as u64,
            max_fds: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(files) => Some(files),
                LimitValue::Unlimited => None,
            },
            threads: u64::try_from(stat.num_threads).unwrap_or_default(),
            started_at: as_f64(boot_time_secs()?) + seconds(stat.starttime),
        })
    }
}
