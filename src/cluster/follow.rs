//! Following the log: entries are applied as they come, and what was missed is read.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::log::{Log, Overtaken, Writable};
use crate::cluster::nats::{Connecting, Nats, NatsError, StreamInfo, Subscription};
use crate::cluster::presence::{self, Member, Members, SKEW_WARNED, clock_refusal};
use crate::cluster::{ClusterSettings, Role};
use crate::cluster::{copies, durability};
use crate::links::Links;
use crate::metrics::Appends;
use crate::model::priority;
use crate::store::replication::{ApplyError, Entry, Position, ReplicationLog};

/// How often an admin box asks how far the log goes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const DURABILITY_INTERVAL: Duration = Duration::from_secs(60);
/// After a connection was made, others have this long to say that they know more than the log.
const WITNESS_TIME: Duration = Duration::from_secs(1);
/// Entries that one transaction applies at most, of those that have come already.
const TOGETHER_MAX: usize = 256;
/// Entries that are appended again are read in parts of this.
const REPAIR_BYTES: usize = 4 * 1024 * 1024;
/// How often an entry that one replica does not have is asked of another.
const REPLICA_ATTEMPTS: usize = 5;

/// What a box knows of its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// The number of the last entry, as far as is known.
    pub head: Option<u64>,
    /// Since when nothing has been heard of the log.
    pub silent_since: Option<Instant>,
    /// Since when this box has fewer entries than the log.
    pub behind_since: Option<Instant>,
    /// Why this box cannot follow.
    pub stuck: Option<String>,
}

/// A box's connection to its cluster. A thread of its own carries it, which ends with it.
#[derive(Debug)]
pub struct Cluster {
    pub(super) settings: ClusterSettings,
    // Dropped in the background, because this may be dropped by a task.
    runtime: Option<Runtime>,
    pub(super) nats: Nats,
    pub(super) members: Arc<Members>,
    pub(super) writable: Arc<watch::Sender<Writable>>,
    overtaken: Arc<Overtaken>,
    pub(super) appends: Arc<Appends>,
    /// Notified when the log goes further than this box.
    behind: Notify,
    pub(super) state: watch::Sender<LogState>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Cluster {
    /// Connects; where there is no server yet, goes on trying.
    pub fn connect(settings: &ClusterSettings) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tinyd-cluster")
            .on_thread_start(|| priority::lower(priority::API_NICE))
            .enable_all()
            .build()?;
        let nats = runtime
            .block_on(Nats::connect(settings, Connecting::Patiently))
            .map_err(io::Error::other)?;
        Ok(Self {
            settings: settings.clone(),
            runtime: Some(runtime),
            nats,
            members: Arc::default(),
            writable: Arc::new(watch::Sender::new(Writable::Soon("not connected yet".to_owned()))),
            overtaken: Arc::default(),
            appends: Arc::default(),
            behind: Notify::new(),
            state: watch::Sender::new(LogState {
                silent_since: Some(Instant::now()),
                ..LogState::default()
            }),
        })
    }

    /// The log, for the writer of the store.
    pub fn log(&self) -> io::Result<Arc<dyn ReplicationLog>> {
        let runtime = self.runtime.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (writable, others) = (Arc::clone(&self.writable), Arc::clone(&self.overtaken));
        let log = Log::new(
            self.nats.clone(),
            &self.settings,
            runtime.handle().clone(),
            writable,
            others,
            Arc::clone(&self.appends),
        );
        Ok(Arc::new(log))
    }

    pub const fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    pub(super) const fn nats(&self) -> &Nats {
        &self.nats
    }

    pub const fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// The log goes so far.
    fn heard(&self, head: u64) {
        self.state.send_modify(|state| {
            state.head = state.head.max(Some(head));
            state.silent_since = None;
        });
    }

    pub fn state(&self) -> LogState {
        self.state.borrow().clone()
    }

    /// Follows the log for as long as this runs.
    pub async fn follow(self: Arc<Self>, links: Arc<Links>) {
        let watcher = Watcher::new(Arc::clone(&self), Arc::clone(&links));
        let follower = Follower { cluster: self, links };
        // Apart, because what applies waits for the writer, and the writer may wait for what watches.
        let cluster = Arc::clone(&follower.cluster);
        tokio::join!(cluster.hear_members(), follower.run(), watcher.run());
    }
}

/// Applies entries.
struct Follower {
    cluster: Arc<Cluster>,
    links: Arc<Links>,
}

impl Follower {
    fn is_admin(&self) -> bool {
        self.cluster.settings.role == Role::Admin
    }

    fn position(&self) -> Option<Position> {
        position(&self.links)
    }

