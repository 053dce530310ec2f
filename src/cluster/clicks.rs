//! Clicks of all boxes: each sends what it has counted to a second stream, and admin boxes add up what that has.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cluster::connection::position;
use crate::cluster::nats::NatsError;
use crate::cluster::stream::StreamInfo;
use crate::cluster::{Cluster, ClusterSettings, Role, durability};
use crate::links::{ClickFaults, ClickSenders, Links};
use crate::model::shown;
use crate::store::replication::ClickPosition;

/// How often a box looks for clicks to send and to count.
const INTERVAL: Duration = Duration::from_secs(2);
/// Messages that are taken from the outbox at once.
const SEND_MAX: usize = 16;
/// At the end, for what has just been counted.
const LAST_TIMEOUT: Duration = Duration::from_secs(3);
/// How often what was wrong with messages is logged.
const FAULTS_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How often a message that one replica does not have is asked of another.
const REPLICA_ATTEMPTS: usize = 5;

/// What a stream does not have any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// Messages that have been counted: it was made anew, or has lost its end.
    Counted,
    /// So many messages that this box has not counted.
    Missing(u64),
}

struct Exchange {
    cluster: Arc<Cluster>,
    links: Arc<Links>,
    /// The counter of the last message that the stream has acknowledged.
    acknowledged: u64,
    /// What went wrong last, which is logged once.
    problem: Option<String>,
    /// What the stream has lost, the same.
    lost: Option<Lost>,
    /// Whether the outbox was looked through for messages of another box.
    has_looked: bool,
    /// Up to where the stream has been read.
    read: Option<ClickPosition>,
    /// Whose messages wait meanwhile, and what was wrong with messages.
    senders: ClickSenders,
    /// When that was logged last.
    faults_logged: Option<Instant>,
    /// The last message of the outbox when what waits in it was counted.
    counted_waiting: Option<(u64, u64)>,
}

impl Cluster {
    /// Sends and counts clicks for as long as this runs.
    pub async fn exchange_clicks(self: Arc<Self>, links: Arc<Links>) {
        let mut exchange = Exchange::new(self, links);
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let problem = exchange.run().await.err();
            exchange.note_waiting().await;
            exchange.log_faults(Instant::now());
            if exchange.problem != problem {
                if let Some(reason) = &problem {
                    tracing::warn!(reason, "clicks wait");
                }
                exchange.problem = problem;
            }
        }
    }

    /// Sends what was counted until the end, or returns false: what cannot be sent now is sent after the next start.
    pub async fn send_last_clicks(self: Arc<Self>, links: Arc<Links>) -> bool {
        let mut exchange = Exchange::new(self, links);
        let sent = timeout(LAST_TIMEOUT, exchange.send()).await;
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {LAST_TIMEOUT:?}")));
        if let Err(reason) = &sent {
            tracing::warn!(reason, "clicks wait for the next start");
        }
        sent.is_ok()
    }
}

impl Exchange {
    fn new(cluster: Arc<Cluster>, links: Arc<Links>) -> Self {
        Self {
            cluster,
            links,
            acknowledged: 0,
            problem: None,
            lost: None,
            has_looked: false,
            read: None,
            senders: ClickSenders::default(),
            faults_logged: None,
            counted_waiting: None,
        }
    }

    fn settings(&self) -> &ClusterSettings {
        self.cluster.settings()
    }

    async fn run(&mut self) -> Result<(), String> {
        if !self.cluster.nats().is_connected() {
            // The follower of the log says so.
            return Ok(());
        }
        if self.settings().is_edge() {
            return self.send().await;
        }
        let info = self.cluster.nats().clicks().info().await.map_err(|error| match error {
            error if error.is_no_stream() => format!("there is no stream {}", self.cluster.nats().clicks().stream),
            error => format!("cannot read the stream of clicks: {error}"),
        })?;
        // What it acknowledges is removed here; what others have sent counts in any case.
        let sent = match durability::check_clicks(&info, self.settings()) {
            Ok(()) => self.send().await,
            unfit => unfit,
        };
        // With what has just been sent.
        let counted = self.count().await;
        sent.and(counted)
    }

