//! Where a link leads: which URLs are accepted, and how one is written into a `Location` header.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

/// Longest accepted destination, in bytes. Browsers and proxies cut URLs off at about this length; Kaltura's column is
/// `text` (contract, section 5).
pub const FULL_URL_MAX_BYTES: usize = 8192;

/// What a header cannot carry or a client would read as the end of the URL. Everything else is sent as it was stored.
const NOT_IN_LOCATION: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');

/// A destination that has been checked: an absolute `http` or `https` URL with a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(String);

/// Why a text is no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDestination {
    /// Longer than [`FULL_URL_MAX_BYTES`].
    #[error("a destination has at most {FULL_URL_MAX_BYTES} bytes")]
    TooLong,
    /// A control character, CR and LF among them, stands somewhere in it, or white space around it.
    #[error("a destination has no control characters and no white space around it")]
    ControlCharacter,
    /// Relative, without a host, or not to be parsed.
    #[error("a destination is an absolute URL with a host")]
    NotAbsolute,
    /// `javascript:`, `data:`, `file:` and every other scheme that is not a page on the web.
    #[error("a destination is an http or https URL")]
    Scheme,
}

impl Destination {
    /// Checks a destination. The text is kept byte for byte.
    ///
    /// # Errors
    /// When it is too long, holds control characters, or is not an absolute http or https URL with a host.
    pub fn parse(text: &str) -> Result<Self, InvalidDestination> {
        if text.len() > FULL_URL_MAX_BYTES {
            return Err(InvalidDestination::TooLong);
        }
        // The URL parser strips these silently; a browser might not, so they are refused instead.
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err(InvalidDestination::ControlCharacter);
        }
        let url = Url::parse(text).map_err(|_| InvalidDestination::NotAbsolute)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidDestination::Scheme);
        }
        // The parser repairs `http:host` and `http:\host`; what was stored would then be a relative reference.
        let authority = text.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
        if !authority.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '\\'])) || !url.has_host() {
            return Err(InvalidDestination::NotAbsolute);
        }
        Ok(Self(text.to_owned()))
    }

    /// The destination as it was given.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// Writes a stored destination as the value of a `Location` header: visible ASCII only, the rest percent-encoded, the
    /// name of a host as domain name servers know it.
    pub fn write_location(full_url: &str, out: &mut Vec<u8>) {
        // Nearly all are so already.
        let is_literal = |byte: u8| byte.is_ascii_graphic() & (byte != b'"') & (byte != b'<') & (byte != b'>');
        // Every byte is looked at, because many can be at once.
        if full_url.bytes().fold(true, |all, byte| all & is_literal(byte)) {
            out.extend_from_slice(full_url.as_bytes());
        } else {
            out.extend_from_slice(Self::location_of(full_url).as_bytes());
        }
    }

    /// What [`Destination::write_location`] writes.
    #[must_use]
    pub fn location_of(full_url: &str) -> String {
        let encoded = |text| utf8_percent_encode(text, NOT_IN_LOCATION).to_string();
        match split_at_host(full_url).filter(|(_, host, _)| !host.is_ascii()) {
            Some((before, host, after)) => match Url::parse(full_url).ok().as_ref().and_then(Url::host_str) {
                Some(ascii) => format!("{}{ascii}{}", encoded(before), encoded(after)),
                None => format!("{}{}{}", encoded(before), encoded(host), encoded(after)),
            },
            None => encoded(full_url),
        }
    }
}

/// Splits a URL into what stands before its host, the host, and what stands after it.
fn split_at_host(url: &str) -> Option<(&str, &str, &str)> {
    let authority = url.find("://")? + "://".len();
    let end = url
        .get(authority..)?
        .find(['/', '\\', '?', '#'])
        .map_or(url.len(), |length| authority + length);
    let host = url
        .get(authority..end)?
        .rfind('@')
        .map_or(authority, |at| authority + at + 1);
    let port = url.get(host..end)?.rfind(':').map_or(end, |colon| host + colon);
    Some((url.get(..host)?, url.get(host..port)?, url.get(port..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pages_on_the_web_are_accepted_and_kept_to_the_byte() {
        for good in [
            "https://www.kaltura.com/",
            "HTTP://Example.com",
            "https://user:pw@example.com:8443/a%20b?c=d#e",
            "http://[::1]/",
            "https://münchen.example/straße?q=ü ö",
            "http://127.0.0.1:8080/x",
        ] {
            assert_eq!(
                Destination::parse(good).map(Destination::into_string),
                Ok(good.to_owned())
            );
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        use InvalidDestination::{ControlCharacter, NotAbsolute, Scheme, TooLong};
        for (bad, why) in [
            ("javascript:alert(1)//", Scheme),
            ("JaVaScRiPt://example.com/%0aalert(1)", Scheme),
            ("data:text/html,<script>", Scheme),
            ("file:///etc/passwd", Scheme),
            ("ftp://example.com/x", Scheme),
            ("vbscript:msgbox(1)", Scheme),
            ("java\tscript:alert(1)", ControlCharacter),
            ("https://example.com/\r\nSet-Cookie: a=b", ControlCharacter),
            ("https://example.com/\u{85}", ControlCharacter),
            ("https://example.com/\0", ControlCharacter),
            (" https://example.com/", ControlCharacter),
            ("https://example.com/\u{3000}", ControlCharacter),
            ("//example.com/x", NotAbsolute),
            ("/relative/path", NotAbsolute),
            ("www.example.com/page", NotAbsolute),
            ("http://", NotAbsolute),
            ("http:///example.com", NotAbsolute),
            ("http:example.com", NotAbsolute),
            ("http:\\\\example.com", NotAbsolute),
            ("https://exa mple.com/", NotAbsolute),
            ("", NotAbsolute),
        ] {
            assert_eq!(Destination::parse(bad), Err(why), "{bad:?}");
        }
        let long = format!("https://example.com/{}", "x".repeat(FULL_URL_MAX_BYTES));
        assert_eq!(Destination::parse(&long), Err(TooLong));
    }

    #[test]
    fn a_location_is_visible_ascii() {
        assert_eq!(
            Destination::location_of("https://e.example/ü \"<>?a=%20&b=c#d"),
            "https://e.example/%C3%BC%20%22%3C%3E?a=%20&b=c#d"
        );
        for (url, location) in [
            ("https://münchen.example/ü", "https://xn--mnchen-3ya.example/%C3%BC"),
            (
                "http://ü:p@bücher.example:8080?q=ü",
                "http://%C3%BC:p@xn--bcher-kva.example:8080?q=%C3%BC",
            ),
            ("https://[::1]:80/ü@x:y", "https://[::1]:80/%C3%BC@x:y"),
        ] {
            assert_eq!(Destination::location_of(url), location);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_location_that_a_header_refuses(text in "\\PC*|.*") {
            let location = Destination::location_of(&text);
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()));
            let mut written = Vec::new();
            Destination::write_location(&text, &mut written);
            prop_assert_eq!(written, location.into_bytes());
        }

        #[test]
        fn parsing_is_total(text in ".*") {
            let _ = Destination::parse(&text);
        }
    }
}
