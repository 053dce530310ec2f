//! When to order: pure functions of times, in seconds.

use crate::model::Timestamp;
use crate::tls::Certificate;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// Orders that may fail within an hour: one fewer than Let's Encrypt allows for an account and a name.
const FAILURES_PER_HOUR_MAX: usize = 4;
/// Each pause is so many times the one before, so that the first ones keep to the limit above.
const PAUSE_FACTOR: i64 = 4;
const PAUSE_MAX: i64 = 12 * HOUR;
/// A pause is at most this part of a certificate's life, so that there are several tries in the last third of it.
const PAUSES_IN_LIFE: i64 = 12;
/// Of an authority that issues certificates for seconds.
const PAUSE_MIN: i64 = 10;

/// How long renewal information may go unread (RFC 9773, section 4.3.2).
const POLL_MIN: i64 = HOUR;
const POLL_MAX: i64 = 24 * HOUR;

/// The times between which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// When an authority wants a certificate to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalWindow {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Life {
    /// From when it was issued, if that was long after it began.
    pub fn of(certificate: &Certificate, issued_at: Timestamp) -> Self {
        Self {
            from: certificate.not_before.max(issued_at).min(certificate.not_after),
            until: certificate.not_after,
        }
    }

    fn seconds(self) -> i64 {
        self.until.as_unix().saturating_sub(self.from.as_unix()).max(0)
    }

    /// When to renew a certificate: in the window of the authority, else at two thirds of the life. `lot` spreads the
    /// boxes of a fleet.
    pub fn renewal(self, window: Option<RenewalWindow>, lot: u32) -> Timestamp {
        let life = self.seconds();
        if let Some(window) = window.filter(|window| self.takes(*window)) {
            let length = window.end.as_unix().saturating_sub(window.start.as_unix());
            let chosen = window.start.plus(part(length, lot));
            // Later, there would be too little time for failures.
            return chosen.min(self.until.plus(-life / 6));
        }
        // Up to a twentieth of the life before that.
        self.from.plus(life / 3 * 2 - part(life / 20, lot))
    }

    /// When the next order may be, whatever an authority says. One certificate soon after another is right where that
    /// was revoked; a third would be a loop, which uses up what an authority allows in a week.
    pub fn allowed_from(self, issued_at: Timestamp, before: Option<Timestamp>) -> Timestamp {
        let pause = self.pause_max();
        let is_second = before.is_some_and(|before| issued_at.as_unix().saturating_sub(before.as_unix()) < pause);
        if is_second { issued_at.plus(pause) } else { issued_at }
    }

    /// Whether a window makes sense: it has a length, and begins before the certificate ends.
    fn takes(self, RenewalWindow { start, end }: RenewalWindow) -> bool {
        let is_window = start < end && end.as_unix().saturating_sub(start.as_unix()) <= self.seconds();
        is_window && start < self.until
    }

    /// The longest pause between two orders that fail.
    fn pause_max(self) -> i64 {
        (self.seconds() / PAUSES_IN_LIFE).clamp(PAUSE_MIN, PAUSE_MAX)
    }
}

/// A part of a number, from none of it to nearly all.
fn part(number: i64, lot: u32) -> i64 {
    let part = (i128::from(number) * i128::from(lot)) >> 32;
    i64::try_from(part).unwrap_or_default()
}

/// When the renewal information should be read again, by what the authority asks for.
pub const fn poll_after(asked: i64) -> i64 {
    if asked < POLL_MIN {
        POLL_MIN
    } else if asked > POLL_MAX {
        POLL_MAX
    } else {
        asked
    }
}

/// Orders that failed since one succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failures {
    count: u32,
    /// Within the last hour, the oldest first. In seconds since 1970.
    recent: Vec<i64>,
}

impl Failures {
    pub const fn count(&self) -> u32 {
        self.count
    }

    pub fn note(&mut self, now: Timestamp) {
        self.count = self.count.saturating_add(1);
        self.forget_old(now);
        self.recent.push(now.as_unix());
    }

    /// Those of more than an hour ago, and those that a wrong clock has put into the future.
    fn forget_old(&mut self, now: Timestamp) {
        let now = now.as_unix();
        self.recent.retain(|at| (now.saturating_sub(HOUR)..=now).contains(at));
        let excess = self.recent.len().saturating_sub(FAILURES_PER_HOUR_MAX);
        self.recent.drain(..excess);
    }

    /// From when on the limit of failures in an hour allows another order. Holds across restarts and reloads.
    pub fn allowed_from(&self, now: Timestamp) -> Timestamp {
        let mut kept = self.clone();
        kept.forget_old(now);
        match kept.recent.first() {
            Some(oldest) if kept.recent.len() >= FAILURES_PER_HOUR_MAX => Timestamp::from_unix(*oldest).plus(HOUR + 1),
            _ => now,
        }
    }

