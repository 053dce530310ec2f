//! What is printed and written: tables for people, JSON for programs.

#![allow(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::fs;

use anyhow::{Context as _, Result};
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::rig::machine;

/// The tables and remarks so far, as Markdown.
static DOCUMENT: Mutex<String> = Mutex::new(String::new());

/// Prints a line that a reader of the tables must know, such as a server that is missing.
pub(crate) fn remark(text: &str) {
    say(text);
    DOCUMENT.lock().push_str(&format!("{text}\n\n"));
}

/// Prints a line.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Prints a table, the first column on the left and numbers on the right.
pub(crate) fn table(title: &str, names: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(names.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{title}\n\n{table}");
    DOCUMENT.lock().push_str(&format!("## {title}\n\n{table}\n\n"));
}

/// Writes all tables and remarks so far, with the machine, the command and the plots, to `target/bench/NAME.md`.
pub(crate) fn write_markdown(name: &str, plots: &[&str]) -> Result<()> {
    let file = machine::output()?.join(format!("{name}.md"));
    let mut text = format!("# {}\n\n{}\n\n", command_line(name), machine::summary());
    text.push_str(&DOCUMENT.lock());
    for plot in plots {
        text.push_str(&format!("![{plot}]({plot}.svg)\n"));
    }
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    say(&format!("written: {}", file.display()));
    Ok(())
}

/// The command that has started this benchmark.
fn command_line(name: &str) -> String {
    let command: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let arguments = if command.is_empty() {
        String::new()
    } else {
        format!(" -- {}", command.join(" "))
    };
    format!("cargo bench --bench {name}{arguments}")
}

/// Writes the results, with the machine and the command, to `target/bench/NAME.json`.
pub(crate) fn write_json(name: &str, results: &Value) -> Result<()> {
    let file = machine::output()?.join(format!("{name}.json"));
    let whole = json!({
        "machine": machine::description(),
        "command": command_line(name),
        "results": results,
    });
    fs::write(&file, format!("{whole:#}\n")).with_context(|| format!("writing {}", file.display()))?;
    say(&format!("\nwritten: {}", file.display()));
    Ok(())
}

/// The smallest, the middle and the largest of some values.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of nothing, it is not a number.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |position: usize| sorted.get(position).copied().unwrap_or(f64::NAN);
        let (lower, upper) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
        Self {
            min: at(0),
            median: f64::midpoint(at(lower), at(upper)),
            max: at(sorted.len().saturating_sub(1)),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { min, median, max } = self;
        let digits = f.precision().unwrap_or(2);
        write!(f, "{median:.digits$}")?;
        if min.total_cmp(max).is_ne() {
            write!(f, " ({min:.digits$} to {max:.digits$})")?;
        }
        Ok(())
    }
}

/// What was to be reached, what was, and whether that is it. The median decides.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) work: String,
    pub(crate) goal: String,
    pub(crate) measured: Spread,
    pub(crate) met: bool,
}

impl Goal {
    pub(crate) fn at_most(work: &str, what: &str, limit: f64, unit: &str, measured: Spread) -> Self {
        Self {
            work: work.to_owned(),
            goal: format!("{what} ≤ {limit}{unit}"),
            measured,
            met: measured.median <= limit,
        }
    }

    pub(crate) fn at_least(work: &str, what: &str, limit: f64, unit: &str, measured: Spread) -> Self {
        Self {
            work: work.to_owned(),
            goal: format!("{what} ≥ {limit}{unit}"),
            measured,
            met: measured.median >= limit,
        }
    }
}

/// Prints the goals.
pub(crate) fn goals(goals: &[Goal]) {
    if goals.is_empty() {
        return;
    }
    let row = |goal: &Goal| {
        let met = if goal.met { "met" } else { "not met" };
        vec![
            goal.work.clone(),
            goal.goal.clone(),
            format!("{:.3}", goal.measured),
            met.to_owned(),
        ]
    };
    table(
        "Goals",
        &["work", "goal", "measured", ""],
        goals.iter().map(row).collect(),
    );
}
