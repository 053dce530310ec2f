//! Followers of a cluster's log that are connections and nothing more: as many as no machine could run edges.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use parking_lot::Mutex;

/// How often each says where it is, as an edge does.
const SAYS_EVERY: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_millis(20);
const READ_BYTES: usize = 64 * 1024;
const SUBJECT: &str = "tinyd.main.live";

/// What has come.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// When the last follower had each entry, in the order of the log, from the first that came.
    pub(crate) everywhere: Vec<Instant>,
    pub(crate) bytes: u64,
}

/// The followers, which are gone when this is.
#[derive(Debug)]
pub(crate) struct Followers {
    arrived: Arc<Mutex<Arrived>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// One follower's connection.
struct Follower {
    stream: TcpStream,
    received: Vec<u8>,
    entries: usize,
}

impl Follower {
    fn connect(server: SocketAddr) -> Result<Self> {
        let mut stream = BlockingStream::connect(server)?;
        stream.write_all(
            format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {SUBJECT} 1\r\nPING\r\n").as_bytes(),
        )?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            received: Vec::new(),
            entries: 0,
        })
    }

    /// Reads what has come, and returns how many bytes it was.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut total = 0;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("a NATS server has closed a connection"),
                Ok(read) => {
                    total += read;
                    self.received.extend(buffer.iter().take(read));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.parse()?;
        Ok(total)
    }

    /// Counts the messages that are whole.
    fn parse(&mut self) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = self.received.get(done..)
            && let Some(end) = rest.windows(2).position(|two| two == b"\r\n")
        {
            let line = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
            let mut whole = end + 2;
            if line.starts_with("HMSG ") || line.starts_with("MSG ") {
                let length = line.rsplit(' ').next().and_then(|length| length.parse::<usize>().ok());
                whole += length.context("a message without a length")? + 2;
                if rest.len() < whole {
                    break;
                }
                self.entries += 1;
            } else if line == "PING" {
                self.stream.write_all(b"PONG\r\n")?;
            }
            done += whole;
        }
        self.received.drain(..done);
        Ok(())
    }

    fn say(&mut self, node: usize, position: &str) -> Result<()> {
        let length = position.len();
        let message = format!("PUB tinyd.main.pos.edge.follower{node} {length}\r\n{position}\r\n");
        Ok(self.stream.write_all(message.as_bytes())?)
    }
}

impl Followers {
    /// Connects so many to the servers in turn. Each says where it is with the statement for its number.
    pub(crate) fn start(number: usize, urls: &[String], statement: impl Fn(usize) -> String) -> Result<Self> {
        let addresses = urls.iter().map(|url| url.trim_start_matches("nats://").parse());
        let addresses = addresses.collect::<Result<Vec<SocketAddr>, _>>()?;
        let followers = (0..number).zip(addresses.iter().cycle());
        let followers = followers.map(|(_, address)| Follower::connect(*address));
        let followers = followers.collect::<Result<Vec<_>>>()?;
        let statements = (0..number).map(statement).collect();
        let (arrived, stop) = (Arc::<Mutex<Arrived>>::default(), Arc::<AtomicBool>::default());
        let (sender, stopped) = (Arc::clone(&arrived), Arc::clone(&stop));
        let thread = thread::spawn(move || follow(followers, statements, &sender, &stopped));
        Ok(Self {
            arrived,
            stop,
            thread: Some(thread),
        })
    }

    /// How many entries every follower has had.
    pub(crate) fn entries(&self) -> usize {
        self.arrived.lock().everywhere.len()
    }

    /// Ends them.
    pub(crate) fn finish(mut self) -> Result<Arrived> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the followers panicked"))??;
        }
        Ok(std::mem::take(&mut self.arrived.lock()))
    }
}

fn follow(
    mut followers: Vec<Follower>,
    statements: Vec<String>,
    arrived: &Mutex<Arrived>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut poll = Poll::new()?;
    for (number, follower) in followers.iter_mut().enumerate() {
        poll.registry()
            .register(&mut follower.stream, Token(number), Interest::READABLE)?;
    }
    let (mut events, mut buffer) = (Events::with_capacity(1_024), vec![0; READ_BYTES]);
    // How many have had each entry.
    let mut had = Vec::<usize>::new();
    let (started, mut said) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(WAIT))?;
        for event in &events {
            let Some(follower) = followers.get_mut(event.token().0) else {
                continue;
            };
            let before = follower.entries;
            let bytes = follower.read(&mut buffer)?;
            let after = follower.entries;
            had.resize(had.len().max(after), 0);
            let mut arrived = arrived.lock();
            arrived.bytes += bytes as u64;
            for count in had.iter_mut().take(after).skip(before) {
                *count += 1;
                // Each follower has them in order, so that the last one to have an entry has had those before.
                if *count == statements.len() {
                    arrived.everywhere.push(Instant::now());
                }
            }
        }
        // Spread over the interval.
        let share = started.elapsed().as_secs_f64() / SAYS_EVERY.as_secs_f64();
        let due = (share * statements.len() as f64) as usize;
        for number in said..due {
            let number = number % statements.len();
            if let (Some(follower), Some(statement)) = (followers.get_mut(number), statements.get(number)) {
                follower.say(number, statement)?;
            }
        }
        said = due;
    }
    Ok(())
}
