//! How a stream is configured and where it is, in the forms of the API of JetStream.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// For so long after it has heard the leader, a server votes for no other; less what its answer takes, and a clock that
/// runs slow.
const LEASE: Duration = Duration::from_secs(3);

/// How a stream is configured and where it is.
#[derive(Debug, Clone, Deserialize)]
pub struct StreamInfo {
    pub config: StreamConfig,
    pub state: StreamState,
    pub cluster: Option<StreamCluster>,
    pub created: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StreamState {
    pub first_seq: u64,
    pub last_seq: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StreamCluster {
    #[serde(default)]
    pub replicas: Vec<Replica>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Replica {
    pub name: String,
    #[serde(default)]
    pub current: bool,
    #[serde(default)]
    pub offline: bool,
    /// How long ago the leader has heard it, in nanoseconds; 0 if it never has.
    #[serde(default)]
    pub active: u64,
}

impl StreamInfo {
    /// Whether no other server can have become the leader before this one answered: one that is cut off goes on
    /// answering for some seconds, and does not know what its successor has acknowledged.
    pub fn is_led(&self) -> bool {
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.config.num_replicas > 1) else {
            return true;
        };
        let heard = |replica: &&Replica| replica.active > 0 && u128::from(replica.active) < LEASE.as_nanos();
        cluster.replicas.iter().filter(heard).count() >= self.config.num_replicas / 2
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConfig {
    pub name: String,
    #[serde(default)]
    pub subjects: Vec<String>,
    pub storage: String,
    pub retention: String,
    pub discard: String,
    pub num_replicas: usize,
    pub max_bytes: i64,
    /// In nanoseconds.
    pub max_age: i64,
    #[serde(default)]
    pub allow_direct: bool,
    #[serde(default)]
    pub deny_delete: bool,
    #[serde(default)]
    pub deny_purge: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    #[serde(default)]
    pub metadata: std::collections::BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Republish {
    pub src: String,
    pub dest: String,
}

/// How much of the log the servers keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    pub bytes: u64,
    pub age: Duration,
    pub replicas: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_leads_while_it_hears_a_majority() {
        let led = |replicas: &str| {
            let config = "{\"name\":\"S\",\"storage\":\"file\",\"retention\":\"limits\",\"discard\":\"old\",\
                          \"num_replicas\":3,\"max_bytes\":-1,\"max_age\":0}";
            let state = "{\"first_seq\":1,\"last_seq\":9,\"bytes\":1}";
            let text = format!("{{\"config\":{config},\"state\":{state},\"created\":\"\",\"cluster\":{replicas}}}");
            serde_json::from_str::<StreamInfo>(&text).unwrap().is_led()
        };
        let replicas = |active: [u64; 2]| {
            let [a, b] = active;
            format!("{{\"replicas\":[{{\"name\":\"a\",\"active\":{a}}},{{\"name\":\"b\",\"active\":{b}}}]}}")
        };
        let second = 1_000_000_000;
        for (active, expected) in [
            ([second, second], true),
            ([second, 60 * second], true),
            ([3 * second, 60 * second], false),
            // Not heard yet.
            ([0, 0], false),
        ] {
            assert_eq!(led(&replicas(active)), expected, "{active:?}");
        }
        // Of servers that are no cluster.
        assert!(led("null"));
    }
}
