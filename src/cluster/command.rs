//! What the command line asks of a cluster.

use std::time::Duration;

use tokio::time::{timeout, timeout_at};

use crate::cluster::durability;
use crate::cluster::nats::{Connecting, LogLimits, Nats, Published, StreamInfo};
use crate::cluster::presence::{Member, Members, Moment};
use crate::cluster::{ClusterSettings, Role};
use crate::model::{Timestamp, shown, unix_milliseconds};
use crate::store::Snapshot;
use crate::store::replication::{Entry, Position};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A link is dated before its entry is written.
const MARGIN_SECONDS: i64 = 60;
/// For boxes to say where they are.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// A connection that works.
pub async fn connected(settings: &ClusterSettings) -> Result<Nats, String> {
    let servers = settings.servers.join(", ");
    match timeout(CONNECT_TIMEOUT, Nats::connect(settings, Connecting::Now)).await {
        Ok(nats) => nats.map_err(|reason| format!("cannot connect to {servers}: {reason}")),
        Err(_) => Err(format!(
            "cannot connect to {servers}: no answer within {CONNECT_TIMEOUT:?}"
        )),
    }
}

/// Why a box could not work with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Servers cannot be reached, or do not answer.
    Unreachable(String),
    /// Of the servers or the stream.
    Wrong(String),
}

