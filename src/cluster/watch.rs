//! Watching the log and the other boxes: how far the log goes, whether writes can be taken, and where this box is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::Role;
use crate::cluster::connection::{Cluster, position};
use crate::cluster::log::Writable;
use crate::cluster::nats::{NatsError, Published, StreamInfo, Subscription};
use crate::cluster::presence::{self, Member, SKEW_WARNED, clock_refusal};
use crate::cluster::{durability, metadata};
use crate::links::Links;
use crate::store::replication::{Entry, Position};

/// How often an admin box asks how far the log goes.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than an election takes.
const CUT_OFF_TIME: Duration = Duration::from_secs(8);
const DURABILITY_INTERVAL: Duration = Duration::from_secs(60);
/// After a connection was made, others have this long to say that they know more than the log.
const WITNESS_TIME: Duration = Duration::from_secs(1);
/// Entries that are appended again are read in parts of this.
const REPAIR_BYTES: usize = 4 * 1024 * 1024;

/// Finds out where the log and the other boxes are, and says where this one is.
pub struct Watcher {
    cluster: Arc<Cluster>,
    links: Arc<Links>,
    /// The connection for which others have been asked what they know, and when.
    witnessed: Option<(u64, Instant)>,
    durable_since: Option<Instant>,
    /// When another server was tried.
    left_server: Option<Instant>,
    is_clock_wrong: bool,
}

struct Heard {
    heads: Subscription,
    asked: Subscription,
    wanted: Subscription,
    overtaken: Subscription,
}

impl Watcher {
    pub const fn new(cluster: Arc<Cluster>, links: Arc<Links>) -> Self {
        Self {
            cluster,
            links,
            witnessed: None,
            durable_since: None,
            left_server: None,
            is_clock_wrong: false,
        }
    }

    fn is_admin(&self) -> bool {
        self.cluster.settings.role == Role::Admin
    }

    fn position(&self) -> Option<Position> {
        position(&self.links)
    }

