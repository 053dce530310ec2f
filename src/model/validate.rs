//! The rules that the fields of a link obey, whatever they come from.

/// Whether XML 1.0 allows the character (production `Char`). What it forbids is refused in every input, so that any
/// answer can be written in any format.
pub const fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}
