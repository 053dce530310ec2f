//! Times as people write and read them.

use jiff::{Span, SpanRelativeTo, Timestamp as Instant, Unit};

use crate::model::{Clock, Timestamp};

/// Reads a time: unix seconds, RFC 3339, a span from now such as `7d` or `12h`, or `never` (`None`).
pub(super) fn parse(text: &str) -> Result<Option<Timestamp>, String> {
    if text == "never" {
        return Ok(None);
    }
    let seconds = text
        .parse()
        .ok()
        .or_else(|| text.parse::<Instant>().ok().map(Instant::as_second));
    match seconds {
        Some(seconds) if seconds > 0 => return Ok(Some(Timestamp::from_unix(seconds))),
        // To the API, 0 and -1 are never: here that has a word.
        Some(_) => return Err("expected a time after 1970, or never".to_owned()),
        None => {}
    }
    let span: Option<Span> = text.parse().ok();
    let seconds = span.and_then(|span| span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).ok());
    match seconds {
        #[allow(clippy::cast_possible_truncation, reason = "spans are at most 20,000 years")]
        Some(seconds) => Ok(Some(Clock::system().now().plus(seconds as i64))),
        None => Err("expected 7d, 12h, 2027-01-31T12:00:00Z, unix seconds, or never".to_owned()),
    }
}

/// Reads a time that is meant to come, or `now`: as [`parse`], without never.
pub(super) fn parse_future(text: &str) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(Clock::system().now());
    }
    parse(text)?.ok_or_else(|| "expected a time, not never".to_owned())
}

/// Reads a time that is meant to be past: as [`parse_future`], with a span being that long ago.
pub(super) fn parse_past(text: &str) -> Result<Timestamp, String> {
    let (now, time) = (Clock::system().now(), parse_future(text)?);
    let is_coming = text.parse::<Span>().is_ok() && time > now;
    Ok(if is_coming {
        now.plus(now.as_unix() - time.as_unix())
    } else {
        time
    })
}

/// Writes a time in RFC 3339, in UTC.
pub(super) fn show(seconds: i64) -> String {
    Timestamp::rfc3339_of(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_spelling() {
        assert_eq!(parse("never"), Ok(None));
        assert_eq!(parse("1778429631"), Ok(Some(Timestamp::from_unix(1_778_429_631))));
        assert_eq!(
            parse("2026-05-10T16:13:51Z"),
            Ok(Some(Timestamp::from_unix(1_778_429_631)))
        );
        let now = Clock::system().now();
        let week = parse("7d").unwrap().unwrap();
        assert!((now.plus(604_800)..=now.plus(604_900)).contains(&week));
        assert!((now.plus(-604_900)..=now.plus(-604_700)).contains(&parse_past("7d").unwrap()));
        assert!((now.plus(-604_900)..=now.plus(-604_700)).contains(&parse_past("-7d").unwrap()));
        assert_eq!(parse_past("1778429631"), Ok(Timestamp::from_unix(1_778_429_631)));
        assert!((now..=now.plus(100)).contains(&parse_future("now").unwrap()));
        for bad in ["", "0", "1970-01-01T00:00:00Z", "soon", "7", "2026-13-01", "never ever"] {
            assert_eq!(parse(bad).is_err(), bad != "7", "{bad}");
        }
        assert_eq!(show(1_778_429_631), "2026-05-10T16:13:51Z");
    }
}
