//! Unix time in whole seconds, and the one place that reads the clock of the operating system.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;

/// A moment, in seconds since 1970-01-01T00:00:00Z, as the API carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The last second of the year 9999: the latest that the columns of Kaltura's database hold.
    pub const MAX: Self = Self(253_402_300_799);
    /// After every time that a link can have: the start of one whose id was retired.
    pub const NEVER: Self = Self(Self::MAX.0 + 1);
    /// The first second of the year 0.
    pub const MIN: Self = Self(-62_167_219_200);

    /// The moment `seconds` after (or, negative, before) the epoch.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    pub const fn as_unix(self) -> i64 {
        self.0
    }

    /// In UTC, for people: `2026-12-01 08:00:00 UTC`.
    pub fn in_utc(self) -> String {
        match self.utc() {
            Some(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            None => self.to_string(),
        }
    }

    /// The date and time in UTC.
    pub fn utc(self) -> Option<DateTime> {
        // Not a moment of jiff's, which ends a day before 9999 does.
        let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
        epoch.checked_add(jiff::SignedDuration::from_secs(self.0)).ok()
    }

    /// A time in unix seconds as RFC 3339 writes it, in UTC; as it is where that has no such form.
    pub fn rfc3339_of(seconds: i64) -> String {
        jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |instant| instant.to_string())
    }

    /// This moment moved by `seconds`, held at the ends of the range instead of wrapping.
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// A day in UTC, as the number of days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    const SECONDS: i64 = 24 * 60 * 60;

    /// Its first second.
    pub fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0) * Self::SECONDS)
    }

    /// Its last second.
    pub fn end(self) -> Timestamp {
        self.start().plus(Self::SECONDS - 1)
    }

    pub const fn minus(self, days: u32) -> Self {
        Self(self.0.saturating_sub(days))
    }
}

impl Timestamp {
    /// The day of this moment; the first one for what was before.
    pub fn day(self) -> Day {
        let days = self.0.div_euclid(Day::SECONDS).max(0);
        Day(u32::try_from(days).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The clock of the operating system, or one that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    set_by_test: Option<Arc<AtomicI64>>,
}

impl Clock {
    pub fn system() -> Self {
        Self::default()
    }

    pub fn now(&self) -> Timestamp {
        match &self.set_by_test {
            Some(seconds) => Timestamp(seconds.load(Ordering::SeqCst)),
            None => in_seconds(since_1970()),
        }
    }

    /// The time, and for how long it stays that, unless the clock is set meanwhile.
    pub fn now_for(&self) -> (Timestamp, Duration) {
        // A test may set it at any moment.
        if self.set_by_test.is_some() {
            return (self.now(), Duration::ZERO);
        }
        let now = since_1970();
        let left = Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into());
        (in_seconds(now), left)
    }
}

#[cfg(test)]
impl Clock {
    /// A clock that stands at `start` until [`Clock::set`] moves it. Clones move together.
    pub fn manual(start: Timestamp) -> Self {
        Self {
            set_by_test: Some(Arc::new(AtomicI64::new(start.as_unix()))),
        }
    }

    /// Moves a manual clock; does nothing to the system's.
    pub fn set(&self, now: Timestamp) {
        if let Some(seconds) = &self.set_by_test {
            seconds.store(now.as_unix(), Ordering::SeqCst);
        }
    }
}

/// Milliseconds since 1970 by the clock of the operating system, for comparing clocks of machines.
pub fn unix_milliseconds() -> i64 {
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}

fn in_seconds(since_1970: Duration) -> Timestamp {
    Timestamp(i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX))
}

#[allow(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
fn since_1970() -> Duration {
    // A clock before 1970 counts as 1970: nothing that depends on it could be right anyway.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let written = [0, 1_796_112_030, Timestamp::MAX.as_unix(), i64::MAX].map(|at| Timestamp(at).in_utc());
        let expected = [
            "1970-01-01 00:00:00 UTC",
            "2026-12-01 08:00:30 UTC",
            "9999-12-31 23:59:59 UTC",
            "9223372036854775807",
        ];
        assert_eq!(written, expected);
    }
}
