//! Where a link leads: which URLs are accepted, and how one is written into a `Location` header.

use percent_encoding::percent_encode_byte;
use url::{Host, Url};

use crate::model::validate::FULL_URL_MIN_BYTES;

/// Longest destination that any version has accepted, in bytes, as it is stored. Browsers and proxies cut URLs off at
/// about this length; Kaltura's column is `text` (docs/kaltura-api.md#kalturashortlink).
pub const FULL_URL_MAX_BYTES: usize = 8192;

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

/// Why a destination that was accepted once makes no new link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedDestination {
    /// Longer than the operator allows, as it is stored or as it is rendered.
    #[error("a Location of {bytes} bytes is longer than links.max_destination_bytes allows ({limit})")]
    TooLong { bytes: usize, limit: usize },
    /// Browsers and RFC 3986 find different hosts, ports or users in it.
    #[error(
        "programs disagree about which host this URL names (write the host plainly, without \\, a second @ or encoding)"
    )]
    Ambiguous,
}

impl Destination {
    /// Checks a destination by the rules that every version has had. The text is kept byte for byte.
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

    /// Checks what binds new destinations only: links that were made before these rules keep working.
    pub fn check_new(&self, max_bytes: usize) -> Result<(), RefusedDestination> {
        let mut location = Vec::new();
        Self::write_location(&self.0, &mut location);
        let bytes = location.len().max(self.0.len());
        if bytes > max_bytes {
            return Err(RefusedDestination::TooLong {
                bytes,
                limit: max_bytes,
            });
        }
        if !is_unambiguous(&self.0) {
            return Err(RefusedDestination::Ambiguous);
        }
        Ok(())
    }

    /// Whether some version may have accepted this text; if not, its record is damaged. Hardly more than a look at each
    /// byte: a start checks ten million.
    pub fn was_ever_accepted(full_url: &str) -> bool {
        if !(FULL_URL_MIN_BYTES..=FULL_URL_MAX_BYTES).contains(&full_url.len()) {
            return false;
        }
        // Every byte is looked at, because many can be at once.
        let is_visible = full_url.bytes().fold(true, |all, byte| all & byte.is_ascii_graphic());
        is_visible && has_plain_host(full_url.as_bytes()) || Self::parse(full_url).is_ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }

    /// Writes a stored destination as the value of a `Location` header: a URI of visible ASCII, in which what no URI
    /// may hold is percent-encoded, with the name of a host as domain name servers know it.
    pub fn write_location(full_url: &str, out: &mut Vec<u8>) {
        // Nearly all are so already. Every byte is looked at, because many can be at once.
        if full_url.bytes().fold(true, |all, byte| all & is_literal(byte)) {
            out.extend_from_slice(full_url.as_bytes());
            return;
        }
        let Some(parts) = Parts::parse(full_url) else {
            return encode(full_url, is_in_uri, out);
        };
        encode(parts.scheme, is_in_uri, out);
        if let Some(user) = parts.user {
            encode(user, is_literal, out);
            out.push(b'@');
        }
        let ascii_host = Some(parts.host)
            .filter(|host| !host.is_ascii())
            .and_then(|_| Url::parse(full_url).ok()?.host_str().map(str::to_owned));
        encode(ascii_host.as_deref().unwrap_or(parts.host), is_in_uri, out);
        encode(parts.port, is_in_uri, out);
        // Browsers take `\` for `/`, so every other parser must see the path begin there too.
        let rest = match parts.rest.strip_prefix('\\') {
            Some(rest) => {
                out.push(b'/');
                rest
            }
            None => parts.rest,
        };
        let (before, fragment) = rest.split_once('#').unzip();
        encode(before.unwrap_or(rest), is_in_uri, out);
        if let Some(fragment) = fragment {
            out.push(b'#');
            encode(fragment, is_in_uri, out);
        }
    }

    pub fn location_of(full_url: &str) -> String {
        let mut location = Vec::new();
        Self::write_location(full_url, &mut location);
        // It is ASCII.
        String::from_utf8(location).unwrap_or_default()
    }
}

/// Whether a byte may stand anywhere in a URI as it is (RFC 3986, appendix A). Brackets are let through everywhere:
/// clients take them, and `?a[]=1` is what many servers compare with.
const fn is_literal(byte: u8) -> bool {
    byte.is_ascii_graphic()
        & !matches!(
            byte,
            b'"' | b'#' | b'%' | b'<' | b'>' | b'@' | b'\\' | b'^' | b'`' | b'{'..=b'}'
        )
}

