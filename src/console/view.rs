//! How links, times and the texts of strangers are shown.

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;
use url::Url;

use crate::model::{Day, Destination, ShortLink, Status, Timestamp, grouped, shown, validate};

/// A time, in UTC for those without a script and for machines; the script shows it in the visitor's time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeView {
    pub machine: String,
    pub words: String,
}

impl TimeView {
    /// A day, in UTC.
    pub fn day(day: Day) -> Self {
        let instant = Instant::from_second(day.start().as_unix()).unwrap_or_default();
        Self {
            machine: input_date(Some(day.start())),
            words: instant.to_zoned(TimeZone::UTC).strftime("%-d %b %Y").to_string(),
        }
    }

    pub fn new(time: Timestamp) -> Self {
        let instant = Instant::from_second(time.as_unix()).unwrap_or_default();
        Self {
            machine: instant.to_string(),
            words: instant
                .to_zoned(TimeZone::UTC)
                .strftime("%-d %b %Y, %H:%M UTC")
                .to_string(),
        }
    }
}

/// As the value of an input of type `datetime-local`, in UTC.
pub fn input_value(time: Option<Timestamp>) -> String {
    let instant = time.and_then(|time| Instant::from_second(time.as_unix()).ok());
    let value = instant.map(|instant| instant.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M").to_string());
    value.unwrap_or_default()
}

/// Reads such a value.
pub fn parse_input(text: &str) -> Option<Timestamp> {
    let time: jiff::civil::DateTime = text.parse().ok()?;
    Some(Timestamp::from_unix(
        time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second(),
    ))
}

/// As the value of an input of type `date`, in UTC.
pub fn input_date(time: Option<Timestamp>) -> String {
    let instant = time.and_then(|time| Instant::from_second(time.as_unix()).ok());
    let value = instant.map(|instant| instant.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string());
    value.unwrap_or_default()
}

/// Reads such a value: the first second of the day. An input shows no year before 0.
pub fn parse_date(text: &str) -> Option<Timestamp> {
    let day = text.parse().ok().filter(|day: &jiff::civil::Date| day.year() >= 0)?;
    Some(Timestamp::from_unix(
        day.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second(),
    ))
}

/// A time that a link may have. Outside, 0 and -1 mean none.
pub fn time_of_link(time: Timestamp) -> Option<Timestamp> {
    validate::time(time.as_unix()).ok().filter(|time| time.as_unix() > 0)
}

/// Whether a link works, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateView {
    /// For the style sheet.
    pub class: &'static str,
    pub words: &'static str,
    /// What the words end with.
    pub at: Option<TimeView>,
}

impl StateView {
    pub fn new(link: &ShortLink, now: Timestamp) -> Self {
        let state = |class, words, at: Option<Timestamp>| Self {
            class,
            words,
            at: at.map(TimeView::new),
        };
        if link.status == Status::Enabled
            && let Some(start) = link.starts_at
            && now < start
            && link.expires_at.is_none_or(|end| now <= end)
        {
            if link.expires_at.is_some_and(|end| end < start) {
                return state("expired", "Never works: it ends before it starts", None);
            }
            return state("waits", "Opens on", Some(start));
        }
        match (link.status, link.expires_at) {
            (Status::Deleted, _) => state("deleted", "Deleted", None),
            (Status::Disabled, _) => state("off", "Switched off", None),
            (Status::Enabled, Some(end)) if end < now => state("expired", "Expired on", Some(end)),
            (Status::Enabled, Some(end)) => state("works", "Works until", Some(end)),
            (Status::Enabled, None) => state("works", "Works", None),
        }
    }
}

/// A destination as it is shown: the host apart, in the letters that the network uses, so that look-alikes show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationView {
    pub host: String,
    /// The whole, in visible ASCII.
    pub url: String,
}

impl DestinationView {
    pub fn new(full_url: &str) -> Self {
        let host = Url::parse(full_url)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned));
        Self {
            host: host.unwrap_or_default(),
            url: Destination::location_of(full_url),
        }
    }
}

/// A text of a stranger: nothing in it turns the letters around it.
pub fn plain(text: &str) -> String {
    shown::line(text).into_owned()
}

/// A number of things: "1 link", "2 links".
pub fn counted(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", grouped(number))
}

/// What people call a link.
pub fn title(link: &ShortLink) -> String {
    let name = link.name.as_deref().filter(|name| !name.trim().is_empty());
    plain(name.unwrap_or(&link.system_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_and_read_in_utc() {
        let time = Timestamp::from_unix(1_778_429_631);
        let view = TimeView::new(time);
        assert_eq!(
            (view.machine.as_str(), view.words.as_str()),
            ("2026-05-10T16:13:51Z", "10 May 2026, 16:13 UTC")
        );
        assert_eq!(input_value(Some(time)), "2026-05-10T16:13");
        assert_eq!(
            parse_input("2026-05-10T16:13"),
            Some(Timestamp::from_unix(1_778_429_580))
        );
        assert_eq!((input_value(None), parse_input("soon")), (String::new(), None));
    }

    #[test]
    fn numbers_of_things_are_words() {
        let counted = [0, 1, 2, 1_000].map(|number| counted(number, "link"));
        assert_eq!(
            counted,
            ["0 links", "1 link", "2 links", &format!("{} links", grouped(1_000))]
        );
    }

    #[test]
    fn look_alike_hosts_show() {
        let view = DestinationView::new("https://kаltura.com/ü\"<b>"); // A Cyrillic a.
        assert_eq!(view.host, "xn--kltura-3nf.com");
        assert!(view.url.is_ascii() && !view.url.contains(['"', '<']), "{}", view.url);
    }
}