    pub async fn run(mut self) {
        loop {
            match self.subscribe().await {
                Ok(mut heard) => self.watch(&mut heard).await,
                Err(error) => tracing::debug!(%error, "cannot subscribe yet"),
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    async fn subscribe(&self) -> Result<Heard, NatsError> {
        let nats = &self.cluster.nats;
        let of_admins = async |of| match self.is_admin() {
            true => nats.subscribe(of).await,
            false => Ok(Subscription::silent()),
        };
        Ok(Heard {
            heads: nats.subscribe("head").await?,
            asked: nats.subscribe("ask").await?,
            wanted: of_admins("entry").await?,
            overtaken: of_admins("overtaken").await?,
        })
    }

    /// Until a subscription ends.
    async fn watch(&mut self, heard: &mut Heard) {
        let mut checks = interval(CHECK_INTERVAL);
        let mut says = interval(presence::INTERVAL);
        for ticks in [&mut checks, &mut says] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                head = heard.heads.next() => match head {
                    Some(head) => self.hear(&head),
                    None => return,
                },
                Some(node) = heard.overtaken.next() => {
                    if node != self.cluster.settings.node.as_bytes() {
                        self.cluster.overtaken.note();
                    }
                }
                Some(_) = heard.asked.next() => self.say().await,
                Some(wanted) = heard.wanted.next() => self.give(&wanted).await,
                _ = checks.tick() => self.check().await,
                _ = says.tick() => self.say().await,
            }
        }
    }

    /// A beacon of an admin box.
    fn hear(&self, head: &[u8]) {
        let head = std::str::from_utf8(head).ok().and_then(|head| head.parse().ok());
        let Some(head) = head else { return };
        self.cluster.heard(head);
        if self.position().is_some_and(|position| position.sequence < head) {
            self.cluster.behind.notify_one();
        }
    }

    /// Says where this box is.
    async fn say(&self) {
        let Some(position) = self.position() else { return };
        let settings = &self.cluster.settings;
        let halted = self
            .links
            .store()
            .replicating()
            .and_then(|replicating| replicating.halted());
        let halted = halted.map(|why| why.to_string()).or_else(|| self.cluster.state().stuck);
        let member = Member::at(&position, &settings.node, settings.role.name(), halted);
        let subject = format!("pos.{}", settings.node);
        if let Ok(said) = serde_json::to_vec(&member) {
            // It is said again soon.
            let _ = self.cluster.nats.publish(&subject, said).await;
        }
    }

    /// Gives an entry to a box that misses it: the payload is its number, a space, and the subject to answer to.
    async fn give(&self, wanted: &[u8]) {
        let wanted = std::str::from_utf8(wanted)
            .ok()
            .and_then(|wanted| wanted.split_once(' '));
        let Some((Ok(sequence), to)) = wanted.map(|(sequence, to)| (sequence.parse::<u64>(), to.to_owned())) else {
            return;
        };
        if !self.is_admin() || sequence == 0 {
            return;
        }
        let read = move |snapshot: &crate::store::Snapshot| snapshot.entries_after(sequence - 1, 1);
        if let Ok(entries) = self.links.store().read_ahead(read).await
            && let Some(entry) = entries.into_iter().next()
        {
            let _ = self.cluster.nats.publish(&format!("given.{to}"), entry).await;
        }
    }

    /// Looks how far the log goes and whether writes can be taken.
    async fn check(&mut self) {
        self.cluster.mark_behind(&self.links);
        if !self.is_admin() {
            self.check_edge().await;
            return;
        }
        // Before the log is asked, which has all that this box has then.
        let before = self.position();
        let info = match self.cluster.nats.info().await {
            Ok(info) => info,
            Err(error) => {
                self.silent();
                self.leave_server_if_cut_off().await;
                if error.is_no_stream() {
                    let reason = "the stream is gone: tinyd cluster recreate makes it anew";
                    self.cluster.writable.send_replace(Writable::No(reason.to_owned()));
                }
                return;
            }
        };
        let Some(position) = before else { return };
        self.cluster.state.send_modify(|state| {
            state.head = Some(info.state.last_seq);
            state.silent_since = None;
        });
        let last = info.state.last_seq;
        if last > position.sequence {
            self.cluster.behind.notify_one();
        }
        let head = last.to_string().into_bytes();
        // It is said again in a second.
        let _ = self.cluster.nats.publish("head", head).await;
        let writable = self.writable(&info, position).await;
        self.cluster.writable.send_replace(writable);
    }

    async fn check_edge(&mut self) {
        self.silent();
        let connection = self.cluster.nats.connections();
        // Once for each connection, because a thousand edges would ask.
        if self.witnessed.is_none_or(|(of, _)| of != connection)
            && let Ok(info) = self.cluster.nats.info().await
        {
            self.witnessed = Some((connection, Instant::now()));
            self.cluster.heard(info.state.last_seq);
            self.cluster.behind.notify_one();
        }
    }

    /// A server that is reached but has no leader may be cut off from those that have one.
    async fn leave_server_if_cut_off(&mut self) {
        let silent = self.cluster.state().silent_since.map(|since| since.elapsed());
        let is_new = self.left_server.is_none_or(|left| left.elapsed() > CUT_OFF_TIME);
        if silent.is_some_and(|silent| silent > CUT_OFF_TIME) && is_new && self.cluster.nats.is_connected() {
            tracing::warn!("the NATS server knows no leader of the log: trying another one");
            self.left_server = Some(Instant::now());
            self.cluster.nats.leave_server().await;
        }
    }

    /// Nothing has been heard, unless something is before the next look.
    fn silent(&self) {
        self.cluster.state.send_if_modified(|state| {
            let is_new = state.silent_since.is_none();
            state.silent_since.get_or_insert_with(Instant::now);
            is_new
        });
    }

    /// Whether entries may be appended; what can be mended by itself is.
    async fn writable(&mut self, info: &StreamInfo, position: Position) -> Writable {
        let asking = || Writable::Soon("asking the other boxes how far they are".to_owned());
        let connection = self.cluster.nats.connections();
        match self.witnessed {
            Some((of, since)) if of == connection => {
                if since.elapsed() < WITNESS_TIME {
                    return asking();
                }
            }
            _ => {
                self.witnessed = Some((connection, Instant::now()));
                self.durable_since = None;
                let _ = self.cluster.nats.publish("ask", Vec::new()).await;
                return asking();
            }
        }
        let [(name, id), ..] = metadata(&position);
        if info.config.metadata.get(name) != Some(&id) {
            return Writable::No("the stream is of another cluster".to_owned());
        }
        if let Some(reason) = self.check_clock() {
            return Writable::No(reason);
        }
        let last = info.state.last_seq;
        if last < position.sequence
            && let Err(reason) = self.restore_end(last, position).await
        {
            return Writable::No(reason);
        }
        if let Some((node, sequence)) = self.cluster.members.furthest(&position)
            && sequence > last.max(position.sequence)
        {
            return Writable::No(format!(
                "{node} has entry {sequence}, which the log has lost: waiting until it is there again"
            ));
        }
        if self
            .durable_since
            .is_none_or(|since| since.elapsed() > DURABILITY_INTERVAL)
        {
            if let Err(reason) = durability::check(&self.cluster.nats, info, &self.cluster.settings).await {
                return Writable::No(reason);
            }
            self.durable_since = Some(Instant::now());
        }
        Writable::Yes { connection }
    }

    /// Why this box takes no writes with its clock as it is. Warns of a clock that is wrong.
    fn check_clock(&mut self) -> Option<String> {
        let skew = self.cluster.members.skew(&self.cluster.settings.node, Instant::now());
        let wrong = skew.filter(|skew| skew.unsigned_abs() >= SKEW_WARNED);
        if let (Some(ahead_milliseconds), false) = (wrong, self.is_clock_wrong) {
            tracing::warn!(ahead_milliseconds, "clock differs from those of the other admin boxes");
        }
        self.is_clock_wrong = wrong.is_some();
        clock_refusal(skew)
    }

    /// Appends again what the log has lost, entry by entry, with the same bytes.
    async fn restore_end(&self, last: u64, position: Position) -> Result<(), String> {
        tracing::error!(
            last,
            own = position.sequence,
            "the log has lost its end: appending it again"
        );
        let nats = &self.cluster.nats;
        let (mut at, mut before) = (last, None);
        if last > 0 {
            let theirs = nats.get(last).await.map_err(|error| error.to_string())?;
            let theirs = theirs.ok_or_else(|| format!("the log does not show its last entry {last}"))?;
            before = Some(
                Entry::decode(&theirs)
                    .map_err(|error| error.to_string())?
                    .position
                    .chain,
            );
        }
        while at < position.sequence {
            let entries = self.kept(at, REPAIR_BYTES).await?;
            if entries.is_empty() {
                return Err(format!(
                    "this box has no entry {} any more, which the log has lost",
                    at + 1
                ));
            }
            for entry in entries {
                let own = Entry::decode(&entry).map_err(|error| error.to_string())?;
                if before.is_some_and(|before| before != own.previous) {
                    return Err(format!("the log has another history than this box up to entry {at}"));
                }
                before = Some(own.position.chain);
                let appended = nats.append(at, entry.clone().into()).await;
                at += 1;
                if appended.map_err(|error| error.to_string())? != Published::Stored
                    && nats.get(at).await.map_err(|error| error.to_string())? != Some(entry)
                {
                    return Err(format!("another box has written entry {at} meanwhile"));
                }
            }
        }
        tracing::info!(entries = position.sequence - last, "the end of the log is there again");
        Ok(())
    }

    async fn kept(&self, after: u64, bytes: usize) -> Result<Vec<Vec<u8>>, String> {
        let read = move |snapshot: &crate::store::Snapshot| snapshot.entries_after(after, bytes);
        self.links
            .store()
            .read_ahead(read)
            .await
            .map_err(|error| error.to_string())
    }
}
