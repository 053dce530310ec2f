//! The CPU time of a process and all those it started, from /proc.
//!
//! The sum is the scheduler's own, in nanoseconds. How it divides into user and system is known from the kernel's ticks
//! only (usually 10 ms each), so the user part needs runs of a second or more.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result, bail};

/// Position of the parent in /proc/PID/stat, after the name.
const PARENT: usize = 1;
/// Position of the user ticks.
const USER: usize = 11;
/// Position of the system ticks.
const SYSTEM: usize = 12;

/// What a tree of processes has used so far.
#[derive(Debug)]
pub(crate) struct Usage {
    nanoseconds: HashMap<u32, u64>,
    user_ticks: u64,
    system_ticks: u64,
}

/// What it has used between two looks, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) total_us: f64,
    pub(crate) user_us: f64,
}

impl Usage {
    /// What the process and its descendants have used until now.
    pub(crate) fn of(process: u32) -> Result<Self> {
        let mut usage = Self {
            nanoseconds: HashMap::new(),
            user_ticks: 0,
            system_ticks: 0,
        };
        for id in tree(process) {
            // One that has ended since is one whose time was not wanted.
            let Some(fields) = stat(id) else { continue };
            usage.user_ticks += fields.get(USER).copied().unwrap_or(0);
            usage.system_ticks += fields.get(SYSTEM).copied().unwrap_or(0);
            for task in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let spent = text
                    .split_ascii_whitespace()
                    .next()
                    .and_then(|first| first.parse().ok());
                if let (Some(thread), Some(spent)) = (number(&task.file_name()), spent) {
                    usage.nanoseconds.insert(thread, spent);
                }
            }
        }
        if usage.nanoseconds.is_empty() {
            bail!("/proc/{process}/task/*/schedstat says nothing: has it ended, or is the kernel built without it?");
        }
        Ok(usage)
    }

    /// What was used since an earlier look. Threads that ended in between are left out; servers keep theirs.
    pub(crate) fn since(&self, before: &Self) -> Spent {
        let spent = self
            .nanoseconds
            .iter()
            .map(|(thread, now)| now.saturating_sub(before.nanoseconds.get(thread).copied().unwrap_or(0)));
        let total_us = spent.sum::<u64>() as f64 / 1e3;
        let user = self.user_ticks.saturating_sub(before.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(before.system_ticks) as f64;
        Spent {
            total_us,
            user_us: total_us * user / (user + system).max(1.0),
        }
    }
}

/// Ticks a second, as /proc has them on every Linux.
const TICKS: f64 = 100.0;

/// Seconds in which the hypervisor has given the cores to others, of all cores together; 0 where that is not known.
pub(crate) fn stolen_seconds() -> f64 {
    machine_ticks(&[STEAL]) as f64 / TICKS
}

/// What the whole machine has used so far, and what of it this process and those that it has started have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shares {
    all_ticks: u64,
    own_ticks: u64,
}

impl Shares {
    /// Until now.
    pub(crate) fn now() -> Self {
        let ticks = |id| {
            let fields = stat(id).unwrap_or_default();
            // Those of children that have ended come after.
            fields.iter().skip(USER).take(4).sum::<u64>()
        };
        Self {
            all_ticks: machine_ticks(&[0, 1, 2, STEAL]),
            own_ticks: tree(std::process::id()).into_iter().map(ticks).sum(),
        }
    }

    /// Seconds that others have had of all cores since an earlier look.
    pub(crate) fn of_others_since(&self, before: &Self) -> f64 {
        let all = self.all_ticks.saturating_sub(before.all_ticks);
        let own = self.own_ticks.saturating_sub(before.own_ticks);
        all.saturating_sub(own) as f64 / TICKS
    }
}

/// Position of the steal ticks in the first line of /proc/stat, after its name. Before them are user, nice, system,
/// idle, those of waiting and of interrupts.
const STEAL: usize = 7;

/// The sum of some of the fields of that line.
fn machine_ticks(positions: &[usize]) -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks = line.split_ascii_whitespace().skip(1).enumerate();
    ticks
        .filter(|(position, _)| positions.contains(position))
        .filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
        .sum()
}

/// The process and its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = number(&entry.file_name()) else { continue };
        let parent = stat(id).and_then(|fields| u32::try_from(*fields.get(PARENT)?).ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(id);
        }
    }
    let (mut found, mut left) = (Vec::new(), vec![root]);
    while let Some(id) = left.pop() {
        found.push(id);
        left.extend(children.remove(&id).unwrap_or_default());
    }
    found
}

/// The memory of a process that is really there, in bytes.
pub(crate) fn resident_bytes(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("reading the memory of a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kilobytes.context("/proc says nothing of VmRSS")? * 1024)
}

/// The fields of /proc/PID/stat after the name, which may hold spaces; the state, a letter, counts as 0.
fn stat(id: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(
        fields
            .split(' ')
            .map(|field| field.trim().parse().unwrap_or(0))
            .collect(),
    )
}

fn number(name: &std::ffi::OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}
