//! How long a list of a million links takes: every filter and order alone, and combinations of them to find the worst.
//!
//! `cargo bench --bench list`; `-- --quick` for a look.

mod rig;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Value, json};

use rig::http::{self, Connection};
use rig::links::{self, CREATED_SECONDS, DAY, FIRST_CREATED, Kind};
use rig::machine::{self, Place};
use rig::report::{self, Goal, Spread, say};
use rig::tinyd::{Setup, Tinyd};
use rig::{interrupt, stores};

/// The far page, of the default size.
const FAR_PAGE: &str = "1000";
/// How long reading the links into memory may take, after the first list that takes long.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// How many of the worst combinations of each page are measured again and shown.
const WORST_SHOWN: usize = 15;
/// After so long a list is not asked for again: far from the goal, it need not be known how far exactly.
const LIST_TIME: Duration = Duration::from_secs(3);
/// A link whose values are filtered by. A multiple of ten, so that it has a unique id.
const EXAMPLE: u64 = 4_320;
const ORDERS: [&str; 6] = [
    "-createdAt",
    "+createdAt",
    "-updatedAt",
    "+updatedAt",
    "-expiresAt",
    "+expiresAt",
];
/// The last second in which a link of the benchmark can be updated.
const LAST_UPDATED: i64 = FIRST_CREATED + CREATED_SECONDS + 90 * DAY;
/// The last second in which one can expire.
const LAST_EXPIRY: i64 = FIRST_CREATED + CREATED_SECONDS + 3 * 365 * DAY;

/// Measures lists.
#[derive(Debug, Parser)]
#[command(name = "list")]
struct Options {
    #[command(flatten)]
    cargo: rig::CargoArgs,

    /// Three repetitions, and combinations of two for ten seconds
    #[arg(long)]
    quick: bool,

    /// Links that there are
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,

    /// How often each list is asked for
    #[arg(long, default_value_t = 15)]
    repetitions: usize,

    /// Seconds for which combinations are tried
    #[arg(long, default_value_t = 300)]
    combination_seconds: u64,
}

/// A condition: the field that it is about, and parameters.
#[derive(Debug, Clone)]
struct Condition {
    field: &'static str,
    params: Vec<(String, String)>,
    name: String,
}

impl Condition {
    fn new(field: &'static str, how: &str, params: &[(&str, String)]) -> Self {
        let params = params
            .iter()
            .map(|(name, value)| (format!("filter[{name}]"), value.clone()));
        Self {
            field,
            params: params.collect(),
            name: how.to_owned(),
        }
    }

    fn order(order: &str) -> Self {
        Self::new("orderBy", &format!("orderBy {order}"), &[("orderBy", order.to_owned())])
    }
}

/// A list and how long it took, in milliseconds.
#[derive(Debug)]
struct Timed {
    name: String,
    page: &'static str,
    repetitions: usize,
    milliseconds: Spread,
    total: u64,
}

impl Timed {
    fn json(&self) -> Value {
        json!({ "list": self.name, "page": self.page, "repetitions": self.repetitions,
            "milliseconds": self.milliseconds,
            "totalCount": self.total })
    }
}

/// What a list is measured against.
#[derive(Debug, Clone, Copy)]
struct ListGoal {
    of: &'static str,
    page: &'static str,
    milliseconds: f64,
}

impl ListGoal {
    const fn new(of: &'static str, page: &'static str, milliseconds: f64) -> Self {
        Self { of, page, milliseconds }
    }

    /// The slowest list of its page.
    fn measured(self, timed: &[Timed]) -> Goal {
        let times = timed.iter().filter(|timed| timed.page == self.page);
        let slowest = times
            .map(|timed| timed.milliseconds)
            .max_by(|a, b| a.median.total_cmp(&b.median))
            .unwrap_or_else(|| Spread::of(std::iter::empty()));
        let work = format!("the slowest {}, page {}", self.of, self.page);
        Goal::at_most(&work, "time", self.milliseconds, " ms", slowest)
    }
}

