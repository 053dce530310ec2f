//! The request line as hyper can read it.

use std::borrow::Cow;

/// Rewrites the request line of a whole head of `length` bytes at the beginning of `held`, and returns the new
/// length: a later minor version of HTTP/1 becomes 1.1, as which it is served (RFC 9110, section 2.5), and bytes of
/// the target that hyper refuses are percent-encoded.
pub fn rewrite_request_line(held: &mut Vec<u8>, length: usize) -> usize {
    let head = held.get(..length).unwrap_or_default();
    let start = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let line = head.get(start..).unwrap_or_default();
    let Some(end) = line.iter().position(|&byte| byte == b'\r') else {
        return length;
    };
    let mut parts = line.get(..end).unwrap_or_default().splitn(3, |&byte| byte == b' ');
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return length;
    };
    let from = start + method.len() + 1;
    let to = from + target.len();
    let rewritten = match encoded_target(target) {
        Cow::Borrowed(_) => None,
        Cow::Owned(target) => Some(target),
    };
    if let Some(minor) = held.get_mut(start + end - 1)
        && *minor != b'0'
    {
        *minor = b'1';
    }
    match rewritten {
        None => length,
        Some(target) => {
            let grown = length + target.len() - (to - from);
            held.splice(from..to, target);
            grown
        }
    }
}

/// Percent-encodes the bytes that hyper refuses. Browsers, mail and chat programs send them in queries; both spellings
/// mean the same.
pub(super) fn encoded_target(target: &[u8]) -> Cow<'_, [u8]> {
    let query = target.iter().position(|&byte| byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at_checked(query).unwrap_or((target, b""));
    let is_utf8 = |part: &[u8]| std::str::from_utf8(part).is_ok();
    let (path_is_utf8, query_is_utf8) = (is_utf8(path), is_utf8(query));
    let is_refused_in_path = |byte: u8| matches!(byte, b'<' | b'>' | b'`') || byte >= 0x80 && !path_is_utf8;
    let is_refused_in_query = |byte: u8| matches!(byte, b'"' | b'<' | b'>') || byte >= 0x80 && !query_is_utf8;
    if !path.iter().copied().any(is_refused_in_path) && !query.iter().copied().any(is_refused_in_query) {
        return Cow::Borrowed(target);
    }
    let mut encoded = Vec::with_capacity(target.len());
    for (part, is_refused) in [
        (path, &is_refused_in_path as &dyn Fn(u8) -> bool),
        (query, &is_refused_in_query),
    ] {
        for &byte in part {
            if is_refused(byte) {
                encoded.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes());
            } else {
                encoded.push(byte);
            }
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(head: &[u8]) -> String {
        let mut held = [head, b"next"].concat();
        let length = rewrite_request_line(&mut held, head.len());
        assert_eq!(held.split_off(length), b"next");
        String::from_utf8(held).unwrap()
    }

    #[test]
    fn a_plain_request_line_stays_as_it_is() {
        for head in [
            "GET /tiny/abcd?a=b&c=%22{|}^`\\ HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /?\u{fc} HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nX: ?\"\r\n\r\n",
        ] {
            assert_eq!(rewritten(head.as_bytes()), head);
        }
    }

    #[test]
    fn bytes_that_hyper_refuses_are_encoded() {
        let head = b"\r\nGET /x?q=\"<\xfc>\" HTTP/1.2\r\nX: \"\r\n\r\n";
        let expected = "\r\nGET /x?q=%22%3C%FC%3E%22 HTTP/1.1\r\nX: \"\r\n\r\n";
        assert_eq!(rewritten(head), expected);
        let head = b"GET /tiny/abcd<>`\xbb HTTP/1.1\r\nHost: a\r\n\r\n";
        let expected = "GET /tiny/abcd%3C%3E%60%BB HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(rewritten(head), expected);
    }
}
