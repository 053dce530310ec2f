//! The head of a request (RFC 9112), read strictly before anything is made of it: where a proxy on the way could have
//! read another request than we do, there is none. Where the next request begins is then beyond doubt.

use std::ops::Range;

use hyper::{StatusCode, Uri};

use crate::http::rewrite::encoded_target;

/// Method, spaces and version, beside the longest target.
const REQUEST_LINE_REST_BYTES: usize = 64;

/// The longest registered method has 17 letters.
const METHOD_MAX_BYTES: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    pub head_bytes: usize,
    pub target_bytes: usize,
    pub headers: usize,
}

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Bytes; 0 without a body.
    Length(u64),
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHead {
    pub status: StatusCode,
    /// Contains nothing of the request.
    pub reason: &'static str,
}

impl BadHead {
    const TOO_LONG: Self = Self {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        reason: "the head of the request is too long",
    };
    const TARGET_TOO_LONG: Self = Self {
        status: StatusCode::URI_TOO_LONG,
        reason: "the target of the request is too long",
    };

    const fn malformed(reason: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    Partial,
    Whole {
        /// In bytes, with the empty line.
        length: usize,
        framing: Framing,
    },
}

impl Head {
    /// Reads the head at the start of `input`. Fails if it is malformed, ambiguous or too large, perhaps before it is
    /// whole.
    pub fn read(input: &[u8], limits: &HeadLimits) -> Result<Self, BadHead> {
        HeadReader::default().read(input, limits)
    }
}

/// Reads a head that arrives in pieces. Remembers its position, so that the work does not depend on the number of
/// pieces.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Start of the unfinished line.
    at: usize,
    /// No line ends between `at` and here.
    scanned: usize,
    is_begun: bool,
    /// Known once the request line is there.
    is_http_10: Option<bool>,
    fields: Fields,
    headers: usize,
}

impl HeadReader {
    /// Reads on. `input` begins with that of the previous call.
    pub fn read(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Head, BadHead> {
        if !self.is_begun {
            // Some old clients end a body with an empty line.
            self.at = match input {
                [b'\r', b'\n', ..] => 2,
                [b'\r'] | [] => return Ok(Head::Partial),
                _ => 0,
            };
            let Some(&first) = input.get(self.at) else {
                return Ok(Head::Partial);
            };
            if !is_token_byte(first) {
                return Err(BadHead::malformed("a request begins with its method"));
            }
            (self.scanned, self.is_begun) = (self.at, true);
        }
        let is_http_10 = match self.is_http_10 {
            Some(is_http_10) => is_http_10,
            None => {
                let start = self.at;
                let Some(request_line) = self.next_line(input)? else {
                    return match input.len() - start {
                        length if length > limits.target_bytes + REQUEST_LINE_REST_BYTES => {
                            Err(BadHead::TARGET_TOO_LONG)
                        }
                        length if length > limits.head_bytes => Err(BadHead::TOO_LONG),
                        _ => Ok(Head::Partial),
                    };
                };
                *self.is_http_10.insert(check_request_line(request_line, limits)?)
            }
        };
        while let Some(line) = self.next_line(input)? {
            if line.is_empty() {
                if self.at > limits.head_bytes {
                    return Err(BadHead::TOO_LONG);
                }
                return Ok(Head::Whole {
                    length: self.at,
                    framing: self.fields.framing(is_http_10)?,
                });
            }
            self.headers += 1;
            if self.headers > limits.headers {
                return Err(BadHead {
                    reason: "the request has too many header lines",
                    ..BadHead::TOO_LONG
                });
            }
            self.fields.note(line)?;
        }
        if input.len() > limits.head_bytes {
            return Err(BadHead::TOO_LONG);
        }
        Ok(Head::Partial)
    }

    /// The next line if it is whole; it must end in CR LF.
    fn next_line<'i>(&mut self, input: &'i [u8]) -> Result<Option<&'i [u8]>, BadHead> {
        let unread = input.get(self.scanned..).unwrap_or_default();
        let Some(end) = unread.iter().position(|&byte| matches!(byte, b'\r' | b'\n' | 0)) else {
            self.scanned = input.len();
            return Ok(None);
        };
        self.scanned += end;
        match unread.get(end..) {
            Some([b'\r', b'\n', ..]) => {}
            Some([b'\r']) => return Ok(None),
            Some([b'\r', ..]) => return Err(BadHead::malformed("a line ends in CR without LF")),
            Some([b'\n', ..]) => return Err(BadHead::malformed("a line ends in LF without CR")),
            _ => return Err(BadHead::malformed("the head of the request holds a NUL")),
        }
        let line = input.get(self.at..self.scanned);
        self.at = self.scanned + 2;
        self.scanned = self.at;
        Ok(line)
    }
}