    /// Notes how many clicks the stream does not have yet.
    async fn note_waiting(&mut self) {
        let (after, counted) = (self.acknowledged, self.counted_waiting);
        let waiting = self.links.waiting_clicks(after, counted).await;
        // Counted again where something has changed.
        if let Ok(Some((at, clicks))) = waiting {
            self.counted_waiting = Some(at);
            self.cluster.clicks_waiting.store(clicks, Ordering::Relaxed);
        }
    }

    /// Sends the outbox, oldest first: a message only when the stream has the one before it.
    async fn send(&mut self) -> Result<(), String> {
        if !self.has_looked {
            let dropped = self.links.drop_clicks_of_others().await;
            let clicks = dropped.map_err(|error| error.to_string())?;
            if clicks > 0 {
                tracing::error!(
                    clicks,
                    "dropping clicks that a box with another cluster.node has left in this store"
                );
            }
            self.has_looked = true;
        }
        let nats = self.cluster.nats().clicks();
        loop {
            let queued = self.links.queued_clicks(self.acknowledged, SEND_MAX).await;
            let queued = queued.map_err(|error| error.to_string())?;
            if queued.is_empty() {
                return Ok(());
            }
            for (counter, message) in queued {
                let sent = nats.publish_clicks(&self.settings().node, message.into());
                sent.await.map_err(|error| format!("cannot send them: {error}"))?;
                self.acknowledged = counter;
            }
            // An admin box removes a message when it counts it, so that no moment shows it twice or not at all.
            if self.settings().role == Role::Edge {
                let dropped = self.links.drop_queued_clicks(self.acknowledged).await;
                dropped.map_err(|error| error.to_string())?;
            }
        }
    }

    /// Counts what the stream has.
    async fn count(&mut self) -> Result<(), String> {
        let info = self.cluster.nats().clicks().info().await;
        let info = info.map_err(|error| format!("cannot read the stream of clicks: {error}"))?;
        let stored = self.links.click_position().await.map_err(|error| error.to_string())?;
        let (start, lost) = start(stored, self.read, &info);
        if lost != self.lost {
            self.note_lost(lost);
        }
        let entry = position(&self.links).map_or(0, |position| position.sequence);
        let read = self.read.filter(|read| {
            let is_behind_start = read.stream == start.stream && read.sequence >= start.sequence;
            is_behind_start && read.sequence <= info.state.last_seq && !self.senders.is_due(entry)
        });
        let mut at = read.unwrap_or_else(|| {
            // What comes again counts once.
            self.senders.release();
            start
        });
        while at.sequence < info.state.last_seq {
            let messages = self.read(at.sequence).await?;
            let head = self.cluster.state().head.unwrap_or(u64::MAX);
            let counted = self.links.count_messages(at, messages, head, &mut self.senders).await;
            let (after, error) = counted.map_err(|error| error.to_string())?;
            at = after;
            self.read = Some(at);
            if let Some(error) = error {
                let message = at.sequence + 1;
                return Err(format!("message {message} of the stream of clicks is {error}"));
            }
        }
        self.senders.reason().map_or(Ok(()), Err)
    }

    /// Any number of messages may be wrong, of somebody who has the key of a box.
    fn log_faults(&mut self, now: Instant) {
        if self
            .faults_logged
            .is_some_and(|logged| now.saturating_duration_since(logged) < FAULTS_LOG_INTERVAL)
        {
            return;
        }
        for (node, faults) in self.senders.take_faults() {
            self.faults_logged = Some(now);
            let ClickFaults {
                passed_over,
                reason,
                missing,
            } = faults;
            if let Some(reason) = reason {
                tracing::error!(node, messages = passed_over, %reason, "passing over messages of clicks");
            }
            if missing > 0 {
                tracing::error!(
                    node,
                    messages = missing,
                    "messages of clicks are missing: totals of this box are too low"
                );
            }
        }
    }

    fn note_lost(&mut self, lost: Option<Lost>) {
        match lost {
            Some(Lost::Counted) => {
                tracing::warn!(
                    "the stream of clicks was made anew or has lost its end: counting it from its beginning"
                );
                // Also what it had acknowledged and this box has not counted.
                self.acknowledged = 0;
            }
            Some(Lost::Missing(messages)) => tracing::error!(
                messages,
                "the stream of clicks does not keep what this box has not counted: its totals are too low; take a \
                 new copy with {} cluster join",
                shown::command()
            ),
            None => {}
        }
        self.lost = lost;
    }

