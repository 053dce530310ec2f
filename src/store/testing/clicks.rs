//! A stream of clicks for tests that refuses, forgets to answer, and stores messages twice and late.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// Messages that a read returns at most.
const READ_MAX: usize = 3;

/// A message, with the box that the servers know as its sender.
pub(crate) type Sent = (String, Vec<u8>);

#[derive(Default)]
struct State {
    /// The first has the number 1.
    messages: Vec<Sent>,
    /// What may come yet, perhaps again.
    under_way: Vec<Sent>,
    /// Which stream it is.
    number: u64,
    /// Without it, nothing goes wrong.
    rng: Option<StdRng>,
}

/// The stream. Clones are the same stream.
#[derive(Clone, Default)]
pub(crate) struct SimulatedClicks(Arc<Mutex<State>>);

impl SimulatedClicks {
    /// From now on things go wrong at random, or no more.
    pub(crate) fn set_faults(&self, rng: Option<StdRng>) {
        let mut state = self.0.lock();
        let late = std::mem::take(&mut state.under_way);
        state.messages.extend(late);
        state.rng = rng;
    }

    /// It is another stream now, with the same messages.
    pub(crate) fn make_anew(&self) {
        self.0.lock().number += 1;
    }

    pub(crate) fn number(&self) -> u64 {
        self.0.lock().number
    }

    pub(crate) fn length(&self) -> u64 {
        self.0.lock().messages.len() as u64
    }

    /// Changes what the stream holds, as a broken one does.
    pub(crate) fn tamper(&self, change: impl FnOnce(&mut Vec<Sent>)) {
        change(&mut self.0.lock().messages);
    }

    /// Whether the message is known to be stored.
    pub(crate) fn publish(&self, node: &str, message: &[u8]) -> bool {
        let sent = (node.to_owned(), message.to_vec());
        let mut state = self.0.lock();
        for late in std::mem::take(&mut state.under_way) {
            match state.odds(2) {
                true => state.messages.push(late),
                false => state.under_way.push(late),
            }
        }
        if state.odds(8) {
            return false;
        }
        if state.odds(8) {
            state.under_way.push(sent);
            return false;
        }
        state.messages.push(sent.clone());
        if state.odds(8) {
            state.under_way.push(sent);
        }
        !state.odds(8)
    }

    /// Messages after the one with the number `after`.
    pub(crate) fn read(&self, after: u64) -> Vec<Sent> {
        let mut state = self.0.lock();
        if state.odds(8) {
            return Vec::new();
        }
        let messages = state.messages.iter().skip(usize::try_from(after).unwrap());
        messages.take(READ_MAX).cloned().collect()
    }
}

impl State {
    fn odds(&mut self, one_in: u32) -> bool {
        self.rng.as_mut().is_some_and(|rng| rng.random_ratio(1, one_in))
    }
}
