//! A cluster of three NATS servers, an admin box and many edges on one machine: adds, how soon they are on every edge,
//! and an edge that catches up.
//!
//! `cargo bench --bench cluster`; `-- --quick` for a look. Needs nats-server and wrk.

mod rig;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Value, json};

use rig::beside::{self, Turns};
use rig::cpu::{Usage, resident_bytes};
use rig::floor;
use rig::followers::Followers;
use rig::http::{Connection, GOTO};
use rig::links::{DESTINATION_BYTES, Kind, PARTNER};
use rig::machine::{self, Place};
use rig::nats::Nats;
use rig::open_loop::{self, Plan};
use rig::process::Running;
use rig::report::{self, Goal, Spread, say};
use rig::tinyd::{self, Setup, Tinyd};
use rig::{disk, interrupt, proxies, stores, wrk};

/// Clients that add as fast as they can.
const WRITERS: u32 = 64;
const BATCHES_A_SECOND: u32 = 20;
/// Between two looks at all edges.
const LOOK: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(300);
/// Redirects a second on the edge that catches up.
const RATE: u64 = 2_000;
/// Of each turn, in which their latencies are measured.
const TURN_SECONDS: u64 = 2;
const READERS: usize = 16;

/// Measures a cluster.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Options {
    #[command(flatten)]
    cargo: rig::CargoArgs,

    /// Four edges, two seconds each
    #[arg(long)]
    quick: bool,

    /// Links at the start. Each edge has a store of them: a hundred edges with 100,000 take 20 GB of memory
    #[arg(long, default_value_t = 10_000)]
    links: u64,

    /// Edges that follow
    #[arg(long, default_value_t = 100)]
    edges: usize,

    /// Connections that follow the log and do nothing with it
    #[arg(long, default_value_t = 1_000)]
    followers: usize,

    /// Seconds of each turn
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Rounds of adds through the cluster and on a single box
    #[arg(long, default_value_t = 3)]
    rounds: u64,

    /// Links that are added while an edge is away
    #[arg(long, default_value_t = 200_000)]
    away: u64,

    #[command(subcommand)]
    role: Option<floor::Role>,
}

/// A box of the cluster: its folder, and the section of its configuration.
#[derive(Debug)]
struct Site {
    folder: PathBuf,
    data: PathBuf,
    more: String,
}

impl Site {
    fn make(scratch: &Path, nats: &Nats, role: &str, node: &str) -> Result<Self> {
        let folder = scratch.join(node);
        fs::create_dir_all(&folder)?;
        let more = format!(
            "[cluster]\nservers = {:?}\nrole = \"{role}\"\nnode = \"{node}\"\n",
            nats.urls
        );
        let partner = format!("[[partner]]\nid = {PARTNER}\nadmin_secret = \"secret-of-the-benchmarks-0123456789\"\n");
        fs::write(folder.join("tinyd.toml"), format!("{more}{partner}"))?;
        Ok(Self {
            data: folder.join("data"),
            folder,
            more,
        })
    }

    fn cluster(&self, args: &[&str]) -> Result<String> {
        let config = self.folder.join("tinyd.toml");
        let (config, data) = (config.to_string_lossy(), self.data.to_string_lossy());
        tinyd::run(&[&["cluster"], args, &["--config", &config, "--data", &data]].concat())
    }

