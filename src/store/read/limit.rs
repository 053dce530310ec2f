//! How much a read may do, so that none runs for ever or without a client.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::store::error::{Stopped, StoreError};

/// Steps between two looks at the clock: about what reading thirty records costs.
const LOOK_STEPS: u64 = if cfg!(test) { 16 } else { 1024 };

/// What a read may take. A step is an entry of an index that is passed; other work counts as so many of these.
#[derive(Debug, Default)]
pub struct ReadLimit {
    steps: Option<u64>,
    deadline: Option<Instant>,
    has_left: Option<Arc<AtomicBool>>,
    taken: AtomicU64,
}

impl ReadLimit {
    pub fn steps(most: u64) -> Self {
        Self {
            steps: Some(most),
            ..Self::default()
        }
    }

    /// Until a moment, or until `has_left` turns true.
    pub fn until(deadline: Instant, has_left: Arc<AtomicBool>) -> Self {
        Self {
            deadline: Some(deadline),
            has_left: Some(has_left),
            ..Self::default()
        }
    }

    /// Steps taken so far; a thread's last ones may be missing.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self, steps: u64) -> Result<(), StoreError> {
        let taken = self.taken.fetch_add(steps, Ordering::Relaxed) + steps;
        if self.steps.is_some_and(|most| taken > most) {
            return Err(Stopped::Steps.into());
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Stopped::Time.into());
        }
        let has_left = self.has_left.as_ref();
        if has_left.is_some_and(|has_left| has_left.load(Ordering::Relaxed)) {
            return Err(Stopped::Left.into());
        }
        Ok(())
    }
}

/// Counts the steps of one thread of a read.
#[derive(Debug)]
pub struct Meter<'l> {
    pub limit: &'l ReadLimit,
    pending: Cell<u64>,
}

impl<'l> Meter<'l> {
    pub const fn new(limit: &'l ReadLimit) -> Self {
        Self {
            limit,
            pending: Cell::new(0),
        }
    }

    /// Counts steps; an error if the read has to stop.
    pub fn step(&self, steps: u64) -> Result<(), StoreError> {
        let pending = self.pending.get() + steps;
        if pending < LOOK_STEPS {
            self.pending.set(pending);
            return Ok(());
        }
        self.pending.set(0);
        self.limit.take(pending)
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        // Whether that is too many no longer matters.
        let _ = self.limit.take(self.pending.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn stopped(limit: &ReadLimit) -> Option<Stopped> {
        let meter = Meter::new(limit);
        match (0..10_000).find_map(|_| meter.step(1).err()) {
            Some(StoreError::Stopped(why)) => Some(why),
            _ => None,
        }
    }

    #[test]
    fn a_read_stops_for_steps_time_and_client() {
        let here = || Arc::new(AtomicBool::new(false));
        let later = Instant::now() + Duration::from_secs(3600);
        assert_eq!(stopped(&ReadLimit::default()), None);
        assert_eq!(stopped(&ReadLimit::steps(5_000)), Some(Stopped::Steps));
        assert_eq!(stopped(&ReadLimit::steps(20_000)), None);
        assert_eq!(stopped(&ReadLimit::until(Instant::now(), here())), Some(Stopped::Time));
        assert_eq!(stopped(&ReadLimit::until(later, here())), None);
        let left = Arc::new(AtomicBool::new(true));
        assert_eq!(stopped(&ReadLimit::until(later, left)), Some(Stopped::Left));
        let limit = ReadLimit::default();
        stopped(&limit);
        assert_eq!(limit.taken(), 10_000);
    }
}
