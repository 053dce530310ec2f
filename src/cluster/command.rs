//! What the command line asks of a cluster.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout_at};

use crate::cluster::ClusterSettings;
use crate::cluster::nats::{Nats, StreamInfo};
use crate::cluster::presence::{Member, Members};
use crate::store::replication::Position;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_INTERVAL: Duration = Duration::from_millis(20);
/// For boxes to say where they are.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// A connection that works.
pub async fn connected(settings: &ClusterSettings) -> Result<Nats, String> {
    let nats = Nats::connect(settings).await?;
    let end = Instant::now() + CONNECT_TIMEOUT;
    while !nats.is_connected() {
        if Instant::now() > end {
            return Err(format!("cannot connect to {}", settings.servers.join(", ")));
        }
        sleep(CONNECT_INTERVAL).await;
    }
    Ok(nats)
}

/// What the stream says of its log.
pub fn metadata(base: &Position) -> [(&'static str, String); 4] {
    let id = base.cluster.iter().map(|byte| format!("{byte:02x}")).collect();
    [
        ("tinyd-cluster", id),
        ("tinyd-epoch", base.epoch.to_string()),
        ("tinyd-base-sequence", base.sequence.to_string()),
        ("tinyd-base-chain", base.chain.to_string()),
    ]
}

/// The stream, and the boxes that say where they are.
pub async fn look(settings: &ClusterSettings) -> Result<(StreamInfo, Vec<Member>), String> {
    // A box that runs here has the name already.
    let settings = ClusterSettings {
        node: format!("{}-status", settings.node),
        ..settings.clone()
    };
    let nats = connected(&settings).await?;
    let mut said = nats.subscribe("pos.*").await.map_err(|error| error.to_string())?;
    nats.publish("ask", Vec::new())
        .await
        .map_err(|error| error.to_string())?;
    let info = nats.info().await.map_err(|error| error.to_string())?;
    let members = Members::default();
    let end = tokio::time::Instant::now() + LOOK_TIME;
    while let Ok(Some(member)) = timeout_at(end, said.next()).await {
        if let Ok(member) = serde_json::from_slice(&member) {
            members.note(member);
        }
    }
    Ok((info, members.list().into_iter().map(|(member, ..)| member).collect()))
}
