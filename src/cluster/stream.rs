//! How a stream is configured and where it is, and what servers say of themselves, in the forms of the API of
//! JetStream.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::replication::Position;

/// Less than a server waits for a leader that it does not hear, before it stands for election itself.
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
    /// Its name; empty while no server leads.
    #[serde(default)]
    pub leader: String,
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
    /// Whether there is a leader that hears a majority: one that is cut off goes on answering for some seconds, and
    /// does not know what its successor has acknowledged. After that it answers as a replica without a leader, which
    /// hears itself. Where only some of the servers are cut off from each other, a successor may be there for a second
    /// all the same.
    pub fn is_led(&self) -> bool {
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.config.num_replicas > 1) else {
            return true;
        };
        if cluster.leader.is_empty() {
            return false;
        }
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

/// Metadata of the stream of a log.
pub const CLUSTER: &str = "tinyd-cluster";
const EPOCH: &str = "tinyd-epoch";

/// What the stream says of its log.
pub fn metadata(base: &Position) -> [(&'static str, String); 4] {
    [
        (CLUSTER, base.cluster_text()),
        (EPOCH, base.epoch.to_string()),
        ("tinyd-base-sequence", base.sequence.to_string()),
        ("tinyd-base-chain", base.chain.to_string()),
    ]
}

/// Of which cluster a log is, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOrigin {
    pub stream: String,
    /// Not known to an edge while the log has no entry.
    pub cluster: Option<String>,
    /// Of its last entry, or its first to come.
    pub epoch: u32,
    pub first: u64,
}

impl LogOrigin {
    pub fn of(info: &StreamInfo) -> Result<Self, String> {
        let (config, stream) = (&info.config, info.config.name.clone());
        let epoch = config.metadata.get(EPOCH).and_then(|epoch| epoch.parse().ok());
        match (config.metadata.get(CLUSTER), epoch) {
            (Some(cluster), Some(epoch)) => Ok(Self {
                cluster: Some(cluster.clone()),
                epoch,
                first: info.state.first_seq,
                stream,
            }),
            _ => Err(format!("stream {stream} is not of tinyd")),
        }
    }

    /// Whether it is the log of the cluster that a position is in, or why not.
    pub fn check_cluster(&self, position: &Position) -> Result<(), String> {
        let (stream, own) = (&self.stream, position.cluster_text());
        match &self.cluster {
            Some(cluster) if *cluster != own => Err(format!(
                "it is of cluster {own}, and stream {stream} is of cluster {cluster}"
            )),
            _ => Ok(()),
        }
    }

    /// Whether a store with this position can go on with it, or why not.
    pub fn check_follows(&self, position: &Position) -> Result<(), String> {
        self.check_cluster(position)?;
        let (stream, epoch, first) = (&self.stream, self.epoch, self.first);
        if position.epoch > epoch {
            let own = position.epoch;
            return Err(format!(
                "it is of epoch {own}, and stream {stream} is of the earlier epoch {epoch}"
            ));
        }
        let last = position.sequence;
        if last.saturating_add(1) < first {
            return Err(format!(
                "it ends with entry {last}, and the log begins with entry {first}: take a newer one"
            ));
        }
        Ok(())
    }
}

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub name: String,
    pub version: String,
    /// Whether it acknowledges what is on its disk, and not what is on its way there.
    pub sync_always: bool,
}

/// What a server says of its JetStream.
#[derive(Deserialize)]
pub struct ServerAnswer {
    server: ServerName,
    data: ServerData,
}

#[derive(Deserialize)]
struct ServerName {
    name: String,
    ver: String,
}

#[derive(Deserialize)]
struct ServerData {
    /// It has none, or has stopped it, as on a full disk.
    #[serde(default)]
    disabled: bool,
    config: Option<ServerConfig>,
}

#[derive(Deserialize)]
struct ServerConfig {
    #[serde(default)]
    sync_always: bool,
}

impl ServerAnswer {
    /// The server, if its JetStream runs.
    pub fn running(self) -> Option<Server> {
        (!self.data.disabled).then(|| Server {
            name: self.server.name,
            version: self.server.ver,
            sync_always: self.data.config.is_some_and(|config| config.sync_always),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::replication::{Chain, ContentDigest};

    #[test]
    fn leader_leads_while_it_hears_a_majority() {
        let led = |replicas: &str| {
            let config = "{\"name\":\"S\",\"storage\":\"file\",\"retention\":\"limits\",\"discard\":\"old\",\
                          \"num_replicas\":3,\"max_bytes\":-1,\"max_age\":0}";
            let state = "{\"first_seq\":1,\"last_seq\":9,\"bytes\":1}";
            let text = format!("{{\"config\":{config},\"state\":{state},\"created\":\"\",\"cluster\":{replicas}}}");
            serde_json::from_str::<StreamInfo>(&text).unwrap().is_led()
        };
        let replicas = |leader: &str, active: [u64; 2]| {
            let [a, b] = active;
            format!("{{{leader}\"replicas\":[{{\"name\":\"a\",\"active\":{a}}},{{\"name\":\"b\",\"active\":{b}}}]}}")
        };
        let second = 1_000_000_000;
        for (active, expected) in [
            ([second, second], true),
            ([second, 60 * second], true),
            ([3 * second, 60 * second], false),
            // Not heard yet.
            ([0, 0], false),
        ] {
            assert_eq!(led(&replicas("\"leader\":\"c\",", active)), expected, "{active:?}");
        }
        // A replica that was the leader hears itself.
        assert!(!led(&replicas("", [second, 0])));
        // Of servers that are no cluster.
        assert!(led("null"));
    }

    #[test]
    fn store_of_a_later_epoch_does_not_follow() {
        let position = |epoch, sequence| Position {
            cluster: [7; 16],
            epoch,
            sequence,
            chain: Chain::default(),
            digest: ContentDigest::default(),
        };
        let origin = LogOrigin {
            stream: "S".to_owned(),
            cluster: Some("07".repeat(16)),
            epoch: 2,
            first: 5,
        };
        assert_eq!(origin.check_follows(&position(1, 4)), Ok(()));
        assert_eq!(origin.check_follows(&position(2, 9)), Ok(()));
        let later = origin.check_follows(&position(3, 9)).unwrap_err();
        assert!(later.contains("the earlier epoch 2"), "{later}");
        let short = origin.check_follows(&position(1, 3)).unwrap_err();
        assert!(short.contains("ends with entry 3"), "{short}");
    }
}