/// Whether a byte may stand in a URI as it is, other than `#` and `%`.
const fn is_in_uri(byte: u8) -> bool {
    is_literal(byte) || byte == b'@'
}

/// Percent-encodes what is not allowed, and every `%` with which no encoded byte begins.
fn encode(text: &str, is_allowed: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    let mut bytes = text.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        let is_kept = match (byte, rest) {
            (b'%', [first, second, ..]) => first.is_ascii_hexdigit() && second.is_ascii_hexdigit(),
            (b'%', _) => false,
            _ => is_allowed(byte),
        };
        if is_kept {
            out.push(byte);
        } else {
            out.extend_from_slice(percent_encode_byte(byte).as_bytes());
        }
        bytes = rest;
    }
}

/// A URL taken apart as browsers do it: a backslash ends the authority as a slash does, and the last `@` the user.
struct Parts<'u> {
    /// With `://`.
    scheme: &'u str,
    user: Option<&'u str>,
    host: &'u str,
    /// With its colon; may be empty.
    port: &'u str,
    rest: &'u str,
}

impl<'u> Parts<'u> {
    fn parse(url: &'u str) -> Option<Self> {
        let (scheme, after) = url.split_at_checked(url.find("://")? + "://".len())?;
        let (authority, rest) = after.split_at_checked(after.find(['/', '\\', '?', '#']).unwrap_or(after.len()))?;
        let (user, host) = authority.rsplit_once('@').unzip();
        let host = host.unwrap_or(authority);
        // The colons of an IPv6 address stand in brackets.
        let after_brackets = host.rfind(']').unwrap_or(0);
        let colon = host
            .get(after_brackets..)?
            .find(':')
            .map(|colon| after_brackets + colon);
        let (host, port) = host.split_at_checked(colon.unwrap_or(host.len()))?;
        Some(Self {
            scheme,
            user,
            host,
            port,
            rest,
        })
    }
}

/// Whether a URL begins with a scheme of the web and a host of which no parser can think ill: letters, digits and
/// hyphens between dots, the last of them no number. One look at each byte of it.
fn has_plain_host(url: &[u8]) -> bool {
    let schemes: [&[u8]; 2] = [b"https://", b"http://"];
    let after = |scheme: &[u8]| {
        let (start, host) = url.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(host)
    };
    let Some(host) = schemes.into_iter().find_map(after) else {
        return false;
    };
    let (mut in_label, mut is_hyphen, mut starts_with_letter) = (0, false, false);
    for byte in host {
        let was_hyphen = std::mem::replace(&mut is_hyphen, *byte == b'-');
        match byte {
            b'/' | b'?' => break,
            b'.' => (in_label, starts_with_letter) = (0, false),
            // An internationalised name may be none.
            b'-' if in_label == 3 && was_hyphen => return false,
            b'-' => in_label += 1,
            byte if byte.is_ascii_alphanumeric() => {
                starts_with_letter |= in_label == 0 && byte.is_ascii_alphabetic();
                in_label += 1;
            }
            _ => return false,
        }
    }
    starts_with_letter
}

/// Whether RFC 3986 and browsers find the same user, host and port in a URL, by its text alone.
fn is_unambiguous(url: &str) -> bool {
    let (Some(parts), Ok(parsed)) = (Parts::parse(url), Url::parse(url)) else {
        return false;
    };
    let is_of_user = |byte: u8| is_of_name(byte) || matches!(byte, b'%' | b':');
    // RFC 3986 knows no end of the authority in a backslash, and no `@` in a user.
    !parts.rest.starts_with('\\')
        && parts.user.is_none_or(|user| user.bytes().all(is_of_user))
        && parsed.host().is_some_and(|host| is_host(parts.host, &host))
}

