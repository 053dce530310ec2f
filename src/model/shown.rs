//! Texts of strangers where people read them: what would move a cursor, or turn the order of letters, is shown escaped.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

/// Controls of ASCII and of Latin-1 (C1), marks and overrides of writing direction, and separators of lines.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// The command to name in hints: beside the packaged service, its unit and its wrapper set `TINYD_COMMAND`.
pub fn command() -> &'static str {
    command_of(std::env::var("TINYD_COMMAND").ok().as_deref())
}

fn command_of(named: Option<&str>) -> &'static str {
    match named {
        Some("tinyd-admin") => "tinyd-admin",
        _ => "tinyd",
    }
}

/// A text as a part of a line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_active, escape)
}

/// A text that may have several lines.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character != '\n' && is_active(character), escape)
}

fn escape(character: char, out: &mut String) {
    out.extend(character.escape_default());
}

/// JSON, which means the same whichever of its characters are escaped.
pub fn json(value: &Value) -> String {
    let text = value.to_string();
    let escaped = escaped(&text, is_active, |character, out| {
        let _ = write!(out, "\\u{:04x}", u32::from(character));
    });
    escaped.into_owned()
}

fn escaped(text: &str, is_active: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(&is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_active(character) {
            escape(character, &mut out);
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// A list as a part of a line.
pub fn joined(parts: impl Iterator<Item = String>, none: &str) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        none.to_owned()
    } else {
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_known_commands_are_named() {
        for (named, command) in [
            (None, "tinyd"),
            (Some(""), "tinyd"),
            (Some("rm"), "tinyd"),
            (Some("tinyd-admin"), "tinyd-admin"),
        ] {
            assert_eq!(command_of(named), command);
        }
    }

    #[test]
    fn terminal_controls_are_escaped() {
        for (text, shown) in [
            ("", ""),
            (
                "Ünïcödé 日本語 👨\u{200d}👩 \u{a0}!",
                "Ünïcödé 日本語 👨\u{200d}👩 \u{a0}!",
            ),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{9b}2J\u{85}", "\\u{9b}2J\\u{85}"),
            ("a\tb\nc\rd\u{7f}", "a\\tb\\nc\\rd\\u{7f}"),
            ("\u{202e}moc", "\\u{202e}moc"),
            (
                "\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}\u{2028}",
                "\\u{2066}\\u{2069}\\u{200e}\\u{200f}\\u{61c}\\u{2028}",
            ),
        ] {
            assert_eq!(line(text), shown, "{text:?}");
            assert_eq!(lines(text), shown.replace("\\n", "\n"), "{text:?}");
            let value = json!({ "name": text });
            let written = json(&value);
            assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value, "{written}");
            assert!(!written.chars().any(is_active), "{written}");
        }
    }
}
