//! Latencies of redirects alone and beside something else, measured in turns.

use std::time::Instant;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::rig::cpu::Shares;
use crate::rig::machine;
use crate::rig::open_loop::{Latencies, PERCENTILES};
use crate::rig::report::{self, Goal, Spread, say};

/// The share of all cores that other programs may have in a turn.
const OF_OTHERS_MAX: f64 = 0.03;
/// How often a turn is taken at most.
pub(crate) const TRIES: usize = 4;

/// A turn in which the machine has done nothing else, or the least disturbed of some.
pub(crate) fn calmest<T>(name: &str, tries: usize, mut turn: impl FnMut() -> Result<T>) -> Result<T> {
    let (mut least, mut failure) = (None::<(f64, T)>, None);
    for attempt in 1..=tries {
        let (shares, since) = (Shares::now(), Instant::now());
        match turn() {
            Ok(turn) => {
                let of_all = since.elapsed().as_secs_f64() * machine::cores().max(1) as f64;
                let of_others = Shares::now().of_others_since(&shares) / of_all;
                if least.as_ref().is_none_or(|(least, _)| of_others < *least) {
                    least = Some((of_others, turn));
                }
                if of_others <= OF_OTHERS_MAX {
                    break;
                }
                let percent = of_others * 100.0;
                let again = if attempt < tries { "; once more" } else { "" };
                say(&format!("{name}: other programs have had {percent:.0} %{again}"));
            }
            Err(error) => {
                say(&format!("{name}: {error:#}"));
                failure = Some(error);
            }
        }
    }
    let least = least.map(|(_, turn)| turn);
    least.ok_or_else(|| failure.unwrap_or_else(|| anyhow!("no turn was taken")))
}

/// The turns in one circumstance, one a round.
#[derive(Debug)]
pub(crate) struct Turns {
    pub(crate) name: String,
    pub(crate) latencies: Vec<Latencies>,
}

impl Turns {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            latencies: Vec::new(),
        }
    }

    pub(crate) fn spread(&self, percentile: f64) -> Spread {
        Spread::of(self.latencies.iter().map(|turn| turn.microseconds(percentile)))
    }

    /// The p99 of what is the load generator's own.
    pub(crate) fn own(&self) -> Spread {
        Spread::of(self.latencies.iter().map(|turn| turn.own_microseconds(99.0)))
    }

    /// A percentile as a multiple of that alone in the same round.
    pub(crate) fn ratio_to(&self, alone: &Self, percentile: f64) -> Spread {
        let pairs = self.latencies.iter().zip(&alone.latencies);
        Spread::of(pairs.map(|(turn, alone)| turn.microseconds(percentile) / alone.microseconds(percentile)))
    }

    pub(crate) fn json(&self) -> Value {
        let turns: Vec<_> = self.latencies.iter().map(Latencies::json).collect();
        json!({ "name": self.name, "turns": turns })
    }

    /// The goal that a percentile is at most so many times what it is alone.
    pub(crate) fn goal(&self, alone: &Self, (name, percentile, limit): (&str, f64, f64)) -> Goal {
        let what = format!("{name} / alone");
        Goal::at_most(&self.name, &what, limit, "", self.ratio_to(alone, percentile))
    }
}

/// The goal that none has failed.
pub(crate) fn none_failed(work: &str, all: &[&Turns]) -> Goal {
    let turns = all.iter().flat_map(|turns| &turns.latencies);
    let failed = Spread::of(turns.map(|latencies| latencies.failed as f64));
    Goal::at_most(work, "failed redirects", 0.0, "", failed)
}

/// Prints them, with ratios to those alone.
pub(crate) fn show(title: &str, alone: &Turns, others: &[&Turns]) {
    let mut names = vec!["", alone.name.as_str()];
    names.extend(others.iter().flat_map(|turns| [turns.name.as_str(), "ratio"]));
    let row = |&(name, percentile): &(&str, f64)| {
        let mut row = vec![name.to_owned(), format!("{:.0}", alone.spread(percentile))];
        for turns in others {
            row.push(format!("{:.0}", turns.spread(percentile)));
            row.push(turns.ratio_to(alone, percentile).to_string());
        }
        row
    };
    report::table(title, &names, PERCENTILES.iter().map(row).collect());
}
