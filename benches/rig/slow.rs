//! Clients that send heads byte by byte, and clients that ask for much and read next to nothing, each a thousand times.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use crate::rig::http::GOTO;
use crate::rig::links;
use crate::rig::machine::Place;

/// How often a client sends or reads a byte is ten times that.
const STEP: Duration = Duration::from_millis(100);
const STEPS: usize = 10;
/// Requests of one that reads nothing: their answers are more than the kernel holds on both sides.
const REQUESTS: usize = 1000;

/// Slow clients at work. Whoever is closed comes again at once.
#[derive(Debug)]
pub(crate) struct SlowClients {
    is_over: Arc<AtomicBool>,
    closed: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Manner {
    Heads,
    Reads,
}

impl SlowClients {
    /// So many that send heads byte by byte, and so many that read byte by byte. Returns when all are connected.
    pub(crate) fn start(server: SocketAddr, heads: usize, reads: usize, place: Place) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let closed = Arc::new(AtomicU64::new(0));
        let manners = std::iter::repeat_n(Manner::Heads, heads).chain(std::iter::repeat_n(Manner::Reads, reads));
        let clients: Result<Vec<_>> = manners.map(|manner| Ok((manner, connect(server, manner)?))).collect();
        let (mut clients, over, count) = (clients?, Arc::clone(&is_over), Arc::clone(&closed));
        let thread = thread::spawn(move || {
            // Where it runs is a matter of comparing, not of working.
            let _ = place.take_this_thread();
            let mut step = 0;
            while !over.load(Ordering::Relaxed) {
                for (manner, stream) in clients.iter_mut().skip(step % STEPS).step_by(STEPS) {
                    if !goes_on(*manner, stream)
                        && let Ok(renewed) = connect(server, *manner)
                    {
                        count.fetch_add(1, Ordering::Relaxed);
                        *stream = renewed;
                    }
                }
                step += 1;
                thread::sleep(STEP);
            }
        });
        Ok(Self {
            is_over,
            closed,
            thread: Some(thread),
        })
    }

    /// How many connections the server has closed.
    pub(crate) fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }
}

impl Drop for SlowClients {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it has been shown.
            let _ = thread.join();
        }
    }
}

fn connect(server: SocketAddr, manner: Manner) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&server.into()).context("connecting")?;
    socket.set_nonblocking(true)?;
    let mut stream = TcpStream::from(socket);
    let request = format!("GET {GOTO}{} HTTP/1.1\r\nHost: localhost\r\n", links::id(1));
    let sent = match manner {
        Manner::Heads => stream.write(format!("{request}X: ").as_bytes()),
        // What does not fit into the buffer is not sent.
        Manner::Reads => stream.write(format!("{request}\r\n").repeat(REQUESTS).as_bytes()),
    };
    // If it was turned away, that is seen at the next step.
    let _ = sent;
    Ok(stream)
}

/// Sends or reads a byte; whether the connection is still there.
fn goes_on(manner: Manner, stream: &mut TcpStream) -> bool {
    let done = match manner {
        Manner::Heads => {
            let mut nothing = [0; 512];
            match stream.read(&mut nothing) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => stream.write(b"x"),
                // Turned away, or at its end.
                _ => Ok(0),
            }
        }
        Manner::Reads => stream.read(&mut [0]),
    };
    match done {
        Ok(count) => count > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
