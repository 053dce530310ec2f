//! Redirects by what became of them, and how long they took.
//!
//! Each redirect thread has counters in cache lines of its own, which it alone writes: counting is a load and a store.
//! A report adds them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::histogram::{Distribution, Durations, add_own, nanoseconds};
use crate::metrics::labels::labels;

labels! {
    /// What became of a request for a redirect.
    pub enum RedirectOutcome {
        /// 302 to where the link leads.
        Found = "found",
        /// 301 of `/tiny` to goto.
        Hop = "hop",
        Unknown = "unknown",
        Disabled = "disabled",
        Deleted = "deleted",
        Expired = "expired",
        NotYet = "not_yet",
        /// Links were being loaded, and this one could not be found meanwhile: 503.
        Loading = "loading",
        /// The link's record is damaged: 503.
        Damaged = "damaged",
        /// The client has requested too many unknown ids: 429.
        Refused = "refused",
    }
}

// Lines of cache of its own; processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Counters {
    outcomes: [AtomicU64; RedirectOutcome::ALL.len()],
    durations: Durations,
}

/// The counters of one thread. Two threads that share them would lose counts.
#[derive(Debug, Default)]
pub struct ThreadRedirects(Arc<Counters>);

impl ThreadRedirects {
    pub fn count(&self, outcome: RedirectOutcome) {
        if let Some(count) = self.0.outcomes.get(outcome as usize) {
            add_own(count, 1);
        }
    }

    /// Counts redirects whose requests came together: the time from their reading until the kernel had their answers.
    pub fn took(&self, duration: Duration, redirects: u64) {
        if redirects > 0 {
            self.0.durations.observe_own(nanoseconds(duration), redirects);
        }
    }
}

#[derive(Debug, Default)]
pub struct RedirectCounts {
    threads: Mutex<Vec<Arc<Counters>>>,
    shared: Counters,
}

impl RedirectCounts {
    pub fn for_thread(&self) -> ThreadRedirects {
        let counters = Arc::new(Counters::default());
        self.threads.lock().push(Arc::clone(&counters));
        ThreadRedirects(counters)
    }

    /// Counts a redirect that took so long, on whatever thread: for the general server.
    pub fn count(&self, outcome: RedirectOutcome, duration: Duration) {
        if let Some(count) = self.shared.outcomes.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.durations.observe_duration(duration);
    }

    /// How many redirects had each outcome, in the order of [`RedirectOutcome::ALL`], and how long they took.
    pub fn read(&self) -> ([u64; RedirectOutcome::ALL.len()], Distribution) {
        let threads = self.threads.lock();
        let all = threads.iter().map(AsRef::as_ref).chain([&self.shared]);
        let (mut outcomes, mut durations) = ([0; _], Distribution::default());
        for counters in all {
            for (sum, count) in outcomes.iter_mut().zip(&counters.outcomes) {
                *sum += count.load(Ordering::Relaxed);
            }
            durations.add(&counters.durations.read());
        }
        (outcomes, durations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_threads_are_added_up() {
        let redirects = RedirectCounts::default();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let own = redirects.for_thread();
                scope.spawn(move || {
                    for outcome in RedirectOutcome::ALL {
                        own.count(outcome);
                    }
                    for _ in 0..1_000 {
                        own.count(RedirectOutcome::Found);
                        own.took(Duration::from_nanos(5_000), 2);
                    }
                    own.took(Duration::from_secs(3_600), 0);
                });
            }
        });
        redirects.count(RedirectOutcome::Damaged, Duration::from_micros(100));
        let (outcomes, durations) = redirects.read();
        assert_eq!(outcomes, [3_003, 3, 3, 3, 3, 3, 3, 3, 4, 3]);
        assert_eq!((durations.count(), durations.sum()), (6_001, 6_000 * 5_000 + 100_000));
    }

    #[test]
    fn outcomes_are_in_the_order_in_which_they_are_read() {
        for (number, outcome) in RedirectOutcome::ALL.into_iter().enumerate() {
            let redirects = RedirectCounts::default();
            redirects.for_thread().count(outcome);
            assert_eq!(redirects.read().0[number], 1, "{outcome:?}");
        }
    }
}
