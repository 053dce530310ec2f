//! Loads that come again and again for as long as a soak goes on, each in its own time, so that all of them meet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::rig::loads::{Going, Load, Target};

/// How often what waits for its time looks whether that has come.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A load, how long it goes on, and how often it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    pub(crate) load: Load,
    lasts: Duration,
    every: Duration,
}

impl Burst {
    const fn new(load: Load, lasts_seconds: u64, every_seconds: u64) -> Self {
        Self {
            load,
            lasts: Duration::from_secs(lasts_seconds),
            every: Duration::from_secs(every_seconds),
        }
    }

    /// All but those that a soak makes itself, and checkpoints: they wait for a second without writes, which a soak
    /// does not have, and come with adds. Adds are rare: each makes a link that stays.
    pub(crate) const ALL: [Self; 5] = [
        Self::new(Load::Adds, 1, 45),
        Self::new(Load::Lists, 8, 13),
        Self::new(Load::Import, 1, 17),
        Self::new(Load::Backup, 1, 11),
        Self::new(Load::Fetch, 2, 7),
    ];

    /// Repeats it until it is over, and counts how often it came. A burst in which nothing was done is an error.
    pub(crate) fn repeat(self, target: &Target, came: &AtomicU64, is_over: impl Fn() -> bool) -> Result<()> {
        while !is_over() {
            let began = Instant::now();
            let burst = || -> Result<f64> {
                let going = Going::start(self.load, target, self.lasts)?;
                thread::sleep(self.lasts);
                going.end()
            };
            burst().with_context(|| self.load.title())?;
            came.fetch_add(1, Ordering::Relaxed);
            while began.elapsed() < self.every && !is_over() {
                thread::sleep(LOOK_INTERVAL);
            }
        }
        Ok(())
    }
}
