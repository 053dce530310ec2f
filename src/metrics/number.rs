//! Numbers that any thread may change: one that only grows, and one that goes up and down.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows. A lock prefix each time, so not for what happens with every redirect.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.increment_by(1);
    }

    pub fn increment_by(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, and never below zero.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Moves it by so much; both ends of the range hold it.
    pub fn move_by(&self, delta: i64) {
        let moved = |number: u64| Some(number.saturating_add_signed(delta));
        // It is always moved, if only to where it is.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
