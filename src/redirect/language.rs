//! The language of a visitor: of those that there are texts in, the one that `Accept-Language` prefers (RFC 9110,
//! section 12.5.4, with the lookup of RFC 4647).

use std::cmp::Reverse;

/// Ranges of a request that are looked at. Browsers send a dozen at most.
const RANGES_MAX: usize = 32;
/// A quality of 1, in thousandths.
const WHOLE: u16 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// For all who want none of these.
    English,
    German,
    French,
    Spanish,
    Hebrew,
}

impl Language {
    pub const ALL: [Self; 5] = [Self::English, Self::German, Self::French, Self::Spanish, Self::Hebrew];

    /// The tag of BCP 47.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::Hebrew => "he",
        }
    }

    fn from_subtag(primary: &str) -> Option<Self> {
        // The tag of Hebrew until 1989, which some programs still send.
        if primary.eq_ignore_ascii_case("iw") {
            return Some(Self::Hebrew);
        }
        let mut all = Self::ALL.into_iter();
        all.find(|language| language.tag().eq_ignore_ascii_case(primary))
    }

    /// The language that the values of `Accept-Language` prefer. Of several with the same quality, the first.
    pub fn preferred<'h>(values: impl Iterator<Item = &'h [u8]>) -> Self {
        let ranges = values
            .flat_map(|value| value.split(|byte| *byte == b','))
            .take(RANGES_MAX);
        let mut wishes = Self::ALL.map(|language| (language, Wish::default()));
        let mut any = None;
        for (position, (tag, quality)) in ranges.filter_map(parse).enumerate() {
            let (primary, is_whole) = match tag.split_once('-') {
                Some((primary, _)) => (primary, false),
                None => (tag, true),
            };
            if tag == "*" {
                any = any.or(Some((quality, position)));
                continue;
            }
            let named = Self::from_subtag(primary);
            let Some((_, wish)) = wishes.iter_mut().find(|(language, _)| Some(*language) == named) else {
                continue;
            };
            if quality > 0 {
                let is_better = wish.best.is_none_or(|(best, _)| quality > best);
                wish.best = if is_better {
                    Some((quality, position))
                } else {
                    wish.best
                };
            } else {
                // `de-AT;q=0` refuses Austrian texts, which these are not.
                wish.is_refused |= is_whole;
            }
        }
        let wanted = wishes.into_iter().filter_map(|(language, wish)| {
            let (quality, position) = wish
                .best
                .or(any)
                .filter(|(quality, _)| *quality > 0 && !wish.is_refused)?;
            Some((language, (Reverse(quality), position)))
        });
        let first = wanted.min_by_key(|(_, rank)| *rank);
        first.map_or(Self::English, |(language, _)| language)
    }
}

/// What a client has said of a language.
#[derive(Debug, Clone, Copy, Default)]
struct Wish {
    /// Its best range: quality and position.
    best: Option<(u16, usize)>,
    is_refused: bool,
}

/// A range and its quality in thousandths; `None` for what is neither.
fn parse(range: &[u8]) -> Option<(&str, u16)> {
    let text = std::str::from_utf8(range).ok()?;
    let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
    let tag = parts.next().filter(|tag| !tag.is_empty())?;
    let quality = parts.next().map_or(Some(WHOLE), quality)?;
    parts.next().is_none().then_some((tag, quality))
}

/// The value of `q=0.8`, of which three digits count.
fn quality(weight: &str) -> Option<u16> {
    let value = weight.strip_prefix(['q', 'Q'])?.strip_prefix('=')?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain([b'0'; 3]).take(3);
    let thousandths = digits.fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(WHOLE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Language::*;
    use super::*;
    use crate::model::work::assert_is_linear;
    use proptest::prelude::*;

    fn preferred(value: &str) -> Language {
        Language::preferred([value.as_bytes()].into_iter())
    }

    #[test]
    fn best_language_is_chosen() {
        for (value, expected) in [
            ("", English),
            ("en", English),
            ("de", German),
            ("DE", German),
            ("de-AT", German),
            ("de-Latn-AT-1996", German),
            ("de-AT,de;q=0.9,en-US;q=0.8,en;q=0.7", German),
            ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", French),
            ("es-419,es;q=0.9", Spanish),
            ("he-IL,he;q=0.9,en-US;q=0.8", Hebrew),
            ("iw", Hebrew),
            ("IW-il", Hebrew),
            // The order counts only where the quality is the same.
            ("en;q=0.5,de;q=0.6", German),
            ("es,fr,de", Spanish),
            ("fr;q=0.8,es;q=0.8", French),
            ("de;q=0.3,fr;q=0.4,de-CH;q=0.5", German),
            ("de;q=1.000,fr;q=0.999", German),
            ("fr;q=0.001", French),
            ("fr ; q=0.9\t, de ;q=0.8", French),
            ("fr;Q=0.9,en;q=0.8", French),
            // A language that there are no texts in.
            ("nl,pt-BR;q=0.9", English),
            ("nl,fr;q=0.3", French),
            ("den,frr,enm,hes", English),
            // Anything.
            ("*", English),
            ("nl,*;q=0.5", English),
            ("de;q=0.5,*", English),
            ("de;q=0.5,*;q=0.1", German),
            ("*;q=0.1,de;q=0.5", German),
            // Refused.
            ("en;q=0", English),
            ("en;q=0,*", German),
            ("en;q=0,de;q=0.000,*;q=0.1", French),
            ("de,*;q=0", German),
            ("*;q=0", English),
            ("de;q=0,de-AT", English),
            ("de-AT;q=0,de;q=0.4", German),
            ("de-AT;q=0,*;q=0.4", English),
        ] {
            assert_eq!(preferred(value), expected, "{value}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [&b"nl, en;q=0.1"[..], b"", b"de;q=0.2"];
        assert_eq!(Language::preferred(lines.into_iter()), German);
    }

    #[test]
    fn malformed_ranges_are_ignored() {
        for value in [
            "fr;q=2",
            "fr;q=1.5",
            "fr;q=-1",
            "fr;q=",
            "fr;q",
            "fr;q=a",
            "fr;q=0.x",
            "fr;q=.5",
            "fr;x=1",
            "fr;;",
            ";q=1",
            "fr;q=1;q=1",
            "f r",
            ",,,",
            "fr_CH",
            "-fr",
            "\u{fc}",
        ] {
            assert_eq!(preferred(&format!("{value},de;q=0.1")), German, "{value}");
        }
        assert_eq!(Language::preferred([&b"\xff\xfe, he;q=0.1"[..]].into_iter()), Hebrew);
        // More digits than there should be.
        assert_eq!(preferred("fr;q=0.70009,de;q=0.701"), German);
    }

    #[test]
    fn work_on_long_values_is_bounded() {
        let value = format!("{}de", "x,".repeat(RANGES_MAX));
        assert_eq!(preferred(&value), English);
        let make = |size| format!("de{};q=0.{}", "-x".repeat(size), "1".repeat(size));
        assert_is_linear(1_000, make, |value| preferred(&value));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_language(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Language::preferred([&bytes[..]].into_iter());
        }

        #[test]
        fn refused_languages_are_not_chosen(
            others in prop::collection::vec("(en|de|fr|es|he|nl|\\*)(-[A-Z]{2})?(;q=(0|1|0\\.[0-9]))?", 0..8),
            place in any::<prop::sample::Index>(),
        ) {
            let mut ranges = others;
            ranges.insert(place.index(ranges.len() + 1), "de;q=0".to_owned());
            prop_assert_ne!(preferred(&ranges.join(", ")), German);
        }
    }
}
