//! Clients of a cluster: they write through admin boxes and know what was acknowledged, and follow links all the time.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use crate::cluster::boxes::{Address, Addresses, Cluster};
use crate::support::http::encode;

pub const ACTION: &str = "/api_v3/service/shortlink_shortlink/action";
/// Longer than a write waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(5);
/// Links that are followed all the time.
const FOLLOWED: usize = 10;

/// A link as far as its writer knows it.
#[derive(Debug, Clone)]
pub struct Link {
    url: String,
    /// Where it may lead: a write of unknown outcome adds a possibility. `None`: it is deleted.
    possible: Vec<Option<String>>,
}

pub fn possible(link: &Link, found: Option<&str>) -> bool {
    link.possible.iter().any(|url| url.as_deref() == found)
}

enum Outcome {
    Done(Value),
    Refused,
    Unknown,
}

pub struct Response {
    pub status: u16,
    head: String,
    body: Vec<u8>,
}

/// One request on a connection of its own; a box may be down, or end meanwhile.
pub fn send(base: &str, method: &str, target: &str, body: &str) -> io::Result<Response> {
    let host = base.strip_prefix("http://").unwrap_or_default();
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let end = received
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or_else(cut)?;
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let body = received[end + 4..].to_vec();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    if length
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| length != body.len())
    {
        return Err(cut());
    }
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    Ok(Response { status, head, body })
}

/// What all clients share.
struct Shared {
    stop: AtomicBool,
    addresses: Addresses,
    followed: Vec<(String, String)>,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    redirects: AtomicUsize,
    /// The last acknowledged write, and the longest pause before one.
    pause: Mutex<(Instant, Duration)>,
    failures: Mutex<Vec<String>>,
}

impl Shared {
    fn address(&self, number: usize) -> Address {
        self.addresses.read()[number].clone()
    }

