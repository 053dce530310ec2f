//! Many connections at once, well-behaved clients beside them, and the server's counts of both.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::fixture::{Appliance, poll};
use super::scrape::Scrape;

pub const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
pub const DESTINATION: &str = "https://example.com/video";

/// The address of a listener. `base` is `http://HOST:PORT`.
pub fn address(base: &str) -> SocketAddr {
    base.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A connection with a small receive buffer, which unread responses fill soon.
pub fn connect_with_little_room(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

pub fn goto(id: &str) -> String {
    format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Reads one response without a body, or the bytes until the end of the connection.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while !received.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => received.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8(received).unwrap()
}

pub fn is_redirect(head: &str) -> bool {
    head.starts_with("HTTP/1.1 302 ") && head.contains(&format!("\r\nlocation: {DESTINATION}\r\n"))
}

/// The number of open descriptors of the appliance, without those of its store, which opens files when it has time.
pub fn open_files(appliance: &Appliance) -> usize {
    let store = appliance.store();
    let folder = store.parent().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", appliance.process_id())).unwrap();
    // One that is closed meanwhile leads nowhere.
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| !target.starts_with(folder)).count()
}

pub fn open_connections(appliance: &Appliance) -> f64 {
    Scrape::of(appliance).get("tinyd_connections_open{listener=\"public\"}")
}

pub fn refused(scrape: &Scrape, listener: &str, reason: &str) -> f64 {
    scrape.get(&format!(
        "tinyd_refusals_total{{listener=\"{listener}\",reason=\"{reason}\"}}"
    ))
}

/// How long a well-behaved client pauses between two requests. Without, redirects take all cores, and the API, which
/// gives way to them, starves.
pub const PACE: Duration = Duration::from_millis(1);

/// Waits until the appliance has no public connection and no more descriptors than before.
pub fn wait_until_all_is_as_before(appliance: &Appliance, open_files_before: usize) {
    poll("no connection is left", || open_connections(appliance) == 0.0);
    poll("no descriptor is left", || open_files(appliance) <= open_files_before);
}

/// Well-behaved clients: half keep their connection, half open one per request. Each response must be correct.
pub struct Redirecting {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Redirecting {
    pub fn start(appliance: &Appliance, id: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let threads = (0..4).map(|number| {
            let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
            let (address, request) = (address(&appliance.public), goto(id));
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        stream = TcpStream::connect(address).unwrap();
                    }
                    stream.write_all(request.as_bytes()).unwrap();
                    let head = read_head(&mut stream);
                    assert!(is_redirect(&head), "{number}: {head:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PACE);
                }
            })
        });
        Self {
            threads: threads.collect(),
            is_over,
            answered,
        }
    }

    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for further responses.
    pub fn wait_for_more(&self) {
        let before = self.answered();
        poll("redirects go on", || {
            self.answered() > before + 100 || self.has_failed()
        });
    }

    fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops them; fails if any response was wrong.
    pub fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every answer is right");
        }
    }
}
