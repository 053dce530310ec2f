//! Everything at once, for minutes: redirects of all kinds, also over TLS and with proxy=true, changes by the API,
//! expensive lists, imports, backups, checkpoints, flushes of clicks, slow clients, floods, reloads and scrapes; and
//! the latencies of redirects at a fixed rate all the while.
//!
//! `cargo bench --bench soak`; `-- --minutes 1` for a look. Fails if an answer was wrong, memory grew by more than
//! what was added explains, a descriptor leaked, a click was lost, or an error was logged.

mod rig;

use std::collections::VecDeque;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use rig::bursts::{Burst, LOOK_INTERVAL};
use rig::http::{Connection, GOTO};
use rig::links::Kind;
use rig::loads::{CHECKPOINTS, Load, Target};
use rig::machine::{self, Place};
use rig::open_loop::{self, Latencies, PERCENTILES, Plan};
use rig::origin::{BODY_BYTES, Downloads, Origin, Speed};
use rig::report::{self, say};
use rig::slow::SlowClients;
use rig::tinyd::{self, Setup, Tinyd};
use rig::tls::certificate::Certificate;
use rig::tls::client::Client;
use rig::visitors::{CLICKED_URL, Counts, LINKS, visit, visit_secure};
use rig::{interrupt, stores};

/// Slow clients of either kind.
const SLOW: usize = 200;
/// Connections of a flood; more than there are places.
const FLOOD: usize = 1_500;
const PUBLIC: &str = "url = \"https://go.example.com\"\nmax_connections = 1000\nhead_timeout_seconds = 5\nidle_timeout_seconds = 10\n\
                      write_timeout_seconds = 10\n";
/// What is logged because the destination of fetches is on this machine.
const EXPECTED_WARNING: &str = " WARN fetch.allow: ";
/// How often a flood comes, and how long it stays.
const FLOOD_EVERY: Duration = Duration::from_secs(15);
const FLOOD_STAYS: Duration = Duration::from_secs(3);
const RELOAD_EVERY: Duration = Duration::from_secs(10);
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// Between two rounds of changes.
const CHANGE_PAUSE: Duration = Duration::from_millis(100);
/// Downloads that go on all the while.
const SLOW_DOWNLOADS: usize = 8;
/// Connections of those whose latencies are measured.
const PROBES: usize = 64;
/// How often changes pause, and for how long: a checkpoint waits for a second without writes.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(12);
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(1_500);
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

    /// Redirects a second whose latencies are measured
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,

    /// Of the loads that come in bursts, only these; can be given several times
    #[arg(long, value_enum)]
    burst: Vec<Load>,
}

