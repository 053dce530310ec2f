//! One request per connection, and checks for every response.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A complete response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends a request and reads the response. `base` is `http://HOST:PORT`.
pub fn request(base: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let host = base.strip_prefix("http://").unwrap();
    request_over(connect(host), host, method, target, headers, body)
}

/// The same on a connection, which may be secured.
pub fn request_over(
    stream: impl Read + Write,
    host: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty()
        && !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"))
    {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let answer = exchange_over(stream, &[head.as_bytes(), body].concat());
    assert_what_is_true_of_every_answer(method, &answer);
    answer
}

/// Sends raw bytes and reads until the server closes.
pub fn exchange(host: &str, bytes: &[u8]) -> Answer {
    exchange_over(connect(host), bytes)
}

pub fn connect(host: &str) -> TcpStream {
    let stream = TcpStream::connect(host).unwrap();
    // Long enough for a busy machine.
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    stream
}

/// The same on a connection, which may be secured.
pub fn exchange_over(mut stream: impl Read + Write, bytes: &[u8]) -> Answer {
    // A server that rejects a request may close before everything is sent.
    let _ = stream.write_all(bytes);
    let mut received = Vec::new();
    if let Err(error) = stream.read_to_end(&mut received) {
        assert!(!received.is_empty(), "no answer: {error}");
    }
    let end = received
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    let head = std::str::from_utf8(&received[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .unwrap()
        .get(..3)
        .unwrap()
        .parse()
        .unwrap();
    let mut headers = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let name = name.to_ascii_lowercase();
        if let Some(cookies) = headers.get_mut("set-cookie").filter(|_| name == "set-cookie") {
            // The only one that may come twice.
            *cookies = format!("{cookies}\n{value}");
            continue;
        }
        let before = headers.insert(name.clone(), value.to_owned());
        assert_eq!(before, None, "{name} came twice");
    }
    let body = &received[end + 4..];
    let is_chunked = headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding == "chunked");
    Answer {
        status,
        headers,
        body: if is_chunked { unchunked(body) } else { body.to_vec() },
    }
}

/// Decodes a chunked body, which must be complete.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .expect("a chunk's length");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let chunk = end + 2..end + 2 + length;
        body.extend_from_slice(&rest[chunk.clone()]);
        rest = &rest[chunk.end + 2..];
        if length == 0 {
            return body;
        }
    }
}

fn assert_what_is_true_of_every_answer(method: &str, answer: &Answer) {
    assert!(answer.headers.contains_key("date"), "{answer:?}");
    assert!(!answer.headers.contains_key("server"), "{answer:?}");
    if answer.headers.contains_key("transfer-encoding") {
        assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
    } else if method == "HEAD" || answer.status == 204 {
        assert!(answer.body.is_empty(), "{answer:?}");
    } else {
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string(),
            "{answer:?}"
        );
    }
    if !answer.body.is_empty() {
        assert!(!answer.header("content-type").is_empty(), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
    }
    if let Some(error) = answer.header("x-kaltura").strip_prefix("error-") {
        let app = answer.header("x-kaltura-app");
        assert!(app.starts_with(&format!("exiting on error {error} - ")), "{answer:?}");
    }
}

pub fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
