//! What the command line asks of a cluster.

use std::time::Duration;

use tokio::time::{timeout, timeout_at};

use crate::cluster::durability;
use crate::cluster::nats::{Connecting, Nats, NatsError, Published};
use crate::cluster::presence::{Member, Members, Moment};
use crate::cluster::stream::{CLUSTER, LogLimits, LogOrigin, StreamInfo, metadata};
use crate::cluster::{ClusterSettings, Role, copies};
use crate::model::{shown, unix_milliseconds};
use crate::store::Snapshot;
use crate::store::replication::{ApplyError, Entry, Position};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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

/// Of which cluster the log is, and where it begins.
pub async fn log_origin(settings: &ClusterSettings) -> Result<LogOrigin, Unfit> {
    let nats = connected(settings).await.map_err(Unfit::Unreachable)?;
    if !settings.is_edge() {
        return LogOrigin::of(&info_of(&nats).await?).map_err(Unfit::Wrong);
    }
    // By its entries, because an edge may ask for no more.
    let (first, last) = ends_of(&nats).await.map_err(|error| unread(&nats, &error))?;
    let (Some((first, _)), Some(last)) = (first, last) else {
        return Ok(LogOrigin {
            stream: nats.stream,
            cluster: None,
            epoch: u32::MAX,
            first: 1,
        });
    };
    let last = Entry::decode(&last).map_err(|error| Unfit::Wrong(format!("stream {}: {error}", nats.stream)))?;
    Ok(LogOrigin {
        stream: nats.stream,
        cluster: Some(last.position.cluster_text()),
        epoch: last.position.epoch,
        first,
    })
}

/// The first message of a stream with its number, and the last.
async fn ends_of(nats: &Nats) -> Result<(Option<(u64, Vec<u8>)>, Option<Vec<u8>>), NatsError> {
    let (first, last) = (nats.first().await?, nats.last().await?);
    let last = nats.read(last.saturating_sub(1)).await?;
    Ok((first, last.into_iter().next()))
}

/// Why an edge cannot read the log: the servers tell it no more.
fn unread(nats: &Nats, error: &NatsError) -> Unfit {
    Unfit::Unreachable(match error {
        NatsError::NoResponders => format!(
            "there is no stream {}, or no NATS server that has it runs: {} cluster init on the first box makes it",
            nats.stream,
            shown::command()
        ),
        error => error.to_string(),
    })
}

async fn info_of(nats: &Nats) -> Result<StreamInfo, Unfit> {
    nats.info().await.map_err(|error| match error.is_no_stream() {
        true => Unfit::Wrong(format!(
            "there is no stream {}: run {} cluster init on the first box",
            nats.stream,
            shown::command()
        )),
        false => Unfit::Unreachable(error.to_string()),
    })
}

/// Whether the servers, and for an admin box the stream, are as a running box wants them; then what they are. `store`
/// is the size of its store.
pub async fn inspect(settings: &ClusterSettings, store: u64) -> Result<Vec<String>, Unfit> {
    let nats = connected(settings).await.map_err(Unfit::Unreachable)?;
    let stream = settings.stream();
    let copy = copies::describe(&nats, store).await;
    // It is for admin boxes to ask for more, and an edge may not.
    if settings.is_edge() {
        let last = nats.last().await.map_err(|error| unread(&nats, &error))?;
        return Ok(vec![format!("stream {stream} goes to entry {last}"), copy]);
    }
    let info = info_of(&nats).await?;
    let last = info.state.last_seq;
    durability::check(&nats, &info, settings, &mut durability::Synced::new())
        .await
        .map_err(Unfit::Wrong)?;
    match nats.clicks().info().await {
        Ok(clicks) => durability::check_clicks(&clicks, settings).map_err(Unfit::Wrong)?,
        Err(error) if error.is_no_stream() => {
            let name = nats.clicks().stream;
            return Err(Unfit::Wrong(format!(
                "there is no stream {name}: run {} cluster recreate",
                shown::command()
            )));
        }
        Err(error) => return Err(Unfit::Unreachable(error.to_string())),
    }
    let replicas = info.config.num_replicas;
    let safety = match settings.accept_lazy_fsync {
        true => "its servers were not asked whether they sync (accept_lazy_fsync)",
        false => "its servers sync each entry",
    };
    Ok(vec![
        format!("stream {stream} goes to entry {last}, on {replicas} servers; {safety}"),
        copy,
    ])
}

