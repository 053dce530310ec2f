//! What a redirect costs: CPU a request of tinyd, nginx, HAProxy and a floor, in turns, over TLS with Caddy too, and
//! latency at a fixed rate, alone and beside downloads.
//!
//! `cargo bench --bench redirect`; `-- --quick` for a look, `-- --help` for the rest.

mod rig;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use rig::beside;
use rig::beside_loads::{self, Comparison};
use rig::contest::{self, Lane, Measure, Measured};
use rig::downloads;
use rig::floor;
use rig::http::{self, GOTO, TINY};
use rig::latency;
use rig::links::{self, Kind};
use rig::loads::Load;
use rig::machine::{self, Place};
use rig::open_loop::Plan;
use rig::plot;
use rig::proxies::{self, Proxy};
use rig::report::{self, Goal, say};
use rig::tinyd::{Setup, Tinyd};
use rig::tls::{self, Task};
use rig::wrk::{self, Manner};
use rig::{interrupt, stores};

const CONNECTIONS: u32 = 64;
const PIPELINED: usize = 16;
/// Ids in the script that asks for unknown ones.
const UNKNOWN_IDS: u64 = 10_000;

/// Measures what a redirect costs.
#[derive(Debug, Parser)]
#[command(name = "redirect", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(flatten)]
    cargo: rig::CargoArgs,

    /// Measure what a load tester repeats: keep-alive, pipelined, new connections, TLS and latency
    #[arg(long, conflicts_with = "work")]
    report: bool,

    /// One round of one second each, and two seconds of latencies
    #[arg(long)]
    quick: bool,

    /// Rounds, in each of which every server has its turn
    #[arg(long, default_value_t = 5)]
    rounds: u64,

    /// Seconds of each turn
    #[arg(long, default_value_t = 2)]
    seconds: u64,

    /// Links that there are
    #[arg(long, default_value_t = 100_000)]
    links: u64,

    /// Measure this only; can be given several times
    #[arg(long, value_enum)]
    work: Vec<Work>,

    /// Requests a second while latencies are measured
    #[arg(long, default_value_t = 10_000)]
    rate: u64,

    /// Seconds for which latencies are measured
    #[arg(long, default_value_t = 10)]
    latency_seconds: u64,

    /// Slow downloads through goto with proxy=true, beside which redirects are measured
    #[arg(long, default_value_t = 200)]
    slow_downloads: usize,

    /// Fast ones, in turns with the former
    #[arg(long, default_value_t = 4)]
    fast_downloads: usize,

    /// Redirects a second beside downloads and loads
    #[arg(long, default_value_t = 2_000)]
    rate_beside: u64,

    /// Measure redirects beside these loads only; can be given several times
    #[arg(long, value_enum)]
    beside: Vec<Load>,

    /// Links that there are beside loads
    #[arg(long, default_value_t = 200_000)]
    links_beside: u64,

    /// Pin nobody, and give servers a thread for each core
    #[arg(long)]
    all_cores: bool,

    /// Beside loads, measure this build of tinyd too, in turns with the own; can be given several times
    #[arg(long, value_name = "PROGRAM")]
    other: Vec<PathBuf>,

    /// Beside loads, how often a turn is taken at most until other programs leave the machine alone
    #[arg(long, default_value_t = beside::TRIES)]
    tries: usize,

    /// Connections whose memory is measured over TLS
    #[arg(long, default_value_t = 2_000)]
    idle_connections: u64,

    #[command(subcommand)]
    role: Option<floor::Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// goto, keep-alive
    Goto,
    /// goto, 16 requests at once
    Pipelined,
    /// /tiny, which leads to goto
    Hop,
    /// /tiny, which leads to the destination
    Direct,
    /// goto with an id that no link has
    Unknown,
    /// goto, a new connection each time
    Close,
    /// goto with the log at debug, against info
    Log,
    /// goto with two threads on two cores, against one
    Cores,
    /// Latencies at a fixed rate
    Latency,
    /// Latencies beside downloads through goto with proxy=true, against those without
    Downloads,
    /// Latencies beside each of the loads of --beside, against those without
    Beside,
    /// All that follow
    Tls,
    /// goto over TLS, keep-alive
    TlsKeepAlive,
    /// goto over TLS, a new connection with a full handshake each time
    TlsFull,
    /// goto over TLS, a new connection with a resumed session each time
    TlsResumed,
    /// goto over TLS with HTTP/2, 10 streams a connection
    TlsH2,
    /// Memory of an idle connection over TLS
    TlsIdle,
}

