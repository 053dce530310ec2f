//! Where a box of a cluster is in the log, and what became of its appends.

use std::time::Duration;

use crate::metrics::Counter;
use crate::metrics::histogram::{Distribution, Durations};
use crate::metrics::labels::labels;

labels! {
    /// What became of an append to the log.
    pub enum AppendOutcome {
        Stored = "stored",
        Overtaken = "overtaken",
        Refused = "refused",
        Unknown = "unknown",
    }
}

labels! {
    /// What an admin box knows of a box.
    pub enum MemberState {
        Current = "current",
        Behind = "behind",
        Halted = "halted",
        Different = "different",
        Silent = "silent",
    }
}

#[derive(Debug, Default)]
pub struct Appends {
    outcomes: [Counter; AppendOutcome::ALL.len()],
    durations: Durations,
}

impl Appends {
    pub fn count(&self, outcome: AppendOutcome, took: Duration) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.increment();
        }
        self.durations.observe_duration(took);
    }

    pub fn read(&self) -> AppendsReport {
        AppendsReport {
            outcomes: self.outcomes.each_ref().map(Counter::get),
            durations: self.durations.read(),
        }
    }
}

/// [`Appends`] at one moment; counts in the order of [`AppendOutcome::ALL`], durations in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct AppendsReport {
    pub outcomes: [u64; AppendOutcome::ALL.len()],
    pub durations: Distribution,
}

/// What a box knows of its cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterReport {
    pub role: &'static str,
    pub node: String,
    pub epoch: u32,
    /// The last entry that this box has.
    pub position: u64,
    /// The last entry of the log, as far as is known.
    pub head: u64,
    /// For how long it has had fewer.
    pub behind: Duration,
    /// For how long nothing has been heard of the log.
    pub silent: Duration,
    /// Why this box applies no more entries.
    pub halted: Option<String>,
    /// Clicks and previews that the stream of clicks does not have yet.
    pub clicks_waiting: u64,
    /// What admin boxes know beside that.
    pub admin: Option<AdminBoxReport>,
}

#[derive(Debug, Clone, Default)]
pub struct AdminBoxReport {
    /// Why this box takes no writes; `None`: it takes them.
    pub refused: Option<String>,
    pub appends: AppendsReport,
    /// In the order of [`MemberState::ALL`].
    pub boxes: [u64; MemberState::ALL.len()],
    /// How far the clock is ahead of those of the other admin boxes, in milliseconds; `None` where none is heard.
    pub skew: Option<i64>,
    /// Boxes whose clocks are wrong, with how far each is ahead.
    pub skewed: Vec<(String, i64)>,
}

impl ClusterReport {
    /// Entries of the log that this box does not have.
    pub const fn missing(&self) -> u64 {
        self.head.saturating_sub(self.position)
    }
}
