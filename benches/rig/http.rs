//! A plain HTTP/1.1 client: one connection, one request at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);
const HEADERS_MAX: usize = 64;
const READ_BYTES: usize = 64 * 1024;

/// Where a redirect is asked for.
pub(crate) const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
/// The other way to ask for it.
pub(crate) const TINY: &str = "/tiny/";

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    /// The first cookie that it sets: name and value.
    pub(crate) cookie: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Connection<S = TcpStream> {
    stream: S,
    received: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) cookie: Option<String>,
    pub(crate) head_bytes: usize,
    pub(crate) body_bytes: usize,
}

impl Head {
    /// Reads a head; `None` while it is not all there.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_bytes) = response.parse(bytes).context("an answer that is not HTTP")?
        else {
            return Ok(None);
        };
        let find = |name: &str| {
            let header = response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok()
        };
        if find("transfer-encoding").is_some() {
            bail!("an answer in chunks, which none of the measured requests should have");
        }
        Ok(Some(Self {
            status: response.code.unwrap_or(0),
            location: find("location").map(str::to_owned),
            cookie: find("set-cookie").and_then(|cookie| Some(cookie.split(';').next()?.to_owned())),
            head_bytes,
            body_bytes: find("content-length")
                .and_then(|length| length.parse().ok())
                .unwrap_or(0),
        }))
    }
}

/// Connects, without delays when sending and with a timeout when reading.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self::over(connect(address)?))
    }
}

impl<S: Read + Write> Connection<S> {
    /// A connection that uses a stream which is open.
    pub(crate) const fn over(stream: S) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    pub(crate) const fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    pub(crate) fn get(&mut self, target: &str) -> Result<Answer> {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
    }

    /// Posts a form and reads the JSON that is answered; an exception of the API is an error.
    pub(crate) fn call(&mut self, action: &str, params: &[(&str, &str)]) -> Result<Value> {
        self.call_at(&format!("shortlink_shortlink/action/{action}"), params)
    }

    /// The same for what stands after `/api_v3/service/`.
    pub(crate) fn call_at(&mut self, action: &str, params: &[(&str, &str)]) -> Result<Value> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("format", "1").extend_pairs(params);
        let body = form.finish();
        let length = body.len();
        let request = format!(
            "POST /api_v3/service/{action} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let answer = self.exchange(request.as_bytes())?;
        let value: Value = serde_json::from_slice(&answer.body).context("an answer of the API that is not JSON")?;
        if value.get("objectType").and_then(Value::as_str) == Some("KalturaAPIException") {
            bail!("{action} was refused: {value}");
        }
        Ok(value)
    }

    /// Sends what holds one request, and reads the answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        self.send(request)?;
        self.answer()
    }

    /// Sends what holds any number of requests.
    pub(crate) fn send(&mut self, requests: &[u8]) -> Result<()> {
        self.stream.write_all(requests).context("sending a request")
    }

    /// Reads the next answer.
    pub(crate) fn answer(&mut self) -> Result<Answer> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if let Some(head) = Head::parse(&self.received)? {
                let end = head.head_bytes + head.body_bytes;
                if let Some(body) = self.received.get(head.head_bytes..end) {
                    let answer = Answer {
                        status: head.status,
                        location: head.location,
                        cookie: head.cookie,
                        body: body.to_vec(),
                    };
                    self.received.drain(..end);
                    return Ok(answer);
                }
            }
            let count = match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.context("waiting for an answer")?,
            };
            if count == 0 {
                bail!("the server closed the connection without an answer");
            }
            self.received.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str) -> Result<Answer> {
    Connection::open(address)?.get(target)
}
