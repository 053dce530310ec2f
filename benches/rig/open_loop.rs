//! An open-loop load generator: requests are due at times that are fixed beforehand, whether or not earlier ones have
//! been answered, and each latency is counted from the time the request was due. A server that stalls is so charged
//! for every request that would have come meanwhile (no coordinated omission).

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Once;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde_json::{Value, json};

use crate::rig::http::{GOTO, Head};
use crate::rig::links;
use crate::rig::machine::{self, Place};
use crate::rig::report::say;

/// Said once.
static UNPRIVILEGED: Once = Once::new();
const TIMER: Token = Token(usize::MAX);
const EVENTS: usize = 256;
const READ_BYTES: usize = 16 * 1024;
const SECOND_NS: u64 = 1_000_000_000;
/// Latencies beyond count as this much.
const LATENCY_MAX_NS: u64 = 60 * SECOND_NS;
const SIGNIFICANT_DIGITS: u8 = 3;
/// How long to wait for the last answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked, how often, for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) server: SocketAddr,
    /// Of how many links one is drawn for each request.
    pub(crate) links: u64,
    pub(crate) requests_a_second: u64,
    pub(crate) seconds: u64,
    pub(crate) connections: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
    /// How late the generator itself sent a request for which a connection was free. Each latency has it in it.
    own: Histogram<u64>,
    pub(crate) failed: u64,
}

/// The percentiles that are shown, with their names.
pub(crate) const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("max", 100.0),
];

impl Latencies {
    pub(crate) fn microseconds(&self, percentile: f64) -> f64 {
        self.histogram.value_at_percentile(percentile) as f64 / 1e3
    }

    /// The same of the generator itself.
    pub(crate) fn own_microseconds(&self, percentile: f64) -> f64 {
        self.own.value_at_percentile(percentile) as f64 / 1e3
    }

    pub(crate) fn json(&self) -> Value {
        let own = self.own_microseconds(99.0);
        let mut object = json!({ "answered": self.histogram.len(), "failed": self.failed, "ownP99Microseconds": own });
        for (name, percentile) in PERCENTILES {
            if let Some(object) = object.as_object_mut() {
                object.insert(format!("{name}Microseconds"), self.microseconds(percentile).into());
            }
        }
        object
    }
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// When the request that it carries was due.
    due: Option<Instant>,
}

struct Generator {
    plan: Plan,
    poll: Poll,
    connections: Vec<Connection>,
    /// Those that carry no request, longest idle first, so that all are in use.
    free: VecDeque<usize>,
    /// Requests that are due and wait for a connection.
    waiting: VecDeque<Instant>,
    drawn: u64,
    latencies: Latencies,
}

/// Runs the plan on the load generator's core, before whatever else that has to do.
pub(crate) fn run(plan: Plan) -> Result<Latencies> {
    // In a thread of its own, so that this one stays where it was.
    let thread = std::thread::spawn(move || {
        Place::Load.take_this_thread()?;
        if let Err(error) = machine::come_first() {
            UNPRIVILEGED.call_once(|| say(&format!("latencies have the load generator's own in them: {error:#}")));
        }
        Generator::new(plan)?.run()
    });
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow::anyhow!("the load generator panicked")))
}

