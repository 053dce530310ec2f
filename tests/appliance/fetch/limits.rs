//! Limits on concurrent fetches, release of their slots, and slow clients.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::support::client::{Download, Part, connect, request};
use crate::support::connections::{address, connect_with_little_room};
use crate::support::fixture::poll;
use crate::support::origin::pattern;
use crate::support::origin::{Conversation, Origin};
use crate::support::proxy::{Proxy, assert_fault, proxied};

/// Sends a head and a byte, and the rest on demand.
struct Held {
    origin: Origin,
    /// For each held download, the channel that releases it.
    held: Arc<Mutex<Vec<mpsc::Sender<()>>>>,
}

impl Held {
    fn start() -> Self {
        let held = Arc::new(Mutex::new(Vec::new()));
        let holding = Arc::clone(&held);
        let origin = Origin::start(move |conversation: &mut Conversation| {
            if conversation.path() == "/at-once" {
                conversation.answer("", "ok");
                return;
            }
            let (release, released) = mpsc::channel();
            holding.lock().push(release);
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1");
            // The end of the test releases it too.
            let _ = released.recv();
            if conversation.path() != "/breaking" {
                conversation.send("2");
            }
        });
        Self { origin, held }
    }

    fn release_all(&self) {
        self.held.lock().clear();
    }
}

/// A download that has begun.
fn begin(proxy: &Proxy, id: &str, headers: &str) -> Download {
    let mut download = proxy.ask(id, "GET", headers);
    assert_eq!(download.status, 200);
    assert_eq!(download.read_exactly(1), b"1");
    download
}

/// Waits until a slot is free.
fn wait_for_a_place(proxy: &Proxy, url: &str) {
    let id = proxy.link(url);
    poll("a place is free", || proxy.ask(&id, "GET", "").finish().status == 200);
}

#[test]
fn concurrent_fetches_are_limited() {
    let held = Held::start();
    let proxy = Proxy::with(&[&held.origin], "max_fetches = 2\nmax_fetches_per_client = 9\n");
    let (id, at_once) = (proxy.link(&held.origin.url("/held")), held.origin.url("/at-once"));
    for _ in 0..3 {
        let downloads = [begin(&proxy, &id, ""), begin(&proxy, &id, "")];
        for method in ["GET", "HEAD"] {
            let fetched = proxy.ask(&proxy.link(&at_once), method, "").finish();
            assert_eq!(
                (fetched.status, fetched.header("x-kaltura")),
                (503, "error-TOO_MANY_FETCHES")
            );
            assert!(fetched.header("retry-after").parse::<u64>().unwrap() > 0, "{fetched:?}");
        }
        assert_fault(&proxy.fetch(&at_once), 503, "TOO_MANY_FETCHES");
        proxy.assert_redirects();
        // Fetches refused for other reasons keep their error.
        assert_eq!(proxy.ask("zzzzzzzz", "GET", "").finish().status, 404);
        held.release_all();
        for mut download in downloads {
            assert_eq!(download.read_exactly(1), b"2");
            assert_eq!(download.read(&mut [0]), Part::End);
        }
        wait_for_a_place(&proxy, &at_once);
    }
    let asked = held.origin.requests();
    assert!(asked.iter().all(|request| request.method() == "GET"), "{asked:?}");
}