/// Makes the streams of a new cluster, or goes on where that was interrupted. Returns where its log begins.
pub async fn make_streams(nats: &Nats, limits: LogLimits, of_clicks: LogLimits) -> Result<Position, String> {
    // The log last: it says that all is made. The stream of copies is made with the first of them.
    make_clicks(nats, of_clicks).await?;
    let (zeros, new) = ("0".repeat(64), rand::random::<[u8; 16]>());
    let begins = |cluster: &str| Position::from_text(cluster, 1, 0, &zeros, &zeros);
    match nats.info().await {
        Ok(info) if info.state.last_seq == 0 => {
            let cluster = info.config.metadata.get(CLUSTER).and_then(|id| begins(id));
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

/// Makes the stream of clicks; false if it is there.
async fn make_clicks(nats: &Nats, limits: LogLimits) -> Result<bool, String> {
    let clicks = nats.clicks();
    match clicks.info().await {
        Ok(_) => Ok(false),
        Err(error) if error.is_no_stream() => {
            let made = clicks.create(limits, 1, &[]).await;
            made.map(|()| true).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A box that runs here has the name already.
fn settings_here(settings: &ClusterSettings) -> ClusterSettings {
    ClusterSettings {
        node: format!("{}-status", settings.node),
        ..settings.clone()
    }
}

/// The stream, the boxes that say where they are, and what there is for boxes that join.
pub async fn look(settings: &ClusterSettings, store: u64) -> Result<(StreamInfo, Vec<Member>, String), String> {
    let (nats, members) = ask(settings).await?;
    let info = nats.info().await.map_err(|error| error.to_string())?;
    let copy = copies::describe(&nats, store).await;
    Ok((info, members, copy))
}

/// What `tinyd cluster recreate` has done.
#[derive(Debug)]
pub struct Recreated {
    /// Where the log goes on.
    pub base: Member,
    /// The first and the last entry of the stream that was removed for it.
    pub removed: Option<(u64, u64)>,
}

/// Makes the stream of the log anew, going on where the furthest box is. One that is there is removed only if `replace`
/// says so, and only if it has nothing that no admin box has. If only the stream of clicks was gone, that is all that
/// is made, and nothing is returned.
pub async fn recreate(
    settings: &ClusterSettings,
    limits: LogLimits,
    of_clicks: LogLimits,
    replace: bool,
) -> Result<Option<Recreated>, String> {
    let (nats, members) = ask(settings).await?;
    let info = match nats.info().await {
        Ok(info) => Some(info),
        Err(error) if error.is_no_stream() => None,
        Err(error) => return Err(error.to_string()),
    };
    if info.is_some() && !replace && make_clicks(&nats, of_clicks).await? {
        return Ok(None);
    }
    let log = info.as_ref().map(LogOrigin::of).transpose()?;
    let (furthest, base) = furthest(members, log.and_then(|log| log.cluster))?;
    let removed = match info {
        Some(info) => {
            let (first, last, stream) = (info.state.first_seq, info.state.last_seq, &nats.stream);
            let (node, own) = (&furthest.node, base.sequence);
            if !replace {
                return Err(format!(
                    "stream {stream} is there, with entries {first} to {last}; {node} goes to entry {own}. Add \
                     --replace to delete the stream and go on after entry {own}"
                ));
            }
            check_replaceable(&nats, &info, (&furthest, &base), &settings_here(settings).node).await?;
            nats.delete().await.map_err(|error| error.to_string())?;
            Some((first, last))
        }
        None => None,
    };
    let base = Position {
        epoch: base.epoch + 1,
        ..base
    };
    make_clicks(&nats, of_clicks).await?;
    let first = base.sequence + 1;
    let made = nats.create(limits, first, &metadata(&base)).await;
    made.map_err(|error| error.to_string())?;
    let (entry, _) = Entry::encode_empty(&base, unix_milliseconds());
    match nats.append(base.sequence, entry.into()).await {
        Ok(Published::Stored) => Ok(Some(Recreated {
            base: furthest,
            removed,
        })),
        Ok(Published::WrongLast(_)) => Err("another box has written to the new stream already".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The box after which a log can go on that is made anew: an admin box, so that others get from it what they miss. It
/// is of this cluster, or of that of the admin boxes where the stream is gone that says it.
fn furthest(mut members: Vec<Member>, cluster: Option<String>) -> Result<(Member, Position), String> {
    let is_admin = |member: &Member| member.role == Role::Admin.name();
    let first_admin = members.iter().find(|member| is_admin(member)).cloned();
    if let (None, Some(first)) = (&cluster, &first_admin)
        && let Some(other) = members
            .iter()
            .find(|member| is_admin(member) && member.cluster != first.cluster)
    {
        let (node, other) = (&first.node, &other.node);
        return Err(format!(
            "{node} and {other} are of different clusters: stop the one that is not to go on"
        ));
    }
    let cluster = cluster.or(first_admin.map(|first| first.cluster));
    members.retain(|member| cluster.as_ref() == Some(&member.cluster));
    // One that has stopped may have another history; if all have, it is for what the log has.
    let some_follow = members.iter().any(|member| is_admin(member) && member.halted.is_none());
    let candidates = members
        .into_iter()
        .filter(|member| member.halted.is_none() || !some_follow);
    let mut candidates: Vec<_> = candidates.collect();
    candidates.sort_by_key(|member| (member.epoch, member.sequence, is_admin(member)));
    let furthest = candidates.pop();
    let furthest = furthest.and_then(|member| Some((member.clone(), member.position()?)));
    let Some((furthest, position)) = furthest else {
        return Err("no admin box of the cluster says where it is: start the admin boxes first".to_owned());
    };
    let (node, sequence) = (&furthest.node, furthest.sequence);
    if !is_admin(&furthest) {
        return Err(format!(
            "{node}, an edge, has entry {sequence}, and no admin box that runs: start all of them, or stop that edge; \
             if its key was stolen, take its line out of what the servers include"
        ));
    }
    let same_end = candidates.iter().filter(|other| {
        let at = |member: &Member| (member.epoch, member.sequence);
        at(other) == at(&furthest)
    });
    if let Some(other) = same_end
        .filter(|other| is_admin(other))
        .find(|other| other.chain != furthest.chain)
    {
        let other = &other.node;
        return Err(format!(
            "{node} and {other} have different histories up to entry {sequence}: stop the one that is not to go on"
        ));
    }
    Ok((furthest, position))
}

/// Refuses to have a stream removed that may have what the furthest box has not, by its last entries.
async fn check_replaceable(
    nats: &Nats,
    info: &StreamInfo,
    (furthest, base): (&Member, &Position),
    asking: &str,
) -> Result<(), String> {
    let (node, own) = (&furthest.node, base.sequence);
    let (stream, last) = (&nats.stream, info.state.last_seq);
    if last < info.state.first_seq {
        return Ok(());
    }
    let refused = |what: String| Err(format!("{what}, so that deleting stream {stream} could lose writes"));
    let text = |error: NatsError| error.to_string();
    if last > own {
        let next = nats.get(own + 1).await.map_err(text)?;
        let next = next.ok_or_else(|| format!("stream {stream} does not show its entry {}", own + 1))?;
        return match Entry::decode(&next) {
            // No box can apply it, and so nothing that comes after it.
            Err(ApplyError::Malformed(_)) => Ok(()),
            _ => refused(format!("the stream goes to entry {last}, and {node} to entry {own}")),
        };
    }
    let theirs = nats.get(last).await.map_err(text)?;
    let theirs = theirs.ok_or_else(|| format!("stream {stream} does not show its last entry {last}"))?;
    let theirs = Entry::decode(&theirs).map_err(|error| error.to_string())?;
    if last == own && theirs.position.chain == base.chain {
        return Err(format!(
            "stream {stream} has all that {node} has: there is nothing to make anew"
        ));
    }
    let ours = nats.ask_boxes(own, asking).await;
    let ours = ours.ok_or_else(|| format!("no admin box gives its last entry {own}: start them first"))?;
    let ours = Entry::decode(&ours).map_err(|error| error.to_string())?;
    // The log has lost its end, and another box has written on.
    if last == own || ours.position.chain != base.chain || theirs.written_at > ours.written_at {
        return refused(format!("the stream has another history than {node} up to entry {last}"));
    }
    Ok(())
}

async fn ask(settings: &ClusterSettings) -> Result<(Nats, Vec<Member>), String> {
    if settings.is_edge() {
        return Err("this box is an edge, which hears no others: run this on an admin box".to_owned());
    }
    let nats = connected(&settings_here(settings)).await?;
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

/// What of a store's history the log does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostEnd {
    Nothing,
    /// The entries from this one on.
    From(u64),
    /// More than the store keeps of its history, or the log of its own.
    Unknown,
}

/// Compares the end of the history of a store with the log.
pub async fn lost_end(nats: &Nats, snapshot: &Snapshot, position: &Position) -> Result<LostEnd, String> {
    for sequence in (1..=position.sequence).rev() {
        let kept = snapshot
            .entries_after(sequence - 1, 1)
            .map_err(|error| error.to_string())?;
        let Some(own) = kept.into_iter().next() else {
            return Ok(LostEnd::Unknown);
        };
        let theirs = nats.get(sequence).await.map_err(|error| error.to_string())?;
        if theirs.as_ref() == Some(&own) {
            return Ok(match sequence {
                same if same == position.sequence => LostEnd::Nothing,
                same => LostEnd::From(same + 1),
            });
        }
    }
    // All of it, from the first entry of the cluster on.
    Ok(match position.sequence {
        0 => LostEnd::Nothing,
        _ => LostEnd::From(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::replication::{Chain, ContentDigest};

    fn member(node: &str, role: Role, sequence: u64, history: u8) -> Member {
        let position = Position {
            cluster: [7; 16],
            epoch: 1,
            sequence,
            chain: Chain([history; 32]),
            digest: ContentDigest::default(),
        };
        Member::at(&position, node, role.name(), None)
    }

    fn halted(member: Member) -> Member {
        Member {
            halted: Some("a fork".to_owned()),
            ..member
        }
    }

    #[test]
    fn log_goes_on_after_the_furthest_admin_box() {
        let (a, b) = (member("a", Role::Admin, 7, 1), member("b", Role::Admin, 9, 1));
        let edge = |sequence| member("e", Role::Edge, sequence, 1);
        let found = |members: &[Member]| furthest(members.to_vec(), None).map(|(member, _)| member.node);
        assert_eq!(found(&[a.clone(), b.clone(), edge(9)]), Ok("b".to_owned()));
        // What has stopped counts only if all have.
        assert_eq!(found(&[a.clone(), halted(b.clone())]), Ok("a".to_owned()));
        assert_eq!(found(&[halted(a.clone()), halted(b.clone())]), Ok("b".to_owned()));
        assert!(found(&[]).unwrap_err().contains("start the admin boxes first"));
        let ahead = found(&[a, b.clone(), edge(10)]).unwrap_err();
        assert!(ahead.starts_with("e, an edge, has entry 10"), "{ahead}");
        let forked = found(&[member("c", Role::Admin, 9, 2), b]).unwrap_err();
        assert!(forked.contains("different histories up to entry 9"), "{forked}");
    }

    #[test]
    fn boxes_of_other_clusters_are_no_candidates() {
        let of_other = |member: Member| Member {
            cluster: "09".repeat(16),
            ..member
        };
        let (a, b) = (member("a", Role::Admin, 7, 1), of_other(member("b", Role::Admin, 9, 1)));
        let edge = of_other(member("e", Role::Edge, 99, 1));
        let found = |members: [&Member; 2], cluster: Option<&Member>| {
            let cluster = cluster.map(|of| of.cluster.clone());
            furthest(members.map(Member::clone).to_vec(), cluster).map(|(member, _)| member.node)
        };
        assert_eq!(found([&a, &edge], None), Ok("a".to_owned()));
        assert_eq!(found([&a, &b], Some(&a)), Ok("a".to_owned()));
        assert_eq!(found([&a, &b], Some(&b)), Ok("b".to_owned()));
        let both = found([&a, &b], None).unwrap_err();
        assert!(both.starts_with("a and b are of different clusters"), "{both}");
        let none = found([&b, &edge], Some(&a)).unwrap_err();
        assert!(none.contains("start the admin boxes first"), "{none}");
    }
}