impl Generator {
    fn new(plan: Plan) -> Result<Self> {
        let poll = Poll::new()?;
        let mut generator = Self {
            plan,
            poll,
            connections: Vec::new(),
            free: (0..plan.connections).collect(),
            waiting: VecDeque::new(),
            drawn: 0,
            latencies: Latencies {
                histogram: Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, SIGNIFICANT_DIGITS)?,
                own: Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, SIGNIFICANT_DIGITS)?,
                failed: 0,
            },
        };
        for position in 0..plan.connections {
            let connection = generator.connect(position)?;
            generator.connections.push(connection);
        }
        Ok(generator)
    }

    fn connect(&self, position: usize) -> Result<Connection> {
        let stream = std::net::TcpStream::connect(self.plan.server).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll
            .registry()
            .register(&mut stream, Token(position), Interest::READABLE)?;
        Ok(Connection {
            stream,
            received: Vec::new(),
            due: None,
        })
    }

    fn run(mut self) -> Result<Latencies> {
        let total = self.plan.requests_a_second * self.plan.seconds;
        let interval_ns = SECOND_NS / self.plan.requests_a_second.max(1);
        let timer = ticking(interval_ns)?;
        let fd = timer.as_fd().as_raw_fd();
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), TIMER, Interest::READABLE)?;
        let started = Instant::now();
        let end = started + Duration::from_secs(self.plan.seconds) + PATIENCE;
        let mut next = 0;
        let mut events = Events::with_capacity(EVENTS);
        while next < total || !self.waiting.is_empty() || self.free.len() < self.connections.len() {
            match self.poll.poll(&mut events, Some(PATIENCE)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                let Token(position) = event.token();
                if event.token() == TIMER {
                    // How often it has ticked says the clock as well; reading re-arms it.
                    let _ = rustix::io::read(&timer, &mut [0; 8]);
                } else {
                    self.receive(position)?;
                }
            }
            let now = Instant::now();
            while next < total && started + Duration::from_nanos(next * interval_ns) <= now {
                let due = started + Duration::from_nanos(next * interval_ns);
                self.waiting.push_back(due);
                if self.waiting.len() <= self.free.len() {
                    self.latencies.own.saturating_record(nanoseconds(now - due));
                }
                next += 1;
            }
            self.send_what_is_due();
            if now > end {
                let unanswered = self.waiting.len() + self.connections.len() - self.free.len();
                self.latencies.failed += unanswered as u64;
                break;
            }
        }
        Ok(self.latencies)
    }

    fn send_what_is_due(&mut self) {
        while let (Some(&due), Some(&position)) = (self.waiting.front(), self.free.front()) {
            let Some(connection) = self.connections.get_mut(position) else {
                return;
            };
            self.waiting.pop_front();
            self.free.pop_front();
            self.drawn += 1;
            let id = links::id(links::mixed(self.drawn) % self.plan.links.max(1));
            let request = format!("GET {GOTO}{id} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            connection.due = Some(due);
            // A request fits into the buffer of an idle socket. If the connection is gone, reading says so.
            let _ = connection.stream.write_all(request.as_bytes());
        }
    }

    fn receive(&mut self, position: usize) -> Result<()> {
        let Some(connection) = self.connections.get_mut(position) else {
            return Ok(());
        };
        let mut buffer = [0; READ_BYTES];
        let is_open = loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => connection
                    .received
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(_) => break false,
            }
        };
        if let Some(head) = Head::parse(&connection.received)?
            && connection.received.len() >= head.head_bytes + head.body_bytes
            && let Some(due) = connection.due.take()
        {
            self.latencies.histogram.saturating_record(nanoseconds(due.elapsed()));
            if head.status != 302 {
                self.latencies.failed += 1;
            }
            connection.received.clear();
            self.free.push_back(position);
        }
        if !is_open {
            let was_carrying = connection.due.is_some();
            let renewed = self.connect(position)?;
            if let Some(connection) = self.connections.get_mut(position) {
                *connection = renewed;
            }
            if was_carrying {
                self.latencies.failed += 1;
                self.free.push_back(position);
            }
        }
        Ok(())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(LATENCY_MAX_NS)
}

/// A timer that wakes a poll at every interval, more exactly than the milliseconds of a poll's own timeout.
fn ticking(interval_ns: u64) -> Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).context("making a timer")?;
    let interval = Timespec {
        tv_sec: i64::try_from(interval_ns / SECOND_NS)?,
        tv_nsec: i64::try_from(interval_ns % SECOND_NS)?,
    };
    let spec = Itimerspec {
        it_interval: interval,
        it_value: interval,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec).context("setting a timer")?;
    Ok(timer)
}