/// The fields that determine the framing.
#[derive(Debug, Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    is_chunked: bool,
}

impl Fields {
    fn note(&mut self, line: &[u8]) -> Result<(), BadHead> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(BadHead::malformed("a header is continued on a second line"));
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = colon
            .and_then(|colon| line.split_at_checked(colon))
            .ok_or(BadHead::malformed("a header line has no colon"))?;
        let value = value.get(1..).unwrap_or_default();
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return Err(BadHead::malformed("invalid header name"));
        }
        let is_text = |byte: u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
        if !value.iter().copied().all(is_text) {
            return Err(BadHead::malformed("a header holds a control character"));
        }
        let value = value.trim_ascii();
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("host") {
            self.hosts += 1;
            if !is_host(value) {
                return Err(BadHead::malformed("invalid Host header"));
            }
        } else if is("content-length") {
            let digits = std::str::from_utf8(value)
                .ok()
                .filter(|_| value.iter().all(u8::is_ascii_digit));
            let length = digits.and_then(|digits| digits.parse().ok());
            let length = length.ok_or(BadHead::malformed("invalid Content-Length"))?;
            if self.length.replace(length).is_some() {
                return Err(BadHead::malformed("Content-Length comes twice"));
            }
        } else if is("transfer-encoding") {
            if self.is_chunked {
                return Err(BadHead::malformed("Transfer-Encoding comes twice"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(BadHead {
                    status: StatusCode::NOT_IMPLEMENTED,
                    reason: "unsupported Transfer-Encoding",
                });
            }
            self.is_chunked = true;
        } else if is("expect") && !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(BadHead {
                status: StatusCode::EXPECTATION_FAILED,
                reason: "of the expectations only 100-continue is known",
            });
        }
        Ok(())
    }

    fn framing(&self, is_http_10: bool) -> Result<Framing, BadHead> {
        match (self.hosts, is_http_10) {
            (0, false) => return Err(BadHead::malformed("Host is missing")),
            (0 | 1, _) => {}
            _ => return Err(BadHead::malformed("Host comes twice")),
        }
        match (self.is_chunked, self.length) {
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
            (true, Some(_)) => Err(BadHead::malformed(
                "Transfer-Encoding and Content-Length exclude each other",
            )),
            (true, None) if is_http_10 => Err(BadHead::malformed("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
        }
    }
}

/// Returns whether the version is HTTP/1.0.
fn check_request_line(line: &[u8], limits: &HeadLimits) -> Result<bool, BadHead> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BadHead::malformed("the request line is not: method, target, version"));
    };
    if method.is_empty() || !method.iter().copied().all(is_token_byte) {
        return Err(BadHead::malformed("invalid method"));
    }
    if method.len() > METHOD_MAX_BYTES {
        return Err(BadHead {
            status: StatusCode::NOT_IMPLEMENTED,
            reason: "unknown method",
        });
    }
    let is_http_10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        // A later one of the same major version is served as the latest known (RFC 9110, section 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => false,
        other if other.starts_with(b"HTTP/") => {
            return Err(BadHead {
                status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                reason: "only HTTP/1.1 and HTTP/1.0 are served",
            });
        }
        _ => return Err(BadHead::malformed("the request line has no version of HTTP")),
    };
    if target.len() > limits.target_bytes {
        return Err(BadHead::TARGET_TOO_LONG);
    }
    check_target(method, target, limits)?;
    Ok(is_http_10)
}