const SINGLE_GOALS: [ListGoal; 2] = [
    ListGoal::new("single filter or order", "1", 20.0),
    ListGoal::new("single filter or order", FAR_PAGE, 100.0),
];
const COMBINED_GOALS: [ListGoal; 2] = [
    ListGoal::new("combination", "1", 100.0),
    ListGoal::new("combination", FAR_PAGE, 300.0),
];

fn is_met(goals: &[ListGoal], timed: &Timed) -> &'static str {
    let goal = goals.iter().find(|goal| goal.page == timed.page);
    if goal.is_some_and(|goal| timed.milliseconds.median <= goal.milliseconds) {
        "met"
    } else {
        "not met"
    }
}

struct Client {
    connection: Connection,
    session: String,
}

impl Client {
    /// The time of one list in milliseconds, and its total.
    fn list(&mut self, conditions: &[&Condition], page: &str) -> Result<(f64, u64)> {
        let mut params = vec![("ks", self.session.as_str()), ("pager[pageIndex]", page)];
        let filters = conditions.iter().flat_map(|condition| &condition.params);
        params.extend(filters.map(|(name, value)| (name.as_str(), value.as_str())));
        let started = Instant::now();
        let listed = self.connection.call("list", &params)?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        let total = listed.get("totalCount").and_then(Value::as_u64);
        Ok((took, total.context("a list without totalCount")?))
    }

    fn time(&mut self, conditions: &[&Condition], page: &'static str, repetitions: usize) -> Result<Timed> {
        let name = conditions
            .iter()
            .map(|condition| condition.name.as_str())
            .collect::<Vec<_>>()
            .join(" & ");
        let (mut times, mut total) = (Vec::new(), 0);
        let started = Instant::now();
        while times.is_empty() || times.len() < repetitions && started.elapsed() < LIST_TIME {
            let (took, found) = self.list(conditions, page).with_context(|| name.clone())?;
            times.push(took);
            total = found;
        }
        Ok(Timed {
            name,
            page,
            repetitions: times.len(),
            milliseconds: Spread::of(times.into_iter()),
            total,
        })
    }
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if !options.cargo.is_wanted() {
        return Ok(());
    }
    if options.quick {
        (options.repetitions, options.combination_seconds) = (3, 10);
    }
    interrupt::watch()?;
    say(&machine::summary());
    let store = stores::prepared(Kind::Varied, options.links)?;
    let scratch = machine::scratch()?;
    let mut tinyd = Tinyd::start(Setup::new(&store.folder, scratch.path()))?;
    Place::Load.take_this_thread()?;
    let mut client = Client {
        connection: Connection::open(tinyd.admin)?,
        session: tinyd.session()?,
    };

    let first = first(&mut client, &mut tinyd)?;
    let singles = singles(&mut client, options.repetitions)?;
    let title = format!(
        "One filter or order of {} links, ms: median (min to max)",
        options.links
    );
    show(&title, &singles, |timed| is_met(&SINGLE_GOALS, timed));
    let (asked, worst) = worst(&mut client, &options)?;
    show(
        &format!("The worst of {asked} combinations, ms: median (min to max)"),
        &worst,
        |timed| is_met(&COMBINED_GOALS, timed),
    );
    let goals: Vec<_> = SINGLE_GOALS
        .iter()
        .map(|goal| goal.measured(&singles))
        .chain(COMBINED_GOALS.iter().map(|goal| goal.measured(&worst)))
        .collect();
    report::goals(&goals);
    let json = |timed: &[Timed]| timed.iter().map(Timed::json).collect::<Vec<_>>();
    let results = json!({
        "links": options.links,
        "first": first.json(),
        "singles": json(&singles),
        "combinationsAsked": asked,
        "worstCombinations": json(&worst),
        "goals": goals,
    });
    report::write_json("list", &results)
}