#[test]
fn fetch_slot_is_freed_by_disconnect_reset_and_timeout() {
    let held = Held::start();
    let settings = "max_fetches = 1\nmax_fetches_per_client = 1\nidle_timeout_seconds = 300\n";
    let proxy = Proxy::with(&[&held.origin], settings);
    let at_once = held.origin.url("/at-once");
    let (id, breaking) = (
        proxy.link(&held.origin.url("/held")),
        proxy.link(&held.origin.url("/breaking")),
    );
    // The client disconnects.
    for _ in 0..3 {
        let download = begin(&proxy, &id, "");
        assert_fault(&proxy.fetch(&at_once), 503, "TOO_MANY_FETCHES");
        drop(download);
        wait_for_a_place(&proxy, &at_once);
    }
    held.release_all();
    // The upstream disconnects.
    let mut download = begin(&proxy, &breaking, "");
    held.release_all();
    assert_eq!(download.read(&mut [0]), Part::CutOff);
    wait_for_a_place(&proxy, &at_once);
    // The fetch is refused, or the upstream is unreachable.
    let forbidden = format!("http://0.0.0.0:{}/", held.origin.port());
    for url in [forbidden.as_str(), "http://127.0.0.1:1/", "http://user@127.0.0.1/"] {
        assert_eq!(proxy.fetch(url).status, 403, "{url}");
        assert_eq!(proxy.fetch(&at_once).status, 200);
    }
    // The client disconnects before the response.
    let silent = Origin::start(Conversation::wait_for_end);
    let proxy = Proxy::with(
        &[&held.origin, &silent],
        &format!("{settings}first_byte_timeout_seconds = 300\n"),
    );
    let id = proxy.link(&silent.url("/"));
    let mut client = connect(&proxy.appliance.public);
    client.write_all(request("GET", &proxied(&id), "").as_bytes()).unwrap();
    poll("it is being fetched", || silent.requests().len() == 1);
    assert_fault(&proxy.fetch(&at_once), 503, "TOO_MANY_FETCHES");
    drop(client);
    wait_for_a_place(&proxy, &at_once);
}

#[test]
fn concurrent_fetches_per_client_are_limited() {
    let held = Held::start();
    let settings = "max_fetches = 3\nmax_fetches_per_client = 1\n[public]\ntrusted_proxies = \"127.0.0.1\"\n";
    let proxy = Proxy::with(&[&held.origin], settings);
    let (id, at_once) = (proxy.link(&held.origin.url("/held")), held.origin.url("/at-once"));
    let of = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let first = begin(&proxy, &id, &of("203.0.113.1"));
    assert_fault(&proxy.fetch_with(&at_once, &of("203.0.113.1")), 503, "TOO_MANY_FETCHES");
    assert_fault(
        &proxy.fetch_with(&at_once, &of("::ffff:203.0.113.1")),
        503,
        "TOO_MANY_FETCHES",
    );
    assert_eq!(proxy.fetch_with(&at_once, &of("203.0.113.2")).status, 200);
    // An IPv6 /64 is one client.
    let second = begin(&proxy, &id, &of("2001:db8:0:1::1"));
    assert_fault(
        &proxy.fetch_with(&at_once, &of("2001:db8:0:1:ffff::2")),
        503,
        "TOO_MANY_FETCHES",
    );
    assert_eq!(proxy.fetch_with(&at_once, &of("2001:db8:0:2::1")).status, 200);
    let third = begin(&proxy, &id, &of("203.0.113.3"));
    assert_fault(&proxy.fetch_with(&at_once, &of("203.0.113.4")), 503, "TOO_MANY_FETCHES");
    // A client without a free slot still gets redirects.
    let answer = crate::support::http::request(
        &proxy.appliance.public,
        "GET",
        &format!("{}{id}", crate::support::proxy::GOTO),
        &[("X-Forwarded-For", "203.0.113.1")],
        b"",
    );
    assert_eq!(answer.status, 302);
    held.release_all();
    for download in [first, second, third] {
        assert!(download.finish().is_whole);
    }
    let id = proxy.link(&at_once);
    for client in ["203.0.113.1", "2001:db8:0:1::1", "203.0.113.4"] {
        poll("a place is free", || {
            proxy.ask(&id, "GET", &of(client)).finish().status == 200
        });
    }
}

/// An upstream that sends bytes for as long as it can, and counts them.
struct Source {
    origin: Origin,
    sent: Arc<AtomicU64>,
    ended: Arc<AtomicUsize>,
}