fn check_target(method: &[u8], target: &[u8], limits: &HeadLimits) -> Result<(), BadHead> {
    if target == b"*" {
        return if method == b"OPTIONS" {
            Ok(())
        } else {
            Err(BadHead::malformed("the target * is for OPTIONS only"))
        };
    }
    // What is not ASCII passes unencoded, in UTF-8 or not: harmless clients send it, and no id contains it.
    let is_control = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
    let encoded = encoded_target(target);
    if encoded.len() > limits.target_bytes {
        return Err(BadHead::TARGET_TOO_LONG);
    }
    if target.contains(&b'#') || target.iter().any(is_control) || Uri::try_from(&*encoded).is_err() {
        return Err(BadHead::malformed("invalid request target"));
    }
    let path = path_of(target).ok_or(BadHead::malformed("the target is neither a path nor an http URL"))?;
    let path = target.get(path).unwrap_or_default();
    if path.contains(&b'\\') {
        return Err(BadHead::malformed("the path holds a backslash"));
    }
    if path.split(|&byte| byte == b'/').any(is_dot_segment) {
        return Err(BadHead::malformed("the path holds the segments . or .."));
    }
    Ok(())
}

/// The range of the path, without the query.
fn path_of(target: &[u8]) -> Option<Range<usize>> {
    let end = target.iter().position(|&byte| byte == b'?').unwrap_or(target.len());
    if target.starts_with(b"/") {
        return Some(0..end);
    }
    let starts_with = |scheme: &str| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(scheme.len())
    };
    let authority = starts_with("http://").or_else(|| starts_with("https://"))?;
    let rest = target.get(authority..end)?;
    let host = rest.split(|&byte| byte == b'/').next()?;
    (!host.is_empty() && is_host(host)).then_some(authority + host.len()..end)
}

/// `.` and `..`, also percent-encoded.
fn is_dot_segment(segment: &[u8]) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
    }
    (1..=2).contains(&dots)
}

/// A host with or without a port. HTTP/1.1 allows an empty one.
pub fn is_host(value: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii() && HOST_BYTES >> byte & 1 == 1;
    value.iter().all(is_allowed)
}

/// A bit for each byte that a host may have: it is looked up for each byte of each request.
const HOST_BYTES: u128 = {
    let (mut bits, mut byte) = (0, 0_u8);
    while byte.is_ascii() {
        if is_host_byte(byte) {
            bits |= 1 << byte;
        }
        byte += 1;
    }
    bits
};

const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'['
                | b']'
        )
}