fn show(title: &str, timed: &[Timed], met: impl Fn(&Timed) -> &'static str) {
    let row = |timed: &Timed| {
        vec![
            timed.name.clone(),
            timed.page.to_owned(),
            timed.milliseconds.to_string(),
            timed.total.to_string(),
            met(timed).to_owned(),
        ]
    };
    report::table(
        title,
        &["list", "page", "ms", "total", "goal"],
        timed.iter().map(row).collect(),
    );
}

/// The first list that takes long, which the store answers; waits until links are in memory for the next.
fn first(client: &mut Client, tinyd: &mut Tinyd) -> Result<Timed> {
    let ranges = ranges();
    let slow = ranges.last().context("no range of time")?;
    let first = client.time(&[slow], FAR_PAGE, 1)?;
    let admin = tinyd.admin;
    let started = Instant::now();
    tinyd.process.wait_until(READ_TIMEOUT, || {
        let scraped = String::from_utf8(http::get(admin, "/metrics")?.body)?;
        let bytes = scraped
            .lines()
            .find_map(|line| line.strip_prefix("tinyd_search_bytes "));
        Ok(bytes.is_some_and(|bytes| bytes != "0"))
    })?;
    say(&format!(
        "the first list that takes long ({}): {:.0} ms; all links in memory {:.1} s later",
        first.name,
        first.milliseconds.median,
        started.elapsed().as_secs_f64()
    ));
    Ok(first)
}

fn singles(client: &mut Client, repetitions: usize) -> Result<Vec<Timed>> {
    say("single filters and orders");
    let orders = ORDERS.iter().map(|order| Condition::order(order));
    let mut timed = Vec::new();
    for condition in equalities().into_iter().chain(ranges()).chain(orders) {
        for page in ["1", FAR_PAGE] {
            timed.push(client.time(&[&condition], page, repetitions)?);
        }
    }
    Ok(timed)
}

/// Every filter by a value or by several.
fn equalities() -> Vec<Condition> {
    let joined = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(",");
    let users = |count: u64| joined(&mut (0..count).map(|number| format!("user{number}@example.com")));
    let names = |count: u64| joined(&mut (0..count).map(|number| format!("SYSTEM-NAME-{number}")));
    let ids = |count: u64| joined(&mut (0..count).map(|number| links::id(number * 7)));
    let one = |field, name: &str, value: String| Condition::new(field, &format!("{name} {value}"), &[(name, value)]);
    let some = |field, name: &str, count: u64, values: String| {
        Condition::new(field, &format!("{name} of {count}"), &[(name, values)])
    };
    vec![
        one("status", "statusEqual", "1".to_owned()),
        one("status", "statusEqual", "2".to_owned()),
        one("status", "statusEqual", "3".to_owned()),
        one("status", "statusIn", "1,2,3".to_owned()),
        one("id", "idEqual", links::id(EXAMPLE)),
        some("id", "idIn", 500, ids(500)),
        one("user", "userIdEqual", links::user(EXAMPLE)),
        some("user", "userIdIn", 10, users(10)),
        one("name", "systemNameEqual", links::system_name(EXAMPLE)),
        some("name", "systemNameIn", 100, names(100)),
        some("name", "systemNameIn", 1_000, names(1_000)),
        one("unique", "uniqueIdEqual", links::unique_id(EXAMPLE).unwrap_or_default()),
    ]
}

