//! Where each box of a cluster is in the log: they say so every few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::model::unix_milliseconds;
use crate::store::replication::Position;

/// How often a box says where it is.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// One that has been silent for so long is gone.
const SILENT: Duration = Duration::from_secs(16);
/// Boxes that have not been heard for so long are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);
/// Boxes that are remembered.
const MEMBERS_MAX: usize = 10_000;

/// What a box says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: String,
    pub role: String,
    pub version: String,
    pub cluster: String,
    pub epoch: u32,
    pub sequence: u64,
    pub chain: String,
    pub digest: String,
    /// By its clock, in milliseconds since 1970.
    pub at: i64,
    pub halted: Option<String>,
}

impl Member {
    pub fn at(position: &Position, node: &str, role: &str, halted: Option<String>) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            node: node.to_owned(),
            role: role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: hex(&position.cluster),
            epoch: position.epoch,
            sequence: position.sequence,
            chain: position.chain.to_string(),
            digest: position.digest.to_string(),
            at: unix_milliseconds(),
            halted,
        }
    }
}

impl Member {
    /// Where it is; none if it says something else.
    pub fn position(&self) -> Option<Position> {
        Position::from_text(&self.cluster, self.epoch, self.sequence, &self.chain, &self.digest)
    }
}

/// The boxes that have been heard.
#[derive(Debug, Default)]
pub struct Members(Mutex<BTreeMap<String, (Member, Instant)>>);

impl Members {
    pub fn note(&self, member: Member) {
        let mut members = self.0.lock();
        members.retain(|_, (_, heard)| heard.elapsed() < FORGOTTEN);
        if members.len() < MEMBERS_MAX || members.contains_key(&member.node) {
            members.insert(member.node.clone(), (member, Instant::now()));
        }
    }

    /// The box that has gone furthest in the log that this position is of.
    pub fn furthest(&self, position: &Position) -> Option<(String, u64)> {
        let members = self.0.lock();
        let same_log = members
            .values()
            .map(|(member, _)| member)
            .filter(|member| member.epoch == position.epoch);
        let furthest = same_log.max_by_key(|member| member.sequence)?;
        Some((furthest.node.clone(), furthest.sequence))
    }

    /// Each with how long ago it was heard, and whether it is silent.
    pub fn list(&self) -> Vec<(Member, Duration, bool)> {
        let members = self.0.lock();
        let list = members.values().map(|(member, heard)| {
            let since = heard.elapsed();
            (member.clone(), since, since > SILENT)
        });
        list.collect()
    }
}