/// A byte of a token: method or header name (RFC 9110, section 5.6.2).
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits {
        head_bytes: 400,
        target_bytes: 100,
        headers: 5,
    };

    fn read(text: &str) -> Result<Head, u16> {
        Head::read(text.as_bytes(), &LIMITS).map_err(|bad| bad.status.as_u16())
    }

    #[test]
    fn target_may_have_bytes_that_are_no_utf_8() {
        let head = b"GET /tiny/x?name=\xe9 HTTP/1.0\r\n\r\n";
        let whole = Head::Whole {
            length: head.len(),
            framing: Framing::Length(0),
        };
        assert_eq!(Head::read(head, &LIMITS), Ok(whole));
    }

    #[test]
    fn a_head_says_where_it_ends_and_how_what_follows_is_delimited() {
        for (head, framing) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
            ("\r\nGET / HTTP/1.1\r\nHost:\r\n\r\n", Framing::Length(0)),
            ("GET /?a=../%00\\ HTTP/1.0\r\n\r\n", Framing::Length(0)),
            (
                "POST http://a:80/x HTTP/1.1\r\nhost: [::1]:80\r\ncontent-length: 7\r\n\r\n",
                Framing::Length(7),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Framing::Chunked,
            ),
            (
                "OPTIONS * HTTP/1.1\r\nHost: a\r\nX: \u{fc}\t\r\n\r\n",
                Framing::Length(0),
            ),
        ] {
            let whole = Head::Whole {
                length: head.len(),
                framing,
            };
            assert_eq!(read(&format!("{head}what follows")), Ok(whole), "{head}");
            for end in 0..head.len() {
                let part = Head::read(&head.as_bytes()[..end], &LIMITS);
                assert_eq!(part, Ok(Head::Partial), "{head} up to {end}");
            }
        }
    }

    #[test]
    fn oversized_head_is_refused_before_it_is_whole() {
        let long = "x".repeat(100);
        assert_eq!(read(&format!("GET /{long} HTTP/1.1\r\n")), Err(414));
        assert_eq!(read(&format!("GET /{long}{long}")), Err(414));
        assert_eq!(
            read(&format!("GET / HTTP/1.1\r\nX: {long}{long}{long}{long}")),
            Err(431)
        );
        assert_eq!(read(&format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(6))), Err(431));
        assert_eq!(
            read(&format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(5))),
            Ok(Head::Partial)
        );
    }

    const WIDE: HeadLimits = HeadLimits {
        head_bytes: 1 << 20,
        target_bytes: 1 << 20,
        headers: 1 << 20,
    };

    #[test]
    fn a_head_in_pieces_is_read_once() {
        let make = |size| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a:\r\n".repeat(size)).into_bytes();
        assert_is_linear(200, make, |head| {
            let mut reader = HeadReader::default();
            (0..head.len()).for_each(|end| assert_eq!(reader.read(&head[..end], &WIDE), Ok(Head::Partial)));
            assert!(matches!(reader.read(&head, &WIDE), Ok(Head::Whole { .. })));
        });
    }

    #[test]
    fn a_long_line_in_pieces_is_read_once() {
        let make = |size| format!("GET /{}", "a".repeat(size)).into_bytes();
        assert_is_linear(500, make, |head| {
            let mut reader = HeadReader::default();
            (0..head.len()).for_each(|end| assert_eq!(reader.read(&head[..end], &WIDE), Ok(Head::Partial)));
        });
    }

    #[test]
    fn a_head_takes_work_in_proportion() {
        let make = |size| {
            format!(
                "GET /{} HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "/".repeat(size),
                "a:\r\n".repeat(size)
            )
            .into_bytes()
        };
        assert_is_linear(500, make, |head| {
            assert!(matches!(Head::read(&head, &WIDE), Ok(Head::Whole { .. })))
        });
    }

    proptest! {
        #[test]
        fn reading_a_head_is_total(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'),
                any::<u8>()], 0..200),
            more in proptest::collection::vec(any::<u8>(), 0..20),
            text in "(GET|POST|OPTIONS) (/|\\*|/tiny/[a-z.%2]{0,8}|http://a/) HTTP/1\\.[01]\r\n(Host: \
                a\r\n|Content-Length: [0-9]{1,3}\r\n|X:[ -~]{0,9}\r\n){0,4}\r\n",
        ) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let first = Head::read(bytes, &LIMITS);
                let longer = Head::read(&[bytes, &more].concat(), &LIMITS);
                let mut reader = HeadReader::default();
                let mut pieces = (0..=bytes.len()).map(|end| reader.read(&bytes[..end], &LIMITS));
                let in_pieces = pieces.find(|read| *read != Ok(Head::Partial)).unwrap_or(Ok(Head::Partial));
                if first != Ok(Head::Partial) {
                    prop_assert_eq!(longer, first);
                }
                // What is too long is seen earlier in pieces.
                if first.is_ok() || in_pieces.is_ok() {
                    prop_assert_eq!(in_pieces, first);
                }
                if let Ok(Head::Whole { length, .. }) = first {
                    prop_assert!(bytes[..length].ends_with(b"\r\n\r\n"));
                }
            }
        }
    }
}
