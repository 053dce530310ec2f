//! What the store's writer does, and how many links there are.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::histogram::{Distribution, Durations, Sizes};
use crate::metrics::number::{Counter, Gauge};

/// How many statuses a link can have.
const STATUSES: usize = 3;

#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Writes in each transaction that was acknowledged.
    pub batch_sizes: Sizes,
    /// How long it took to have a transaction on disk.
    pub commits: Durations,
    /// How long it took to bring the store's file to where the journal is.
    pub checkpoints: Durations,
    /// How often the store has failed, each time until it worked again.
    pub failures: Counter,
    /// Bytes in the journal that the store's file does not have.
    pub journal_bytes: Gauge,
    links: [Gauge; STATUSES],
    waiting_since: Mutex<Option<Instant>>,
}

/// [`StoreMetrics`] at one moment; durations in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct WriterReport {
    pub batch_sizes: Distribution,
    pub commits: Distribution,
    pub checkpoints: Distribution,
    pub failures: u64,
    pub journal_bytes: u64,
    pub links: [u64; STATUSES],
    pub waiting: Duration,
}

impl StoreMetrics {
    pub fn read(&self) -> WriterReport {
        WriterReport {
            batch_sizes: self.batch_sizes.read(),
            commits: self.commits.read(),
            checkpoints: self.checkpoints.read(),
            failures: self.failures.get(),
            journal_bytes: self.journal_bytes.get(),
            links: self.links(),
            waiting: self.waiting(),
        }
    }

    /// Says how many links have each status, in the order of the statuses.
    pub fn set_links(&self, links: [u64; STATUSES]) {
        for (gauge, number) in self.links.iter().zip(links) {
            gauge.set(number);
        }
    }

    /// Says by how much these numbers have changed.
    pub fn move_links(&self, deltas: [i64; STATUSES]) {
        for (gauge, delta) in self.links.iter().zip(deltas) {
            if delta != 0 {
                gauge.move_by(delta);
            }
        }
    }

    /// How many links have each status, in the order of the statuses.
    pub fn links(&self) -> [u64; STATUSES] {
        self.links.each_ref().map(Gauge::get)
    }

    /// Waits for the disk; for as long as what this returns lives, [`StoreMetrics::waiting`] says since when.
    pub fn wait_for_disk(&self) -> WaitForDisk<'_> {
        let since = Instant::now();
        *self.waiting_since.lock() = Some(since);
        WaitForDisk { metrics: self, since }
    }

    /// How long the writer has been waiting for the disk just now; zero if it does not.
    pub fn waiting(&self) -> Duration {
        self.waiting_since
            .lock()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// The writer waits for the disk.
#[derive(Debug)]
pub struct WaitForDisk<'m> {
    metrics: &'m StoreMetrics,
    since: Instant,
}

impl WaitForDisk<'_> {
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for WaitForDisk<'_> {
    fn drop(&mut self) {
        *self.metrics.waiting_since.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_counted_by_status() {
        let metrics = StoreMetrics::default();
        metrics.set_links([1, 2, 3]);
        metrics.move_links([1, -2, 0]);
        assert_eq!(metrics.links(), [2, 0, 3]);
        metrics.move_links([0, -1, 0]);
        assert_eq!(metrics.links(), [2, 0, 3]);
    }

    #[test]
    fn the_writer_waits_until_it_has_the_disk() {
        let metrics = StoreMetrics::default();
        assert_eq!(metrics.waiting(), Duration::ZERO);
        let waiting = metrics.wait_for_disk();
        while metrics.waiting() == Duration::ZERO {}
        drop(waiting);
        assert_eq!(metrics.waiting(), Duration::ZERO);
    }
}
