//! Whose pages they are: the name, the colour and the logo of the organisation that runs tinyd.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest name, in characters.
const NAME_MAX: usize = 80;
/// Largest file of a logo: every page has it inside.
pub const LOGO_MAX_BYTES: usize = 64 * 1024;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The first chunk of a PNG: its length, and its type.
const PNG_HEADER: &[u8] = b"\0\0\0\rIHDR";
/// The last one, with its checksum.
const PNG_END: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";
const SVG_NAMESPACE: &str = "http://www.w3.org/2000/svg";

/// The contrast of text that WCAG 2.2 requires (1.4.3, level AA).
const CONTRAST_MIN: f64 = 4.5;
/// How finely a colour is mixed with black or white.
const MIX_STEPS: u16 = 64;

/// What the operator has set for pages that people see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Branding {
    pub name: Option<String>,
    pub accent: Colour,
    pub logo: Option<Logo>,
}

/// Refuses a name with what would be right.
pub fn check_name(text: &str) -> Result<(), String> {
    let is_right = !text.trim().is_empty() && text.chars().count() <= NAME_MAX && !text.contains(char::is_control);
    let reason = || format!("expected 1 to {NAME_MAX} characters, without line breaks and control characters");
    is_right.then_some(()).ok_or_else(reason)
}

/// Red, green and blue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Colour([u8; 3]);

impl Colour {
    pub const BLACK: Self = Self([0; 3]);
    pub const WHITE: Self = Self([255; 3]);

    pub const fn new(red: u8, green: u8, blue: u8) -> Self {
        Self([red, green, blue])
    }

    /// Black or white, whichever reads better on this colour. The contrast is at least 4.58 on any.
    pub fn of_text_on_it(self) -> Self {
        if contrast(self, Self::WHITE) >= contrast(self, Self::BLACK) {
            Self::WHITE
        } else {
            Self::BLACK
        }
    }

    /// This colour as text on a background: made darker or lighter as far as it must be.
    pub fn readable_on(self, background: Self) -> Self {
        let end = background.of_text_on_it();
        let mixes = (0..=MIX_STEPS).map(|step| self.mixed_with(end, step));
        let mut readable = mixes.filter(|mix| contrast(*mix, background) >= CONTRAST_MIN);
        readable.next().unwrap_or(end)
    }

    fn mixed_with(self, other: Self, step: u16) -> Self {
        let mix = |own: u8, other: u8| {
            let mixed = (u16::from(own) * (MIX_STEPS - step) + u16::from(other) * step) / MIX_STEPS;
            u8::try_from(mixed).unwrap_or(u8::MAX)
        };
        let (Self([red, green, blue]), Self([other_red, other_green, other_blue])) = (self, other);
        Self([mix(red, other_red), mix(green, other_green), mix(blue, other_blue)])
    }

    /// From 0 to 1 (WCAG 2.2, "relative luminance").
    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let part = f64::from(channel) / 255.0;
            if part <= 0.04045 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        };
        let Self([red, green, blue]) = self;
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }
}

/// From 1 to 21 (WCAG 2.2, "contrast ratio").
fn contrast(one: Colour, other: Colour) -> f64 {
    let (one, other) = (one.luminance() + 0.05, other.luminance() + 0.05);
    one.max(other) / one.min(other)
}

impl FromStr for Colour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
        // A number may have a sign.
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let [_, red, green, blue] = number
            .ok_or_else(|| "expected a colour as #rrggbb, such as #2456b8".to_owned())?
            .to_be_bytes();
        Ok(Self([red, green, blue]))
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([red, green, blue]) = self;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

/// An image, as it stands in a page. An `img` element runs no scripts of an SVG and loads nothing for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logo {
    data_url: String,
}

impl Logo {
    /// Takes an SVG or a PNG, by its content; refuses others with the reason.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > LOGO_MAX_BYTES {
            return Err(format!(
                "larger than {LOGO_MAX_BYTES} bytes: every page has the logo inside"
            ));
        }
        let media_type = if bytes.starts_with(PNG_SIGNATURE) {
            check_png(bytes)?;
            "image/png"
        } else {
            check_svg(bytes)?;
            "image/svg+xml"
        };
        Ok(Self {
            data_url: format!("data:{media_type};base64,{}", STANDARD.encode(bytes)),
        })
    }

    /// For `src`: of letters, digits and signs that need no escaping.
    pub fn data_url(&self) -> &str {
        &self.data_url
    }
}

/// Finds a file that is cut off, which browsers show as half an image or none.
fn check_png(bytes: &[u8]) -> Result<(), String> {
    let rest = bytes.get(PNG_SIGNATURE.len()..).unwrap_or_default();
    let is_whole = rest.starts_with(PNG_HEADER) && rest.ends_with(PNG_END);
    is_whole
        .then_some(())
        .ok_or_else(|| "not a whole PNG: the file is cut off or damaged".to_owned())
}

