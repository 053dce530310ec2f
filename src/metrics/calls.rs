//! Calls of the API by action and error code, and sessions that were not accepted.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::histogram::{Distribution, LongDurations};
use crate::metrics::labels::labels;
use crate::metrics::number::Counter;

/// A service and one of its actions, as the API names them: never what a client sent.
pub type ActionName = (&'static str, &'static str);

/// What is counted as [`ActionName`] where none could be made out.
pub const UNKNOWN_ACTION: ActionName = ("unknown", "unknown");

labels! {
    /// Why a session was not accepted.
    pub enum SessionFailure {
        Missing = "missing",
        /// It could not be read, or was not signed by the partner it names.
        Malformed = "malformed",
        Type = "type",
        Expired = "expired",
        Revoked = "revoked",
        /// It has had all the calls that it allows.
        ActionsLimit = "actions_limit",
        /// It was used from an address that it does not allow.
        RestrictedIp = "restricted_ip",
        /// It was used for a URI that it does not allow.
        RestrictedUri = "restricted_uri",
        /// Its user has characters that not every format can write.
        User = "user",
    }
}

#[derive(Debug, Default)]
pub struct Calls {
    // A lock for each call, beside which all else that a call takes is long.
    actions: Mutex<BTreeMap<ActionName, OfAction>>,
    session_failures: [Counter; SessionFailure::ALL.len()],
}

#[derive(Debug, Default)]
struct OfAction {
    codes: BTreeMap<&'static str, u64>,
    durations: LongDurations,
}

/// What was counted of an action.
#[derive(Debug, Clone, Default)]
pub struct ActionReport {
    pub name: ActionName,
    /// How many calls have ended with each error code; the empty one is for those that succeeded.
    pub codes: Vec<(&'static str, u64)>,
    /// How long the calls took, in nanoseconds.
    pub durations: Distribution,
}

impl Calls {
    /// Declares the actions, so that each is in a scrape before its first call.
    pub fn expect(&self, actions: impl Iterator<Item = ActionName>) {
        let mut known = self.actions.lock();
        for action in actions.chain([UNKNOWN_ACTION]) {
            known.entry(action).or_default().codes.entry("").or_default();
        }
    }

    /// Counts a call that has ended with an error code, or with the empty one. Both texts must come from tables of
    /// ours.
    pub fn count(&self, action: ActionName, code: &'static str, duration: Duration) {
        let mut actions = self.actions.lock();
        let counted = actions.entry(action).or_default();
        *counted.codes.entry(code).or_default() += 1;
        counted.durations.observe_duration(duration);
    }

    pub fn session_failed(&self, why: SessionFailure) {
        if let Some(counter) = self.session_failures.get(why as usize) {
            counter.increment();
        }
    }

    /// The calls of each action, in the order of their names.
    pub fn read(&self) -> Vec<ActionReport> {
        let actions = self.actions.lock();
        let report = |(name, counted): (&ActionName, &OfAction)| ActionReport {
            name: *name,
            codes: counted.codes.iter().map(|(code, count)| (*code, *count)).collect(),
            durations: counted.durations.read(),
        };
        actions.iter().map(report).collect()
    }

    pub fn session_failures(&self) -> [u64; SessionFailure::ALL.len()] {
        self.session_failures.each_ref().map(Counter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_action_and_code() {
        let calls = Calls::default();
        calls.expect([("session", "start")].into_iter());
        calls.count(("session", "start"), "", Duration::from_millis(1));
        calls.count(("session", "start"), "START_SESSION_ERROR", Duration::from_millis(2));
        calls.count(("session", "start"), "START_SESSION_ERROR", Duration::from_millis(3));
        let read = calls.read();
        let names: Vec<_> = read.iter().map(|action| action.name).collect();
        assert_eq!(names, [("session", "start"), UNKNOWN_ACTION]);
        assert_eq!(read[0].codes, [("", 1), ("START_SESSION_ERROR", 2)]);
        assert_eq!((read[0].durations.count(), read[0].durations.sum()), (3, 6_000_000));
        assert_eq!(read[1].codes, [("", 0)]);
    }

    #[test]
    fn failures_are_in_the_order_in_which_they_are_read() {
        for (number, why) in SessionFailure::ALL.into_iter().enumerate() {
            let calls = Calls::default();
            calls.session_failed(why);
            assert_eq!(calls.session_failures()[number], 1, "{why:?}");
        }
    }
}