    /// When to try again after the last one, which was `now`. `asked`: the seconds for which the authority wants to be
    /// left alone.
    pub fn retry_at(&self, now: Timestamp, life: Option<Life>, asked: Option<i64>, lot: u32) -> Timestamp {
        let most = life.map_or(PAUSE_MAX, Life::pause_max);
        let doublings = PAUSE_FACTOR.saturating_pow(self.count.saturating_sub(1).min(16));
        let pause = MINUTE.saturating_mul(doublings).min(most);
        let pause = pause + part(pause / 4, lot);
        let asked = asked.unwrap_or_default().clamp(0, most);
        now.plus(pause.max(asked)).max(self.allowed_from(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * HOUR;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn life(seconds: i64) -> Life {
        Life {
            from: at(1_000),
            until: at(1_000 + seconds),
        }
    }

    #[test]
    fn renewal_is_at_two_thirds_of_the_life() {
        for days in [90, 45, 6] {
            for lot in [0, 1 << 31, u32::MAX] {
                let renewal = life(days * DAY).renewal(None, lot).as_unix() - 1_000;
                let (least, most) = (days * DAY * 3 / 5, days * DAY * 2 / 3);
                assert!((least..=most).contains(&renewal), "{days} days, {lot}: {renewal}");
            }
        }
        assert_ne!(life(DAY).renewal(None, 1), life(DAY).renewal(None, u32::MAX));
        assert_eq!(life(0).renewal(None, 7), at(1_000));
    }

    #[test]
    fn renewal_is_in_the_window_of_the_authority() {
        let life = life(90 * DAY);
        let window = |start: i64, end: i64| {
            Some(RenewalWindow {
                start: at(1_000 + start),
                end: at(1_000 + end),
            })
        };
        let (start, end) = (30 * DAY, 32 * DAY);
        assert_eq!(life.renewal(window(start, end), 0), at(1_000 + start));
        assert_eq!(life.renewal(window(start, end), 1 << 31), at(1_000 + 31 * DAY));
        assert!(life.renewal(window(start, end), u32::MAX) < at(1_000 + end));
        // Revoked: at once.
        assert!(life.renewal(window(-2 * DAY, -DAY), 5) < at(1_000));
        // Never so late that nothing may fail.
        assert_eq!(life.renewal(window(89 * DAY, 90 * DAY), 0), at(1_000 + 75 * DAY));
    }

    #[test]
    fn windows_that_make_no_sense_are_ignored() {
        let life = life(90 * DAY);
        let usual = life.renewal(None, 9);
        for (start, end) in [
            (DAY, DAY),
            (2 * DAY, DAY),
            (91 * DAY, 92 * DAY),
            (0, 91 * DAY),
            (i64::MIN, i64::MAX),
        ] {
            let window = RenewalWindow {
                start: at(start.saturating_add(1_000)),
                end: at(end.saturating_add(1_000)),
            };
            assert_eq!(life.renewal(Some(window), 9), usual, "{start} {end}");
        }
    }

    #[test]
    fn failures_keep_to_the_limits_of_an_authority() {
        let (mut failures, mut now, mut orders) = (Failures::default(), at(1_000_000), Vec::new());
        for _ in 0..30 {
            orders.push(now.as_unix());
            failures.note(now);
            now = failures.retry_at(now, None, None, 0);
        }
        for first in &orders {
            let within = orders
                .iter()
                .filter(|order| (*first..first + HOUR).contains(*order))
                .count();
            assert!(within <= FAILURES_PER_HOUR_MAX, "{orders:?}");
        }
        let pauses: Vec<_> = orders.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[0], MINUTE);
        assert!(pauses[8..].iter().all(|pause| *pause == PAUSE_MAX), "{pauses:?}");
    }

    #[test]
    fn several_tries_are_left_before_the_end_of_six_days() {
        for days in [1, 6, 45, 90] {
            let life = life(days * DAY);
            let (mut failures, mut now, mut tries) = (Failures::default(), life.renewal(None, 0), 0);
            while now < life.until {
                tries += 1;
                failures.note(now);
                now = failures.retry_at(now, Some(life), None, u32::MAX);
            }
            assert!(tries >= 6, "{days} days: {tries}");
        }
    }

    #[test]
    fn the_authority_may_ask_for_a_pause_within_bounds() {
        let mut failures = Failures::default();
        failures.note(at(0));
        let wait = |life, asked| failures.retry_at(at(0), life, Some(asked), 0).as_unix();
        assert_eq!(wait(None, 0), MINUTE);
        assert_eq!(wait(None, 2 * HOUR), 2 * HOUR);
        assert_eq!(wait(None, i64::MAX), PAUSE_MAX);
        assert_eq!(wait(None, i64::MIN), MINUTE);
        assert_eq!(wait(Some(life(DAY)), i64::MAX), 2 * HOUR);
        assert_eq!(
            [poll_after(0), poll_after(2 * HOUR), poll_after(i64::MAX)],
            [HOUR, 2 * HOUR, DAY]
        );
    }

    #[test]
    fn restarts_do_not_get_around_the_limit() {
        let mut failures = Failures::default();
        for second in 0..4 {
            assert_eq!(failures.allowed_from(at(second)), at(second));
            failures.note(at(second));
        }
        let stored = serde_json::to_string(&failures).unwrap();
        let read: Failures = serde_json::from_str(&stored).unwrap();
        assert_eq!(read.allowed_from(at(10)), at(HOUR + 1));
        assert_eq!(read.allowed_from(at(HOUR + 1)), at(HOUR + 1));
        // A clock that was wrong and has been set back.
        assert_eq!(read.allowed_from(at(-10 * DAY)), at(-10 * DAY));
    }

    #[test]
    fn third_certificate_within_a_pause_has_to_wait() {
        let (life, at) = (life(90 * 24 * HOUR), Timestamp::from_unix);
        assert_eq!(life.allowed_from(at(1_000), None), at(1_000));
        // The first was revoked: the second came at once, and the third would be a loop.
        assert_eq!(life.allowed_from(at(1_000), Some(at(900))), at(1_000 + PAUSE_MAX));
        assert_eq!(life.allowed_from(at(PAUSE_MAX), Some(at(0))), at(PAUSE_MAX));
    }
}