    fn setup(&self, place: Place) -> Setup<'_> {
        Setup {
            place,
            more: &self.more,
            ..Setup::new(&self.data, &self.folder)
        }
    }
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if let Some(role) = &options.role {
        return role.play();
    }
    if !options.cargo.is_wanted() {
        return Ok(());
    }
    if options.quick {
        (options.edges, options.seconds, options.rounds, options.away) = (4, 2, 1, 10_000);
        options.followers = 100;
    }
    interrupt::watch()?;
    machine::require("wrk")?;
    say(&machine::summary());
    let scratch = machine::scratch()?;
    let scratch = scratch.path();
    let synced = disk::syncs_a_second(scratch, true)?;
    say(&format!(
        "disk ({}): {synced:.0} syncs a second",
        disk::file_system(scratch)?
    ));

    let nats = Nats::start(scratch)?;
    let admin = Site::make(scratch, &nats, "admin", "admin")?;
    let prepared = stores::prepared(Kind::Plain, options.links)?;
    prepared.copy_to(&admin.data)?;
    say(admin
        .cluster(&["init", "--log-size", "3", "--clicks-size", "1"])?
        .trim());
    let copy = scratch.join("copy.redb");
    fs::copy(admin.data.join("links.redb"), &copy)?;
    let join = |node: &str| -> Result<Site> {
        let site = Site::make(scratch, &nats, "edge", node)?;
        site.cluster(&["join", "--from", &copy.to_string_lossy()])?;
        Ok(site)
    };
    let box_of_admin = Tinyd::start(admin.setup(Place::Anywhere))?;
    wait_until_writable(&box_of_admin)?;

    let mut goals = Vec::new();
    let adds = adds(&options, scratch, &box_of_admin)?;
    // Far behind from the start: the adds above come on top.
    let away = [join("away0")?, join("away1")?];
    let catching_up = catch_up(&options, scratch, &nats, &box_of_admin, &away, &mut goals)?;
    let followed = followed(&options, &nats, &box_of_admin, &mut goals)?;
    let sites = (0..options.edges).map(|number| join(&format!("edge{number}")));
    let sites = sites.collect::<Result<Vec<_>>>()?;
    let visible = visible(&options, &box_of_admin, &sites, &mut goals)?;
    report::goals(&goals);
    let results = json!({ "syncsPerSecond": synced, "adds": adds, "catchingUp": catching_up, "followed": followed,
        "visible": visible, "goals": goals });
    report::write_json("cluster", &results)
}

fn add_one(connection: &mut Connection, session: &str, url: &str) -> Result<String> {
    let params = [
        ("ks", session),
        ("shortLink[systemName]", "BENCH"),
        ("shortLink[fullUrl]", url),
    ];
    let added = connection.call("add", &params)?;
    Ok(added
        .get("id")
        .and_then(Value::as_str)
        .context("a link without id")?
        .to_owned())
}