/// Whether the servers, and for an admin box the stream, are as a running box wants them; then what they are.
pub async fn inspect(settings: &ClusterSettings) -> Result<String, Unfit> {
    let nats = connected(settings).await.map_err(Unfit::Unreachable)?;
    let stream = settings.stream();
    // It is for admin boxes to ask for more, and an edge may not.
    if settings.is_edge() {
        let last = nats.last().await;
        let last = last.map_err(|error| Unfit::Unreachable(error.to_string()))?;
        return Ok(format!("stream {stream} goes to entry {last}"));
    }
    let info = nats.info().await.map_err(|error| match error.is_no_stream() {
        true => Unfit::Wrong(format!(
            "there is no stream {stream}: run {} cluster init on the first box",
            shown::command()
        )),
        false => Unfit::Unreachable(error.to_string()),
    })?;
    let last = info.state.last_seq;
    durability::check(&nats, &info, settings).await.map_err(Unfit::Wrong)?;
    let replicas = info.config.num_replicas;
    let safety = match settings.accept_lazy_fsync {
        true => "its servers were not asked whether they sync (accept_lazy_fsync)",
        false => "its servers sync each entry",
    };
    Ok(format!(
        "stream {stream} goes to entry {last}, on {replicas} servers; {safety}"
    ))
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

/// Makes the streams of a new cluster, or goes on where that was interrupted. Returns where its log begins.
pub async fn make_streams(nats: &Nats, limits: LogLimits, of_clicks: LogLimits) -> Result<Position, String> {
    // The log last: it says that all is made.
    make_others(nats, limits, of_clicks).await?;
    let (zeros, new) = ("0".repeat(64), rand::random::<[u8; 16]>());
    let begins = |cluster: &str| Position::from_text(cluster, 1, 0, &zeros, &zeros);
    match nats.info().await {
        Ok(info) if info.state.last_seq == 0 => {
            let cluster = info.config.metadata.get("tinyd-cluster").and_then(|id| begins(id));
            cluster.ok_or_else(|| format!("stream {} is not of tinyd", nats.stream))
        }
        Ok(_) => Err(format!("stream {} is that of a cluster already: join it", nats.stream)),
        Err(error) if error.is_no_stream() => {
            let id: String = new.iter().map(|byte| format!("{byte:02x}")).collect();
            let after = begins(&id).ok_or("no id for the cluster")?;
            let made = nats.create(limits, 1, &metadata(&after)).await;
            made.map(|()| after).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the streams of copies and clicks that are not there.
async fn make_others(nats: &Nats, limits: LogLimits, of_clicks: LogLimits) -> Result<(), String> {
    for (stream, limits) in [(nats.copies(), limits), (nats.clicks(), of_clicks)] {
        match stream.info().await {
            Ok(_) => {}
            Err(error) if error.is_no_stream() => {
                let made = stream.create(limits, 1, &[]).await;
                made.map_err(|error| error.to_string())?;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// The stream, and the boxes that say where they are.
pub async fn look(settings: &ClusterSettings) -> Result<(StreamInfo, Vec<Member>), String> {
    let (nats, members) = ask(settings).await?;
    let info = nats.info().await.map_err(|error| error.to_string())?;
    Ok((info, members))
}

/// Makes a stream that is gone anew, going on where the furthest box is. Returns that box.
pub async fn recreate(settings: &ClusterSettings, limits: LogLimits, of_clicks: LogLimits) -> Result<Member, String> {
    let (nats, members) = ask(settings).await?;
    match nats.info().await {
        Err(error) if error.is_no_stream() => {}
        Err(error) => return Err(error.to_string()),
        Ok(_) => return Err(format!("stream {} is there: nothing to make anew", nats.stream)),
    }
    let furthest = members
        .into_iter()
        .max_by_key(|member| (member.epoch, member.sequence, member.role == Role::Admin.name()));
    if let Some(edge) = furthest.as_ref().filter(|member| member.role == Role::Edge.name()) {
        let (node, sequence) = (&edge.node, edge.sequence);
        return Err(format!(
            "{node}, an edge, has entry {sequence}, and no admin box that runs: start all of them"
        ));
    }
    let Some((furthest, base)) = furthest.and_then(|member| Some((member.clone(), member.position()?))) else {
        return Err("no box says where it is: start the admin boxes first".to_owned());
    };
    let base = Position {
        epoch: base.epoch + 1,
        ..base
    };
    make_others(&nats, limits, of_clicks).await?;
    let first = base.sequence + 1;
    let made = nats.create(limits, first, &metadata(&base)).await;
    made.map_err(|error| error.to_string())?;
    let (entry, _) = Entry::encode_empty(&base, unix_milliseconds());
    match nats.append(base.sequence, entry.into()).await {
        Ok(Published::Stored) => Ok(furthest),
        Ok(Published::WrongLast(_)) => Err("another box has written to the new stream already".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn ask(settings: &ClusterSettings) -> Result<(Nats, Vec<Member>), String> {
    if settings.is_edge() {
        return Err("this box is an edge, which hears no others: run this on an admin box".to_owned());
    }
    // A box that runs here has the name already.
    let settings = ClusterSettings {
        node: format!("{}-status", settings.node),
        ..settings.clone()
    };
    let nats = connected(&settings).await?;
    let mut said = nats.subscribe("pos.>").await.map_err(|error| error.to_string())?;
    nats.publish("ask", Vec::new())
        .await
        .map_err(|error| error.to_string())?;
    let members = Members::default();
    let end = tokio::time::Instant::now() + LOOK_TIME;
    while let Ok(Some((subject, member))) = timeout_at(end, said.next_of()).await {
        if let Some(member) = Member::read(&subject, &member) {
            members.note(member, 0, Moment::now());
        }
    }
    let members = members.list().into_iter().map(|(member, ..)| member).collect();
    Ok((nats, members))
}

/// When the first entry was written that a store has and the log has not; none if it has them all.
pub async fn first_difference(
    nats: &Nats,
    snapshot: &Snapshot,
    position: &Position,
) -> Result<Option<Timestamp>, String> {
    let mut since = None;
    for sequence in (1..=position.sequence).rev() {
        let kept = snapshot
            .entries_after(sequence - 1, 1)
            .map_err(|error| error.to_string())?;
        let Some(own) = kept.into_iter().next() else {
            break;
        };
        let theirs = nats.get(sequence).await.map_err(|error| error.to_string())?;
        if theirs.as_ref() == Some(&own) {
            break;
        }
        let entry = Entry::decode(&own).map_err(|error| error.to_string())?;
        since = Some(Timestamp::from_unix(entry.written_at / 1_000).plus(-MARGIN_SECONDS));
    }
    Ok(since)
}
