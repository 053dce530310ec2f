//! A destination that has as much as anybody takes, and clients that take it: slowly, or as fast as they can. Both
//! give way to the load generator, whose core they share.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use socket2::{Domain, Socket, Type};

use crate::rig::http::Head;
use crate::rig::machine::Place;

/// Bytes of what the origin has. Nobody takes all of it.
pub(crate) const BODY_BYTES: u64 = 1 << 40;
/// Bytes a second of a slow download.
const SLOW_RATE: u64 = 16 * 1024;
/// How often a slow one goes on.
const STEP: Duration = Duration::from_millis(250);
const STEP_BYTES: usize = 4 * 1024;
/// Slow downloads that one step follows the other's in.
const PHASES: usize = 50;
/// What is sent and received at a time otherwise.
const CHUNK_BYTES: usize = 64 * 1024;
/// What a client that reads slowly has room for, so that it soon holds up whoever sends.
const ROOM_BYTES: usize = 64 * 1024;
/// How long the beginning of a download may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a client on whose connection nothing comes sees that it is over.
const PATIENCE: Duration = Duration::from_millis(500);
/// The least that the kernel knows.
const LEAST_PRIORITY: i32 = 19;

/// At these paths.
const TRICKLE: &str = "/trickle";
const FLOOD: &str = "/flood";

/// The destination. It goes on until the program ends.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
}

/// Where a download is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) server: SocketAddr,
    /// The target that comes at the rate of a slow download.
    pub(crate) trickle: String,
    /// The one that comes as fast as it is taken.
    pub(crate) flood: String,
}

impl Origin {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening as an origin")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                // Who leaves ends it.
                thread::spawn(move || send(stream, number));
            }
        });
        Ok(Self { address })
    }

    /// Where it is asked itself.
    pub(crate) fn source(&self) -> Source {
        Source {
            server: self.address,
            trickle: TRICKLE.to_owned(),
            flood: FLOOD.to_owned(),
        }
    }

    /// The URL of a target of its source.
    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }
}

fn send(mut stream: TcpStream, number: usize) -> io::Result<()> {
    step_aside();
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: ";
    stream.write_all(format!("{head}{BODY_BYTES}\r\n\r\n").as_bytes())?;
    let is_slow = request.starts_with(format!("GET {TRICKLE} ").as_bytes());
    let chunk = vec![b'x'; if is_slow { STEP_BYTES } else { CHUNK_BYTES }];
    if is_slow {
        thread::sleep(phase(number));
    }
    for _ in 0..BODY_BYTES / chunk.len() as u64 {
        stream.write_all(&chunk)?;
        if is_slow {
            thread::sleep(STEP);
        }
    }
    Ok(())
}

/// When within a step one of many slow ones goes on, so that they do not all at once.
fn phase(number: usize) -> Duration {
    STEP.mul_f64((number % PHASES) as f64 / PHASES as f64)
}

/// Has the calling thread run beside the load generator, and never instead of it.
fn step_aside() {
    // Without that, figures are worse than they need be, but not better.
    let _ = Place::Load.take_this_thread();
    let _ = setpriority_process(Some(gettid()), LEAST_PRIORITY);
}

/// How fast downloads are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speed {
    /// One half because the origin is, the other because the client is.
    Slow,
    /// As fast as can be.
    Fast,
}

/// Downloads that go on for as long as this lives.
#[derive(Debug)]
pub(crate) struct Downloads {
    is_over: Arc<AtomicBool>,
    received: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<()>>,
}

impl Downloads {
    /// Starts so many, and returns when each has begun.
    pub(crate) fn start(source: &Source, count: usize, speed: Speed) -> Result<Self> {
        let mut downloads = Self {
            is_over: Arc::default(),
            received: Vec::new(),
            threads: Vec::new(),
        };
        for number in 0..count {
            let (target, reads_slowly) = match speed {
                Speed::Slow if number % 2 == 0 => (&source.trickle, false),
                Speed::Slow => (&source.flood, true),
                Speed::Fast => (&source.flood, false),
            };
            let stream = begin(source.server, target, reads_slowly)?;
            let (received, is_over) = (Arc::default(), Arc::clone(&downloads.is_over));
            downloads.received.push(Arc::clone(&received));
            let take = move || {
                step_aside();
                if reads_slowly {
                    thread::sleep(phase(number));
                }
                take(stream, reads_slowly, &received, &is_over);
            };
            downloads.threads.push(thread::spawn(take));
        }
        Ok(downloads)
    }

    /// How many bytes each has received so far.
    pub(crate) fn received(&self) -> Vec<u64> {
        self.received
            .iter()
            .map(|received| received.load(Ordering::Relaxed))
            .collect()
    }

    /// How many bytes a second they have received together since they had received so much; an error if one of them has
    /// received less than half of what a slow one is to, for then something else has been measured.
    pub(crate) fn flowed(&self, before: &[u64], since: Duration) -> Result<f64> {
        let (mut sum, least) = (0, SLOW_RATE as f64 * since.as_secs_f64() / 2.0);
        for (number, (now, before)) in self.received().iter().zip(before).enumerate() {
            if ((now - before) as f64) < least {
                bail!(
                    "download {number} of {} has received {} bytes in {since:?}, {now} in all: it does not flow",
                    self.received.len(),
                    now - before
                );
            }
            sum += now - before;
        }
        Ok(sum as f64 / since.as_secs_f64())
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of it has been shown.
            let _ = thread.join();
        }
    }
}

/// Asks for a download, and reads up to the end of the head.
fn begin(server: SocketAddr, target: &str, reads_slowly: bool) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    if reads_slowly {
        socket.set_recv_buffer_size(ROOM_BYTES)?;
    }
    socket.connect(&server.into()).context("connecting")?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(HEAD_TIMEOUT))?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream
            .read(&mut byte)
            .with_context(|| format!("waiting for {target}"))?;
        if count == 0 {
            bail!("the connection ended before the head of {target}");
        }
        head.extend_from_slice(&byte);
    }
    let status = Head::parse(&head)?.map_or(0, |head| head.status);
    if status != 200 {
        bail!("{target} was answered {status}, which is no download");
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn take(mut stream: TcpStream, slowly: bool, received: &AtomicU64, is_over: &AtomicBool) {
    let mut buffer = vec![0; if slowly { STEP_BYTES } else { CHUNK_BYTES }];
    while !is_over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // That it has ended is seen by what it has received.
            Ok(0) | Err(_) => return,
            Ok(count) => {
                received.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
        if slowly {
            thread::sleep(STEP);
        }
    }
}
