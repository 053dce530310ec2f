//! The console with a million links: how long the first page of every filter, search and order takes, and what people
//! who browse it cost redirects.
//!
//! `cargo bench --bench console`; `-- --quick` for a look.

mod rig;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::{Value, json};

use rig::beside::{self, Turns};
use rig::browsing::{Browser, People};
use rig::links::{self, Kind, WORKING};
use rig::machine::{self, Place};
use rig::open_loop::{self, Plan};
use rig::report::{self, Goal, Spread, say};
use rig::tinyd::{Setup, Tinyd};
use rig::{cpu, interrupt, stores};

/// The goal for the first page of any list.
const PAGE_GOAL_MS: f64 = 300.0;
/// What redirects may cost beside people, as a multiple of that without: name, percentile, limit.
const BESIDE_GOAL: (&str, f64, f64) = ("p99", 99.0, 1.5);
/// Connections that ask for redirects.
const CONNECTIONS: usize = 64;
/// How long the people browse before redirects are measured.
const LEAD: Duration = Duration::from_secs(2);
/// A list is not asked for again after so long.
const LIST_TIME: Duration = Duration::from_secs(10);
/// A link that is looked for.
const EXAMPLE: u64 = 4_321;

/// Measures the console.
#[derive(Debug, Parser)]
#[command(name = "console")]
struct Options {
    #[command(flatten)]
    cargo: rig::CargoArgs,

    /// Three repetitions, and one round of three seconds
    #[arg(long)]
    quick: bool,

    /// End with an error if a goal is not met
    #[arg(long)]
    strict: bool,

    /// Links that there are
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,

    /// How often each list is asked for
    #[arg(long, default_value_t = 15)]
    repetitions: usize,

    /// Rounds, in each of which redirects are measured without and beside people
    #[arg(long, default_value_t = 7)]
    rounds: u64,

    /// Seconds of each turn
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Redirects a second
    #[arg(long, default_value_t = 2_000)]
    rate: u64,

    /// People who browse
    #[arg(long, default_value_t = 10)]
    people: u64,
}

/// A list: what is asked for in words, and the fields of the form.
struct List {
    name: String,
    fields: Vec<(&'static str, String)>,
}

impl List {
    fn new(name: &str, fields: &[(&'static str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Self {
            name: name.to_owned(),
            fields: fields.collect(),
        }
    }

    fn path(&self) -> String {
        let fields = &self.fields;
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        format!("all?{query}")
    }
}

/// A list and how long it took, in milliseconds.
struct Timed {
    name: String,
    found: String,
    milliseconds: Spread,
    repetitions: usize,
}

impl Timed {
    fn json(&self) -> Value {
        json!({ "list": self.name, "found": self.found, "repetitions": self.repetitions,
            "milliseconds": self.milliseconds })
    }
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if !options.cargo.is_wanted() {
        return Ok(());
    }
    if options.quick {
        (options.repetitions, options.rounds, options.seconds) = (3, 1, 3);
    }
    interrupt::watch()?;
    say(&machine::summary());
    let scratch = machine::scratch()?;
    let data = scratch.path().join("data");
    stores::prepared(Kind::Named, options.links)?.copy_to(&data)?;
    let mut tinyd = Tinyd::start(Setup::new(&data, scratch.path()))?;

