//! Clients of a soak that follow links in every way that the public listener has, and check each answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::rig::bursts::Burst;
use crate::rig::http::{Answer, Connection, GOTO, TINY};
use crate::rig::links;
use crate::rig::tls::client::{self, Client};

/// Between two requests of a client, so that the machine has room for all.
const PAUSE: Duration = Duration::from_millis(1);
const PIPELINED: usize = 16;
/// The server keeps a connection that its client has used within this time, which it counts in whole seconds, and
/// refuses a newcomer.
const IN_USE: Duration = Duration::from_secs(1);
/// Requests on a connection over TLS before the next handshake.
const SECURE_REQUESTS: u64 = 50;
const SECURE_PAUSE: Duration = Duration::from_millis(10);
/// Where the link leads that is followed over TLS.
pub(crate) const CLICKED_URL: &str = "https://example.com/clicked";
/// Links at the start, all of which work.
pub(crate) const LINKS: u64 = links::WORKING;

/// What all clients count together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) redirects: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) added: AtomicU64,
    pub(crate) reloads: AtomicU64,
    pub(crate) scrapes: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) gave_way: AtomicU64,
    pub(crate) wrong: AtomicU64,
    /// Redirects over TLS, and connections of theirs.
    pub(crate) secure: AtomicU64,
    pub(crate) handshakes: AtomicU64,
    /// Bursts of each of `Burst::ALL`.
    pub(crate) bursts: [AtomicU64; Burst::ALL.len()],
    /// Whether a flood may have a connection refused.
    pub(crate) is_flooded: AtomicBool,
    /// The first answers that were wrong.
    pub(crate) examples: Mutex<Vec<String>>,
    pub(crate) is_over: AtomicBool,
}

impl Counts {
    pub(crate) fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn wrong(&self, what: String) {
        Self::one(&self.wrong);
        let mut examples = self.examples.lock();
        if examples.len() < 10 {
            examples.push(what);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// A client that makes redirects. `used` is when it last asked on its connection, or made it.
struct Visitor<'c> {
    server: SocketAddr,
    counts: &'c Counts,
    connection: Option<Connection>,
    used: Instant,
    /// Whether the connection has been answered on, so that it is not new.
    is_known: bool,
}

impl Visitor<'_> {
    /// Sends requests and checks the answers. A flood may refuse a new connection, and evict an idle one.
    fn ask(&mut self, requests: &[u8], answers: usize, what: &str, is_right: impl Fn(&Answer) -> bool) {
        let asks = Instant::now();
        if self.connection.is_none() {
            self.used = asks;
            self.is_known = false;
            self.connection = Connection::open(self.server).ok();
        }
        let Some(connection) = &mut self.connection else {
            self.counts.wrong(format!("{what}: no connection"));
            return;
        };
        // If it is closed, reading says so.
        let _ = connection.send(requests);
        for _ in 0..answers {
            match connection.answer() {
                Ok(answer) if is_right(&answer) => {
                    self.is_known = true;
                    Counts::one(if answer.status < 400 {
                        &self.counts.redirects
                    } else {
                        &self.counts.refusals
                    });
                }
                Ok(answer) if answer.status == 503 && !self.is_known => {
                    Counts::one(&self.counts.turned_away);
                    self.connection = None;
                    return;
                }
                Ok(answer) => return self.fail(format!("{what}: {} {:?}", answer.status, answer.location)),
                Err(_) if self.used.elapsed() >= IN_USE => {
                    Counts::one(&self.counts.gave_way);
                    self.connection = None;
                    return;
                }
                Err(error) => return self.fail(format!("{what}: {error:#}")),
            }
        }
        self.used = asks;
    }

    fn fail(&mut self, what: String) {
        self.counts.wrong(what);
        self.connection = None;
    }
}

/// Asks for everything that the public listener has, in turns.
pub(crate) fn visit(server: SocketAddr, counts: &Counts, first: u64) {
    let mut visitor = Visitor {
        server,
        counts,
        connection: None,
        used: Instant::now(),
        is_known: false,
    };
    let request =
        |method: &str, path: &str, id: &str| format!("{method} {path}{id} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut number = first;
    while !counts.is_over() {
        number += 1;
        let link = links::mixed(number) % LINKS;
        let (id, destination) = (links::id(link), links::named_destination(link));
        let leads = |answer: &Answer| answer.status == 302 && answer.location.as_deref() == Some(&destination);
        let goto = request("GET", GOTO, &id);
        match number % 8 {
            0 => {
                // A connection for one request.
                visitor.connection = None;
                visitor.ask(goto.as_bytes(), 1, "new connection", leads);
            }
            1 => visitor.ask(goto.repeat(PIPELINED).as_bytes(), PIPELINED, "pipelined", leads),
            2 => visitor.ask(request("HEAD", GOTO, &id).as_bytes(), 1, "HEAD", leads),
            3 => {
                let hops = format!("{GOTO}{id}");
                let is_hop = |answer: &Answer| answer.status == 301 && answer.location.as_deref() == Some(&hops);
                visitor.ask(request("GET", TINY, &id).as_bytes(), 1, "hop", is_hop);
            }
            4 => {
                let unknown = request("GET", GOTO, &links::unknown_id(number));
                visitor.ask(unknown.as_bytes(), 1, "unknown", |answer| answer.status == 404);
            }
            5 => {
                let malformed = format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
                visitor.ask(malformed.as_bytes(), 1, "malformed", |answer| answer.status == 400);
                // It ends the connection.
                visitor.connection = None;
            }
            _ => visitor.ask(goto.as_bytes(), 1, "keep-alive", leads),
        }
        thread::sleep(PAUSE);
    }
}

/// Follows one link over TLS, on connections that last for some requests and are made anew by a ticket.
pub(crate) fn visit_secure(server: SocketAddr, client: &Client, id: &str, counts: &Counts) {
    let (target, destination) = (format!("{GOTO}{id}"), CLICKED_URL);
    let mut kept: Option<client::Connection> = None;
    let (mut used, mut is_known) = (Instant::now(), false);
    for number in 0_u64.. {
        if counts.is_over() {
            return;
        }
        thread::sleep(SECURE_PAUSE);
        if number.is_multiple_of(SECURE_REQUESTS) {
            kept = None;
        }
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match client.connect(server) {
                Ok(connection) => {
                    Counts::one(&counts.handshakes);
                    (used, is_known) = (Instant::now(), false);
                    connection
                }
                Err(_) if counts.is_flooded.load(Ordering::Relaxed) => {
                    Counts::one(&counts.turned_away);
                    continue;
                }
                Err(error) => {
                    counts.wrong(format!("TLS: {error:#}"));
                    continue;
                }
            },
        };
        let asks = Instant::now();
        match connection.get(&target) {
            Ok(answer) if answer.status == 302 && answer.location.as_deref() == Some(destination) => {
                Counts::one(&counts.secure);
                (kept, is_known) = (Some(connection), true);
            }
            Ok(answer) => counts.wrong(format!("TLS: {} {:?}", answer.status, answer.location)),
            Err(_) if !is_known && counts.is_flooded.load(Ordering::Relaxed) => Counts::one(&counts.turned_away),
            Err(_) if used.elapsed() >= IN_USE => Counts::one(&counts.gave_way),
            Err(error) => counts.wrong(format!("TLS: {error:#}")),
        }
        used = asks;
    }
}
