//! Distributions, in buckets of which each is twice as wide as the one before: finding one takes an instruction or two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub const NANOSECONDS_IN_A_SECOND: f64 = 1e9;

/// Counts values by size. The first bucket takes what is at most 2^`FIRST`, each further one up to twice as much, and
/// the last of the `BUCKETS` all that is more.
#[derive(Debug)]
pub struct Histogram<const FIRST: u32, const BUCKETS: usize> {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// Durations in nanoseconds: from a microsecond (2^10 ns) to 17 seconds (2^34 ns).
pub type Durations = Histogram<10, 26>;
/// Longer durations in nanoseconds: from 131 microseconds (2^17 ns) to 137 seconds (2^37 ns).
pub type LongDurations = Histogram<17, 22>;
/// Sizes of batches: from 1 to 256.
pub type Sizes = Histogram<0, 10>;

impl<const FIRST: u32, const BUCKETS: usize> Default for Histogram<FIRST, BUCKETS> {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }
}

/// A duration in nanoseconds; what is longer than 584 years counts as that.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Adds to a number that this thread alone writes: no lock prefix, so that it costs next to nothing.
pub(super) fn add_own(number: &AtomicU64, added: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(added), Ordering::Relaxed);
}

impl<const FIRST: u32, const BUCKETS: usize> Histogram<FIRST, BUCKETS> {
    fn bucket(&self, value: u64) -> Option<&AtomicU64> {
        // The least exponent whose power is not below the value.
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        let number = exponent.saturating_sub(FIRST) as usize;
        self.buckets.get(number.min(BUCKETS - 1))
    }

    pub fn observe(&self, value: u64) {
        if let Some(bucket) = self.bucket(value) {
            bucket.fetch_add(1, Ordering::Relaxed);
            self.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    pub fn observe_duration(&self, duration: Duration) {
        self.observe(nanoseconds(duration));
    }

    /// Counts a value so many times, in a histogram that this thread alone writes to.
    pub(super) fn observe_own(&self, value: u64, times: u64) {
        if let Some(bucket) = self.bucket(value) {
            add_own(bucket, times);
            add_own(&self.sum, value.wrapping_mul(times));
        }
    }

    pub fn read(&self) -> Distribution {
        Distribution {
            first: FIRST,
            buckets: self
                .buckets
                .iter()
                .map(|bucket| bucket.load(Ordering::Relaxed))
                .collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    first: u32,
    buckets: Vec<u64>,
    sum: u64,
}

impl Distribution {
    /// The buckets: the largest value of each, and how many values are in it; `None` is without a bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let last = self.buckets.len().saturating_sub(1);
        let buckets = self.buckets.iter().zip(self.first..).enumerate();
        buckets.map(move |(number, (count, exponent))| {
            let bound = (number < last).then(|| 1_u64.checked_shl(exponent)).flatten();
            (bound, *count)
        })
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub const fn sum(&self) -> u64 {
        self.sum
    }

    pub fn add(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.clone_from(other);
            return;
        }
        for (own, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What was counted since an earlier look at this histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(before);
        Self {
            first: self.first,
            buckets: buckets.map(|(now, before)| now.saturating_sub(before)).collect(),
            sum: self.sum.wrapping_sub(earlier.sum),
        }
    }

    /// The value below which this share of all values is (0.99 for instance), as nearly as the buckets tell; `None`
    /// if there was none. What is in the last bucket counts as its lower bound.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let wanted = share * as_f64(total);
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, count) in self.buckets() {
            let Some(bound) = bound else { break };
            let (bound, count) = (as_f64(bound), as_f64(count));
            if count > 0.0 && below + count >= wanted {
                return Some(lower + (bound - lower) * ((wanted - below) / count));
            }
            below += count;
            lower = bound;
        }
        Some(lower)
    }
}

/// As a floating-point number, which has the first 16 digits of it.
#[allow(clippy::cast_precision_loss, reason = "nobody reads more digits than these")]
pub const fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(distribution: &Distribution) -> Vec<(Option<u64>, u64)> {
        distribution.buckets().filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn value_is_in_the_first_bucket_not_below_it() {
        for (value, bound) in [
            (0, Some(1)),
            (1, Some(1)),
            (2, Some(2)),
            (3, Some(4)),
            (4, Some(4)),
            (5, Some(8)),
            (256, Some(256)),
            (257, None),
            (u64::MAX, None),
        ] {
            let sizes = Sizes::default();
            sizes.observe(value);
            assert_eq!(counted(&sizes.read()), [(bound, 1)], "{value}");
        }
        for (value, bound) in [
            (0, Some(1 << 10)),
            (1 << 10, Some(1 << 10)),
            ((1 << 10) + 1, Some(1 << 11)),
            (1 << 34, Some(1 << 34)),
            ((1 << 34) + 1, None),
        ] {
            let durations = Durations::default();
            durations.observe_own(value, 3);
            assert_eq!(counted(&durations.read()), [(bound, 3)], "{value}");
        }
    }

    #[test]
    fn sums_are_exact_and_looks_can_be_added_and_subtracted() {
        let (one, other) = (Sizes::default(), Sizes::default());
        one.observe(3);
        one.observe_own(5, 2);
        other.observe(300);
        let before = one.read();
        assert_eq!((before.count(), before.sum()), (3, 13));
        let mut both = Distribution::default();
        both.add(&before);
        both.add(&other.read());
        assert_eq!((both.count(), both.sum()), (4, 313));
        assert_eq!(counted(&both), [(Some(4), 1), (Some(8), 2), (None, 1)]);
        one.observe(7);
        let since = one.read().since(&before);
        assert_eq!((since.sum(), counted(&since)), (7, vec![(Some(8), 1)]));
        assert_eq!(one.read().since(&Distribution::default()), one.read());
    }

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let durations = Durations::default();
        assert_eq!(durations.read().quantile(0.5), None);
        for _ in 0..99 {
            durations.observe(3_000);
        }
        durations.observe(1_000_000);
        let read = durations.read();
        let half = read.quantile(0.5).unwrap();
        assert!((2_048.0..=4_096.0).contains(&half), "{half}");
        let most = read.quantile(0.999).unwrap();
        assert!((524_288.0..=1_048_576.0).contains(&most), "{most}");
        durations.observe(u64::MAX);
        assert_eq!(durations.read().quantile(1.0), Some(2_f64.powi(34)));
    }
}
