//! Watching the log and the other boxes: how far the log goes, whether writes can be taken, and where this box is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::Role;
use crate::cluster::connection::{Cluster, halted, position};
use crate::cluster::log::Writable;
use crate::cluster::nats::{NatsError, Published, StreamInfo, Subscription};
use crate::cluster::presence::{self, Among, Member, SKEW_WARNED, clock_refusal};
use crate::cluster::{check_name, durability, metadata};
use crate::links::Links;
use crate::model::shown;
use crate::store::replication::{Entry, Position};

/// How often an admin box asks how far the log goes.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than an election takes. A server from which nothing is heard for so long is left, and the next one after
/// twice the time.
const CUT_OFF_TIME: Duration = Duration::from_secs(8);
/// Servers are left no more seldom.
const LEAVE_INTERVAL_MAX: Duration = Duration::from_secs(5 * 60);
const DURABILITY_INTERVAL: Duration = Duration::from_secs(60);
/// After a connection was made, others have this long to say that they know more than the log.
const WITNESS_TIME: Duration = Duration::from_secs(1);
/// And edges for so long: one may have seen an entry that no admin box has and the log has lost. Its writer appends it
/// again then; without it, the edge is left behind rather than all writes.
const EDGE_WITNESS_TIME: Duration = Duration::from_secs(30);
/// Bytes of entries that are given to others in a second: they must not fill the connection over which others are
/// appended.
const GIVEN_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Entries that are appended again are read in parts of this.
const REPAIR_BYTES: usize = 4 * 1024 * 1024;

/// Finds out where the log and the other boxes are, and says where this one is.
pub struct Watcher {
    cluster: Arc<Cluster>,
    links: Arc<Links>,
    /// The connection for which others have been asked what they know, and when.
    witnessed: Option<(u64, Instant)>,
    durable_since: Option<Instant>,
    synced: durability::Synced,
    /// Bytes of entries that were given to others since the last look.
    given: usize,
    /// A server is left after a silence of this.
    silence: Duration,
    is_clock_wrong: bool,
    /// Where the log ends and this box, while that has lost its end: it is looked at each second, and
    /// logged when it changes.
    lost_end: Option<(u64, u64)>,
    /// The last entry of the log, while another box has one after it that this box does not know to be there.
    lost_unsure: Option<u64>,
    /// Why entries cannot be appended.
    refusing: Option<String>,
}

