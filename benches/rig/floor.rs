//! The floor: the least that a redirect can cost with epoll in safe Rust. One thread, one read and one write a batch of
//! requests, a hash map, nothing else that a server needs (no timeouts, no limits, no API). Its time slice is that of a
//! thread of tinyd that redirects.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use foldhash::fast::RandomState;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const EVENTS: usize = 256;
const READ_BYTES: usize = 64 * 1024;
const HEADERS_MAX: usize = 32;
/// How long a date is good for.
const DATE_AGE: Duration = Duration::from_secs(1);

type Map = HashMap<Box<[u8]>, Box<[u8]>, RandomState>;

/// A client.
struct Connection {
    stream: TcpStream,
    /// The beginning of a request whose end has not come.
    request: Vec<u8>,
    /// The end of answers that the socket did not take yet.
    answers: Vec<u8>,
    closing: bool,
}

struct Floor {
    map: Map,
    date: Vec<u8>,
    dated: Instant,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

/// What a benchmark does instead when it starts itself.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Role {
    /// Be the floor
    #[command(hide = true)]
    Floor {
        /// Ids and destinations
        links: PathBuf,
    },
}

impl Role {
    pub(crate) fn play(&self) -> Result<()> {
        let Self::Floor { links } = self;
        serve(links)
    }
}

/// Serves the links of a file until it is killed, and prints where.
fn serve(links: &Path) -> Result<()> {
    tinyd::internals::shorten_slice();
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor {
        map: read(links)?,
        date: date(),
        dated: Instant::now(),
        buffer: vec![0; READ_BYTES],
        out: Vec::with_capacity(READ_BYTES),
    };
    crate::rig::report::say(&listener.local_addr()?.to_string());
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut events = Events::with_capacity(EVENTS);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        floor.refresh_date();
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections, &mut free)?;
                continue;
            }
            let Token(position) = event.token();
            let Some(slot) = connections.get_mut(position) else {
                continue;
            };
            let Some(connection) = slot else { continue };
            if !floor.turn(connection, event, &poll).unwrap_or(false) {
                *slot = None;
                free.push(position);
            }
        }
    }
}

fn read(links: &Path) -> Result<Map> {
    let file = std::fs::File::open(links).with_context(|| format!("reading {}", links.display()))?;
    let mut map = Map::default();
    for line in BufReader::new(file).lines() {
        let line = line?;
        let (id, destination) = line.split_once(' ').context("a line without destination")?;
        map.insert(id.as_bytes().into(), destination.as_bytes().into());
    }
    Ok(map)
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("accepting"),
        };
        // As in every other server of the comparison.
        let _ = stream.set_nodelay(true);
        let position = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        poll.registry()
            .register(&mut stream, Token(position), Interest::READABLE)?;
        if let Some(slot) = connections.get_mut(position) {
            *slot = Some(Connection {
                stream,
                request: Vec::new(),
                answers: Vec::new(),
                closing: false,
            });
        }
    }
}

impl Floor {
    fn refresh_date(&mut self) {
        if self.dated.elapsed() >= DATE_AGE {
            self.date = date();
            self.dated = Instant::now();
        }
    }

    /// Does what can be done for a connection now; false when it is over.
    fn turn(&mut self, connection: &mut Connection, event: &mio::event::Event, poll: &Poll) -> Result<bool> {
        if event.is_writable() && !connection.answers.is_empty() {
            let waiting = std::mem::take(&mut connection.answers);
            self.out.clear();
            self.out.extend_from_slice(&waiting);
            if !self.send(connection, event.token(), poll)? {
                return Ok(false);
            }
        }
        // While a client does not take its answers, it is asked for no more.
        while connection.answers.is_empty() {
            let count = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            self.out.clear();
            self.answer(connection, count)?;
            if !self.send(connection, event.token(), poll)? {
                return Ok(false);
            }
            // The socket is empty then, and what comes later is announced.
            if count < self.buffer.len() {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Answers all requests that are whole in the first bytes of the buffer.
    fn answer(&mut self, connection: &mut Connection, count: usize) -> Result<()> {
        let received = self.buffer.get(..count).unwrap_or_default();
        let joined;
        let mut rest = if connection.request.is_empty() {
            received
        } else {
            connection.request.extend_from_slice(received);
            joined = std::mem::take(&mut connection.request);
            joined.as_slice()
        };
        while !rest.is_empty() && !connection.closing {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut request = httparse::Request::new(&mut headers);
            let httparse::Status::Complete(length) = request.parse(rest)? else {
                connection.request.extend_from_slice(rest);
                return Ok(());
            };
            let path = request.path.unwrap_or_default();
            let id = path.rsplit('/').next().unwrap_or_default();
            connection.closing = request.headers.iter().any(|header| {
                header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close")
            });
            match self.map.get(id.as_bytes()) {
                Some(destination) => {
                    self.out.extend_from_slice(b"HTTP/1.1 302 Found\r\nlocation: ");
                    self.out.extend_from_slice(destination);
                    self.out.extend_from_slice(b"\r\n");
                }
                None => self.out.extend_from_slice(b"HTTP/1.1 404 Not Found\r\n"),
            }
            self.out
                .extend_from_slice(b"cache-control: no-store\r\nx-robots-tag: noindex\r\n");
            if connection.closing {
                self.out.extend_from_slice(b"connection: close\r\n");
            }
            self.out.extend_from_slice(b"content-length: 0\r\ndate: ");
            self.out.extend_from_slice(&self.date);
            self.out.extend_from_slice(b"\r\n\r\n");
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends what is to be sent and keeps what the socket does not take; false when the connection is over by that.
    fn send(&self, connection: &mut Connection, token: Token, poll: &Poll) -> Result<bool> {
        let mut rest = self.out.as_slice();
        while !rest.is_empty() {
            match connection.stream.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.answers = rest.to_vec();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().reregister(&mut connection.stream, token, interest)?;
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(!connection.closing)
    }
}

fn date() -> Vec<u8> {
    let now = jiff::Timestamp::now();
    let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    text.unwrap_or_default().into_bytes()
}
