//! The rules that the fields of a link obey, in the API and in imported files (docs/kaltura-api.md#kalturashortlink).

use crate::model::{PartnerId, Timestamp};

/// Shortest destination, in bytes.
pub const FULL_URL_MIN_BYTES: usize = 10;
/// Longest name, system name and unique id, in characters: the columns of Kaltura's database.
const NAME_MAX_CHARS: usize = 63;

/// What the text of a field may be.
#[derive(Debug)]
pub struct TextRule {
    pub field: &'static str,
    pub min_bytes: usize,
    pub max_chars: usize,
    /// Whether an empty text is null.
    empty_is_null: bool,
}

const fn rule(field: &'static str, min_bytes: usize, max_chars: usize, empty_is_null: bool) -> TextRule {
    TextRule {
        field,
        min_bytes,
        max_chars,
        empty_is_null,
    }
}

pub const USER_ID: TextRule = rule("userId", 0, 100, true);
pub const NAME: TextRule = rule("name", 0, NAME_MAX_CHARS, false);
pub const SYSTEM_NAME: TextRule = rule("systemName", 3, NAME_MAX_CHARS, false);
/// The longest destination depends on the settings.
pub const FULL_URL: TextRule = rule("fullUrl", FULL_URL_MIN_BYTES, usize::MAX, false);
pub const UNIQUE_ID: TextRule = rule("uniqueId", 0, NAME_MAX_CHARS, true);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    #[error("at least {min_bytes} bytes, not {text:?}")]
    TooShort { min_bytes: usize, text: String },
    #[error("at most {max_chars} characters")]
    TooLong { max_chars: usize },
    #[error("a character that XML forbids")]
    ForbiddenCharacter,
}

impl TextRule {
    pub fn check(&self, text: &str) -> Result<(), InvalidText> {
        let &Self {
            min_bytes, max_chars, ..
        } = self;
        if text.len() < min_bytes {
            let text = text.to_owned();
            return Err(InvalidText::TooShort { min_bytes, text });
        }
        if text.chars().count() > max_chars {
            return Err(InvalidText::TooLong { max_chars });
        }
        if !text.chars().all(is_xml_char) {
            return Err(InvalidText::ForbiddenCharacter);
        }
        Ok(())
    }

    /// The value that a text gives a field.
    pub fn value(&self, text: &str) -> Result<Option<String>, InvalidText> {
        self.check(text)?;
        Ok((!self.empty_is_null || !text.is_empty()).then(|| text.to_owned()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected unix seconds up to {} (milliseconds?)", Timestamp::MAX)]
pub struct InvalidTime;

/// A time between the years 0 and 9999.
pub fn time(seconds: i64) -> Result<Timestamp, InvalidTime> {
    let time = Timestamp::from_unix(seconds);
    (Timestamp::MIN..=Timestamp::MAX)
        .contains(&time)
        .then_some(time)
        .ok_or(InvalidTime)
}

/// When a link starts or expires: 0 and -1 mean at once, and never. A time in the past counts too.
pub fn optional_time(seconds: i64) -> Result<Option<Timestamp>, InvalidTime> {
    match Timestamp::from_unix(seconds) {
        _ if matches!(seconds, 0 | -1) => Ok(None),
        time if time <= Timestamp::MAX => Ok(Some(time)),
        _ => Err(InvalidTime),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("startsAt {starts_at} is not before expiresAt {expires_at}: the link would never redirect")]
pub struct InvalidValidity {
    starts_at: Timestamp,
    expires_at: Timestamp,
}

/// A link starts before it expires.
pub fn validity(starts_at: Option<Timestamp>, expires_at: Option<Timestamp>) -> Result<(), InvalidValidity> {
    match (starts_at, expires_at) {
        (Some(starts_at), Some(expires_at)) if starts_at >= expires_at => {
            Err(InvalidValidity { starts_at, expires_at })
        }
        _ => Ok(()),
    }
}

pub fn partner_id(number: i64) -> Option<PartnerId> {
    number.try_into().ok().map(PartnerId)
}

/// Whether XML 1.0 allows the character (production `Char`). Every input refuses the others, so that any answer can be
/// written in any format.
pub const fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

/// A text without the byte order mark (U+FEFF in UTF-8) that some programs write before it.
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}
