//! The time as redirects need it.

use std::time::Instant;

use crate::http;
use crate::model::{Clock, Timestamp};
use crate::redirect::fast::template::Date;

/// The time, for `Date` headers and the expiry of links. Read and rendered once a second: a clock that is set is
/// followed up to a second later.
#[derive(Debug)]
pub struct Now {
    time: Timestamp,
    pub(super) date: Date,
    /// When the next second begins.
    ends: Option<Instant>,
}

impl Default for Now {
    fn default() -> Self {
        let mut now = Self {
            time: Timestamp::MIN,
            date: [b' '; 29],
            ends: None,
        };
        now.set(Timestamp::from_unix(0));
        now
    }
}

impl Now {
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// Reads the clock at `at` if the second is over.
    pub fn refresh(&mut self, clock: &Clock, at: Instant) {
        if self.ends.is_none_or(|ends| ends <= at) {
            let (time, left) = clock.now_for();
            self.set(time);
            self.ends = Some(at + left);
        }
    }

    pub(super) fn set(&mut self, time: Timestamp) {
        if self.time == time {
            return;
        }
        self.time = time;
        if let Ok(date) = Date::try_from(http::date(time).as_bytes()) {
            self.date = date;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_date_is_that_of_the_clock() {
        let mut now = Now::default();
        assert_eq!(&now.date, b"Thu, 01 Jan 1970 00:00:00 GMT");
        now.set(Timestamp::from_unix(784_111_777));
        assert_eq!(&now.date, b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn clock_is_read_again_when_its_second_is_over() {
        let (mut now, at) = (Now::default(), Instant::now());
        now.refresh(&Clock::system(), at);
        let ends = now.ends.unwrap();
        assert!(ends > at && ends <= at + Duration::from_secs(1));
        let wrong = Timestamp::from_unix(784_111_777);
        now.set(wrong);
        now.refresh(&Clock::system(), ends - Duration::from_nanos(1));
        assert_eq!(now.time, wrong);
        now.refresh(&Clock::system(), ends);
        assert!(now.time > wrong);
    }
}
