//! A replication log for tests that refuses, delays, forgets to answer, repeats and skips, when it is told to.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::store::replication::{Appended, LogHead, ReplicationLog};

/// Entries that a read returns at most.
const READ_MAX: usize = 5;

#[derive(Default)]
struct State {
    /// The first has the number 1.
    entries: Vec<Vec<u8>>,
    /// Appends whose writers have gone on, and that may come yet: the number before theirs, and the entry.
    under_way: Vec<(u64, Vec<u8>)>,
    /// Without it, nothing goes wrong.
    rng: Option<StdRng>,
    /// Whether reads wait for what is acknowledged, which takes somebody who applies it.
    says_head: bool,
    interruption: Option<(usize, Interruption)>,
    /// So many of the next appends are refused.
    refused: usize,
}

type Interruption = Box<dyn FnOnce() + Send>;

/// The log. Clones are the same log.
#[derive(Clone, Default)]
pub(crate) struct SimulatedLog {
    state: Arc<Mutex<State>>,
    is_followed: bool,
}

impl SimulatedLog {
    /// The same log, for a store that only follows it.
    pub(crate) fn followed(&self) -> Self {
        Self {
            is_followed: true,
            ..self.clone()
        }
    }

    /// From now on things go wrong at random, or no more. What is under way has come by then, or never will.
    pub(crate) fn set_faults(&self, rng: Option<StdRng>) {
        let mut state = self.state.lock();
        if rng.is_none() {
            state.under_way.clear();
        }
        state.rng = rng;
    }

    /// Has something come between the appends of a writer, after so many of them.
    pub(crate) fn interrupt(&self, after: usize, action: impl FnOnce() + Send + 'static) {
        self.state.lock().interruption = Some((after, Box::new(action)));
    }

    /// Refuses the next appends, so many of them.
    pub(crate) fn refuse(&self, appends: usize) {
        self.state.lock().refused = appends;
    }

    /// Forgets what has not come between.
    pub(crate) fn interrupt_no_more(&self) {
        let interruption = self.state.lock().interruption.take();
        drop(interruption);
    }

    /// From now on, reads and jobs that change nothing wait for what is acknowledged.
    pub(crate) fn say_head(&self) {
        self.state.lock().says_head = true;
    }

    pub(crate) fn entries(&self) -> Vec<Vec<u8>> {
        self.state.lock().entries.clone()
    }

    /// Changes what the log holds, as a broken one does.
    pub(crate) fn tamper(&self, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        change(&mut self.state.lock().entries);
    }
}

impl State {
    fn odds(&mut self, one_in: u32) -> bool {
        self.rng.as_mut().is_some_and(|rng| rng.random_ratio(1, one_in))
    }

    fn interruption(&mut self) -> Option<Interruption> {
        match self.interruption.take()? {
            (0, action) => Some(action),
            (left, action) => {
                self.interruption = Some((left - 1, action));
                None
            }
        }
    }

    fn try_append(&mut self, after: u64, entry: &[u8]) -> bool {
        let is_next = self.entries.len() as u64 == after;
        if is_next {
            self.entries.push(entry.to_vec());
        }
        is_next
    }

    /// Some of what is under way arrives.
    fn deliver(&mut self) {
        for (after, entry) in std::mem::take(&mut self.under_way) {
            if self.odds(2) {
                self.try_append(after, &entry);
            } else {
                self.under_way.push((after, entry));
            }
        }
    }
}

impl ReplicationLog for SimulatedLog {
    fn append(&self, after: u64, entry: &[u8]) -> Appended {
        let interruption = self.state.lock().interruption();
        if let Some(action) = interruption {
            action();
        }
        let mut state = self.state.lock();
        state.deliver();
        if let Some(left) = state.refused.checked_sub(1) {
            state.refused = left;
            return Appended::Refused("simulated".to_owned());
        }
        if state.odds(12) {
            return Appended::Refused("simulated".to_owned());
        }
        if state.odds(12) {
            state.under_way.push((after, entry.to_vec()));
            return Appended::Unknown("simulated".to_owned());
        }
        let is_stored = state.try_append(after, entry);
        if is_stored && state.odds(12) {
            return Appended::Unknown("simulated".to_owned());
        }
        if is_stored {
            Appended::Stored
        } else {
            Appended::Overtaken
        }
    }

    fn read(&self, after: u64) -> Result<Vec<Vec<u8>>, String> {
        let mut state = self.state.lock();
        state.deliver();
        if state.odds(12) {
            return Err("simulated".to_owned());
        }
        let mut first = usize::try_from(after).unwrap();
        if state.odds(8) {
            // Again, or with a hole before it.
            let moved = if state.odds(2) {
                first + 1
            } else {
                first.saturating_sub(2)
            };
            first = moved.min(state.entries.len());
        }
        let entries = state.entries.iter().skip(first).take(READ_MAX);
        Ok(entries.cloned().collect())
    }

    fn head(&self) -> LogHead {
        let state = self.state.lock();
        let head = state.says_head.then_some(state.entries.len() as u64);
        Box::pin(std::future::ready(Ok(head)))
    }

    fn problem(&self) -> Option<String> {
        self.is_followed.then(|| "this store only follows".to_owned())
    }

    fn only_follows(&self) -> bool {
        self.is_followed
    }
}
