//! Latencies of redirects alone and beside something else, measured in turns.

use serde_json::{Value, json};

use crate::rig::open_loop::{Latencies, PERCENTILES};
use crate::rig::report::{self, Goal, Spread};

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

    fn spread(&self, percentile: f64) -> Spread {
        Spread::of(self.latencies.iter().map(|turn| turn.microseconds(percentile)))
    }

    /// A percentile as a multiple of that alone in the same round.
    fn ratio_to(&self, alone: &Self, percentile: f64) -> Spread {
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
