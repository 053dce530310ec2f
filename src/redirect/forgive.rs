//! What people and chat programs do to the id of a link: the full stop or bracket behind it, blanks, a slash, capitals.

use crate::kaltura;
use crate::kaltura::ParameterSource;
use crate::model::LinkId;

/// The id that is left of a text that is none, once everything is taken away that no id has: at both ends, and
/// capitals. What stands between two parts of an id stays, so that `/tiny/ID/more` is not the link `ID`.
pub(super) fn id_in(text: &str) -> Option<LinkId> {
    // Programs that encode what is encoded already send `%2520` for a blank.
    let decoded = kaltura::decode_lossy(ParameterSource::Path, text);
    // A slash before it is another path, even where it is encoded.
    let id = without_end(decoded.trim_start_matches(|character| character != '/' && is_outside(character)));
    LinkId::from_bytes(id.to_ascii_lowercase().as_bytes()).ok()
}

/// No slip adds control characters but line breaks and tabs: the others stay.
fn is_outside(character: char) -> bool {
    !character.is_ascii_alphanumeric() && (!character.is_control() || character.is_whitespace())
}

/// The text without what no id has at its end. A character reference of HTML, such as `&gt;` and `&#39;`, goes as a
/// whole: programs that look for links in HTML take it for a part of them.
fn without_end(mut text: &str) -> &str {
    let is_of_reference = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'#';
    loop {
        let rest = text.trim_end_matches(is_outside);
        let is_reference_over = text.get(rest.len()..).is_some_and(|end| end.starts_with(';'));
        match rest.rsplit_once('&') {
            Some((before, name)) if is_reference_over && name.bytes().all(is_of_reference) => text = before,
            _ => return rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_no_id_has_is_taken_off_both_ends() {
        for text in [
            "67mk41xj.",
            "67mk41xj,",
            "67mk41xj).",
            "67mk41xj\"",
            "67mk41xj'",
            "67mk41xj*",
            "67mk41xj_",
            "67mk41xj]",
            "67mk41xj>",
            "67mk41xj!?",
            "67mk41xj…",
            "67mk41xj\u{201d}",
            "67mk41xj»",
            "67mk41xj\u{a0}",
            "67mk41xj\u{200b}",
            "67mk41xj\u{feff}",
            "67mk41xj\n",
            "67mk41xj/",
            "67mk41xj//",
            " 67mk41xj ",
            "\u{201c}67mk41xj\u{201d}",
            "<67mk41xj>",
            "67MK41XJ",
            "67Mk41xJ.",
            "67mk41xj%20",
            "67mk41xj%2E",
            "67mk41xj%E2%80%9D",
            "67mk41xj%ff",
            "67mk41xj&gt;",
            "67mk41xj&quot;&gt;",
            "67mk41xj&#39;",
            "67MK41XJ&nbsp;.",
            "67mk41xj%26gt%3B",
        ] {
            assert_eq!(
                id_in(text).map(|id| id.to_string()).as_deref(),
                Some("67mk41xj"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_stands_inside_an_id_stays() {
        for text in [
            "",
            ".",
            "abc.",
            "%",
            "67mk41xj/extra",
            "extra/67mk41xj",
            "67mk 41xj",
            "67mk.41xj",
            "67mk41xj.html",
            "67mk41xj&amp",
            "67mk41xj?x=y",
            "67mkä41xj",
            "67mk41xj%2Fextra",
            "67mk41xj\0",
            "67mk41xj%1b",
            "/67mk41xj",
            "%2F67mk41xj",
            "000000000000000000000.",
            "\u{212a}67mk4\u{212a}1xj",
        ] {
            assert_eq!(id_in(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_stands_in_the_text(text in "\\PC{0,8}[0-9a-zA-Z]{0,21}\\PC{0,8}(&[a-z#0-9]{0,5};?){0,3}") {
            if let Some(id) = id_in(&text) {
                let decoded = kaltura::decode_lossy(ParameterSource::Path, &text).to_ascii_lowercase();
                prop_assert!(decoded.contains(id.as_str()), "{text}");
            }
        }
    }
}