impl Source {
    fn of(bytes: u64) -> Self {
        let (sent, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (sending, ending) = (Arc::clone(&sent), Arc::clone(&ended));
        let part = pattern(64 * 1024);
        let origin = Origin::start(move |conversation| {
            let mut left = bytes;
            let mut can_go_on = conversation.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"));
            let is_counted = conversation.path() == "/counted";
            while can_go_on && left > 0 {
                let length = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                can_go_on = conversation.send(&part[..length]);
                left -= length as u64;
                if can_go_on && is_counted {
                    sending.fetch_add(length as u64, Ordering::SeqCst);
                }
            }
            if is_counted {
                ending.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { origin, sent, ended }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst) > 0
    }
}

#[test]
fn client_disconnect_cancels_the_fetch() {
    let source = Source::of(1 << 40);
    let proxy = Proxy::with(&[&source.origin], "max_bytes = 1099511627776\n");
    let id = proxy.link(&source.origin.url("/counted"));
    let mut download = proxy.ask(&id, "GET", "");
    download.read_exactly(1_000_000);
    assert!(!source.has_ended());
    drop(download);
    poll("the destination notices", || source.has_ended());
    proxy.assert_redirects();
}

#[test]
fn fetch_slot_is_held_until_sent_or_total_timeout() {
    // More than the client's connection holds, and so little that tinyd has read all of it.
    let source = Source::of(200_000);
    const TOTAL: Duration = Duration::from_secs(5);
    let settings = "max_fetches = 1\ntotal_timeout_seconds = 5\n[public]\nwrite_timeout_seconds = 3600\n";
    let proxy = Proxy::with(&[&source.origin], settings);
    let id = proxy.link(&source.origin.url("/counted"));
    let mut client = connect_with_little_room(address(&proxy.appliance.public));
    let other = proxy.link(&source.origin.url("/"));
    let began = Instant::now();
    client.write_all(request("GET", &proxied(&id), "").as_bytes()).unwrap();
    poll("the destination has sent all", || source.has_ended());
    for number in 0..20 {
        proxy.assert_redirects();
        let answer = proxy.ask(&other, "GET", "").finish();
        // On a busy machine, the time of the first fetch may be over by now.
        if number > 0 && began.elapsed() >= TOTAL {
            break;
        }
        assert_fault(&answer, 503, "TOO_MANY_FETCHES");
    }
    poll("its time is over", || {
        proxy.ask(&other, "GET", "").finish().status == 200
    });
    drop(client);
}

#[test]
fn client_that_stops_reading_slows_the_upstream() {
    const BODY: u64 = 200 * 1024 * 1024;
    /// Capacity of the four kernel buffers between client and upstream.
    const MOST: u64 = 16 * 1024 * 1024;
    let source = Source::of(BODY);
    // The progress of a second upstream shows that there was time enough.
    let clock = Source::of(16 * 1024 * 1024);
    let settings = "idle_timeout_seconds = 1\n[public]\nwrite_timeout_seconds = 3600\n";
    let proxy = Proxy::with(&[&source.origin, &clock.origin], settings);
    let id = proxy.link(&source.origin.url("/counted"));
    let client = connect_with_little_room(address(&proxy.appliance.public));
    client.set_read_timeout(Some(crate::support::wire::PATIENCE)).unwrap();
    let mut download = Download::ask(client, &request("GET", &proxied(&id), ""));
    let clock = clock.origin.url("/");
    let mut before = u64::MAX;
    // For the time of another whole download, it has sent no byte.
    poll("the destination has stopped", || {
        assert!(proxy.fetch(&clock).is_whole);
        let stopped = std::mem::replace(&mut before, source.sent()) == source.sent();
        assert!(source.sent() <= MOST, "{}", source.sent());
        stopped
    });
    // For longer than the idle timeout of an upstream.
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(3) {
        assert!(proxy.fetch(&clock).is_whole);
        assert_eq!(source.sent(), before);
    }
    proxy.assert_redirects();
    assert!(!source.has_ended());
    // The upstream was waiting. The kernel decides how much must be read before it continues.
    let expected = pattern(64 * 1024);
    while source.sent() == before {
        assert!(download.read_exactly(expected.len()) == expected);
    }
}

#[test]
fn client_that_pauses_gets_the_whole_body() {
    const BODY: usize = 32 * 1024 * 1024;
    let source = Source::of(BODY as u64);
    let proxy = Proxy::to(&[&source.origin]);
    let id = proxy.link(&source.origin.url("/counted"));
    let mut download = proxy.ask(&id, "GET", "");
    let expected = pattern(64 * 1024);
    for _ in 0..BODY / expected.len() {
        assert!(download.read_exactly(expected.len()) == expected);
        proxy.appliance.goto(&id);
    }
    assert_eq!(download.read(&mut [0]), Part::End);
    poll("it has sent all", || source.has_ended());
    assert_eq!(source.sent(), BODY as u64);
}
