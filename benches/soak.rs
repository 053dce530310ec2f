//! Everything at once, for minutes: redirects of all kinds, changes by the API, slow clients, floods, reloads and
//! scrapes.
//!
//! `cargo bench --bench soak`; `-- --minutes 1` for a look. Fails if an answer was wrong, memory grew by more than
//! what was added explains, a descriptor leaked, or an error was logged.

mod rig;

use std::collections::VecDeque;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use rig::http::{Answer, Connection, GOTO, TINY};
use rig::links::{self, Kind};
use rig::machine::{self, Place};
use rig::report::{self, say};
use rig::slow::SlowClients;
use rig::tinyd::{Setup, Tinyd};
use rig::{interrupt, stores};

/// Links at the start: so few that the store's page cache holds all of them from the beginning.
const LINKS: u64 = 10_000;
/// Slow clients of either kind.
const SLOW: usize = 200;
/// Connections of a flood; more than there are places.
const FLOOD: usize = 1_500;
const PUBLIC: &str = "max_connections = 1000\nhead_timeout_seconds = 5\nidle_timeout_seconds = 10\n\
                      write_timeout_seconds = 5\n";
/// How often a flood comes, and how long it stays.
const FLOOD_EVERY: Duration = Duration::from_secs(15);
const FLOOD_STAYS: Duration = Duration::from_secs(3);
const RELOAD_EVERY: Duration = Duration::from_secs(10);
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// Between two requests of a client, so that the machine has room for all.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two rounds of changes.
const CHANGE_PAUSE: Duration = Duration::from_millis(100);
const PIPELINED: usize = 16;
/// A connection that was used within that does not give way to a newcomer; the server counts whole seconds.
const IN_USE: Duration = Duration::from_secs(1);
/// Links that are there for a while before they are deleted.
const KEPT: usize = 50;

/// What memory may grow by after the second minute: the allocator's room for what is going on at the moment…
const GROWTH_BYTES: u64 = 8 << 20;
/// …and for each link added its place in the map, and that of its record and its eight index entries in the store's
/// page cache, which they fill up to its limit.
const GROWTH_BYTES_A_LINK: u64 = 1 << 10;

/// Runs everything at once.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    #[command(flatten)]
    cargo: rig::CargoArgs,

    /// Minutes that it takes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
}