/// Every filter by a time: nearly everything, nearly nothing, and a day.
fn ranges() -> Vec<Condition> {
    let of = |field: &'static str, last: i64| {
        let (from, to) = (format!("{field}GreaterThanOrEqual"), format!("{field}LessThanOrEqual"));
        let middle = i64::midpoint(FIRST_CREATED, last);
        let at = |name: &str, how: &str, time: i64| {
            Condition::new(field, &format!("{name} {how}"), &[(name, time.to_string())])
        };
        let day = [
            (from.as_str(), middle.to_string()),
            (to.as_str(), (middle + DAY).to_string()),
        ];
        let months = [
            (from.as_str(), (FIRST_CREATED + 60 * DAY).to_string()),
            (to.as_str(), (last - 60 * DAY).to_string()),
        ];
        vec![
            at(&from, "early", FIRST_CREATED + 10 * DAY),
            at(&from, "late", last - 30 * DAY),
            at(&to, "early", FIRST_CREATED + 30 * DAY),
            at(&to, "late", last - 10 * DAY),
            Condition::new(field, &format!("{field} within a day"), &day),
            Condition::new(field, &format!("{field} without the ends"), &months),
        ]
    };
    [
        of("createdAt", FIRST_CREATED + CREATED_SECONDS),
        of("updatedAt", LAST_UPDATED),
        of("expiresAt", LAST_EXPIRY),
    ]
    .concat()
}

/// Sends pairs and triples of conditions on different fields, in every order, on both pages, until the time is over.
/// Returns their number in words, and the slowest ones, measured again.
fn worst(client: &mut Client, options: &Options) -> Result<(String, Vec<Timed>)> {
    // An id or a unique id leaves next to nothing to do, whatever it is combined with.
    let fields = ["status", "user", "name", "createdAt", "updatedAt", "expiresAt"];
    let mut conditions: Vec<_> = equalities().into_iter().chain(ranges()).collect();
    conditions.retain(|condition| fields.contains(&condition.field));
    let orders = ORDERS.map(Condition::order);
    let mut lists: Vec<(Vec<&Condition>, &'static str)> = Vec::new();
    for combination in combinations(&conditions, options.quick) {
        for order in &orders {
            let all = [combination.as_slice(), &[order]].concat();
            lists.extend(["1", FAR_PAGE].map(|page| (all.clone(), page)));
        }
    }
    // In an order that has nothing to do with what is asked: what there is time for stands for the rest.
    let mut lists: Vec<_> = lists.into_iter().zip(0..).collect();
    lists.sort_by_key(|(_, number)| links::mixed(*number));
    let (all, started) = (lists.len(), Instant::now());
    say(&format!(
        "{all} combinations, for {} s at most",
        options.combination_seconds
    ));
    let mut asked = Vec::new();
    for ((conditions, page), _) in lists {
        if started.elapsed().as_secs() >= options.combination_seconds {
            break;
        }
        let (took, _) = client.list(&conditions, page)?;
        asked.push((took, conditions, page));
    }
    let count = asked.len();
    asked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut again = Vec::new();
    // More than are shown, because a single time can be a neighbour's fault.
    for of in ["1", FAR_PAGE] {
        let of_page = asked.iter().filter(|(.., page)| *page == of);
        for (_, conditions, page) in of_page.take(WORST_SHOWN) {
            again.push(client.time(conditions, page, options.repetitions)?);
        }
    }
    again.sort_by(|a, b| b.milliseconds.median.total_cmp(&a.milliseconds.median));
    let whole = if count < all {
        format!("{count} of {all}")
    } else {
        all.to_string()
    };
    Ok((whole, again))
}

fn combinations(conditions: &[Condition], pairs_only: bool) -> Vec<Vec<&Condition>> {
    let mut combinations = Vec::new();
    for (position, first) in conditions.iter().enumerate() {
        let after_first = || {
            conditions
                .iter()
                .enumerate()
                .skip(position + 1)
                .filter(|(_, other)| other.field != first.field)
        };
        for (position, second) in after_first() {
            combinations.push(vec![first, second]);
            if pairs_only {
                continue;
            }
            let third = conditions.iter().skip(position + 1);
            let third = third.filter(|other| other.field != first.field && other.field != second.field);
            combinations.extend(third.map(|third| vec![first, second, third]));
        }
    }
    combinations
}
