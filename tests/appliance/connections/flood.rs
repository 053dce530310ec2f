//! Floods of connections: idle ones are evicted, busy ones are served, and each refusal is answered and counted.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::connections::{
    address, goto, is_redirect, open_connections, open_files, read_head, refused, wait_until_all_is_as_before,
};
use crate::support::fixture::{Appliance, poll};
use crate::support::scrape::Scrape;

const PLACES: usize = 200;
const FLOOD: usize = 3000;
const HALF_A_HEAD: &str = "GET /tiny/zzzzzzzz HTTP/1.1\r\nHost";
/// A connection used within this time is not evicted; the clock of evictions counts whole seconds.
const IN_USE: Duration = Duration::from_secs(1);

/// The outcome of connections.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Fates {
    made: usize,
    /// Served as without a flood.
    served: usize,
    /// Refused with a response.
    told: usize,
    /// Closed without a response, after being idle for a while.
    gave_way: usize,
}

impl Fates {
    fn and(self, other: Self) -> Self {
        Self {
            made: self.made + other.made,
            served: self.served + other.served,
            told: self.told + other.told,
            gave_way: self.gave_way + other.gave_way,
        }
    }
}

/// Sends a request on a connection last used at `used` and counts the outcome; returns whether it was the redirect.
fn ask(stream: &mut TcpStream, id: &str, used: Instant, fates: &mut Fates) -> bool {
    // Reading shows whether the connection is closed already.
    let _ = stream.write_all(goto(id).as_bytes());
    let head = read_head(stream);
    if is_redirect(&head) {
        fates.served += 1;
        return true;
    }
    if head.is_empty() {
        assert!(used.elapsed() >= IN_USE, "closed while it was in use");
        fates.gave_way += 1;
    } else {
        assert_turned_away(&head, 503);
        fates.told += 1;
    }
    false
}

/// Sends a request on a new connection.
fn come(target: SocketAddr, id: &str, fates: &mut Fates) -> bool {
    let now = Instant::now();
    fates.made += 1;
    ask(&mut TcpStream::connect(target).unwrap(), id, now, fates)
}

fn assert_turned_away(head: &str, status: u16) {
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}");
    for header in [
        "retry-after: 5",
        "cache-control: no-store",
        "connection: close",
        "content-length: 0",
    ] {
        assert!(head.contains(&format!("\r\n{header}\r\n")), "{head:?}");
    }
    assert!(head.contains("\r\ndate: ") && head.ends_with("\r\n\r\n"), "{head:?}");
}

/// A client that keeps its connection and opens another only when it must.
fn keep_asking(target: SocketAddr, id: &str, is_over: &AtomicBool) -> Fates {
    let mut fates = Fates::default();
    while !is_over.load(Ordering::Relaxed) {
        let mut used = Instant::now();
        let mut stream = TcpStream::connect(target).unwrap();
        fates.made += 1;
        while !is_over.load(Ordering::Relaxed) {
            let asks = Instant::now();
            if !ask(&mut stream, id, used, &mut fates) {
                break;
            }
            used = asks;
        }
    }
    fates
}

/// A connection that sends no request.
struct Idler {
    stream: TcpStream,
    received: Vec<u8>,
    is_open: bool,
}

impl Idler {
    fn connect(target: SocketAddr, part: &str) -> Self {
        let mut stream = TcpStream::connect(target).unwrap();
        // It may have been refused already.
        let _ = stream.write_all(part.as_bytes());
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            received: Vec::new(),
            is_open: true,
        }
    }
}

/// The outcome so far of connections that send no request.
fn look_at(flood: &mut [Idler], status: u16) -> Fates {
    let mut fates = Fates {
        made: flood.len(),
        ..Fates::default()
    };
    let mut buffer = [0; 4096];
    for Idler {
        stream,
        received,
        is_open,
    } in flood
    {
        while *is_open {
            match stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => *is_open = false,
                Ok(length) => received.extend_from_slice(&buffer[..length]),
            }
        }
        if !received.is_empty() {
            assert_turned_away(std::str::from_utf8(received).unwrap(), status);
            fates.told += 1;
        } else if !*is_open {
            fates.gave_way += 1;
        }
    }
    fates
}