fn wait_until_writable(admin: &Tinyd) -> Result<()> {
    let session = admin.session()?;
    let started = Instant::now();
    loop {
        let added = Connection::open(admin.admin)
            .and_then(|mut connection| add_one(&mut connection, &session, "https://example.com/"));
        match added {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > PATIENCE => return Err(error.context("no write is taken")),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Adds a second, of a single box and through the cluster in turns.
fn adds(options: &Options, scratch: &Path, cluster: &Tinyd) -> Result<Value> {
    let (data, folder) = (scratch.join("single-data"), scratch.join("single"));
    fs::create_dir_all(&folder)?;
    stores::prepared(Kind::Plain, options.links)?.copy_to(&data)?;
    let single = Tinyd::start(Setup {
        place: Place::Anywhere,
        ..Setup::new(&data, &folder)
    })?;
    let (mut rows, mut results) = (Vec::new(), Vec::new());
    for clients in [1, WRITERS] {
        let (mut alone, mut shared, mut p99) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.rounds {
            say(&format!("adds by {clients} clients: round {}", round + 1));
            for (tinyd, rates) in [(&single, &mut alone), (cluster, &mut shared)] {
                let script = wrk::adds(scratch, &tinyd.session()?, DESTINATION_BYTES)?;
                let url = format!("http://{}", tinyd.admin);
                let seed = u64::from(clients) * 1_000 + round + 1;
                let run = wrk::run_without_errors(Place::Anywhere, &url, &script, clients, options.seconds, seed)?;
                rates.push(run.requests as f64 / run.seconds);
                if std::ptr::eq(tinyd, cluster) {
                    p99.push(run.p99_ms);
                }
            }
        }
        let ratio = Spread::of(shared.iter().zip(&alone).map(|(shared, alone)| shared / alone));
        let [alone, shared, p99] = [alone, shared, p99].map(|values| Spread::of(values.into_iter()));
        rows.push(vec![
            clients.to_string(),
            format!("{alone:.0}"),
            format!("{shared:.0}"),
            format!("{ratio:.2}"),
            format!("{p99:.1}"),
        ]);
        results.push(json!({ "clients": clients, "single": alone, "cluster": shared, "ratio": ratio, "p99": p99 }));
    }
    let head = [
        "clients",
        "single box adds/s",
        "cluster adds/s",
        "ratio",
        "cluster p99 ms",
    ];
    report::table("Durable adds", &head, rows);
    Ok(json!(results))
}

/// How long an edge takes that was away, and redirects on it meanwhile.
fn catch_up(
    options: &Options,
    scratch: &Path,
    nats: &Nats,
    admin: &Tinyd,
    away: &[Site; 2],
    goals: &mut Vec<Goal>,
) -> Result<Value> {
    let total = || -> Result<u64> {
        let session = admin.session()?;
        let params = [("ks", session.as_str()), ("pager[pageSize]", "1")];
        let listed = Connection::open(admin.admin)?.call("list", &params)?;
        listed
            .get("totalCount")
            .and_then(Value::as_u64)
            .context("a list without totalCount")
    };
    let script = wrk::adds(scratch, &admin.session()?, DESTINATION_BYTES)?;
    let url = format!("http://{}", admin.admin);
    let mut seed = 1_000_000;
    say(&format!("adding {} links while two edges are away", options.away));
    while total()? < options.links + options.away {
        seed += 1;
        wrk::run_without_errors(Place::Anywhere, &url, &script, WRITERS, 5, seed)?;
    }
    let mut connection = Connection::open(admin.admin)?;
    let last = add_one(&mut connection, &admin.session()?, "https://example.com/last")?;
    let missed = total()? - options.links;

    let [first, second] = away;
    let edge = Tinyd::start(first.setup(Place::Anywhere))?;
    let started = Instant::now();
    wait_for(edge.public, &last)?;
    let rate = missed as f64 / started.elapsed().as_secs_f64();
    drop(edge);
    goals.push(Goal::at_least(
        "an edge that was away",
        "links/s",
        20_000.0,
        "",
        Spread::of([rate].into_iter()),
    ));

    let edge = Tinyd::start(second.setup(Place::Server))?;
    // They have machines of their own, where they matter.
    let others = nats.processes.iter().chain([&admin.process]).map(Running::id);
    let others: Vec<_> = others.collect();
    let place = |place: Place| others.iter().try_for_each(|process| place.take_process(*process));
    place(Place::Aside)?;
    let plan = Plan {
        server: edge.public,
        links: options.links,
        requests_a_second: RATE,
        seconds: TURN_SECONDS,
        connections: READERS,
    };
    let bare = proxies::floor_beside(scratch, options.links)?;
    let plan_of_floor = Plan {
        server: bare.address,
        ..plan
    };
    let mut busy = Turns::new("redirects while catching up");
    let mut busy_floor = Turns::new("the floor while an edge catches up");
    let started = Instant::now();
    'catching_up: loop {
        for (plan, turns) in [(plan, &mut busy), (plan_of_floor, &mut busy_floor)] {
            let turn = open_loop::run(plan)?;
            let is_over = redirects(edge.public, &last)?;
            // One that was over before its end is of part of it, and counts only if there is no other.
            if !is_over || turns.latencies.is_empty() {
                turns.latencies.push(turn);
            }
            if is_over {
                break 'catching_up;
            }
        }
        if started.elapsed() > PATIENCE {
            bail!("the edge does not catch up");
        }
    }
    let caught_up = started.elapsed();
    let mut alone = Turns::new("redirects alone");
    let mut alone_floor = Turns::new("the floor alone");
    for _ in &busy.latencies {
        alone.latencies.push(open_loop::run(plan)?);
        alone_floor.latencies.push(open_loop::run(plan_of_floor)?);
    }
    drop(bare);
    place(Place::Anywhere)?;
    say(&format!(
        "{missed} links missed: {rate:.0} links/s; with redirects, at most {:.0} s. Redirects' p99 {:.0} µs while it \
         catches up, {:.0} µs alone; of these the load generator's own {:.0} and {:.0} µs",
        caught_up.as_secs_f64(),
        busy.spread(99.0),
        alone.spread(99.0),
        busy.own(),
        alone.own(),
    ));
    if !busy_floor.latencies.is_empty() {
        let [busy, alone] = [&busy_floor, &alone_floor].map(|turns| turns.spread(99.0));
        say(&format!("the floor's p99 {busy:.0} and {alone:.0} µs"));
    }
    goals.push(busy.goal(&alone, ("p99", 99.0, 1.5)));
    goals.push(beside::none_failed("redirects while catching up", &[&busy, &alone]));
    let turns = [busy, alone, busy_floor, alone_floor].map(|turns| turns.json());
    Ok(json!({ "links": missed, "linksPerSecond": rate, "turns": turns }))
}

/// From when an add is sent until many followers have its entry, and what that costs the servers.
fn followed(options: &Options, nats: &Nats, admin: &Tinyd, goals: &mut Vec<Goal>) -> Result<Value> {
    say(&format!("{} followers", options.followers));
    let zeros = "0".repeat(64);
    let statement = |number: usize| {
        json!({ "node": format!("follower{number}"), "role": "edge", "version": "0", "cluster": "0".repeat(32),
            "epoch": 1, "sequence": 1, "chain": zeros, "digest": zeros, "at": 0, "halted": null })
        .to_string()
    };
    let followers = Followers::start(options.followers, &nats.urls, statement)?;
    let session = admin.session()?;
    let mut connection = Connection::open(admin.admin)?;
    let servers = || nats.processes.iter().map(|server| Usage::of(server.id()));
    let before = servers().collect::<Result<Vec<_>>>()?;
    let of_admin = Usage::of(admin.process.id())?;
    let (started, mut sent) = (Instant::now(), Vec::new());
    for number in 0..options.seconds * u64::from(BATCHES_A_SECOND) {
        let due = started + Duration::from_secs(1) / BATCHES_A_SECOND * u32::try_from(number)?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sent.push(Instant::now());
        add_one(&mut connection, &session, &format!("https://example.com/f{number}"))?;
    }
    let took = started.elapsed().as_secs_f64();
    let after = servers().collect::<Result<Vec<_>>>()?;
    let percent = |us: f64| us / 1e4 / took;
    let cpu = after
        .iter()
        .zip(&before)
        .map(|(now, before)| percent(now.since(before).total_us));
    let cpu: f64 = cpu.sum();
    let of_admin = percent(Usage::of(admin.process.id())?.since(&of_admin).total_us);
    let memory = nats.processes.iter().map(|server| resident_bytes(server.id()));
    let memory = memory.collect::<Result<Vec<_>>>()?.into_iter().sum::<u64>() as f64 / 1e6;
    let waiting = Instant::now();
    while followers.entries() < sent.len() {
        if waiting.elapsed() > PATIENCE {
            bail!("an entry has not come to every follower");
        }
        thread::sleep(LOOK);
    }
    let arrived = followers.finish()?;
    let mut reached = Histogram::<u64>::new(3)?;
    for (sent, arrived) in sent.iter().zip(&arrived.everywhere) {
        reached.record(u64::try_from(arrived.duration_since(*sent).as_micros())?)?;
    }
    let ms = |percentile| reached.value_at_percentile(percentile) as f64 / 1e3;
    let (p50, p99) = (ms(50.0), ms(99.0));
    let traffic = arrived.bytes as f64 / 1e6 / took;
    say(&format!(
        "from an add until {} followers have it: p50 {p50:.0} ms, p99 {p99:.0} ms; the servers {cpu:.0} % of a core, \
         {memory:.0} MB and {traffic:.1} MB/s in all, the admin box {of_admin:.0} %",
        options.followers
    ));
    let seconds = Spread::of([p99 / 1e3].into_iter());
    goals.push(Goal::at_most("at all followers", "p99", 0.5, " s", seconds));
    Ok(
        json!({ "followers": options.followers, "p50Milliseconds": p50, "p99Milliseconds": p99,
        "serversCpuPercent": cpu, "serversMegabytes": memory, "megabytesPerSecond": traffic,
        "adminCpuPercent": of_admin }),
    )
}

fn redirects(edge: SocketAddr, id: &str) -> Result<bool> {
    Ok(rig::http::get(edge, &format!("{GOTO}{id}"))?.status == 302)
}

fn wait_for(edge: SocketAddr, id: &str) -> Result<()> {
    let started = Instant::now();
    while !redirects(edge, id)? {
        if started.elapsed() > PATIENCE {
            bail!("the edge does not catch up");
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// From when an add is sent until every edge redirects.
fn visible(options: &Options, admin: &Tinyd, sites: &[Site], goals: &mut Vec<Goal>) -> Result<Value> {
    say(&format!("starting {} edges", sites.len()));
    let mut edges = Vec::new();
    for site in sites {
        edges.push(Tinyd::start(site.setup(Place::Anywhere))?);
    }
    let session = admin.session()?;
    let last = add_one(
        &mut Connection::open(admin.admin)?,
        &session,
        "https://example.com/start",
    )?;
    for edge in &edges {
        wait_for(edge.public, &last)?;
    }
    let usage = |edges: &[Tinyd]| {
        edges
            .iter()
            .map(|edge| Usage::of(edge.process.id()))
            .collect::<Result<Vec<_>>>()
    };
    // What comes after entries have been applied is no idling.
    thread::sleep(SETTLE);
    let before = usage(&edges)?;
    thread::sleep(IDLE);
    let spent = usage(&edges)?.into_iter().zip(&before);
    let cpu = Spread::of(spent.map(|(now, before)| now.since(before).total_us / 1e4 / IDLE.as_secs_f64()));
    let memory = edges
        .iter()
        .map(|edge| resident_bytes(edge.process.id()))
        .collect::<Result<Vec<_>>>()?;
    let memory = Spread::of(memory.into_iter().map(|bytes| bytes as f64 / 1e6));
    say(&format!(
        "an edge that verifies its store after the start: {cpu:.2} % of a core, {memory:.1} MB"
    ));

    say(&format!("{BATCHES_A_SECOND} adds a second for {} s", options.seconds));
    let count = options.seconds * u64::from(BATCHES_A_SECOND);
    let added = Mutex::new(Vec::<(String, Instant)>::new());
    let is_over = AtomicBool::new(false);
    let visible = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&edges, &added, &is_over));
        let mut connection = Connection::open(admin.admin)?;
        let started = Instant::now();
        for number in 0..count {
            let due = started + Duration::from_secs(1) / BATCHES_A_SECOND * u32::try_from(number)?;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            let id = add_one(&mut connection, &session, &format!("https://example.com/{number}"));
            if id.is_err() {
                is_over.store(true, Ordering::Relaxed);
            }
            added.lock().push((id?, sent));
        }
        is_over.store(true, Ordering::Relaxed);
        watching
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the watcher panicked")))
    })?;
    let ms = |percentile| visible.value_at_percentile(percentile) as f64 / 1e3;
    let (p50, p99, max) = (ms(50.0), ms(99.0), ms(100.0));
    say(&format!(
        "from an add until all {} edges redirect: p50 {p50:.0} ms, p99 {p99:.0} ms, at most {max:.0} ms",
        edges.len()
    ));
    let seconds = Spread::of([p99 / 1e3].into_iter());
    goals.push(Goal::at_most("visible on all edges", "p99", 0.5, " s", seconds));
    Ok(
        json!({ "edges": edges.len(), "p50Milliseconds": p50, "p99Milliseconds": p99, "maxMilliseconds": max,
        "idleCpuPercent": cpu, "residentMegabytes": memory }),
    )
}

/// Asks each edge for the first link that it does not have yet, again and again.
fn watch(edges: &[Tinyd], added: &Mutex<Vec<(String, Instant)>>, is_over: &AtomicBool) -> Result<Histogram<u64>> {
    let connections = edges.iter().map(|edge| Connection::open(edge.public));
    let mut connections = connections.collect::<Result<Vec<_>>>()?;
    let mut next = vec![0_usize; edges.len()];
    let mut visible = Histogram::<u64>::new(3)?;
    let mut complete = 0;
    loop {
        let over = is_over.load(Ordering::Relaxed);
        let known = added.lock().len();
        for (connection, next) in connections.iter_mut().zip(&mut next) {
            while *next < known {
                let Some((id, _)) = added.lock().get(*next).cloned() else {
                    break;
                };
                if connection.get(&format!("{GOTO}{id}"))?.status != 302 {
                    break;
                }
                *next += 1;
            }
        }
        let everywhere = next.iter().copied().min().unwrap_or(known);
        for (_, sent) in added.lock().iter().take(everywhere).skip(complete) {
            visible.record(u64::try_from(sent.elapsed().as_micros())?)?;
        }
        complete = everywhere;
        if over && complete == known {
            return Ok(visible);
        }
        thread::sleep(LOOK);
    }
}