    fn call(&self, number: usize, ks: &str, action: &str, params: &[(&str, &str)]) -> Outcome {
        let pairs = [&[("format", "1"), ("ks", ks)], params].concat();
        let pairs = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        let form = pairs.collect::<Vec<_>>().join("&");
        let admin = self.address(number).admin;
        match send(&admin, "POST", &format!("{ACTION}/{action}"), &form) {
            Ok(Response { status: 200, body, .. }) => match serde_json::from_slice::<Value>(&body) {
                Ok(result) if result["objectType"] == "KalturaShortLink" => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    let mut pause = self.pause.lock();
                    *pause = (Instant::now(), pause.1.max(pause.0.elapsed()));
                    Outcome::Done(result)
                }
                other => {
                    self.failures
                        .lock()
                        .push(format!("{action} on box {number}: {other:?}"));
                    Outcome::Unknown
                }
            },
            Ok(Response { status: 503, body, .. }) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                match String::from_utf8_lossy(&body).contains("nothing was written") {
                    true => Outcome::Refused,
                    false => Outcome::Unknown,
                }
            }
            Ok(other) => {
                self.failures
                    .lock()
                    .push(format!("{action} on box {number}: {}", other.head));
                Outcome::Unknown
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        }
    }

    /// Adds, changes, deletes and restores links of its own through a box until stopped.
    fn write(&self, number: usize, ks: &str) -> BTreeMap<String, Link> {
        let mut links = BTreeMap::<String, Link>::new();
        for version in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let url = format!("https://example.com/{number}/{version}");
            let position = rand::random_range(0..links.len() * 2 + 1);
            match links.iter_mut().nth(position) {
                // Of an unknown outcome, it stays as it is.
                Some((id, link)) if link.possible.len() == 1 => {
                    let change = |action, url: Option<String>, params: &[(&str, &str)]| {
                        let params = [&[("id", id.as_str())], params].concat();
                        (self.call(number, ks, action, &params), url)
                    };
                    let (outcome, after) = if link.possible[0].is_none() {
                        change("restore", Some(link.url.clone()), &[])
                    } else if rand::random_ratio(1, 3) {
                        change("delete", None, &[])
                    } else {
                        link.url.clone_from(&url);
                        change("update", Some(url.clone()), &[("shortLink[fullUrl]", &url)])
                    };
                    match outcome {
                        Outcome::Done(_) => link.possible = vec![after],
                        Outcome::Refused => {}
                        Outcome::Unknown => link.possible.push(after),
                    }
                    if let Some(Some(url)) = link.possible.first() {
                        link.url.clone_from(url);
                    }
                }
                Some(_) => {}
                None => {
                    let params = [("shortLink[systemName]", "NAME"), ("shortLink[fullUrl]", &url)];
                    if let Outcome::Done(added) = self.call(number, ks, "add", &params) {
                        let id = added["id"].as_str().unwrap_or_default().to_owned();
                        let possible = vec![Some(url.clone())];
                        links.insert(id, Link { url, possible });
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
        links
    }

    /// Follows links through these boxes until stopped, as a load balancer does: through the next one if one is down.
    fn follow(&self, boxes: &[usize]) {
        for turn in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let (id, url) = &self.followed[turn % self.followed.len()];
            let asked = (0..boxes.len()).map(|next| boxes[(turn + next) % boxes.len()]);
            let mut answers = asked.map(|number| {
                let public = self.address(number).public;
                send(&public, "GET", &format!("{ACTION}/goto/id/{id}"), "")
            });
            let location = format!("\r\nlocation: {url}\r\n");
            match answers.find_map(Result::ok) {
                Some(answer) if answer.status == 302 && format!("{}\r\n", answer.head).contains(&location) => {
                    self.redirects.fetch_add(1, Ordering::Relaxed);
                }
                Some(answer) => self.failures.lock().push(format!("{boxes:?}: {}", answer.head)),
                None => self.failures.lock().push(format!("{boxes:?}: no box answers")),
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Clients that run until they are stopped.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<BTreeMap<String, Link>>>,
    followers: Vec<JoinHandle<()>>,
}

impl Load {
    /// A writer for each admin box, and a follower for each set of boxes.
    pub fn start(cluster: &Cluster, followers: &[&[usize]]) -> Self {
        let first = &cluster.boxes[0];
        let ks = first.start_session(crate::support::fixture::ADMIN_SECRET, "load", "2", "");
        let followed = (0..FOLLOWED).map(|number| {
            let url = format!("https://example.com/followed/{number}");
            (first.add(&ks, &[("shortLink[fullUrl]", &url)]), url)
        });
        let followed = followed.collect();
        cluster.wait_until_equal();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            addresses: Arc::clone(&cluster.addresses),
            followed,
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            redirects: AtomicUsize::new(0),
            pause: Mutex::new((Instant::now(), Duration::ZERO)),
            failures: Mutex::default(),
        });
        let writers = (0..cluster.admins).map(|number| {
            let (shared, ks) = (Arc::clone(&shared), ks.clone());
            std::thread::spawn(move || shared.write(number, &ks))
        });
        let followers = followers.iter().map(|boxes| {
            let (shared, boxes) = (Arc::clone(&shared), boxes.to_vec());
            std::thread::spawn(move || shared.follow(&boxes))
        });
        Self {
            writers: writers.collect(),
            followers: followers.collect(),
            shared,
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    fn wait_for(&self, what: &str, count: &AtomicUsize, more: usize) {
        let before = count.load(Ordering::Relaxed);
        crate::cluster::servers::wait(what, || {
            let failures = self.shared.failures.lock();
            assert!(failures.is_empty(), "{failures:?}");
            count.load(Ordering::Relaxed) > before + more
        });
    }

    /// Until so many more writes have been acknowledged.
    pub fn wait_for_writes(&self, more: usize) {
        self.wait_for("writes", &self.shared.acknowledged, more);
    }

    pub fn wait_for_refusals(&self, more: usize) {
        self.wait_for("refused writes", &self.shared.refused, more);
    }

    pub fn wait_for_redirects(&self, more: usize) {
        self.wait_for("redirects", &self.shared.redirects, more);
    }

    /// Returns what has been acknowledged. No redirect has failed, and nothing was answered wrongly.
    pub fn stop(mut self) -> (BTreeMap<String, Link>, Duration) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut links = BTreeMap::new();
        for writer in self.writers.drain(..) {
            links.extend(writer.join().unwrap());
        }
        for follower in self.followers.drain(..) {
            follower.join().unwrap();
        }
        let failures = self.shared.failures.lock();
        assert!(failures.is_empty(), "{failures:?}");
        assert!(self.shared.redirects.load(Ordering::Relaxed) > 0);
        let pause = self.shared.pause.lock().1;
        (links, pause)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