/// Adds links, changes and lists them, follows them, and deletes them after a while.
fn change(tinyd: &Addresses, ks: &str, counts: &Counts) -> Result<()> {
    let mut api = Connection::open(tinyd.admin)?;
    let mut kept = VecDeque::new();
    let mut call = |action: &str, params: &[(&str, &str)]| {
        Counts::one(&counts.calls);
        api.call(action, &[&[("ks", ks)], params].concat())
    };
    let (mut number, mut paused) = (0, Instant::now());
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
        if paused.elapsed() >= CHECKPOINT_EVERY {
            thread::sleep(CHECKPOINT_PAUSE);
            paused = Instant::now();
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
            counts.is_flooded.store(true, Ordering::Relaxed);
            let idlers: Vec<_> = (0..FLOOD).map(|_| TcpStream::connect(server)).collect();
            thread::sleep(FLOOD_STAYS);
            drop(idlers);
            last = Instant::now();
        }
        thread::sleep(SCRAPE_EVERY);
        counts.is_flooded.store(false, Ordering::Relaxed);
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

/// Adds the link that is followed over TLS only, so that its clicks can be counted.
fn clicked_link(tinyd: &Target) -> Result<String> {
    let link = [
        ("ks", tinyd.session()),
        ("shortLink[systemName]", "CLICKED"),
        ("shortLink[fullUrl]", CLICKED_URL),
    ];
    text(&Connection::open(tinyd.tinyd.admin)?.call("add", &link)?, "id")
}

/// What is wrong with the clicks that were counted.
fn lost_clicks(tinyd: &Target, id: &str, followed: u64) -> Result<Vec<String>> {
    let admin = tinyd.tinyd.admin;
    let params = [("ks", tinyd.session()), ("id", id), ("withClicks", "1")];
    let link = Connection::open(admin)?.call("get", &params)?;
    let number = |name: &str| link.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (clicks, dropped) = (
        number("clicks") + number("previews"),
        tinyd::metric(admin, "tinyd_clicks_dropped_total")?,
    );
    let mut failures = Vec::new();
    if clicks != followed {
        failures.push(format!("a link has {clicks} clicks and was followed {followed} times"));
    }
    if dropped > 0.0 {
        failures.push(format!("{dropped} clicks were dropped"));
    }
    Ok(failures)
}

/// What a client does until it is over.
type Work = Box<dyn FnOnce(&Target, &Counts) -> Result<()> + Send>;
type Clients = Vec<thread::JoinHandle<Result<()>>>;

/// What goes on, each in a thread of its own.
fn start_clients(
    target: &Arc<Target>,
    client: Client,
    clicked: &str,
    counts: &Arc<Counts>,
    bursts: &[Load],
) -> Result<Clients> {
    let tinyd = &target.tinyd;
    let addresses = Addresses {
        public: tinyd.public,
        admin: tinyd.admin,
        process: tinyd.process.id(),
    };
    let mut clients = Vec::new();
    let mut start = |work: Work| {
        let (target, counts) = (Arc::clone(target), Arc::clone(counts));
        clients.push(thread::spawn(move || work(&target, &counts)));
    };
    for number in 0..3 {
        start(Box::new(move |_, counts| {
            visit(addresses.public, counts, number << 40);
            Ok(())
        }));
    }
    let (secure, clicked) = (tinyd.secure.context("no address for TLS")?, clicked.to_owned());
    start(Box::new(move |_, counts| {
        visit_secure(secure, &client, &clicked, counts);
        Ok(())
    }));
    start(Box::new(move |target, counts| {
        change(&addresses, target.session(), counts)
    }));
    start(Box::new(move |_, counts| {
        flood(addresses.public, counts);
        Ok(())
    }));
    start(Box::new(move |_, counts| operate(&addresses, counts)));
    let all = Burst::ALL.into_iter().enumerate();
    for (number, burst) in all.filter(|(_, burst)| bursts.is_empty() || bursts.contains(&burst.load)) {
        start(Box::new(move |target, counts| {
            let came = counts.bursts.get(number).context("a burst that is not counted")?;
            burst.repeat(target, came, || counts.is_over())
        }));
    }
    Ok(clients)
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
    stores::prepared(Kind::Named, LINKS)?.copy_to(&data)?;
    let certificate = Certificate::new(scratch.path())?;
    let origin = Origin::start()?;
    let port = origin.address.port();
    let fetch = format!("[fetch]\nallow = [\"127.0.0.0/8\"]\nports = [{port}]\nmax_bytes = {BODY_BYTES}\n");
    let mut tinyd = Tinyd::start(Setup {
        place: Place::Anywhere,
        threads: 2,
        public: PUBLIC,
        more: &fetch,
        certificate: Some(&certificate),
        ..Setup::new(&data, scratch.path())
    })?;
    tinyd.wait_until_verified()?;
    let (public, admin, process) = (tinyd.public, tinyd.admin, tinyd.process.id());
    // Slow downloads come where floods are, those of bursts where none is: a flood may have them refused.
    let target = Target::new("tinyd".to_owned(), tinyd, LINKS, scratch.path(), &origin)?.importing_again();
    let source = target.source().clone();
    let target = Arc::new(target.fetching_through(admin));
    let clicked = clicked_link(&target)?;
    // All that is opened once is open after that.
    let files = open_files(process)?;
    let counts = Arc::new(Counts::default());
    let probe = thread::spawn(move || {
        open_loop::run(Plan {
            server: public,
            links: LINKS,
            requests_a_second: options.rate,
            seconds: 60 * options.minutes,
            connections: PROBES,
        })
    });
    let downloads = Downloads::start(&source, SLOW_DOWNLOADS, Speed::Slow)?;
    let (received, since) = (downloads.received(), Instant::now());
    let slow = SlowClients::start(public, SLOW, SLOW, Place::Anywhere)?;
    let clients = start_clients(
        &target,
        Client::resuming(&certificate)?,
        &clicked,
        &counts,
        &options.burst,
    )?;

    let minutes = watch(&options, &target, &counts, &slow, &clients)?;
    let (mut failures, mut latency) = (Vec::new(), Value::Null);
    // Of a soak that a client has ended, the latencies are still being measured.
    if minutes.len() as u64 == options.minutes {
        match probe.join() {
            Ok(Ok(latencies)) => {
                failures.extend(tell(&latencies, options.rate));
                latency = latencies.json();
            }
            Ok(Err(error)) => failures.push(format!("latencies could not be measured: {error:#}")),
            Err(_) => failures.push("what measures latencies panicked".to_owned()),
        }
    }
    counts.is_over.store(true, Ordering::Relaxed);
    if let Err(error) = downloads.flowed(&received, since.elapsed()) {
        failures.push(format!("{error:#}"));
    }
    for client in clients {
        match client.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(format!("a client could not go on: {error:#}")),
            Err(_) => failures.push("a client panicked".to_owned()),
        }
    }
    drop((slow, downloads));
    failures.extend(lost_clicks(&target, &clicked, counts.secure.load(Ordering::Relaxed))?);
    let mut tinyd = Arc::into_inner(target).context("a client is left")?.tinyd;
    let left = tinyd
        .process
        .wait_until(Duration::from_secs(30), || Ok(open_files(process)? <= files));
    if left.is_err() {
        let now = open_files(process)?;
        failures.push(format!("{now} descriptors are open, {files} at the start"));
    }
    failures.extend(judge(&minutes, &counts, &tinyd.log()));
    report::write_json(
        "soak",
        &json!({ "minutes": minutes, "latency": latency, "failures": failures }),
    )?;
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    say("no answer was wrong, nothing leaked, no error was logged");
    Ok(())
}