    let (first, timed) = pages(&tinyd, &options)?;
    show(&options, &first, &timed);
    let resident_bytes = cpu::resident_bytes(tinyd.process.id())?;
    say(&format!(
        "\nresident memory after these: {} MB",
        resident_bytes / 1_000_000
    ));
    let slowest = timed
        .iter()
        .max_by(|a, b| a.milliseconds.median.total_cmp(&b.milliseconds.median));
    let slowest = slowest.context("no list was measured")?;
    let (alone, beside, people) = redirects(&mut tinyd, &options)?;
    let title = format!(
        "Latency at {} redirects a second, µs from when each was due, median of {} turns of {} s",
        options.rate, options.rounds, options.seconds
    );
    beside::show(&title, &alone, &[&beside]);
    say(&format!(
        "pages of the people: {} in all, ms: p50 {:.0}, p95 {:.0}, max {:.0}",
        people.len(),
        people.value_at_quantile(0.5) as f64 / 1e3,
        people.value_at_quantile(0.95) as f64 / 1e3,
        people.max() as f64 / 1e3
    ));
    let goals = [
        Goal::at_most(
            &format!("the slowest first page: {}", slowest.name),
            "time",
            PAGE_GOAL_MS,
            " ms",
            slowest.milliseconds,
        ),
        beside::none_failed("redirects", &[&alone, &beside]),
        beside.goal(&alone, BESIDE_GOAL),
    ];
    report::goals(&goals);
    let results = json!({
        "links": options.links,
        "firstSearch": first.json(),
        "residentBytes": resident_bytes,
        "lists": timed.iter().map(Timed::json).collect::<Vec<_>>(),
        "alone": alone.json(),
        "beside": beside.json(),
        "goals": goals,
    });
    report::write_json("console", &results)?;
    if options.strict && goals.iter().any(|goal| !goal.met) {
        bail!("a goal is not met");
    }
    Ok(())
}

/// The first search after a start, and every list.
fn pages(tinyd: &Tinyd, options: &Options) -> Result<(Timed, Vec<Timed>)> {
    // Where it runs is that of the load; people and redirects have threads of their own.
    Place::Load.take_this_thread()?;
    let mut browser = Browser::sign_in(tinyd.admin, "benchmark")?;
    // Signing in has begun to read what this waits for.
    let mut first = time(&mut browser, &List::new("", &[("q", "chemistry")]), 1)?;
    "the first search after a start".clone_into(&mut first.name);
    say(&format!("{} lists, {} times each", lists().len(), options.repetitions));
    let timed = lists()
        .iter()
        .map(|list| time(&mut browser, list, options.repetitions))
        .collect::<Result<_>>()?;
    Ok((first, timed))
}

fn time(browser: &mut Browser, list: &List, repetitions: usize) -> Result<Timed> {
    let (path, started) = (list.path(), Instant::now());
    let (mut times, mut found) = (Vec::new(), String::new());
    while times.is_empty() || times.len() < repetitions && started.elapsed() < LIST_TIME {
        let (answer, took) = browser.page(&path)?;
        times.push(took.as_secs_f64() * 1e3);
        found = total(&String::from_utf8(answer.body)?).with_context(|| format!("no list at {path}"))?;
    }
    Ok(Timed {
        name: list.name.clone(),
        found,
        repetitions: times.len(),
        milliseconds: Spread::of(times.into_iter()),
    })
}

/// How many links a page says that there are.
fn total(page: &str) -> Option<String> {
    if page.contains("No link fits this filter.") {
        return Some("0".to_owned());
    }
    let (_, count) = page.split_once("<p class=\"count\">")?;
    let (count, _) = count.split_once(" link")?;
    Some(count.rsplit(' ').next().unwrap_or_default().to_owned())
}

/// Every filter, every kind of search and every order, alone; and what takes long together.
fn lists() -> Vec<List> {
    let (host, id) = (links::host(EXAMPLE), links::id(EXAMPLE));
    let (owner, url) = (links::user(EXAMPLE), format!("https://go.example.org/tiny/{id}"));
    let mut lists = vec![
        List::new("no filter, newest first", &[]),
        List::new("oldest first", &[("order", "created")]),
        List::new("last changed first", &[("order", "-updated")]),
        List::new("next to expire first", &[("order", "expires")]),
    ];
    for state in ["works", "waits", "expired", "off", "deleted"] {
        lists.push(List::new(&format!("state: {state}"), &[("state", state)]));
    }
    lists.extend([
        List::new("an owner", &[("owner", &owner)]),
        List::new("an owner that has no link", &[("owner", "nobody@example.com")]),
        List::new("made in a month", &[("from", "2025-03-01"), ("to", "2025-03-31")]),
        List::new("made since", &[("from", "2024-02-01")]),
        List::new("never used", &[("unused", "1")]),
        List::new("without KMC-PREVIEW", &[("previews", "0")]),
        List::new("search: an id", &[("q", &id)]),
        List::new("search: a short URL", &[("q", &url)]),
        List::new("search: a host", &[("q", &host)]),
        List::new("search: a system name", &[("q", "LECTURE")]),
        List::new("search: a word", &[("q", "chemistry")]),
        List::new("search: a Hebrew word", &[("q", "הרצאה")]),
        List::new("search: two words", &[("q", "chemistry seminar")]),
        List::new("search: the whole name of one", &[("q", "algebra 500000")]),
        List::new("search: one letter", &[("q", "e")]),
        List::new("search: nothing has it", &[("q", "zebra crossing")]),
        List::new("a letter, last changed first", &[("q", "e"), ("order", "-updated")]),
        List::new("a letter, next to expire first", &[("q", "e"), ("order", "expires")]),
        List::new(
            "works, next to expire first",
            &[("state", "works"), ("order", "expires")],
        ),
        List::new(
            "an owner, last changed first",
            &[("owner", &owner), ("order", "-updated")],
        ),
        List::new("never used, without KMC-PREVIEW", &[("unused", "1"), ("previews", "0")]),
        List::new(
            "everything at once",
            &[
                ("q", "e"),
                ("state", "works"),
                ("owner", &owner),
                ("from", "2024-02-01"),
                ("to", "2025-11-30"),
                ("unused", "1"),
                ("previews", "0"),
                ("order", "-updated"),
            ],
        ),
    ]);
    lists
}

fn show(options: &Options, first: &Timed, timed: &[Timed]) {
    let row = |timed: &Timed| {
        let Spread { median, max, .. } = timed.milliseconds;
        let met = if median <= PAGE_GOAL_MS { "met" } else { "not met" };
        vec![
            timed.name.clone(),
            format!("{median:.1}"),
            format!("{max:.1}"),
            timed.found.clone(),
            met.to_owned(),
        ]
    };
    let title = format!(
        "First page of All links, {} links, ms, goal {PAGE_GOAL_MS} ms",
        options.links
    );
    let rows = [first].into_iter().chain(timed).map(row).collect();
    report::table(&title, &["list", "p50", "max", "found", "goal"], rows);
}

/// Redirects alone and beside people, in turns that change places from round to round.
fn redirects(tinyd: &mut Tinyd, options: &Options) -> Result<(Turns, Turns, hdrhistogram::Histogram<u64>)> {
    let plan = Plan {
        server: tinyd.public,
        links: options.links.min(WORKING),
        requests_a_second: options.rate,
        seconds: options.seconds,
        connections: CONNECTIONS,
    };
    let mut alone = Turns::new("alone");
    let mut beside = Turns::new(format!("beside {} people", options.people));
    let mut pages = hdrhistogram::Histogram::new(3)?;
    for round in 0..options.rounds {
        say(&format!("round {} of {}", round + 1, options.rounds));
        let is_beside_first = round % 2 == 1;
        if !is_beside_first {
            alone.latencies.push(open_loop::run(plan)?);
        }
        let people = People::start(tinyd.admin, options.people)?;
        std::thread::sleep(LEAD);
        beside.latencies.push(open_loop::run(plan)?);
        pages.add(people.stop()?)?;
        if is_beside_first {
            alone.latencies.push(open_loop::run(plan)?);
        }
        tinyd.wait_until_nobody_is_connected()?;
    }
    Ok((alone, beside, pages))
}
