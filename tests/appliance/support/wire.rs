//! A connection with several requests, observed until its end.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The test fails when the server takes longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One response on a connection.
#[derive(Debug)]
pub struct Received {
    pub status: u16,
    /// The lines, as sent.
    pub head: String,
}

impl Received {
    /// Whether it announces the end of the connection.
    pub fn is_last(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }
}

/// The client's end of a connection, which may be secured.
pub struct Connection<S = TcpStream> {
    pub stream: S,
}

impl Connection {
    /// `base` is `http://HOST:PORT`.
    pub fn open(base: &str) -> Self {
        let stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }
}

impl<S: Read + Write> Connection<S> {
    /// Sends bytes; the server may have closed before they are all sent.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a GET with these header lines and reads the response.
    pub fn get(&mut self, target: &str, headers: &str) -> Option<Received> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: tinyd\r\n{headers}\r\n");
        self.send(request.as_bytes());
        self.receive(true)
    }

    /// Reads one response; `None` if the connection ended instead. A truncated response fails the test.
    pub fn receive(&mut self, has_body: bool) -> Option<Received> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no answer in time"),
                _ => {
                    assert!(head.is_empty(), "cut off: {}", head.escape_ascii());
                    return None;
                }
            }
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.get(9..12).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.filter(|_| has_body && status != 204);
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.stream.read_exact(&mut body).unwrap();
        Some(Received { status, head })
    }

    /// Waits for the end of the connection; fails if more bytes arrive.
    pub fn assert_closed(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("still open"),
            // The kernel may have reset it.
            _ => assert!(rest.is_empty(), "{}", rest.escape_ascii()),
        }
    }
}
