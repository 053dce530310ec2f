//! CPU a request of several servers, measured in turns, so that what the machine's neighbours do meets all of them.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::rig::cpu::{self, Usage};
use crate::rig::machine::Place;
use crate::rig::plot;
use crate::rig::report::{self, Spread, say};
use crate::rig::wrk;

/// The share of a turn that may be stolen.
const STOLEN_MAX: f64 = 0.01;
/// How often a turn is taken at most.
const TURNS_MAX: usize = 4;

/// What is driven in turns with others.
pub(crate) trait Driven {
    fn name(&self) -> &str;

    /// The process whose CPU counts, with its descendants.
    fn process(&self) -> u32;

    /// Drives it for so long. An answer that is not as expected is an error.
    fn drive(&self, seconds: u64, seed: u64) -> Result<Served>;
}

/// What was answered in a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

/// A server and what wrk asks it.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) name: String,
    /// The process whose CPU counts, with its descendants.
    pub(crate) process: u32,
    pub(crate) url: String,
    pub(crate) script: PathBuf,
    pub(crate) connections: u32,
    /// Whether every answer is to be a refusal instead of none.
    pub(crate) is_refused: bool,
    /// Where the load generator runs.
    pub(crate) load: Place,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) requests_a_second: f64,
}

/// What of a sample is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    AllCpu,
    UserCpu,
}

impl Measure {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AllCpu => "all CPU",
            Self::UserCpu => "user CPU",
        }
    }

    const fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::AllCpu => sample.cpu_us,
            Self::UserCpu => sample.user_us,
        }
    }
}

/// A lane and its samples, one a round.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
}

impl Measured {
    pub(crate) fn spread(&self, of: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(of))
    }

    /// Its cost as a multiple of another's in the same round.
    pub(crate) fn ratio_to(&self, other: &Self, measure: Measure) -> Spread {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.map(|(mine, theirs)| measure.of(mine) / measure.of(theirs)))
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "cpuMicroseconds": self.spread(|sample| sample.cpu_us),
            "userMicroseconds": self.spread(|sample| sample.user_us),
            "requestsPerSecond": self.spread(|sample| sample.requests_a_second),
        })
    }
}

/// Drives the lanes in turns, every second round backwards.
pub(crate) fn measure(what: &str, lanes: &[impl Driven], rounds: u64, seconds: u64) -> Result<Vec<Measured>> {
    let empty = |lane: &_| Measured {
        name: Driven::name(lane).to_owned(),
        samples: Vec::new(),
    };
    let mut measured: Vec<_> = lanes.iter().map(empty).collect();
    for round in 0..rounds {
        say(&format!("{what}: round {} of {rounds}", round + 1));
        let mut turns: Vec<_> = lanes.iter().zip(&mut measured).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (lane, measured) in turns {
            let sample = undisturbed(lane, seconds, round).with_context(|| format!("{what}: {}", lane.name()))?;
            measured.samples.push(sample);
        }
    }
    Ok(measured)
}

/// A sample of a turn in which the machine under this one has had its cores, or of the least disturbed of some: what
/// the hypervisor takes away is counted as the server's time.
fn undisturbed(lane: &impl Driven, seconds: u64, seed: u64) -> Result<Sample> {
    let mut least: Option<(f64, Sample)> = None;
    for _ in 0..TURNS_MAX {
        let before = cpu::stolen_seconds();
        let sample = sample(lane, seconds, seed)?;
        let stolen = (cpu::stolen_seconds() - before) / seconds as f64;
        if least.as_ref().is_none_or(|(other, _)| stolen < *other) {
            least = Some((stolen, sample));
        }
        if stolen <= STOLEN_MAX {
            break;
        }
        say(&format!(
            "{}: {:.0} % of the turn were stolen; once more",
            lane.name(),
            stolen * 100.0
        ));
    }
    least.map(|(_, sample)| sample).context("no turn was taken")
}

fn sample(lane: &impl Driven, seconds: u64, seed: u64) -> Result<Sample> {
    let before = Usage::of(lane.process())?;
    let served = lane.drive(seconds, seed + 1)?;
    let spent = Usage::of(lane.process())?.since(&before);
    let requests = served.requests as f64;
    Ok(Sample {
        cpu_us: spent.total_us / requests,
        user_us: spent.user_us / requests,
        requests_a_second: requests / served.seconds,
    })
}

impl Driven for Lane {
    fn name(&self) -> &str {
        &self.name
    }

    fn process(&self) -> u32 {
        self.process
    }

    fn drive(&self, seconds: u64, seed: u64) -> Result<Served> {
        let run = wrk::run(self.load, &self.url, &self.script, self.connections, seconds, seed)?;
        let expected = if self.is_refused { run.requests } else { 0 };
        if run.refused != expected || run.socket_errors > 0 {
            bail!(
                "of {} answers {} were refusals, {} socket errors",
                run.requests,
                run.refused,
                run.socket_errors
            );
        }
        Ok(Served {
            requests: run.requests,
            seconds: run.seconds,
        })
    }
}

/// Prints what was measured, with ratios of the first lane to each.
pub(crate) fn show(what: &str, measured: &[Measured]) {
    let Some(subject) = measured.first() else { return };
    let row = |lane: &Measured| {
        vec![
            lane.name.clone(),
            lane.spread(|sample| sample.cpu_us).to_string(),
            lane.spread(|sample| sample.user_us).to_string(),
            subject.ratio_to(lane, Measure::AllCpu).to_string(),
            subject.ratio_to(lane, Measure::UserCpu).to_string(),
            format!("{:.0}", lane.spread(|sample| sample.requests_a_second).median),
        ]
    };
    let title = format!(
        "{}: median (min to max) over rounds; ratios are {} to each",
        what, subject.name
    );
    let head = [
        "server",
        "CPU µs a request",
        "of it user",
        "ratio",
        "ratio user",
        "requests/s",
    ];
    report::table(&title, &head, measured.iter().map(row).collect());
}

/// The bars of what was measured: medians, user below system.
pub(crate) fn bars(what: &str, measured: &[Measured]) -> plot::Group {
    let bar = |lane: &Measured| {
        let (all, user) = (
            lane.spread(|sample| sample.cpu_us).median,
            lane.spread(|sample| sample.user_us).median,
        );
        plot::Bar {
            name: lane.name.clone(),
            lower: user,
            upper: all - user,
        }
    };
    plot::Group {
        name: what.to_owned(),
        bars: measured.iter().map(bar).collect(),
    }
}