/// Prints the latencies, and what is wrong with them.
fn tell(latencies: &Latencies, rate: u64) -> Option<String> {
    let names: Vec<_> = PERCENTILES.iter().map(|(name, _)| *name).chain(["failed"]).collect();
    let shown = PERCENTILES
        .iter()
        .map(|(_, percentile)| format!("{:.0}", latencies.microseconds(*percentile)));
    let row = shown.chain([latencies.failed.to_string()]).collect();
    let title = format!("Latency at {rate} redirects a second, µs from when each was due");
    report::table(&title, &names, vec![row]);
    let failed = latencies.failed;
    (failed > 0).then(|| format!("{failed} of the redirects at a fixed rate failed"))
}

/// What is shown of each minute: a heading as wide as the values, and the name of the value.
const COLUMNS: [(&str, &str); 15] = [
    ("min", "minute"),
    ("redirects", "redirects"),
    ("    TLS", "redirectsOverTls"),
    ("shakes", "handshakes"),
    ("refusals", "refusals"),
    (" calls", "calls"),
    ("   links", "links"),
    ("reloads", "reloads"),
    ("turned away", "turnedAway"),
    ("gave way", "gaveWay"),
    ("slow closed", "slowClosed"),
    ("wrong", "wrong"),
    ("  MB", "residentMegabytes"),
    ("files", "openFiles"),
    (
        "checkpoints; bursts of adds, lists, imports, backups, fetches",
        "checkpointsAndBursts",
    ),
];

/// A line for each minute.
fn watch(
    options: &Options,
    target: &Target,
    counts: &Counts,
    slow: &SlowClients,
    clients: &[thread::JoinHandle<Result<()>>],
) -> Result<Vec<Value>> {
    let (process, admin) = (target.tinyd.process.id(), target.tinyd.admin);
    let mut minutes = Vec::new();
    let started = Instant::now();
    let titles = COLUMNS.map(|(title, _)| title);
    say(&titles.join("  "));
    for minute in 1..=options.minutes {
        while started.elapsed() < Duration::from_secs(60 * minute) {
            if clients.iter().any(thread::JoinHandle::is_finished) {
                return Ok(minutes);
            }
            thread::sleep(LOOK_INTERVAL);
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (resident, files) = (resident(process)?, open_files(process)?);
        let checkpoints = tinyd::metric(admin, CHECKPOINTS)? as u64;
        let bursts: Vec<_> = counts.bursts.iter().map(|came| read(came).to_string()).collect();
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
            "redirectsOverTls": read(&counts.secure),
            "handshakes": read(&counts.handshakes),
            "checkpoints": checkpoints,
            "checkpointsAndBursts": format!("{checkpoints}; {}", bursts.join(" ")),
            "links": tinyd::metric(admin, "tinyd_map_links")? as u64,
            "residentBytes": resident,
            "residentMegabytes": resident >> 20,
            "openFiles": files,
        });
        let cells = COLUMNS.map(|(title, name)| {
            let value = line
                .get(name)
                .map_or_else(String::new, ToString::to_string)
                .replace('"', "");
            format!("{value:>width$}", width = title.len())
        });
        say(&cells.join("  "));
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
    let checkpoints = minutes
        .last()
        .and_then(|minute| minute.get("checkpoints"))
        .and_then(Value::as_u64);
    if checkpoints == Some(0) {
        failures.push("there was no checkpoint".to_owned());
    }
    // Of a short run, the first minute has to do.
    let first = minutes.get(1.min(minutes.len().saturating_sub(2)));
    if let (Some(first), Some(last)) = (first, minutes.last()) {
        let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64).unwrap_or(0);
        let grown = number(last, "residentBytes").saturating_sub(number(first, "residentBytes"));
        let added = number(last, "links").saturating_sub(number(first, "links"));
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
        .filter(|line| !line.contains(EXPECTED_WARNING))
        .filter(|line| line.contains(" ERROR ") || line.contains(" WARN ") || line.contains("panicked"));
    failures.extend(errors.take(10).map(|line| format!("logged: {line}")));
    failures
}
