//! Whether what the log acknowledges is on disks.

use crate::cluster::ClusterSettings;
use crate::cluster::nats::Nats;
use crate::cluster::stream::StreamInfo;

const REPLICAS_MIN: usize = 3;
/// The oldest series of servers that is known to keep what it acknowledges when processes are killed.
const VERSION_MIN: (u32, u32) = (2, 12);

/// Refuses servers and a stream that could lose what they have acknowledged, and names them with what is to be changed.
pub async fn check(nats: &Nats, info: &StreamInfo, settings: &ClusterSettings) -> Result<(), String> {
    if settings.accept_lazy_fsync {
        return Ok(());
    }
    check_stream(info)?;
    let servers = nats.servers().await.map_err(|error| error.to_string())?;
    if servers.is_empty() {
        return Err(format!(
            "the NATS servers do not say whether they sync: import $SYS.REQ.SERVER.PING.JSZ as {} \
             (see docs/cluster.md)",
            settings.subject("servers")
        ));
    }
    for server in &servers {
        let name = &server.name;
        if !server.sync_always {
            return Err(format!("NATS server {name}: expected jetstream.sync_interval = always"));
        }
        let mut parts = server.version.split('.').map(|part| part.parse().unwrap_or(0));
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < VERSION_MIN {
            let (major, minor) = VERSION_MIN;
            return Err(format!(
                "NATS server {name} has version {}: expected at least {major}.{minor}",
                server.version
            ));
        }
    }
    // Those that are down for a while are no reason to stop: the others have a quorum.
    let quorum = info.config.num_replicas / 2 + 1;
    if servers.len() < quorum {
        return Err(format!(
            "{} NATS servers answer: expected at least {quorum}, the quorum of the stream",
            servers.len()
        ));
    }
    Ok(())
}

/// Refuses a stream of clicks that could lose what it has acknowledged.
pub fn check_clicks(info: &StreamInfo, settings: &ClusterSettings) -> Result<(), String> {
    if settings.accept_lazy_fsync {
        return Ok(());
    }
    check_stream(info)
}

fn check_stream(info: &StreamInfo) -> Result<(), String> {
    let config = &info.config;
    let wrong = |key: &str, found: String, expected: &str| {
        Err(format!("stream {}: {key} is {found}, expected {expected}", config.name))
    };
    if config.storage != "file" {
        return wrong("storage", config.storage.clone(), "file");
    }
    if config.num_replicas < REPLICAS_MIN {
        return wrong("num_replicas", config.num_replicas.to_string(), "3 or 5");
    }
    for (key, found, expected) in [
        ("retention", &config.retention, "limits"),
        ("discard", &config.discard, "old"),
    ] {
        if found != expected {
            return wrong(key, found.clone(), expected);
        }
    }
    for (key, is_set) in [
        ("deny_delete", config.deny_delete),
        ("deny_purge", config.deny_purge),
        ("allow_direct", config.allow_direct),
    ] {
        if !is_set {
            return wrong(key, "false".to_owned(), "true");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(change: impl FnOnce(&mut serde_json::Value)) -> StreamInfo {
        let mut info = serde_json::json!({
            "config": {
                "name": "S", "storage": "file", "retention": "limits", "discard": "old", "num_replicas": 3,
                "max_bytes": 1, "max_age": 1, "allow_direct": true, "deny_delete": true, "deny_purge": true,
            },
            "state": {"first_seq": 1, "last_seq": 1, "bytes": 0},
            "created": "a",
        });
        change(&mut info["config"]);
        serde_json::from_value(info).unwrap()
    }

    #[test]
    fn stream_that_can_lose_messages_is_refused() {
        assert_eq!(check_stream(&info(|_| {})), Ok(()));
        for (key, value) in [
            ("storage", serde_json::json!("memory")),
            ("num_replicas", serde_json::json!(1)),
            ("retention", serde_json::json!("workqueue")),
            ("discard", serde_json::json!("new")),
            ("allow_direct", serde_json::json!(false)),
            ("deny_delete", serde_json::json!(false)),
            ("deny_purge", serde_json::json!(false)),
        ] {
            let refused = check_stream(&info(|config| config[key] = value)).unwrap_err();
            assert!(refused.starts_with(&format!("stream S: {key} is ")), "{refused}");
        }
    }
}