    async fn run(&self) {
        loop {
            match self.cluster.nats.subscribe("live").await {
                Ok(live) => self.apply_from(live).await,
                Err(error) => tracing::debug!(%error, "cannot subscribe yet"),
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// Until the subscription ends.
    async fn apply_from(&self, mut live: Subscription) {
        loop {
            tokio::select! {
                entry = live.next() => match entry {
                    Some(entry) => self.take(entry.to_vec(), &mut live).await,
                    None => return,
                },
                () = self.cluster.behind.notified() => self.catch_up().await,
            }
        }
    }

    /// Applies an entry that has come, with those that have come after it.
    async fn take(&self, entry: Vec<u8>, live: &mut Subscription) {
        let mut entries = vec![entry];
        while entries.len() < TOGETHER_MAX
            && let Some(Some(entry)) = live.next().now_or_never()
        {
            entries.push(entry.to_vec());
        }
        let last = entries.last().and_then(|entry| Entry::decode(entry).ok());
        if let Some(last) = last.map(|entry| entry.position.sequence) {
            self.cluster.heard(last);
        }
        match self.links.store().apply(entries).await {
            Err(ApplyError::Gap { .. }) => self.catch_up().await,
            applied => self.applied(&applied),
        }
    }

    fn applied(&self, applied: &Result<Position, ApplyError>) {
        self.cluster.mark_behind(&self.links);
        match applied {
            Ok(_) => self.set_stuck(None),
            // While the store opens itself again, entries wait.
            Err(ApplyError::Unavailable) => {}
            Err(error) => self.set_stuck(Some(error.to_string())),
        }
    }

    fn set_stuck(&self, stuck: Option<String>) {
        self.cluster.state.send_if_modified(|state| {
            let is_new = state.stuck != stuck;
            if let (true, Some(reason)) = (is_new, &stuck) {
                tracing::error!(reason, "cannot follow the log; redirects continue");
            }
            state.stuck = stuck;
            is_new
        });
    }

    /// Reads and applies entries until there are no more.
    async fn catch_up(&self) {
        while let Some(position) = self.position() {
            let entries = match self.cluster.nats.read(position.sequence).await {
                Ok(entries) if entries.is_empty() => match self.find(position.sequence + 1).await {
                    Some(entry) => vec![entry],
                    None => return self.start_again(&position).await,
                },
                Ok(entries) => entries,
                Err(error) => {
                    tracing::debug!(%error, "cannot read the log");
                    return;
                }
            };
            let applied = self.links.store().apply(entries).await;
            self.applied(&applied);
            match applied {
                Ok(after) if after.sequence > position.sequence => self.cluster.heard(after.sequence),
                _ => return,
            }
        }
    }

    /// Goes on from a copy if the log does not reach back to this box.
    async fn start_again(&self, position: &Position) {
        let Ok(info) = self.cluster.nats.info().await else {
            return;
        };
        let first = info.state.first_seq;
        if first <= position.sequence + 1 {
            return;
        }
        let own = position.sequence;
        tracing::warn!(
            own,
            first,
            "away for longer than the log reaches: taking a copy of the links"
        );
        match copies::replace(&self.cluster, &self.links).await {
            Ok(position) => {
                tracing::info!(sequence = position.sequence, "going on from a copy of the links");
                self.set_stuck(None);
            }
            Err(reason) => self.set_stuck(Some(format!(
                "the log begins with entry {first}, and this box has been away since {own}: {reason}"
            ))),
        }
    }

    /// An entry that a replica does not have although the log goes so far: from another, the leader, or an admin box.
    async fn find(&self, sequence: u64) -> Option<Vec<u8>> {
        if self.cluster.state().head.is_none_or(|head| head < sequence) {
            return None;
        }
        for _ in 0..REPLICA_ATTEMPTS {
            if let Ok(mut entries) = self.cluster.nats.read(sequence - 1).await
                && !entries.is_empty()
            {
                return Some(entries.swap_remove(0));
            }
        }
        if self.is_admin()
            && let Ok(Some(entry)) = self.cluster.nats.get(sequence).await
        {
            return Some(entry);
        }
        tracing::warn!(sequence, "no replica has an entry of the log; asking the admin boxes");
        self.cluster.nats.ask_boxes(sequence, &self.cluster.settings.node).await
    }
}

/// Finds out where the log and the other boxes are, and says where this one is.
struct Watcher {
    cluster: Arc<Cluster>,
    links: Arc<Links>,
    /// The connection for which others have been asked what they know, and when.
    witnessed: Option<(u64, Instant)>,
    durable_since: Option<Instant>,
    is_clock_wrong: bool,
}

struct Heard {
    heads: Subscription,
    asked: Subscription,
    wanted: Subscription,
    overtaken: Subscription,
}

impl Watcher {
    const fn new(cluster: Arc<Cluster>, links: Arc<Links>) -> Self {
        Self {
            cluster,
            links,
            witnessed: None,
            durable_since: None,
            is_clock_wrong: false,
        }
    }

    fn is_admin(&self) -> bool {
        self.cluster.settings.role == Role::Admin
    }

    fn position(&self) -> Option<Position> {
        position(&self.links)
    }

    async fn run(mut self) {
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
        if self.witnessed.is_none() {
            // Once, because a thousand edges would ask.
            if let Ok(info) = self.cluster.nats.info().await {
                self.witnessed = Some((0, Instant::now()));
                self.cluster.heard(info.state.last_seq);
                self.cluster.behind.notify_one();
            }
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
        Writable::Yes
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
        let mut at = last;
        if last > 0 {
            let theirs = nats.get(last).await.map_err(|error| error.to_string())?;
            let ours = self.kept(last - 1, 1).await?.into_iter().next();
            if theirs.is_some() && ours.is_some() && theirs != ours {
                return Err(format!("the log has another history than this box from entry {last}"));
            }
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
                nats.append(at, entry.into()).await.map_err(|error| error.to_string())?;
                at += 1;
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

fn position(links: &Links) -> Option<Position> {
    let replicating = links.store().replicating()?;
    Some(*replicating.position().borrow())
}
