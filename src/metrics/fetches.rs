//! Fetches of destinations for `goto` with `proxy=true`.

use std::sync::Arc;

use crate::metrics::labels::labels;
use crate::metrics::{Counter, Gauge};

labels! {
    pub enum FetchOutcome {
        /// The whole answer was passed on.
        Complete = "complete",
        /// The destination is none that is fetched.
        Forbidden = "forbidden",
        /// No name server knew it, no server answered, or its certificate does not hold.
        Unreachable = "unreachable",
        /// The answer was broken, or broke off.
        Broken = "broken",
        TooLarge = "too_large",
        TimedOut = "timed_out",
        /// The request had been fetched by a proxy like this one.
        Loop = "loop",
        /// As many fetches were going on as may, in all or for the client.
        Busy = "busy",
        /// The client has gone before the end.
        Abandoned = "abandoned",
    }
}

#[derive(Debug, Default)]
pub struct Fetches {
    outcomes: [Counter; FetchOutcome::ALL.len()],
    open: Gauge,
    bytes: Counter,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchesReport {
    /// Fetches that have ended, in the order of [`FetchOutcome::ALL`].
    pub outcomes: [u64; FetchOutcome::ALL.len()],
    pub open: u64,
    /// Bytes of bodies that were passed on.
    pub bytes: u64,
}

impl FetchesReport {
    /// How many have ended in this way.
    pub fn ended(&self, outcome: FetchOutcome) -> u64 {
        self.outcomes.get(outcome as usize).copied().unwrap_or_default()
    }
}

impl Fetches {
    pub fn begin(self: &Arc<Self>) -> OpenFetch {
        self.open.move_by(1);
        OpenFetch {
            fetches: Arc::clone(self),
            outcome: FetchOutcome::Abandoned,
        }
    }

    pub fn read(&self) -> FetchesReport {
        FetchesReport {
            outcomes: self.outcomes.each_ref().map(Counter::get),
            open: self.open.get(),
            bytes: self.bytes.get(),
        }
    }
}

/// A fetch until this is dropped, and then counted by its outcome: without one, its client has left.
#[derive(Debug)]
pub struct OpenFetch {
    fetches: Arc<Fetches>,
    outcome: FetchOutcome,
}

impl OpenFetch {
    pub const fn set(&mut self, outcome: FetchOutcome) {
        self.outcome = outcome;
    }

    /// Counts so many bytes of its body that were passed on.
    pub fn passed_on(&self, bytes: u64) {
        self.fetches.bytes.increment_by(bytes);
    }
}

impl Drop for OpenFetch {
    fn drop(&mut self) {
        self.fetches.open.move_by(-1);
        if let Some(counter) = self.fetches.outcomes.get(self.outcome as usize) {
            counter.increment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_is_counted_once_by_how_it_ended() {
        let fetches = Arc::new(Fetches::default());
        for (number, outcome) in FetchOutcome::ALL.into_iter().enumerate() {
            let mut fetch = fetches.begin();
            assert_eq!(fetches.read().open, 1);
            fetch.set(outcome);
            drop(fetch);
            let report = fetches.read();
            assert_eq!((report.outcomes[number], report.open), (1, 0), "{outcome:?}");
        }
        drop(fetches.begin());
        assert_eq!(fetches.read().outcomes[FetchOutcome::Abandoned as usize], 2);
        assert_eq!(fetches.read().outcomes.iter().sum::<u64>(), 10);
    }
}
