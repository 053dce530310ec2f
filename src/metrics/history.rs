//! Samples of the last minutes, from which rates are worked out.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::fetches::FetchOutcome;
use crate::metrics::histogram::{Distribution, as_f64};
use crate::metrics::redirects::RedirectOutcome;
use crate::metrics::report::Report;

/// How often a sample is to be taken.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
pub const HISTORY_LENGTH: Duration = Duration::from_secs(5 * 60);
/// Samples that are kept: those of this time, and the one before it.
const SAMPLES_MAX: usize = (HISTORY_LENGTH.as_secs() / SAMPLE_INTERVAL.as_secs()) as usize + 2;

/// The code of calls that failed for a reason of ours.
const INTERNAL: &str = "INTERNAL_SERVERL_ERROR";

/// What had been counted at some moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// When, from the start of the program.
    pub at: Duration,
    pub redirects: u64,
    /// Those of them that were answered 503.
    pub failed_redirects: u64,
    /// How long they took, in nanoseconds.
    pub redirect_durations: Distribution,
    pub fetches: u64,
    /// Those of them that were refused because as many were going on as may.
    pub busy_fetches: u64,
    pub calls: u64,
    /// Calls that were answered with an exception.
    pub refused_calls: u64,
    /// Those of them that failed for a reason of the appliance's.
    pub failed_calls: u64,
    pub refusals: u64,
    /// How long commits took, in nanoseconds.
    pub commits: Distribution,
}

impl Sample {
    /// What a report says, so long after the start of the program.
    pub fn new(report: &Report, at: Duration) -> Self {
        let failed = |outcome| matches!(outcome, RedirectOutcome::Loading | RedirectOutcome::Damaged);
        let failed_redirects = RedirectOutcome::ALL.into_iter().zip(report.redirects);
        let failed_redirects = failed_redirects.filter(|(outcome, _)| failed(*outcome));
        let codes = || report.actions.iter().flat_map(|action| action.codes.iter());
        let calls = |is_meant: fn(&str) -> bool| {
            let meant = codes().filter(|(code, _)| is_meant(code));
            meant.map(|(_, count)| count).sum()
        };
        Self {
            at,
            redirects: report.redirects.iter().sum(),
            failed_redirects: failed_redirects.map(|(_, count)| count).sum(),
            redirect_durations: report.redirect_durations.clone(),
            fetches: report.fetches.outcomes.iter().sum(),
            busy_fetches: report.fetches.ended(FetchOutcome::Busy),
            calls: calls(|_| true),
            refused_calls: calls(|code| !code.is_empty()),
            failed_calls: calls(|code| code == INTERNAL),
            refusals: report.connections.iter().flat_map(|of| of.refused).sum(),
            commits: report.store.writer.commits.clone(),
        }
    }

    /// How often something happens a second, by what had been counted then and now.
    pub fn rate(&self, earlier: &Self, counted: impl Fn(&Self) -> u64) -> f64 {
        let seconds = self.at.saturating_sub(earlier.at).as_secs_f64();
        let times = counted(self).saturating_sub(counted(earlier));
        if seconds > 0.0 { as_f64(times) / seconds } else { 0.0 }
    }
}

#[derive(Debug)]
pub struct History(Mutex<VecDeque<Sample>>);

impl Default for History {
    /// At the start, nothing had been counted.
    fn default() -> Self {
        Self(Mutex::new([Sample::default()].into()))
    }
}

impl History {
    pub fn push(&self, sample: Sample) {
        let mut samples = self.0.lock();
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The newest sample that is at least so old at `now`, or the oldest there is.
    pub fn before(&self, now: Duration, age: Duration) -> Sample {
        let samples = self.0.lock();
        let old = samples.iter().rev().find(|sample| sample.at + age <= now);
        old.or_else(|| samples.front()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, redirects: u64) -> Sample {
        Sample {
            at: Duration::from_secs(seconds),
            redirects,
            ..Sample::default()
        }
    }

    #[test]
    fn rates_cover_the_requested_time() {
        let history = History::default();
        for number in 1..=100 {
            history.push(sample(5 * number, 10 * number * number));
        }
        let now = sample(502, 102_000);
        let ten = history.before(now.at, Duration::from_secs(10));
        assert_eq!((ten.at.as_secs(), ten.redirects), (490, 96_040));
        assert!((now.rate(&ten, |sample| sample.redirects) - 5_960.0 / 12.0).abs() < 1e-9);
        assert_eq!(history.before(now.at, Duration::from_secs(60)).at.as_secs(), 440);
        // No more than the last minutes are kept.
        assert_eq!(history.before(now.at, HISTORY_LENGTH).at.as_secs(), 200);
        assert_eq!(history.before(now.at, Duration::from_secs(3_600)).at.as_secs(), 195);
    }

    #[test]
    fn rates_of_a_new_process_cover_its_uptime() {
        let history = History::default();
        let now = sample(2, 10);
        let before = history.before(now.at, Duration::from_secs(60));
        assert_eq!(before.at, Duration::ZERO);
        assert!((now.rate(&before, |sample| sample.redirects) - 5.0).abs() < 1e-9);
        assert!(now.rate(&now, |sample| sample.redirects).abs() < 1e-9);
    }
}