/// What all clients count together.
#[derive(Debug, Default)]
struct Counts {
    redirects: AtomicU64,
    refusals: AtomicU64,
    calls: AtomicU64,
    added: AtomicU64,
    reloads: AtomicU64,
    scrapes: AtomicU64,
    turned_away: AtomicU64,
    gave_way: AtomicU64,
    wrong: AtomicU64,
    /// The first answers that were wrong.
    examples: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Counts {
    fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn wrong(&self, what: String) {
        Self::one(&self.wrong);
        let mut examples = self.examples.lock();
        if examples.len() < 10 {
            examples.push(what);
        }
    }

    fn is_over(&self) -> bool {
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
fn visit(server: SocketAddr, counts: &Counts, first: u64) {
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
        let (id, destination) = (links::id(link), links::destination(link));
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

/// Adds links, changes and lists them, follows them, and deletes them after a while.
fn change(tinyd: &Addresses, ks: &str, counts: &Counts) -> Result<()> {
    let mut api = Connection::open(tinyd.admin)?;
    let mut kept = VecDeque::new();
    let mut call = |action: &str, params: &[(&str, &str)]| {
        Counts::one(&counts.calls);
        api.call(action, &[&[("ks", ks)], params].concat())
    };
    let mut number = 0;
    while !counts.is_over() {
        number += 1;
        let url = format!("https://example.com/soak/{number}");
        let link = call(
            "add",
            &[("shortLink[systemName]", "SOAK"), ("shortLink[fullUrl]", &url)],
        )?;
        let id = text(&link, "id")?;
        Counts::one(&counts.added);
        let changed = format!("{url}/changed");
        call("update", &[("id", &id), ("shortLink[fullUrl]", &changed)])?;
        // On the admin listener, where no flood is: what is acknowledged is in force.
        let answer = rig::http::get(tinyd.admin, &format!("{GOTO}{id}"))?;
        if answer.location.as_deref() != Some(&changed) {
            counts.wrong(format!("changed: {} {:?}", answer.status, answer.location));
        }
        kept.push_back(id);
        if kept.len() > KEPT
            && let Some(id) = kept.pop_front()
        {
            call("delete", &[("id", &id)])?;
            let answer = rig::http::get(tinyd.admin, &format!("{GOTO}{id}"))?;
            if answer.status != 410 {
                counts.wrong(format!("deleted: {}", answer.status));
            }
        }
        let listing = call(
            "list",
            &[("filter[systemNameEqual]", "SOAK"), ("pager[pageSize]", "100")],
        )?;
        let total = listing.get("totalCount").and_then(Value::as_u64);
        if total != Some(kept.len() as u64) {
            counts.wrong(format!("list: {total:?} instead of {}", kept.len()));
        }
        thread::sleep(CHANGE_PAUSE);
    }
    Ok(())
}

fn text(object: &Value, name: &str) -> Result<String> {
    let text = object.get(name).and_then(Value::as_str);
    Ok(text.with_context(|| format!("{object} has no {name}"))?.to_owned())
}

/// Comes with many connections that ask nothing, stays and goes.
fn flood(server: SocketAddr, counts: &Counts) {
    let mut last = Instant::now();
    while !counts.is_over() {
        if last.elapsed() >= FLOOD_EVERY {
            let idlers: Vec<_> = (0..FLOOD).map(|_| TcpStream::connect(server)).collect();
            thread::sleep(FLOOD_STAYS);
            drop(idlers);
            last = Instant::now();
        }
        thread::sleep(SCRAPE_EVERY);
    }
}

/// Where it listens, and what its process is.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    public: SocketAddr,
    admin: SocketAddr,
    process: u32,
}

/// Reloads the settings and reads the numbers.
fn operate(tinyd: &Addresses, counts: &Counts) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(tinyd.process)?).context("no process")?;
    let mut last = Instant::now();
    while !counts.is_over() {
        if last.elapsed() >= RELOAD_EVERY {
            kill_process(pid, Signal::HUP)?;
            Counts::one(&counts.reloads);
            last = Instant::now();
        }
        let answer = rig::http::get(tinyd.admin, "/metrics")?;
        if answer.status != 200 {
            counts.wrong(format!("/metrics: {}", answer.status));
        }
        Counts::one(&counts.scrapes);
        thread::sleep(SCRAPE_EVERY);
    }
    Ok(())
}

/// Resident memory of a process, in bytes.
fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

fn open_files(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

fn main() -> Result<()> {
    let options = Options::parse();
    if !options.cargo.is_wanted() {
        return Ok(());
    }
    interrupt::watch()?;
    say(&machine::summary());
    let scratch = machine::scratch()?;
    let data = scratch.path().join("data");
    stores::prepared(Kind::Plain, LINKS)?.copy_to(&data)?;
    let mut tinyd = Tinyd::start(Setup {
        place: Place::Anywhere,
        threads: 2,
        public: PUBLIC,
        ..Setup::new(&data, scratch.path())
    })?;
    let ks = tinyd.session()?;
    let addresses = Addresses {
        public: tinyd.public,
        admin: tinyd.admin,
        process: tinyd.process.id(),
    };
    // All that is opened once is open after a first write.
    Connection::open(tinyd.admin)?.call(
        "add",
        &[
            ("ks", &ks),
            ("shortLink[systemName]", "FIRST"),
            ("shortLink[fullUrl]", "https://example.com/"),
        ],
    )?;
    let files = open_files(addresses.process)?;
    let counts = Arc::new(Counts::default());
    let slow = SlowClients::start(tinyd.public, SLOW, SLOW, Place::Anywhere)?;
    let mut clients = Vec::new();
    for number in 0..3 {
        let counts = Arc::clone(&counts);
        clients.push(thread::spawn(move || {
            visit(addresses.public, &counts, number << 40);
            Ok(())
        }));
    }
    let of_changes = Arc::clone(&counts);
    clients.push(thread::spawn(move || change(&addresses, &ks, &of_changes)));
    let of_floods = Arc::clone(&counts);
    clients.push(thread::spawn(move || {
        flood(addresses.public, &of_floods);
        Ok(())
    }));
    let of_operator = Arc::clone(&counts);
    clients.push(thread::spawn(move || operate(&addresses, &of_operator)));

    let minutes = watch(&options, &addresses, &counts, &slow, &clients)?;
    counts.is_over.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    for client in clients {
        match client.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(format!("a client could not go on: {error:#}")),
            Err(_) => failures.push("a client panicked".to_owned()),
        }
    }
    drop(slow);
    let left = tinyd
        .process
        .wait_until(Duration::from_secs(30), || Ok(open_files(addresses.process)? <= files));
    if left.is_err() {
        let now = open_files(addresses.process)?;
        failures.push(format!("{now} descriptors are open, {files} at the start"));
    }
    failures.extend(judge(&minutes, &counts, &tinyd.log()));
    report::write_json("soak", &json!({ "minutes": minutes, "failures": failures }))?;
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    say("no answer was wrong, nothing leaked, no error was logged");
    Ok(())
}

/// A line for each minute.
fn watch(
    options: &Options,
    tinyd: &Addresses,
    counts: &Counts,
    slow: &SlowClients,
    clients: &[thread::JoinHandle<Result<()>>],
) -> Result<Vec<Value>> {
    let mut minutes = Vec::new();
    let started = Instant::now();
    say("minute  redirects  refusals  calls  added  reloads  turned away  gave way  slow closed  wrong  MB  files");
    for minute in 1..=options.minutes {
        while started.elapsed() < Duration::from_secs(60 * minute) {
            if clients.iter().any(thread::JoinHandle::is_finished) {
                return Ok(minutes);
            }
            thread::sleep(PAUSE * 100);
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (resident, files) = (resident(tinyd.process)?, open_files(tinyd.process)?);
        let line = json!({
            "minute": minute,
            "redirects": read(&counts.redirects),
            "refusals": read(&counts.refusals),
            "calls": read(&counts.calls),
            "added": read(&counts.added),
            "reloads": read(&counts.reloads),
            "scrapes": read(&counts.scrapes),
            "turnedAway": read(&counts.turned_away),
            "gaveWay": read(&counts.gave_way),
            "slowClosed": slow.closed(),
            "wrong": read(&counts.wrong),
            "residentBytes": resident,
            "openFiles": files,
        });
        let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or(0);
        say(&format!(
            "{minute:>6}  {:>9}  {:>8}  {:>5}  {:>5}  {:>7}  {:>11}  {:>8}  {:>11}  {:>5}  {:>4.1}  {files:>5}",
            number("redirects"),
            number("refusals"),
            number("calls"),
            number("added"),
            number("reloads"),
            number("turnedAway"),
            number("gaveWay"),
            number("slowClosed"),
            number("wrong"),
            resident as f64 / f64::from(1 << 20),
        ));
        minutes.push(line);
    }
    Ok(minutes)
}

/// What was not as it should be.
fn judge(minutes: &[Value], counts: &Counts, log: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let wrong = counts.wrong.load(Ordering::Relaxed);
    if wrong > 0 {
        let examples = counts.examples.lock().join("; ");
        failures.push(format!("{wrong} answers were wrong: {examples}"));
    }
    // Of a short run, the first minute has to do.
    let first = minutes.get(1.min(minutes.len().saturating_sub(2)));
    if let (Some(first), Some(last)) = (first, minutes.last()) {
        let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64).unwrap_or(0);
        let grown = number(last, "residentBytes").saturating_sub(number(first, "residentBytes"));
        let added = number(last, "added") - number(first, "added");
        let bound = GROWTH_BYTES + added * GROWTH_BYTES_A_LINK;
        say(&format!(
            "memory grew by {grown} bytes while {added} links were added; at most {bound} are allowed"
        ));
        if grown > bound {
            failures.push(format!("memory grew by {grown} bytes, at most {bound} are allowed"));
        }
    }
    let errors = log
        .lines()
        .filter(|line| line.contains(" ERROR ") || line.contains(" WARN ") || line.contains("panicked"));
    failures.extend(errors.take(10).map(|line| format!("logged: {line}")));
    failures
}
