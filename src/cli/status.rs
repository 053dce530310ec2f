//! `tinyd status`: how a running appliance is, on one screen.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value is null, not a panic"
)]

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::exit::{CliError, Failure};
use crate::cli::{ConfigArgs, shown, time};
use crate::config::Settings;

const EXAMPLES: &str = "\
Asks the admin listener; needs no session. Ends with 0 if the appliance is healthy, with 1
if it is not, with the reason, and with 6 if it cannot be reached.

Examples:
  tinyd status
  tinyd status --config /etc/tinyd/tinyd.toml
  tinyd status --url http://10.0.0.5:8081 --json";

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Width of the column with names.
const NAME_WIDTH: usize = 13;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// The admin listener [default: as the configuration says]
    #[arg(long, value_name = "URL", env = "TINYD_URL")]
    url: Option<String>,

    /// Print what the appliance says as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<(), CliError> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => Settings::load(&args.config.overrides())?.admin_url(),
    };
    let url = url.trim_end_matches('/');
    let status = ask(url)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", shown::json(&status))?;
    } else {
        out.write_all(shown::lines(&screen(url, &status)).as_bytes())?;
    }
    out.flush()?;
    if status["healthy"] == true {
        return Ok(());
    }
    Err(CliError::new(
        Failure::Other,
        format!("the appliance at {url} is not healthy"),
    ))
}

fn ask(url: &str) -> Result<Value, CliError> {
    let unreachable = |text: String| CliError::new(Failure::Unreachable, text);
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let asked = ureq::Agent::from(config).get(format!("{url}/status")).call();
    let mut response =
        asked.map_err(|error| unreachable(format!("the appliance cannot be reached at {url}: {error}")))?;
    let other = || {
        let text = format!("{url} answered, but not as tinyd does: is it the admin listener?");
        unreachable(text)
    };
    let body = response.body_mut().read_to_string().map_err(|_| other())?;
    let status: Value = serde_json::from_str(&body).map_err(|_| other())?;
    if status["healthy"].is_boolean() {
        Ok(status)
    } else {
        Err(other())
    }
}