fn check_svg(bytes: &[u8]) -> Result<(), String> {
    const EXPECTED: &str = "neither SVG nor PNG: expected a file of one of these";
    let text = std::str::from_utf8(bytes).map_err(|_| EXPECTED.to_owned())?;
    if !text.trim_start_matches('\u{feff}').trim_start().starts_with('<') {
        return Err(EXPECTED.to_owned());
    }
    let options = roxmltree::ParsingOptions {
        // Illustrator writes one.
        allow_dtd: true,
        ..roxmltree::ParsingOptions::default()
    };
    let document = roxmltree::Document::parse_with_options(text, options);
    let document = document.map_err(|error| format!("not valid SVG: {error}"))?;
    let root = document.root_element().tag_name();
    match (root.name(), root.namespace()) {
        ("svg", Some(SVG_NAMESPACE)) => Ok(()),
        // Browsers show it in a page, but not as an image.
        ("svg", None) => Err(format!(
            "not valid SVG: its root element lacks xmlns=\"{SVG_NAMESPACE}\""
        )),
        _ => Err(EXPECTED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DARK: Colour = Colour::new(0x1b, 0x1e, 0x21);

    #[test]
    fn contrast_is_that_of_wcag() {
        let of = |one: &str, other: &str| contrast(one.parse().unwrap(), other.parse().unwrap());
        for (one, other, expected) in [
            ("#ffffff", "#000000", 21.0),
            ("#777777", "#ffffff", 4.48),
            ("#0000ff", "#ffffff", 8.59),
            ("#ff0000", "#ffffff", 4.0),
            ("#ffff00", "#ffffff", 1.07),
        ] {
            for ratio in [of(one, other), of(other, one)] {
                assert!((ratio - expected).abs() < 0.01, "{one} {other}: {ratio}");
            }
        }
    }

    #[test]
    fn colour_that_reads_well_stays_as_it_is() {
        let blue: Colour = "#2456b8".parse().unwrap();
        assert_eq!(blue.readable_on(Colour::WHITE), blue);
        assert_ne!(blue.readable_on(DARK), blue);
    }

    proptest! {
        #[test]
        fn text_reads_well_whatever_the_accent(channels in any::<[u8; 3]>()) {
            let accent = Colour(channels);
            prop_assert!(contrast(accent, accent.of_text_on_it()) >= CONTRAST_MIN);
            for background in [Colour::WHITE, DARK] {
                prop_assert!(contrast(accent.readable_on(background), background) >= CONTRAST_MIN);
            }
            prop_assert_eq!(accent.to_string().parse(), Ok(accent));
        }
    }

    #[test]
    fn other_spellings_of_a_colour_are_refused() {
        for text in [
            "", "#", "2456b8", "#fff", "#2456b", "#2456b80", "#+2456b", "#2456bg", "blue", "#é456b",
        ] {
            let refused = text.parse::<Colour>().unwrap_err();
            assert!(refused.contains("#rrggbb"), "{text}");
        }
    }

    #[test]
    fn names_are_one_line_of_text() {
        for name in [
            "A",
            "Université de Genève",
            "אוניברסיטת חיפה",
            "<b>&\"'",
            &"x".repeat(NAME_MAX),
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "  ", "a\nb", "a\u{7}", "a\0", &"x".repeat(NAME_MAX + 1)] {
            assert!(check_name(name).unwrap_err().contains("1 to 80 characters"), "{name:?}");
        }
    }

    /// A PNG of one pixel.
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\x9cch\0\0\0\
        \x82\0\x81w\xcdr\xb6\0\0\0\0IEND\xaeB`\x82";
    const SVG: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"><path d=\"M0 0h9v9z\"/></svg>";

    #[test]
    fn logo_is_an_image_by_its_content() {
        let png = Logo::parse(PNG).unwrap();
        assert!(png.data_url().starts_with("data:image/png;base64,iVBORw0KGgo"));
        for svg in [
            SVG.to_owned(),
            format!("\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- a logo -->\n{SVG}\n"),
            format!("<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \"http://a.example/svg11.dtd\">{SVG}"),
            "<s:svg xmlns:s=\"http://www.w3.org/2000/svg\"/>".to_owned(),
            // It does not run in an `img`.
            SVG.replace("<path", "<script>alert(1)</script><path"),
        ] {
            let logo = Logo::parse(svg.as_bytes()).unwrap();
            assert!(logo.data_url().starts_with("data:image/svg+xml;base64,"), "{svg}");
            assert!(!logo.data_url().contains(['"', '<', '&', '\'']));
        }
    }

    #[test]
    fn other_files_are_no_logo() {
        for (bytes, reason) in [
            (&b""[..], "neither SVG nor PNG"),
            (b"\xff\xd8\xff\xe0 a JPEG", "neither SVG nor PNG"),
            (b"<!doctype html><html></html>", "not valid SVG"),
            (b"<html xmlns=\"http://www.w3.org/2000/svg\"/>", "neither SVG nor PNG"),
            (b"logo.svg", "neither SVG nor PNG"),
            (b"<svg/>", "lacks xmlns"),
            (
                b"<svg xmlns=\"http://www.w3.org/2000/svg\"><path></svg>",
                "not valid SVG",
            ),
            (&PNG[..PNG.len() - 1], "not a whole PNG"),
            (PNG_SIGNATURE, "not a whole PNG"),
            (&vec![b' '; LOGO_MAX_BYTES + 1], "larger than 65536 bytes"),
        ] {
            let refused = Logo::parse(bytes).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
