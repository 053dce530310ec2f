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
