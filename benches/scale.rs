//! What grows with the number of links: import, file, start, memory, and what a redirect costs.
//!
//! `cargo bench --bench scale`; `-- --links 1000,100000` for some sizes only. Stores are kept for the next run.

mod rig;

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::{Value, json};

use rig::contest::{self, Lane, Measure};
use rig::http::{self, GOTO};
use rig::links::{self, DESTINATION_BYTES, ID_BYTES, Kind};
use rig::machine::{self, Place};
use rig::plot;
use rig::report::{self, Goal, Spread, say};
use rig::stores::{self, Prepared};
use rig::tinyd::{Setup, Tinyd};
use rig::wrk::{self, Manner};
use rig::{cpu, interrupt};

const CONNECTIONS: u32 = 64;
/// The store that the cost of a redirect is compared with.
const BASE_LINKS: u64 = 10_000;
/// The size that the goals are about.
const GOAL_LINKS: u64 = 10_000_000;
/// Ids that a load generator's memory has room for; drawn from all links.
const IDS_MAX: u64 = 1_000_000;
const START_TIMEOUT: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Measures what grows with the number of links.
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Options {
    #[command(flatten)]
    cargo: rig::CargoArgs,

    /// One round of one second, one start each, and no more than 100,000 links
    #[arg(long)]
    quick: bool,

    /// Numbers of links
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000, 10_000_000])]
    links: Vec<u64>,

    /// How often each store is started
    #[arg(long, default_value_t = 3)]
    starts: u64,

    /// Rounds in which the cost of a redirect is measured
    #[arg(long, default_value_t = 5)]
    rounds: u64,

    /// Seconds of each turn
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

/// One start.
#[derive(Debug, Clone, Copy)]
struct Start {
    first_redirect_seconds: f64,
    loaded_seconds: f64,
    resident_bytes: u64,
}

/// What one number of links came to.
#[derive(Debug)]
struct Row {
    links: u64,
    import_seconds: f64,
    file_bytes: u64,
    first_redirect_seconds: Spread,
    loaded_seconds: Spread,
    resident_bytes: Spread,
    /// Memory a link over the bytes of id and destination.
    extra_bytes: Spread,
    cpu_us: Spread,
    ratio: Spread,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if !options.cargo.is_wanted() {
        return Ok(());
    }
    if options.quick {
        (options.rounds, options.seconds, options.starts) = (1, 1, 1);
        options.links.retain(|&links| links <= 100_000);
    }
    interrupt::watch()?;
    machine::require("wrk")?;
    say(&machine::summary());
    say("Starts are on a warm page cache: each store is read once before. Loading may use every core.");
    let scratch = machine::scratch()?;
    let empty = start(&scratch.path().join("empty"), scratch.path(), None)?.resident_bytes;
    say(&format!("an empty appliance has {:.1} MB resident", empty as f64 / 1e6));
    let base = stores::prepared(Kind::Plain, BASE_LINKS)?;
    let (mut rows, mut goals) = (Vec::new(), Vec::new());
    for &count in &options.links {
        let row = measure(count, &base, empty, scratch.path(), &options).with_context(|| format!("{count} links"))?;
        if count == GOAL_LINKS {
            goals.extend(judge(&row));
        }
        rows.push(row);
    }
    show(&rows);
    report::goals(&goals);
    if goals.is_empty() {
        say(&format!("\nThe goals are about {GOAL_LINKS} links."));
    }
    let of_rows: Vec<_> = rows.iter().map(Row::json).collect();
    report::write_json(
        "scale",
        &json!({ "emptyResidentBytes": empty, "sizes": of_rows, "goals": goals }),
    )?;
    draw(&rows)
}

fn measure(count: u64, base: &Prepared, empty: u64, scratch: &Path, options: &Options) -> Result<Row> {
    let store = stores::prepared(Kind::Plain, count)?;
    // Into the page cache, as far as that has room.
    io::copy(&mut File::open(store.file())?, &mut io::sink())?;
    let mut starts = Vec::new();
    for number in 0..options.starts.max(1) {
        say(&format!("{count} links: start {} of {}", number + 1, options.starts));
        starts.push(start(&store.folder, scratch, Some(count / 2))?);
    }
    let (cpu_us, ratio) = cost(count, &store, base, scratch, options)?;
    let of = |get: fn(&Start) -> f64| Spread::of(starts.iter().map(get));
    let extra = |start: &Start| {
        let grown = start.resident_bytes.saturating_sub(empty) as f64;
        grown / count as f64 - (ID_BYTES + DESTINATION_BYTES) as f64
    };
    Ok(Row {
        links: count,
        import_seconds: store.import_seconds,
        file_bytes: store.file_bytes()?,
        first_redirect_seconds: of(|start| start.first_redirect_seconds),
        loaded_seconds: of(|start| start.loaded_seconds),
        resident_bytes: of(|start| start.resident_bytes as f64),
        extra_bytes: Spread::of(starts.iter().map(extra)),
        cpu_us,
        ratio,
    })
}