impl Work {
    /// What docs/load-testing.md has repeated.
    const REPORTED: [Self; 6] = [
        Self::Goto,
        Self::Pipelined,
        Self::Close,
        Self::Latency,
        Self::TlsKeepAlive,
        Self::TlsFull,
    ];

    /// The works that are chosen, in the order of this list; all if none is.
    fn chosen(named: &[Self]) -> Vec<Self> {
        let is_chosen = |work: &Self| {
            let is_named = named.contains(work) || (work.is_over_tls() && named.contains(&Self::Tls));
            *work != Self::Tls && (named.is_empty() || is_named)
        };
        let all = Self::value_variants().iter().copied();
        all.filter(is_chosen).collect()
    }

    /// What is measured in CPU over TLS.
    const fn task(self) -> Option<Task> {
        match self {
            Self::TlsKeepAlive => Some(Task::KeepAlive),
            Self::TlsFull => Some(Task::Full),
            Self::TlsResumed => Some(Task::Resumed),
            Self::TlsH2 => Some(Task::Http2),
            _ => None,
        }
    }

    fn is_over_tls(self) -> bool {
        self.task().is_some() || self == Self::TlsIdle
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Goto => "goto 302",
            Self::Pipelined => "16 pipelined",
            Self::Hop => "/tiny hop 301",
            Self::Direct => "/tiny direct 302",
            Self::Unknown => "unknown id 404",
            Self::Close => "new connections",
            Self::Log => "log level",
            Self::Cores => "cores",
            Self::Latency => "latency",
            Self::Downloads => "downloads",
            Self::Beside => "beside loads",
            Self::Tls => "TLS",
            Self::TlsKeepAlive => "TLS keep-alive",
            Self::TlsFull => "TLS full handshakes",
            Self::TlsResumed => "TLS resumed",
            Self::TlsH2 => "TLS HTTP/2",
            Self::TlsIdle => "TLS idle",
        }
    }

    /// Whether CPU is measured.
    const fn is_about_cpu(self) -> bool {
        !matches!(
            self,
            Self::Latency | Self::Downloads | Self::Beside | Self::Tls | Self::TlsIdle
        )
    }

    /// The plot that it is in: a handshake costs so much that other bars would not be seen beside it.
    const fn plot(self) -> (&'static str, &'static str) {
        match self {
            Self::TlsFull | Self::TlsResumed => (
                "redirect-handshakes",
                "CPU a connection over TLS: user (dark) and system (light)",
            ),
            _ => ("redirect", "CPU a request: user (dark) and system (light)"),
        }
    }

    /// The goals: against whom, what of it, and how many times as much it may be.
    const fn goals(self) -> &'static [(&'static str, Measure, f64)] {
        match self {
            Self::Goto => &[
                ("nginx", Measure::AllCpu, 0.80),
                ("HAProxy", Measure::AllCpu, 0.60),
                ("floor", Measure::AllCpu, 1.10),
                ("nginx", Measure::UserCpu, 0.5),
            ],
            Self::Pipelined => &[("nginx", Measure::AllCpu, 0.13), ("floor", Measure::AllCpu, 1.3)],
            Self::Hop | Self::Direct | Self::Unknown => &[("goto", Measure::AllCpu, 1.10)],
            Self::Close => &[("nginx", Measure::AllCpu, 0.90), ("floor", Measure::AllCpu, 1.10)],
            Self::TlsKeepAlive => &[("nginx", Measure::AllCpu, 0.85)],
            Self::TlsFull | Self::TlsH2 => &[("nginx", Measure::AllCpu, 1.0)],
            Self::TlsResumed => &[("nginx", Measure::AllCpu, 0.9)],
            _ => &[],
        }
    }
}

