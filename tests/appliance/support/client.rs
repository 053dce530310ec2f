//! A client that reads a response piece by piece and notices a truncated body.

use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::wire::PATIENCE;

/// The rest of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Length(u64),
    /// Of the current chunk.
    Chunk(u64),
    /// Until the connection ends.
    All,
}

/// The next part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Bytes(usize),
    End,
    /// The connection ended before the body did.
    CutOff,
}

/// A response after its head, on a connection that may be secured.
pub struct Download<S = TcpStream> {
    reader: BufReader<S>,
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    left: Left,
}

/// Connects to a listener. `base` is `http://HOST:PORT`.
pub fn connect(base: &str) -> TcpStream {
    let stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A request without a body; `headers` are lines.
pub fn request(method: &str, target: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: tinyd\r\n{headers}\r\n")
}

impl<S: Read + Write> Download<S> {
    /// Sends a request and reads the head of the response.
    pub fn ask(stream: S, request: &str) -> Self {
        Self::ask_by(BufReader::new(stream), request)
    }

    fn ask_by(reader: BufReader<S>, request: &str) -> Self {
        Self::try_ask_by(reader, request).expect("an answer")
    }

    fn try_ask_by(mut reader: BufReader<S>, request: &str) -> Option<Self> {
        reader.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = || {
            let mut line = Vec::new();
            match reader.read_until(b'\n', &mut line) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no answer in time"),
                _ if !line.ends_with(b"\r\n") => return None,
                _ => line.truncate(line.len() - 2),
            }
            // A header may contain bytes that are not UTF-8.
            Some(line.into_iter().map(char::from).collect::<String>())
        };
        let first = line()?;
        let status = first.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{first}"))[..3]
            .parse()
            .unwrap();
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let value = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        let is_empty = request.starts_with("HEAD ") || matches!(status, 100..200 | 204 | 304);
        let left = match (value("content-length"), value("transfer-encoding")) {
            _ if is_empty => Left::Length(0),
            (Some(length), None) => Left::Length(length.parse().unwrap()),
            (None, Some(coding)) if coding == "chunked" => Left::Chunk(0),
            (None, None) => Left::All,
            both => panic!("{both:?}: {headers:?}"),
        };
        Some(Self {
            reader,
            status,
            headers,
            left,
        })
    }

    /// Reads the next part of the body.
    pub fn read(&mut self, buffer: &mut [u8]) -> Part {
        match self.left {
            Left::Length(0) => Part::End,
            Left::Length(length) => {
                let part = self.read_at_most(length, buffer);
                if let Part::Bytes(read) = part {
                    self.left = Left::Length(length - read as u64);
                }
                part
            }
            Left::Chunk(0) => match self.line().and_then(|line| u64::from_str_radix(&line, 16).ok()) {
                None => Part::CutOff,
                Some(0) if self.line().as_deref() == Some("") => {
                    self.left = Left::Length(0);
                    Part::End
                }
                Some(0) => Part::CutOff,
                Some(length) => {
                    self.left = Left::Chunk(length);
                    self.read(buffer)
                }
            },
            Left::Chunk(length) => {
                let part = self.read_at_most(length, buffer);
                if let Part::Bytes(read) = part {
                    self.left = Left::Chunk(length - read as u64);
                    if self.left == Left::Chunk(0) && self.line().as_deref() != Some("") {
                        return Part::CutOff;
                    }
                }
                part
            }
            Left::All => match self.read_at_most(u64::MAX, buffer) {
                Part::CutOff => Part::End,
                part => part,
            },
        }
    }

    fn read_at_most(&mut self, most: u64, buffer: &mut [u8]) -> Part {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        match self.reader.read(&mut buffer[..most]) {
            Ok(0) => Part::CutOff,
            Ok(read) => Part::Bytes(read),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came in time"),
            Err(_) => Part::CutOff,
        }
    }

    /// A line of the framing, or nothing if it is truncated.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came in time"),
            _ => line.strip_suffix("\r\n").map(str::to_owned),
        }
    }

    /// Reads this many bytes of the body.
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length];
        let mut done = 0;
        while done < length {
            match self.read(&mut body[done..]) {
                Part::Bytes(read) => done += read,
                part => panic!("{part:?} after {done} bytes of {length}"),
            }
        }
        body
    }

    /// Reads the rest of the body.
    pub fn finish(self) -> Fetched {
        self.finish_keeping().0
    }

    /// The same; the connection stays usable.
    pub fn finish_keeping(mut self) -> (Fetched, Kept<S>) {
        let mut body = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        let is_whole = loop {
            match self.read(&mut buffer) {
                Part::Bytes(length) => body.extend_from_slice(&buffer[..length]),
                Part::End => break true,
                Part::CutOff => break false,
            }
        };
        let fetched = Fetched {
            status: self.status,
            headers: self.headers,
            body,
            is_whole,
        };
        (fetched, Kept(self.reader))
    }
}

/// A connection after a response.
pub struct Kept<S = TcpStream>(BufReader<S>);

impl<S: Read + Write> Kept<S> {
    pub fn ask(self, request: &str) -> Download<S> {
        Download::ask_by(self.0, request)
    }

    /// Whether the connection has ended; waits for its end or the next byte.
    pub fn has_ended(mut self) -> bool {
        !matches!(self.0.fill_buf(), Ok(bytes) if !bytes.is_empty())
    }
}

/// A response, complete or truncated.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body is complete.
    pub is_whole: bool,
}

impl Fetched {
    pub fn all(&self, name: &str) -> Vec<&str> {
        let of_name = self.headers.iter().filter(|(other, _)| other == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a header that comes at most once; empty without it.
    pub fn header(&self, name: &str) -> &str {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came twice: {self:?}");
        all.first().copied().unwrap_or_default()
    }

    pub fn text(&self) -> String {
        self.body.iter().copied().map(char::from).collect()
    }

    /// Head and body as one text, to search for forbidden words.
    pub fn everything(&self) -> String {
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        lines.collect::<String>() + &self.text()
    }
}