/// What a person is shown.
fn screen(url: &str, status: &Value) -> String {
    let mut screen = String::new();
    let verdict = if status["healthy"] == true {
        "healthy"
    } else {
        "NOT HEALTHY"
    };
    let version = status["version"].as_str().unwrap_or("?");
    let uptime = seconds(&status["uptimeSeconds"]);
    let _ = writeln!(screen, "{verdict}: tinyd {version} at {url}, up {uptime}");
    for (kind, mark) in [("problems", "problem"), ("hints", "hint")] {
        for text in status[kind].as_array().into_iter().flatten() {
            let _ = writeln!(screen, "{mark:NAME_WIDTH$}{}", text.as_str().unwrap_or_default());
        }
    }
    let minutes = seconds(&status["minutesSeconds"]);
    let _ = writeln!(screen, "\nWhere no time is given, numbers are of the last {minutes}.\n");
    let mut rows = vec![
        ("redirects", rates(&status["redirects"]["perSecond"])),
        ("", outcomes(&status["redirects"]["outcomes"])),
        ("", durations(&status["redirects"]["durations"])),
        ("", format!("answered 503: {}", counts(&status["redirects"]["failed"]))),
    ];
    rows.extend(fetches(&status["fetches"]));
    rows.extend([
        ("API calls", rates(&status["api"]["perSecond"])),
        ("", format!("failed {}", counts(&status["api"]["failed"]))),
        ("", format!("refused {}", counts(&status["api"]["refused"]))),
        ("refusals", refusals(&status["refusals"])),
        ("connections", connections(&status["connections"])),
        ("commits", rates(&status["store"]["commitsPerSecond"])),
        ("", durations(&status["store"]["commitDurations"])),
        ("store", store(&status["store"])),
        ("disk", disk(&status["store"])),
        ("links", links(&status["links"])),
        ("process", process(&status["process"])),
        ("last backup", last_backup(&status["store"]["lastBackup"])),
    ]);
    for (name, text) in rows {
        let _ = writeln!(screen, "{name:NAME_WIDTH$}{text}");
    }
    screen
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// With commas, so that millions can be told from thousands.
fn count(value: &Value) -> String {
    let digits = value.as_u64().unwrap_or_default().to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn bytes(value: &Value) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let bytes = value.as_u64().unwrap_or_default();
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

/// What can be said without a value that is null, which is not nothing but not known.
fn known(value: &Value, say: impl Fn(&Value) -> String) -> Option<String> {
    (!value.is_null()).then(|| say(value))
}

/// A span in the two largest units that it has.
fn seconds(value: &Value) -> String {
    let all = value.as_u64().unwrap_or_default();
    let (days, hours, minutes, seconds) = (all / 86_400, all / 3_600 % 24, all / 60 % 60, all % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A short time, in a unit that suits it.
fn latency(value: &Value) -> String {
    let seconds = number(value);
    match seconds {
        1.0.. => format!("{seconds:.1} s"),
        1e-3.. => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

fn rates(value: &Value) -> String {
    let [ten_seconds, minute, start] = ["tenSeconds", "minute", "start"].map(|name| number(&value[name]));
    format!("{ten_seconds:.1}/s in 10 s, {minute:.1}/s in a minute, {start:.1}/s since the start")
}

fn outcomes(value: &Value) -> String {
    let outcomes = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, count)| **count != 0);
    let outcomes: Vec<_> = outcomes
        .map(|(name, number)| format!("{name} {}", count(number)))
        .collect();
    if outcomes.is_empty() {
        "none yet".to_owned()
    } else {
        outcomes.join(", ")
    }
}

/// Fetches of destinations, if there have been any: most appliances only redirect.
fn fetches(value: &Value) -> Vec<(&'static str, String)> {
    let mut numbers = value["outcomes"].as_object().into_iter().flatten();
    if value["open"].as_u64().unwrap_or_default() == 0 && numbers.all(|(_, number)| *number == 0) {
        return Vec::new();
    }
    let (open, ended) = (count(&value["open"]), outcomes(&value["outcomes"]));
    vec![
        ("fetches", format!("{open} open, ended {}", rates(&value["perSecond"]))),
        ("", format!("{ended}; {} passed on", bytes(&value["bytes"]))),
    ]
}

fn durations(value: &Value) -> String {
    if value["count"] == 0 {
        return "none lately".to_owned();
    }
    let (half, most) = (latency(&value["p50Seconds"]), latency(&value["p99Seconds"]));
    format!("half within {half}, 99% within {most}")
}

/// How many of something there were: lately, and in all.
fn counts(value: &Value) -> String {
    format!(
        "{} ({} since the start)",
        count(&value["minutes"]),
        count(&value["start"])
    )
}

fn refusals(value: &Value) -> String {
    let mut text = counts(value);
    let reasons = value["reasons"].as_object().into_iter().flatten();
    for (position, (reason, number)) in reasons.enumerate() {
        let _ = write!(
            text,
            "{} {reason} {}",
            if position == 0 { ":" } else { "," },
            count(number)
        );
    }
    text
}

fn connections(value: &Value) -> String {
    let of = |listener: &str| {
        let value = &value[listener];
        format!(
            "{} {listener} open ({} accepted)",
            count(&value["open"]),
            count(&value["accepted"])
        )
    };
    format!("{}, {}", of("public"), of("admin"))
}

fn store(value: &Value) -> String {
    let state = match (value["acceptingWrites"] == true, value["readOnly"] == true) {
        (true, _) => "takes writes",
        (false, true) => "read-only",
        (false, false) => "REFUSES WRITES",
    };
    format!(
        "{state}, {} queued, failed {} times since the start, verified {}",
        count(&value["queued"]),
        count(&value["failures"]),
        verified(value)
    )
}

fn disk(value: &Value) -> String {
    let not_known = || "not known".to_owned();
    let file = known(&value["fileBytes"], bytes).unwrap_or_else(not_known);
    let free = known(&value["diskFreeBytes"], |free| {
        format!("{} of {} free", bytes(free), bytes(&value["diskSizeBytes"]))
    });
    format!(
        "store {file}, journal {}, {}",
        bytes(&value["journalBytes"]),
        free.unwrap_or_else(|| "free space not known".to_owned())
    )
}

fn links(value: &Value) -> String {
    let loaded = if value["loaded"] == true {
        "in memory"
    } else {
        "so far in memory, LOADING"
    };
    let mut text = format!(
        "{} enabled, {} disabled, {} deleted; {} {loaded}, which take {}",
        count(&value["enabled"]),
        count(&value["disabled"]),
        count(&value["deleted"]),
        count(&value["inMemory"]),
        bytes(&value["memoryBytes"])
    );
    if value["damaged"] != 0 {
        let _ = write!(text, "; {} DAMAGED", count(&value["damaged"]));
    }
    text
}

fn process(value: &Value) -> String {
    let files = |files: &Value| {
        let most = known(&value["openFilesMax"], |most| format!(" (of {})", count(most)));
        format!("{} open files{}", count(files), most.unwrap_or_default())
    };
    let parts = [
        known(&value["residentBytes"], |memory| format!("{} of memory", bytes(memory))),
        known(&value["openFiles"], files),
        known(&value["threads"], |threads| format!("{} threads", count(threads))),
        known(&value["cpuSeconds"], |time| {
            format!("{:.0} s of CPU time", number(time))
        }),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "not known".to_owned()
    } else {
        parts.join(", ")
    }
}

fn last_backup(value: &Value) -> String {
    value.as_i64().map_or_else(|| "never".to_owned(), time::show)
}

fn verified(store: &Value) -> String {
    let at = store["verified"]
        .as_i64()
        .map_or_else(|| "not yet".to_owned(), time::show);
    match store["problems"].as_u64() {
        None | Some(0) => at,
        Some(problems) => format!("{at}; {problems} PROBLEMS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_written_for_people() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(&json!(number)), expected);
        }
        for (number, expected) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(bytes(&json!(number)), expected);
        }
        for (number, expected) in [(5, "5s"), (65, "1m 5s"), (7_260, "2h 1m"), (90_000, "1d 1h")] {
            assert_eq!(seconds(&json!(number)), expected);
        }
        for (number, expected) in [(8.4e-6, "8 µs"), (0.001_25, "1.2 ms"), (2.0, "2.0 s")] {
            assert_eq!(latency(&json!(number)), expected);
        }
    }

    #[test]
    fn what_is_wrong_stands_first_and_what_is_missing_breaks_nothing() {
        let status = json!({ "healthy": false, "problems": ["the store refuses writes: full"], "hints": ["a hint"] });
        let screen = screen("http://a", &status);
        let mut lines = screen.lines();
        assert!(lines.next().unwrap().starts_with("NOT HEALTHY: tinyd ? at http://a"));
        assert_eq!(lines.next(), Some("problem      the store refuses writes: full"));
        assert_eq!(lines.next(), Some("hint         a hint"));
        assert!(
            screen.contains("REFUSES WRITES") && screen.contains("last backup  never"),
            "{screen}"
        );
    }

    #[test]
    fn fetches_are_told_of_where_there_were_any() {
        assert!(fetches(&Value::Null).is_empty());
        let none = json!({ "outcomes": { "complete": 0, "busy": 0 }, "open": 0, "bytes": 0 });
        assert!(fetches(&none).is_empty());
        let some = json!({ "outcomes": { "complete": 0, "busy": 12 }, "open": 3, "bytes": 1536 });
        let lines: Vec<_> = fetches(&some).into_iter().map(|(_, text)| text).collect();
        assert!(lines[0].starts_with("3 open, ended 0.0/s in 10 s"), "{lines:?}");
        assert_eq!(lines[1..], ["busy 12; 1.5 KiB passed on"]);
        let first = json!({ "outcomes": { "complete": 0 }, "open": 1, "bytes": 0 });
        assert_eq!(fetches(&first)[0].0, "fetches");
    }

    #[test]
    fn what_is_not_known_is_not_called_nothing() {
        let of_store = json!({ "fileBytes": null, "journalBytes": 512, "diskFreeBytes": null, "diskSizeBytes": null });
        assert_eq!(
            disk(&of_store),
            "store not known, journal 512 bytes, free space not known"
        );
        let of_store = json!({ "fileBytes": 1, "journalBytes": 2, "diskFreeBytes": 3, "diskSizeBytes": 4 });
        assert_eq!(
            disk(&of_store),
            "store 1 bytes, journal 2 bytes, 3 bytes of 4 bytes free"
        );
        let nothing = json!({ "residentBytes": null, "openFiles": null, "openFilesMax": null, "threads": null });
        assert_eq!(process(&nothing), "not known");
        let some = json!({ "openFiles": 5, "openFilesMax": 10, "threads": 3, "cpuSeconds": 1.2 });
        assert_eq!(process(&some), "5 open files (of 10), 3 threads, 1 s of CPU time");
    }
}