impl Options {
    fn beside_loads(&self, plan: Plan) -> Comparison {
        let loads = if self.beside.is_empty() {
            Load::value_variants().to_vec()
        } else {
            self.beside.clone()
        };
        Comparison {
            loads,
            links: self.links_beside.max(links::WORKING),
            rounds: self.rounds,
            tries: self.tries,
            others: self.other.clone(),
            plan: Plan {
                links: links::WORKING,
                requests_a_second: self.rate_beside,
                ..plan
            },
        }
    }
}

/// Everything that is running and what it is asked.
struct Field {
    scratch: tempfile::TempDir,
    ids: PathBuf,
    unknown_ids: PathBuf,
    store: stores::Prepared,
    tinyd: Tinyd,
    /// nginx, HAProxy and the floor, as far as they are there.
    others: Vec<(&'static str, Proxy)>,
    links: u64,
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
        (options.rounds, options.seconds, options.latency_seconds) = (1, 1, 2);
    }
    if options.report {
        options.work = Work::REPORTED.to_vec();
    }
    options.work = Work::chosen(&options.work);
    if options.all_cores {
        machine::use_all_cores();
    }
    interrupt::watch()?;
    machine::require("wrk")?;
    say(&machine::summary());
    let field = Field::set_up(options.links)?;
    let is_over_tls = options.work.iter().any(|work| work.is_over_tls());
    let secure = is_over_tls.then(|| tls::Field::set_up(field.scratch.path(), &field.store, field.links));
    let secure = secure.transpose()?;
    let (mut results, mut goals, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for &work in options.work.iter().filter(|work| work.is_about_cpu()) {
        let measured = match (work.task(), &secure) {
            (Some(task), Some(secure)) => {
                secure.measure(task, work.title(), &field.ids, options.rounds, options.seconds)?
            }
            _ => field.measure(work, &options)?,
        };
        if measured.is_empty() {
            continue;
        }
        contest::show(work.title(), &measured);
        goals.extend(judge(work, &measured));
        groups.push((work.plot(), contest::bars(work.title(), &measured)));
        let servers: Vec<_> = measured.iter().map(Measured::json).collect();
        results.push(json!({ "work": work.title(), "servers": servers }));
    }
    let plan = Plan {
        server: field.tinyd.public,
        links: field.links,
        requests_a_second: options.rate,
        seconds: options.latency_seconds,
        connections: CONNECTIONS as usize,
    };
    let (mut latencies, mut downloads, mut idle) = (Value::Null, Value::Null, Value::Null);
    if options.work.contains(&Work::Latency) {
        latencies = latency::compare(&field.servers(), plan, options.rounds)?;
    }
    if options.work.contains(&Work::Downloads) {
        let comparison = downloads::Comparison {
            slow: options.slow_downloads,
            fast: options.fast_downloads,
            rounds: options.rounds,
            plan: Plan {
                requests_a_second: options.rate_beside,
                ..plan
            },
        };
        let compared = downloads::compare(comparison, &field.store, field.scratch.path())?;
        downloads = compared.0;
        goals.extend(compared.1);
    }
    let mut loads = Value::Null;
    if options.work.contains(&Work::Beside) {
        let comparison = options.beside_loads(plan);
        let compared = beside_loads::compare(&comparison, field.scratch.path())?;
        loads = compared.0;
        goals.extend(compared.1);
    }
    if let Some(secure) = secure.filter(|_| options.work.contains(&Work::TlsIdle)) {
        let compared = secure.idle(Work::TlsIdle.title(), options.idle_connections, options.rounds)?;
        idle = compared.0;
        goals.extend(compared.1);
    }
    report::goals(&goals);
    report::write_json(
        "redirect",
        &json!({
            "works": results,
            "goals": goals,
            "latency": &latencies,
            "downloads": downloads,
            "beside": loads,
            "idle": idle,
        }),
    )?;
    let mut plots = Vec::new();
    for work in [Work::Goto, Work::TlsFull] {
        let (name, title) = work.plot();
        let of_plot = groups.iter().filter(|((other, _), _)| *other == name);
        let of_plot: Vec<_> = of_plot.map(|(_, group)| group.clone()).collect();
        if !of_plot.is_empty() {
            plot::bars(name, title, "µs", &of_plot)?;
            plots.push(name);
        }
    }
    if !latencies.is_null() {
        plots.push(latency::PLOT);
    }
    report::write_markdown("redirect", &plots)
}

impl Field {
    fn set_up(count: u64) -> Result<Self> {
        let scratch = machine::scratch()?;
        let folder = scratch.path();
        let (ids, unknown_ids) = (folder.join("ids"), folder.join("unknown-ids"));
        links::write_ids(&ids, (0..count).map(links::id))?;
        links::write_ids(&unknown_ids, (0..UNKNOWN_IDS).map(links::unknown_id))?;
        let store = stores::prepared(Kind::Plain, count)?;
        let data = folder.join("data");
        store.copy_to(&data)?;
        let mut tinyd = Tinyd::start(Setup::new(&data, folder))?;
        // Else that would be taken for the cost of the first redirects.
        tinyd.wait_until_verified()?;
        let mut others = Vec::new();
        let optional = [
            ("nginx", proxies::nginx(folder, count, None)?),
            ("HAProxy", proxies::haproxy(folder, count, None)?),
        ];
        for (name, proxy) in optional {
            match proxy {
                Some(proxy) => others.push((name, proxy)),
                None => report::remark(&format!("{name} is not installed and left out: {}", machine::INSTALL)),
            }
        }
        others.push(("floor", proxies::floor(folder, count)?));
        let field = Self {
            scratch,
            ids,
            unknown_ids,
            store,
            tinyd,
            others,
            links: count,
        };
        for (name, server) in field.servers() {
            verify(name, server, GOTO, 302, Some(&links::destination(1)))?;
        }
        Ok(field)
    }