fn is_host(text: &str, host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => text.parse() == Ok(*address),
        Host::Ipv6(address) => {
            let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            text.is_some_and(|text| text.parse() == Ok(*address))
        }
        Host::Domain(name) => {
            // Label by label: where letters of other scripts stand for ASCII, or for nothing, or for a dot, opinions
            // differ.
            let is_label = |(text, label): (&str, &str)| {
                if text.is_ascii() {
                    text.eq_ignore_ascii_case(label)
                } else {
                    label.starts_with("xn--") && !text.contains(DEVIATIONS)
                }
            };
            text.split('.').count() == name.split('.').count()
                && text.split('.').zip(name.split('.')).all(is_label)
                && name.bytes().all(is_of_name)
        }
    }
}

/// Letters that the older and the newer rules for names (IDNA 2003 and 2008) write in different ways: two names.
const DEVIATIONS: [char; 4] = ['ß', 'ς', '\u{200c}', '\u{200d}'];

/// Whether a byte may stand in the name of a host: unreserved characters and delimiters of RFC 3986.
const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'='
        )
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

    #[test]
    fn location_holds_only_what_a_uri_may_hold() {
        for (url, location) in [
            (
                "https://e.example/{a}|b^c\\d`e",
                "https://e.example/%7Ba%7D%7Cb%5Ec%5Cd%60e",
            ),
            (
                "https://e.example/?q={a}|b^c\\d`e",
                "https://e.example/?q=%7Ba%7D%7Cb%5Ec%5Cd%60e",
            ),
            (
                "https://e.example/#{a}|b^c\\d`e",
                "https://e.example/#%7Ba%7D%7Cb%5Ec%5Cd%60e",
            ),
            // A percent sign that encodes nothing, and a second fragment.
            (
                "https://e.example/100%?a=50%&b=%zz%4",
                "https://e.example/100%25?a=50%25&b=%25zz%254",
            ),
            ("https://e.example/%41%c3%BC", "https://e.example/%41%c3%BC"),
            ("https://e.example/#a#b", "https://e.example/#a%23b"),
            ("https://e.example/?a[]=1", "https://e.example/?a[]=1"),
            // As browsers have read links that are no longer accepted.
            ("https://a.example\\@b.example/", "https://a.example/@b.example/"),
            ("https://a@b@c.example/@d", "https://a%40b@c.example/@d"),
            ("https://a{b.example/", "https://a%7Bb.example/"),
        ] {
            assert_eq!(Destination::location_of(url), location);
            assert!(Destination::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn new_destination_names_one_host_to_every_parser() {
        let check = |url: &str| Destination::parse(url).unwrap().check_new(FULL_URL_MAX_BYTES);
        for url in [
            "https://example.com\\@evil.example/",
            "https://example.com\\.evil.example/",
            "https://example.com\\",
            "https://example.com:80\\@evil.example/",
            "https://a@example.com\\@evil.example/",
            "https://a@b@evil.example/",
            "https://@@evil.example/",
            "https://1.1.1.1 &@2.2.2.2# @3.3.3.3/",
            "https://example.com\u{ff0f}@evil.example/",
            "https://{a}@evil.example/",
            "https://ex%61mple.com/",
            "https://example%2ecom/",
            "https://example\u{3002}com/",
            "https://example.com\u{ff0e}evil.example/",
            "https://ex\u{ad}ample.com/",
            "https://faß.example/",
            "https://ς.example/",
            "https://\u{24d4}xample.com/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://127.0.0.1./",
            "https://a{b}.example/",
        ] {
            assert_eq!(check(url), Err(RefusedDestination::Ambiguous), "{url}");
        }
        for url in [
            "https://EXAMPLE.com:8443/a\\b@c",
            "https://user:p%40w@example.com/",
            "https://example.com;@evil.example/",
            "https://example.com?@evil.example/",
            "https://example.com#@evil.example/",
            "https://example.com:/",
            "https://example.com./",
            "https://a_b.example/",
            "https://MÜNCHEN.example/",
            "https://xn--fa-hia.example/",
            "https://bücher.example/",
            "https://127.0.0.1:80/",
            "http://[0:0::1]:80/",
            "https://medium.example/@user",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn new_destination_is_bounded_as_it_is_rendered() {
        let check = |url: String, limit| Destination::parse(&url).unwrap().check_new(limit);
        let too_long = |bytes, limit| Err(RefusedDestination::TooLong { bytes, limit });
        // Eighteen bytes, and three for each byte of a letter.
        let url = |letters| format!("https://e.example/{}", "ü".repeat(letters));
        assert_eq!(check(url(13), 96), Ok(()));
        assert_eq!(check(url(14), 96), too_long(102, 96));
        assert_eq!(check(url(1_363), FULL_URL_MAX_BYTES), too_long(8_196, 8_192));
        // The name of the host is shorter as it is rendered.
        let wide = format!("https://{}.example/", "ａ".repeat(30));
        assert_eq!(check(wide.clone(), 80), too_long(wide.len(), 80));
    }

    /// Some kinds of text that may stand in a URL, in any order.
    fn parts(least: usize, most: usize) -> impl Strategy<Value = String> {
        let part = prop_oneof![
            prop_oneof![
                Just("http"),
                Just("://"),
                Just("e.example"),
                Just("xn--"),
                Just(".."),
                Just("%41"),
                Just("7f")
            ]
            .prop_map(str::to_owned),
            "[-a-z0-9._/?#@:%\\\\{}|^`\"<> \\[\\]]",
            "[ü。ａ１\u{ad}\u{200b}\u{85}\u{7f}\t]",
        ];
        proptest::collection::vec(part, least..most).prop_map(|parts| parts.concat())
    }

    /// URLs, most of which parse.
    fn url() -> impl Strategy<Value = String> {
        let scheme = "(?i:https?)://";
        let user = prop_oneof![3 => Just(String::new()), 1 => parts(0, 4).prop_map(|user| format!("{user}@"))];
        let host = prop_oneof![3 => Just("e.example".to_owned()), 1 => parts(1, 4)];
        let rest = prop_oneof![3 => parts(0, 8).prop_map(|rest| format!("/{rest}")), 1 => parts(0, 8)];
        (scheme, user, host, rest).prop_map(|(scheme, user, host, rest)| format!("{scheme}{user}{host}{rest}"))
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
        fn accepted_destinations_parse(text in url(), other in parts(0, 12)) {
            for text in [text, other] {
                let is_long_enough = text.len() >= FULL_URL_MIN_BYTES;
                let parses = is_long_enough && Destination::parse(&text).is_ok();
                prop_assert_eq!(Destination::was_ever_accepted(&text), parses, "{:?}", text);
            }
        }

        #[test]
        fn location_is_a_uri_that_leads_to_the_same_place(text in url()) {
            if Destination::parse(&text).is_err() {
                return Ok(());
            }
            let location = Destination::location_of(&text);
            prop_assert!(is_uri(&location), "{:?} {:?}", text, location);
            let (stored, rendered) = (Url::parse(&text).unwrap(), Url::parse(&location).unwrap());
            let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<_>>();
            prop_assert_eq!(stored.host(), rendered.host(), "{:?} {:?}", text, location);
            prop_assert_eq!(stored.port_or_known_default(), rendered.port_or_known_default());
            prop_assert_eq!(decoded(stored.username()), decoded(rendered.username()));
            prop_assert_eq!(stored.query().map(decoded), rendered.query().map(decoded));
            prop_assert_eq!(stored.fragment().map(decoded), rendered.fragment().map(decoded));
            // A backslash in a path is itself, where browsers would have made it a slash.
            if !text.contains('\\') {
                prop_assert_eq!(decoded(stored.path()), decoded(rendered.path()));
            }
            if is_unambiguous(&text) {
                let parts = Parts::parse(&location).unwrap();
                prop_assert!(!parts.user.is_some_and(|user| user.contains('@')));
                let host = Host::parse(parts.host).unwrap();
                prop_assert_eq!(Some(host), stored.host().map(|host| host.to_owned()));
            }
        }

        #[test]
        fn parsing_is_total(text in ".*") {
            let _ = Destination::parse(&text).map(|destination| destination.check_new(100));
            let _ = Destination::was_ever_accepted(&text);
        }
    }

    /// Whether a text is a URI as RFC 3986 has it, but for brackets.
    fn is_uri(text: &str) -> bool {
        let mut rest = text.as_bytes();
        let mut fragments = 0;
        while let Some((&byte, after)) = rest.split_first() {
            let is_encoded = || after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit);
            let is_fine = match byte {
                b'%' => is_encoded(),
                b'#' => true,
                byte => byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=".contains(&byte),
            };
            if !is_fine {
                return false;
            }
            fragments += usize::from(byte == b'#');
            rest = after;
        }
        fragments <= 1
    }
}