#[test]
fn flood_evicts_idle_connections_and_serves_busy_ones() {
    // Longer than the test: only the limit may close a connection.
    let settings = format!(
        "[public]\nmax_connections = {PLACES}\nhead_timeout_seconds = 300\nidle_timeout_seconds = 300\n\
         max_requests_per_connection = 0\n"
    );
    let appliance = Appliance::start_with(&settings);
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let target = address(&appliance.public);
    let before = open_files(&appliance);
    let is_over = AtomicBool::new(false);
    let mut flood = Vec::new();
    let open = |count: usize, flood: &mut Vec<Idler>| {
        let part = |number: usize| if number.is_multiple_of(2) { HALF_A_HEAD } else { "" };
        flood.extend((0..count).map(|number| Idler::connect(target, part(number))));
    };
    let fates = std::thread::scope(|scope| {
        let busy: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| keep_asking(target, &id, &is_over)))
            .collect();
        open(PLACES, &mut flood);
        let mut newcomers = Fates::default();
        // First no connection has been idle for long enough, then one is evicted.
        poll("a newcomer finds a place", || come(target, &id, &mut newcomers));
        for _ in 0..10 {
            open(FLOOD / 10, &mut flood);
            for _ in 0..10 {
                come(target, &id, &mut newcomers);
            }
        }
        poll("a newcomer finds a place in the flood", || {
            come(target, &id, &mut newcomers)
        });
        is_over.store(true, Ordering::Relaxed);
        let busy = busy.into_iter().map(|thread| thread.join().unwrap());
        let busy: Vec<Fates> = busy.collect();
        assert!(busy.iter().all(|fates| fates.served > 0), "{busy:?}");
        busy.into_iter().fold(newcomers, Fates::and)
    });
    assert!(open_connections(&appliance) <= PLACES as f64);
    poll("everything is counted", || {
        let fates = fates.and(look_at(&mut flood, 503));
        let scrape = Scrape::of(&appliance);
        let accepted = scrape.get("tinyd_connections_accepted_total{listener=\"public\"}");
        // An evicted client notices a little later.
        accepted == fates.made as f64
            && refused(&scrape, "public", "connections") == (fates.told + fates.gave_way) as f64
    });
    let of_flood = look_at(&mut flood, 503);
    assert!(of_flood.told > 0 && of_flood.gave_way > 0, "{of_flood:?}");
    drop(flood);
    wait_until_all_is_as_before(&appliance, before);
    assert_eq!(appliance.goto(&id).status, 302);
}

#[test]
fn connection_with_a_trickling_head_is_evicted() {
    let settings = format!("[public]\nmax_connections = {PLACES}\nhead_timeout_seconds = 300\n");
    let appliance = Appliance::start_with(&settings);
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let target = address(&appliance.public);
    let mut slow: Vec<_> = (0..PLACES).map(|_| Idler::connect(target, HALF_A_HEAD)).collect();
    poll("all places are taken", || open_connections(&appliance) == PLACES as f64);
    poll("a newcomer finds a place", || {
        for Idler { stream, .. } in &mut slow {
            // It may have been evicted.
            let _ = stream.write_all(b"x");
        }
        come(target, &id, &mut Fates::default())
    });
}

#[test]
fn client_over_its_connection_limit_gets_429() {
    const MOST: usize = 50;
    let settings = format!(
        "[public]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\nmax_connections_per_address = {MOST}\n"
    );
    let appliance = Appliance::start_with(&settings);
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let target = address(&appliance.public);
    let before = open_files(&appliance);
    let v4 = |client: usize, _: usize| format!("PROXY TCP4 198.51.100.{client} 192.0.2.1 4711 80\r\n");
    // One client has a whole /64.
    let v6 =
        |client: usize, number: usize| format!("PROXY TCP6 2001:db8:0:{client}::{number:x} 2001:db8::1 4711 80\r\n");
    let connect = |header: &str, request: &str| {
        let mut stream = TcpStream::connect(target).unwrap();
        stream.write_all(format!("{header}{request}").as_bytes()).unwrap();
        stream
    };
    let mut flood = Vec::new();
    for number in 0..2 * MOST {
        for client in 1..=10 {
            let header = if client % 2 == 0 {
                v4(client, number)
            } else {
                v6(client, number)
            };
            let half = if number % 3 == 0 { "" } else { HALF_A_HEAD };
            flood.push(Idler::connect(target, &format!("{header}{half}")));
        }
    }
    let too_many = 10 * MOST;
    let refusals = || refused(&Scrape::of(&appliance), "public", "address_connections");
    poll("those over the limit are told so", || {
        look_at(&mut flood, 429).told >= too_many
    });
    assert_eq!(
        look_at(&mut flood, 429),
        Fates {
            made: 2 * too_many,
            told: too_many,
            ..Fates::default()
        }
    );
    assert_eq!(refusals(), too_many as f64);
    let ask = |header: &str| read_head(&mut connect(header, &goto(&id)));
    for (client, number) in [(11, 0), (12, 0)] {
        assert!(is_redirect(&ask(&v4(client, number))) && is_redirect(&ask(&v6(client, number))));
    }
    assert_turned_away(&ask(&v4(2, 0)), 429);
    assert_turned_away(&ask(&v6(1, 0xffff)), 429);
    // The proxy itself is one client too, and sends health checks.
    assert!(is_redirect(&ask("PROXY UNKNOWN\r\n")));
    drop(flood);
    for header in [v4(2, 0), v6(1, 0)] {
        poll("there is room again", || is_redirect(&ask(&header)));
    }
    wait_until_all_is_as_before(&appliance, before);
}