    /// The next messages, each with the box that sent it; if one replica does not have the first, from another or from
    /// the leader.
    async fn read(&self, after: u64) -> Result<Vec<(String, Vec<u8>)>, String> {
        let nats = self.cluster.nats().clicks();
        let failed = |error: NatsError| format!("cannot read the stream of clicks: {error}");
        for _ in 0..REPLICA_ATTEMPTS {
            let messages = nats.read_of(after).await.map_err(failed)?;
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
        let message = nats.get_of(after + 1).await.map_err(failed)?;
        let message = message.ok_or_else(|| format!("no replica has message {} of the stream of clicks", after + 1))?;
        Ok(vec![message])
    }
}

/// From where to count on. A message that comes again counts once, so it does no harm to begin too early. `read` is how
/// far this process has read, which the store knows once it counts the next message.
fn start(
    stored: Option<ClickPosition>,
    read: Option<ClickPosition>,
    info: &StreamInfo,
) -> (ClickPosition, Option<Lost>) {
    let stream = number_of(&info.created);
    let kept = info.state.first_seq.saturating_sub(1);
    let (sequence, lost) = match stored {
        Some(at) if at.stream != stream || at.seen > info.state.last_seq => (0, Some(Lost::Counted)),
        Some(at) => {
            // Of those in between, only what waited is missing: the counters of its box tell.
            let read = read.filter(|read| read.stream == stream).map_or(0, |read| read.seen);
            let missing = kept.saturating_sub(at.seen.max(read));
            (at.sequence, (missing > 0).then_some(Lost::Missing(missing)))
        }
        None => (0, None),
    };
    (ClickPosition::after(stream, sequence.max(kept)), lost)
}

/// A number for the moment at which a stream was made: FNV-1a.
fn number_of(created: &str) -> u64 {
    created.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(created: &str, first: u64, last: u64) -> StreamInfo {
        let info = serde_json::json!({
            "config": {
                "name": "S", "storage": "file", "retention": "limits", "discard": "old", "num_replicas": 3,
                "max_bytes": 1, "max_age": 1,
            },
            "state": {"first_seq": first, "last_seq": last, "bytes": 0},
            "created": created,
        });
        serde_json::from_value(info).unwrap()
    }

    #[test]
    fn counting_goes_on_in_the_same_stream_only() {
        let at = |created: &str, sequence| ClickPosition::after(number_of(created), sequence);
        let begin = |stored, info| start(stored, None, &info);
        assert_eq!(begin(None, info("a", 1, 0)), (at("a", 0), None));
        assert_eq!(begin(Some(at("a", 4)), info("a", 1, 9)), (at("a", 4), None));
        assert_eq!(begin(Some(at("a", 4)), info("a", 5, 4)), (at("a", 4), None));
        let again = (at("a", 0), Some(Lost::Counted));
        assert_eq!(begin(Some(at("b", 4)), info("a", 1, 9)), again);
        assert_eq!(begin(Some(at("a", 4)), info("a", 1, 3)), again);
        let missing = (at("a", 7), Some(Lost::Missing(3)));
        assert_eq!(begin(Some(at("a", 4)), info("a", 8, 9)), missing);
    }

    #[test]
    fn box_that_is_held_up_makes_no_loss_of_others() {
        let at = |sequence| ClickPosition::after(number_of("a"), sequence);
        // The first message of a box waits since the beginning, and the stream has dropped it.
        let held = ClickPosition { sequence: 0, ..at(90) };
        assert_eq!(start(Some(held), None, &info("a", 1, 99)), (at(0), None));
        assert_eq!(start(Some(held), None, &info("a", 51, 99)), (at(50), None));
        // What is not counted is missing, unless it waits too.
        let gone = info("a", 96, 99);
        assert_eq!(start(Some(held), None, &gone), (at(95), Some(Lost::Missing(5))));
        assert_eq!(start(Some(held), Some(at(97)), &gone), (at(95), None));
        let other = ClickPosition::after(number_of("b"), 97);
        assert_eq!(start(Some(held), Some(other), &gone).1, Some(Lost::Missing(5)));
    }
}
