//! Redirects by what became of them, and how long they took.
//!
//! Each redirect thread has counters in cache lines of its own, which it alone writes: counting is a load and a store.
//! A report adds them up.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::histogram::{Distribution, Durations, add_own, nanoseconds};

/// What became of a request for a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectOutcome {
    /// 302 to where the link leads.
    Found,
    /// 301 of `/tiny` to goto.
    Hop,
    Unknown,
    Disabled,
    Deleted,
    Expired,
    /// Links were being loaded, and this one could not be found meanwhile: 503.
    Loading,
    /// The link's record is damaged: 503.
    Damaged,
    /// The client has asked for too many ids that there are none of: 429.
    Refused,
}

impl RedirectOutcome {
    /// All of them, in their order.
    pub const ALL: [Self; 9] = [
        Self::Found,
        Self::Hop,
        Self::Unknown,
        Self::Disabled,
        Self::Deleted,
        Self::Expired,
        Self::Loading,
        Self::Damaged,
        Self::Refused,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Hop => "hop",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Loading => "loading",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
        }
    }
}

// Lines of cache of its own; processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Counters {
    outcomes: [AtomicU64; RedirectOutcome::ALL.len()],
    durations: Durations,
}

impl Counters {
    const fn outcome(&self, outcome: RedirectOutcome) -> &AtomicU64 {
        let [
            found,
            hop,
            unknown,
            disabled,
            deleted,
            expired,
            loading,
            damaged,
            refused,
        ] = &self.outcomes;
        match outcome {
            RedirectOutcome::Found => found,
            RedirectOutcome::Hop => hop,
            RedirectOutcome::Unknown => unknown,
            RedirectOutcome::Disabled => disabled,
            RedirectOutcome::Deleted => deleted,
            RedirectOutcome::Expired => expired,
            RedirectOutcome::Loading => loading,
            RedirectOutcome::Damaged => damaged,
            RedirectOutcome::Refused => refused,
        }
    }
}

/// The counters of one thread. Two threads that share them would lose counts.
#[derive(Debug, Default)]
pub struct ThreadRedirects(Arc<Counters>);

impl ThreadRedirects {
    pub fn count(&self, outcome: RedirectOutcome) {
        add_own(self.0.outcome(outcome), 1);
    }

    /// Notes that so many redirects, whose requests came together, took so long: from when they had been read until
    /// their answers had been handed to the kernel.
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
        self.shared.outcome(outcome).fetch_add(1, Ordering::Relaxed);
        self.shared.durations.observe_duration(duration);
    }

    /// How many redirects had each outcome, in the order of [`RedirectOutcome::ALL`], and how long they took.
    pub fn read(&self) -> ([u64; RedirectOutcome::ALL.len()], Distribution) {
        let threads = self.threads.lock();
        let all = || threads.iter().map(AsRef::as_ref).chain([&self.shared]);
        let outcomes = array::from_fn(|number| {
            let of = |counters: &Counters| {
                counters
                    .outcomes
                    .get(number)
                    .map_or(0, |count| count.load(Ordering::Relaxed))
            };
            all().map(of).sum()
        });
        let mut durations = Distribution::default();
        all().for_each(|counters| durations.add(&counters.durations.read()));
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
        assert_eq!(outcomes, [3_003, 3, 3, 3, 3, 3, 3, 4, 3]);
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
