//! Destinations that take the times at which playback begins and ends. Viewers can watch the rest all the same.

use url::Url;

/// A player that takes times in the URL of its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Player {
    /// Kaltura Player 7: `kalturaStartTime`, and for a clip `kalturaSeekFrom` and `kalturaClipTo`.
    Kaltura,
    /// A page of YouTube, which takes no end: `t`.
    YouTube,
    /// YouTube's embedded player: `start` and `end`.
    YouTubeEmbed,
}

/// The parameters of Kaltura, each of which is replaced.
const KALTURA: [&str; 4] = ["kalturaStartTime", "kalturaEndTime", "kalturaSeekFrom", "kalturaClipTo"];

impl Player {
    /// The player of a destination, if it is a known one.
    pub fn of(full_url: &str) -> Option<Self> {
        let url = Url::parse(full_url).ok()?;
        let host = url.host_str()?.trim_end_matches('.');
        let is_within =
            |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        let path = url.path();
        if is_within("youtube.com") || is_within("youtube-nocookie.com") {
            if path.starts_with("/embed/") {
                return Some(Self::YouTubeEmbed);
            }
            return ["/watch", "/live/"]
                .iter()
                .any(|start| path.starts_with(start))
                .then_some(Self::YouTube);
        }
        if host == "youtu.be" {
            return Some(Self::YouTube);
        }
        let has_entry = path.split('/').any(is_entry);
        (is_within("kaltura.com") || has_entry).then_some(Self::Kaltura)
    }

    pub const fn takes_end(self) -> bool {
        matches!(self, Self::Kaltura | Self::YouTubeEmbed)
    }

    /// The destination with these times, in whole seconds, in place of those that it may have.
    pub fn with_times(self, full_url: &str, start: u64, end: Option<u64>) -> Option<String> {
        let mut url = Url::parse(full_url).ok()?;
        let end = end.filter(|_| self.takes_end());
        match self {
            Self::Kaltura => {
                let times = match end {
                    // A clip begins at an even second, and its start is counted from there.
                    Some(end) => vec![
                        ("kalturaSeekFrom", start - start % 2),
                        ("kalturaClipTo", end),
                        ("kalturaStartTime", start % 2),
                    ],
                    None => vec![("kalturaStartTime", start)],
                };
                set(&mut url, &KALTURA, &times);
            }
            Self::YouTube => set(&mut url, &["t", "start"], &[("t", start)]),
            Self::YouTubeEmbed => {
                let mut times = vec![("start", start)];
                times.extend(end.map(|end| ("end", end)));
                set(&mut url, &["start", "end", "t"], &times);
            }
        }
        Some(url.into())
    }
}

/// Whether a part of a path is the id of an entry of Kaltura, such as `1_2rc7uxir`.
fn is_entry(part: &str) -> bool {
    let id = part.strip_prefix("0_").or_else(|| part.strip_prefix("1_"));
    id.is_some_and(|id| {
        id.len() == 8
            && id
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

/// Replaces parameters of a query. The others stay as they are written.
fn set(url: &mut Url, replaced: &[&str], values: &[(&str, u64)]) {
    let kept = url.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && !replaced.contains(&name)
    });
    let new = values.iter().map(|(name, value)| format!("{name}={value}"));
    let query: Vec<_> = kept.map(str::to_owned).chain(new).collect();
    url.set_query(Some(&query.join("&")));
}

/// Reads `1:02:03`, `2:03` or `123` as seconds.
pub fn parse_time(text: &str) -> Option<u64> {
    let parts: Vec<_> = text.split(':').collect();
    let is_number = |part: &&str| (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() > 3 || !parts.iter().all(is_number) {
        return None;
    }
    let numbers: Vec<u64> = parts.iter().filter_map(|part| part.parse().ok()).collect();
    // Only the first may be as large as it likes.
    let rest_fits = numbers.iter().skip(1).all(|number| *number < 60);
    rest_fits.then(|| numbers.iter().fold(0, |seconds, number| seconds * 60 + number))
}

/// Writes seconds as `1:02:03` or `2:03`.
pub fn show_time(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_replace_those_of_the_destination() {
        for (url, start, end, expected) in [
            (
                "https://mediaspace.example.edu/media/Talk/1_2rc7uxir?kalturaStartTime=7&a=%20b#top",
                563,
                None,
                "https://mediaspace.example.edu/media/Talk/1_2rc7uxir?a=%20b&kalturaStartTime=563#top",
            ),
            (
                "https://mediaspace.example.edu/media/t/1_2rc7uxir",
                61,
                Some(90),
                "https://mediaspace.example.edu/media/t/1_2rc7uxir?kalturaSeekFrom=60&kalturaClipTo=90&kalturaStartTime=1",
            ),
            (
                "https://www.youtube.com/watch?v=x&t=3s",
                60,
                Some(90),
                "https://www.youtube.com/watch?v=x&t=60",
            ),
            ("https://youtu.be/x", 5, None, "https://youtu.be/x?t=5"),
            (
                "https://www.youtube.com/embed/x?end=4",
                5,
                Some(9),
                "https://www.youtube.com/embed/x?start=5&end=9",
            ),
        ] {
            let player = Player::of(url).unwrap();
            assert_eq!(player.with_times(url, start, end).as_deref(), Some(expected), "{url}");
        }
        for url in [
            "https://example.com/",
            "https://notyoutube.com/watch?v=x",
            "https://example.com/1_SHOUTING",
            "x",
        ] {
            assert_eq!(Player::of(url), None, "{url}");
        }
    }

    #[test]
    fn playback_times_are_read_and_written() {
        for (text, seconds) in [("0", 0), ("90", 90), ("1:30", 90), ("1:02:03", 3723), ("100:00", 6000)] {
            assert_eq!(parse_time(text), Some(seconds), "{text}");
        }
        for text in ["", "1:60", "-1", "1:2:3:4", "x", "1.5", "9999999", ":"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(
            (show_time(90), show_time(3723)),
            ("1:30".to_owned(), "1:02:03".to_owned())
        );
    }
}