/// The name of a box, and its last entry.
type Furthest = Option<(String, u64)>;

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
            synced: durability::Synced::new(),
            given: 0,
            silence: CUT_OFF_TIME,
            is_clock_wrong: false,
            lost_end: None,
            lost_unsure: None,
            refusing: None,
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
                        self.cluster.appending.overtaken.note();
                    }
                }
                Some(_) = heard.asked.next() => self.say().await,
                Some(wanted) = heard.wanted.next() => self.give(&wanted).await,
                _ = checks.tick() => self.check().await,
                _ = says.tick() => self.say().await,
            }
        }
    }

    /// A beacon of an admin box: the numbers of the first and the last entry of the log.
    fn hear(&self, head: &[u8]) {
        let numbers = std::str::from_utf8(head).ok().and_then(|head| head.split_once(' '));
        let Some((Ok(first), Ok(last))) = numbers.map(|(first, last)| (first.parse(), last.parse())) else {
            return;
        };
        self.cluster.heard(Some(first), last);
        if self.position().is_some_and(|position| position.sequence < last) {
            self.cluster.behind.notify_one();
        }
    }

    /// Says where this box is.
    async fn say(&self) {
        let Some(position) = self.position() else { return };
        let settings = &self.cluster.settings;
        let halted = halted(&self.links)
            .map(|why| why.to_string())
            .or_else(|| self.cluster.state().stuck);
        let member = Member::at(&position, &settings.node, settings.role.name(), halted);
        let subject = Member::subject(settings.role.name(), &settings.node);
        if let Ok(said) = serde_json::to_vec(&member) {
            // It is said again soon.
            let _ = self.cluster.nats.publish(&subject, said).await;
        }
    }

    /// Gives an entry to a box that misses it: the payload is its number, a space, and the subject to answer to.
    async fn give(&mut self, wanted: &[u8]) {
        let wanted = std::str::from_utf8(wanted)
            .ok()
            .and_then(|wanted| wanted.split_once(' '));
        let Some((Ok(sequence), to)) = wanted.map(|(sequence, to)| (sequence.parse::<u64>(), to.to_owned())) else {
            return;
        };
        // Whoever asks for too much asks again.
        if !self.is_admin() || sequence == 0 || self.given > GIVEN_MAX_BYTES || check_name(&to).is_err() {
            return;
        }
        let read = move |snapshot: &crate::store::Snapshot| snapshot.entries_after(sequence - 1, 1);
        if let Ok(entries) = self.links.store().read_ahead(read).await
            && let Some(entry) = entries.into_iter().next()
        {
            self.given += entry.len();
            let _ = self.cluster.nats.publish(&format!("given.{to}"), entry).await;
        }
    }

    /// Looks how far the log goes and whether writes can be taken.
    async fn check(&mut self) {
        self.cluster.mark_behind(&self.links);
        self.given = 0;
        if !self.is_admin() {
            self.check_edge().await;
            return;
        }
        let Some(position) = self.position() else { return };
        // Before the log is asked, which has all that any box has then.
        let furthest = [Among::Admins, Among::All].map(|among| self.cluster.members.furthest(&position, among));
        let info = match self.cluster.nats.info().await {
            Ok(info) if info.is_led() => info,
            answer => {
                self.silent();
                self.leave_silent_server().await;
                if answer.is_err_and(|error| error.is_no_stream()) {
                    let reason = format!(
                        "the stream is gone: {} cluster recreate makes it anew",
                        shown::command()
                    );
                    self.set_writable(Writable::No(reason));
                }
                return;
            }
        };
        let (first, last) = (info.state.first_seq, info.state.last_seq);
        self.cluster.state.send_modify(|state| {
            state.first = Some(first);
            state.head = Some(last);
            state.silent_since = None;
        });
        if last > position.sequence {
            self.cluster.behind.notify_one();
        }
        // It is said again in a second.
        let head = format!("{first} {last}").into_bytes();
        let _ = self.cluster.nats.publish("head", head).await;
        let writable = self.writable(&info, position, furthest).await;
        self.set_writable(writable);
    }

    fn set_writable(&mut self, writable: Writable) {
        match &writable {
            Writable::Yes { .. } => {
                (self.lost_end, self.lost_unsure) = (None, None);
                if self.refusing.take().is_some() {
                    tracing::info!("writes are taken again");
                }
            }
            Writable::Soon(_) => {}
            Writable::No(reason) => {
                if self.refusing.as_ref() != Some(reason) {
                    tracing::error!(reason, "writes are refused; redirects continue");
                    self.refusing = Some(reason.clone());
                }
            }
        }
        self.cluster.appending.writable.send_replace(writable);
    }

    async fn check_edge(&mut self) {
        self.leave_silent_server().await;
        self.silent();
        let connection = self.cluster.nats.connections();
        if self.witnessed.is_none_or(|(of, _)| of != connection) {
            self.witnessed = Some((connection, Instant::now()));
            self.cluster.behind.notify_one();
        }
    }

    /// A server that is reached, and from which nothing is heard of the log, may be cut off from the others.
    async fn leave_silent_server(&mut self) {
        let silent = self.cluster.state().silent_since.map(|since| since.elapsed());
        let Some(silent) = silent.filter(|silent| *silent > CUT_OFF_TIME) else {
            self.silence = CUT_OFF_TIME;
            return;
        };
        if silent > self.silence && self.cluster.nats.is_connected() {
            tracing::warn!("nothing is heard of the log from the NATS server: trying another one");
            self.silence += silent.min(LEAVE_INTERVAL_MAX);
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
    async fn writable(&mut self, info: &StreamInfo, position: Position, furthest: [Furthest; 2]) -> Writable {
        let asking = || Writable::Soon("asking the other boxes how far they are".to_owned());
        let connection = self.cluster.nats.connections();
        let witnessed = match self.witnessed {
            Some((of, since)) if of == connection => {
                if since.elapsed() < WITNESS_TIME {
                    return asking();
                }
                since.elapsed()
            }
            _ => {
                self.witnessed = Some((connection, Instant::now()));
                self.durable_since = None;
                let _ = self.cluster.nats.publish("ask", Vec::new()).await;
                return asking();
            }
        };
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
        let [of_admins, of_all] = furthest;
        let furthest = if witnessed < EDGE_WITNESS_TIME {
            of_all
        } else {
            of_admins
        };
        if let Some((node, sequence)) = furthest
            && sequence > last.max(position.sequence)
        {
            self.append_unsure(last, &position).await;
            return Writable::No(format!(
                "{node} has entry {sequence}, which the log has lost: waiting until it is there again"
            ));
        }
        if self
            .durable_since
            .is_none_or(|since| since.elapsed() > DURABILITY_INTERVAL)
        {
            if let Err(reason) =
                durability::check(&self.cluster.nats, info, &self.cluster.settings, &mut self.synced).await
            {
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

    /// Appends again the entry of this box whose outcome it does not know, because another box has one there that the
    /// log has not.
    async fn append_unsure(&mut self, last: u64, position: &Position) {
        let unsure = self.cluster.appending.unsure.lock().clone();
        if let Some(entry) = unsure
            && last == position.sequence
            && Entry::decode(&entry).is_ok_and(|entry| entry.check_follows(position).is_ok())
        {
            if self.lost_unsure.replace(last) != Some(last) {
                tracing::warn!(
                    after = last,
                    "the log has lost an entry that another box has: appending it again"
                );
            }
            // It is looked at again in a second.
            let _ = self.cluster.nats.append(last, entry).await;
        }
    }

    /// Appends again what the log has lost, entry by entry, with the same bytes.
    async fn restore_end(&mut self, last: u64, position: Position) -> Result<(), String> {
        let lost = Some((last, position.sequence));
        if self.lost_end != lost {
            self.lost_end = lost;
            tracing::error!(
                last,
                own = position.sequence,
                "the log has lost its end: appending it again"
            );
        }
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