    /// Another tinyd with the same links.
    fn another(&self, name: &str, change: impl FnOnce(Setup<'_>) -> Setup<'_>) -> Result<Tinyd> {
        let data = self.scratch.path().join(name);
        self.store.copy_to(&data)?;
        Tinyd::start(change(Setup::new(&data, &data)))
    }

    fn measure(&self, work: Work, options: &Options) -> Result<Vec<Measured>> {
        let folder = self.scratch.path();
        let goto = wrk::goto(folder, "goto", &self.ids, Manner::KeepAlive)?;
        let mine = |name: &str, tinyd: &Tinyd, script: &Path| lane(name, tinyd.public, tinyd.process.id(), script);
        let against_others = |manner| -> Result<Vec<Lane>> {
            let script = wrk::goto(
                folder,
                work.title().split(' ').next_back().unwrap_or("goto"),
                &self.ids,
                manner,
            )?;
            let others = self
                .others
                .iter()
                .map(|(name, proxy)| lane(name, proxy.address, proxy.process.id(), &script));
            Ok(std::iter::once(mine("tinyd", &self.tinyd, &script))
                .chain(others)
                .collect())
        };
        // What must live as long as it is measured.
        let second;
        let lanes = match work {
            Work::Goto => against_others(Manner::KeepAlive)?,
            Work::Pipelined => against_others(Manner::Pipelined(PIPELINED))?,
            Work::Close => against_others(Manner::NewConnection)?,
            Work::Hop => {
                let location = format!("{GOTO}{}", links::id(1));
                verify("hop", self.tinyd.public, TINY, 301, Some(&location))?;
                let script = wrk::tiny(folder, "tiny", &self.ids)?;
                vec![mine("hop", &self.tinyd, &script), mine("goto", &self.tinyd, &goto)]
            }
            Work::Direct => {
                second = self.another("direct", |setup| Setup {
                    tiny: "direct",
                    ..setup
                })?;
                verify("direct", second.public, TINY, 302, Some(&links::destination(1)))?;
                let script = wrk::tiny(folder, "tiny", &self.ids)?;
                vec![mine("direct", &second, &script), mine("goto", &second, &goto)]
            }
            Work::Unknown => {
                let target = format!("{GOTO}{}", links::unknown_id(0));
                let status = http::get(self.tinyd.public, &target)?.status;
                if status != 404 {
                    bail!("an unknown id is answered {status}");
                }
                let script = wrk::goto(folder, "unknown", &self.unknown_ids, Manner::KeepAlive)?;
                let mut unknown = mine("unknown", &self.tinyd, &script);
                unknown.is_refused = true;
                vec![unknown, mine("goto", &self.tinyd, &goto)]
            }
            Work::Log => {
                second = self.another("debug", |setup| Setup { log: "debug", ..setup })?;
                vec![mine("debug", &second, &goto), mine("info", &self.tinyd, &goto)]
            }
            Work::Cores => return self.cores(options, &goto),
            _ => bail!("{work:?} is measured otherwise"),
        };
        contest::measure(work.title(), &lanes, options.rounds, options.seconds)
    }

    /// One thread against two, all where the kernel puts it. The load generator has to share the cores then.
    fn cores(&self, options: &Options, script: &Path) -> Result<Vec<Measured>> {
        let place = Place::Anywhere;
        let one = self.another("one", |setup| Setup {
            place,
            threads: 1,
            ..setup
        })?;
        let two = self.another("two", |setup| Setup {
            place,
            threads: 2,
            ..setup
        })?;
        let mut lanes = vec![
            lane("two threads", two.public, two.process.id(), script),
            lane("one thread", one.public, one.process.id(), script),
        ];
        for lane in &mut lanes {
            lane.load = Place::Anywhere;
        }
        contest::measure(Work::Cores.title(), &lanes, options.rounds, options.seconds)
    }

    /// All servers and where they listen.
    fn servers(&self) -> Vec<(&'static str, SocketAddr)> {
        let others = self.others.iter().map(|(name, proxy)| (*name, proxy.address));
        std::iter::once(("tinyd", self.tinyd.public)).chain(others).collect()
    }
}

fn lane(name: &str, address: SocketAddr, process: u32, script: &Path) -> Lane {
    Lane {
        name: name.to_owned(),
        process,
        url: format!("http://{address}"),
        script: script.to_owned(),
        connections: CONNECTIONS,
        is_refused: false,
        load: Place::Load,
    }
}

/// One plain request before anything is measured, so that a fast mistake is not taken for a fast redirect.
fn verify(name: &str, server: SocketAddr, path: &str, status: u16, location: Option<&str>) -> Result<()> {
    let answer = http::get(server, &format!("{path}{}", links::id(1))).with_context(|| name.to_owned())?;
    if answer.status != status || answer.location.as_deref() != location {
        bail!(
            "{name} does not redirect as expected: {} {:?}",
            answer.status,
            answer.location
        );
    }
    Ok(())
}

fn judge(work: Work, measured: &[Measured]) -> Vec<Goal> {
    let goal = |&(other, measure, limit): &(&str, Measure, f64)| {
        let subject = measured.first()?;
        let reference = measured.iter().find(|lane| lane.name == other)?;
        let what = format!("{} / {other}", measure.name());
        Some(Goal::at_most(
            work.title(),
            &what,
            limit,
            "",
            subject.ratio_to(reference, measure),
        ))
    };
    work.goals().iter().filter_map(goal).collect()
}