/// Starts an appliance and waits for a redirect of a link, if there is one, and until all are loaded.
fn start(data: &Path, scratch: &Path, link: Option<u64>) -> Result<Start> {
    let setup = Setup {
        place: Place::Anywhere,
        threads: machine::cores(),
        ..Setup::new(data, scratch)
    };
    let started = Instant::now();
    let tinyd = Tinyd::exec(setup)?;
    let until = |is_there: &dyn Fn() -> bool| -> Result<f64> {
        while !is_there() {
            if started.elapsed() > START_TIMEOUT {
                bail!("waited in vain for {START_TIMEOUT:?}; it logged:\n{}", tinyd.log());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(started.elapsed().as_secs_f64())
    };
    let redirects = |link| {
        let answer = http::get(tinyd.public, &format!("{GOTO}{}", links::id(link)));
        answer.is_ok_and(|answer| answer.status == 302)
    };
    let first_redirect_seconds = until(&|| link.is_none_or(redirects))?;
    let loaded_seconds = until(&|| http::get(tinyd.admin, "/readyz").is_ok_and(|answer| answer.status == 200))?;
    let log = tinyd.log();
    if let Some(line) = log.lines().find(|line| line.contains("links loaded")) {
        say(&format!("its log: {}", without_colours(line)));
    }
    Ok(Start {
        first_redirect_seconds,
        loaded_seconds,
        resident_bytes: cpu::resident_bytes(tinyd.process.id())?,
    })
}

/// The same text without what terminals take for colours.
fn without_colours(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or(part, |(_, rest)| rest)
    })
}

/// What a redirect costs, and how many times what it costs with few links.
fn cost(count: u64, store: &Prepared, base: &Prepared, scratch: &Path, options: &Options) -> Result<(Spread, Spread)> {
    let folder = scratch.join(count.to_string());
    let (mine, theirs) = (folder.join("data"), folder.join("base"));
    std::fs::create_dir_all(&mine)?;
    base.copy_to(&theirs)?;
    let many = Tinyd::start(Setup::new(&store.folder, &mine))?;
    let few = Tinyd::start(Setup::new(&theirs, &theirs))?;
    let lane = |name: &str, tinyd: &Tinyd, count: u64| -> Result<Lane> {
        let ids = folder.join(format!("ids-{name}"));
        let numbers = (0..count.min(IDS_MAX)).map(|number| {
            if count > IDS_MAX {
                links::mixed(number) % count
            } else {
                number
            }
        });
        links::write_ids(&ids, numbers.map(links::id))?;
        Ok(Lane {
            name: name.to_owned(),
            process: tinyd.process.id(),
            url: format!("http://{}", tinyd.public),
            script: wrk::goto(&folder, name, &ids, Manner::KeepAlive)?,
            connections: CONNECTIONS,
            is_refused: false,
            load: Place::Load,
        })
    };
    let lanes = [lane("many", &many, count)?, lane("few", &few, BASE_LINKS)?];
    let measured = contest::measure(&format!("{count} links"), &lanes, options.rounds, options.seconds)?;
    let [many, few] = measured.as_slice() else {
        bail!("two lanes were measured")
    };
    Ok((many.spread(|sample| sample.cpu_us), many.ratio_to(few, Measure::AllCpu)))
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "links": self.links,
            "importSeconds": self.import_seconds,
            "fileBytes": self.file_bytes,
            "firstRedirectSeconds": self.first_redirect_seconds,
            "loadedSeconds": self.loaded_seconds,
            "residentBytes": self.resident_bytes,
            "bytesALinkOverIdAndDestination": self.extra_bytes,
            "cpuMicrosecondsARedirect": self.cpu_us,
            "ratioToBase": self.ratio,
        })
    }
}

fn judge(row: &Row) -> [Goal; 4] {
    let work = format!("{} links", row.links);
    [
        Goal::at_most(&work, "CPU a redirect / with 10 k links", 1.15, "", row.ratio),
        Goal::at_most(
            &work,
            "memory a link over id and destination",
            48.0,
            " bytes",
            row.extra_bytes,
        ),
        Goal::at_most(&work, "first redirect", 0.3, " s", row.first_redirect_seconds),
        Goal::at_most(&work, "all loaded", 6.0, " s", row.loaded_seconds),
    ]
}

fn show(rows: &[Row]) {
    let cells = rows.iter().map(|row| {
        vec![
            row.links.to_string(),
            format!("{:.2}", row.import_seconds),
            format!("{:.1}", row.file_bytes as f64 / 1e6),
            format!("{:.3}", row.first_redirect_seconds.median),
            format!("{:.2}", row.loaded_seconds.median),
            format!("{:.1}", row.resident_bytes.median / 1e6),
            format!("{:.0}", row.extra_bytes.median),
            row.cpu_us.to_string(),
            row.ratio.to_string(),
        ]
    });
    let head = [
        "links",
        "import s",
        "file MB",
        "first redirect s",
        "loaded s",
        "RSS MB",
        "bytes a link over its own",
        "CPU µs a redirect",
        "ratio to 10 k",
    ];
    report::table(
        "By number of links: medians, with min to max in parentheses",
        &head,
        cells.collect(),
    );
}

fn draw(rows: &[Row]) -> Result<()> {
    let line = |name: &str, of: fn(&Row) -> f64| plot::Line {
        name: name.to_owned(),
        points: rows.iter().map(|row| (row.links as f64, of(row))).collect(),
    };
    let lines = [
        line("import, s", |row| row.import_seconds),
        line("first redirect, s", |row| row.first_redirect_seconds.median),
        line("loaded, s", |row| row.loaded_seconds.median),
        line("resident, GB", |row| row.resident_bytes.median / 1e9),
        line("file, GB", |row| row.file_bytes as f64 / 1e9),
        line("CPU a redirect, µs", |row| row.cpu_us.median),
    ];
    plot::lines(
        "scale",
        "What grows with the number of links",
        "links",
        "s, GB, µs",
        &lines,
    )
}
