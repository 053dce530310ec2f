//! What a box knows of its cluster and hears of the others, for metrics and operators.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cluster::Role;
use crate::cluster::connection::{Cluster, halted};
use crate::cluster::log::Writable;
use crate::cluster::presence::{Member, Moment};
use crate::links::Links;
use crate::metrics::{AdminBoxReport, ClusterReport};

const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// For boxes to have what was written, and to say so.
const VISIBLE_PATIENCE: Duration = Duration::from_millis(500);
const VISIBLE_ASK_INTERVAL: Duration = Duration::from_millis(150);
const VISIBLE_LOOK: Duration = Duration::from_millis(10);
/// Silence of the log that is no chance.
pub const SILENCE: Duration = Duration::from_secs(10);

impl Cluster {
    /// Apart too: a position that waited would show a wrong clock.
    pub(super) async fn hear_members(&self) {
        if self.settings.role == Role::Edge {
            return;
        }
        loop {
            if let Ok(mut positions) = self.nats.subscribe("pos.>").await {
                while let Some((subject, said)) = positions.next_of().await {
                    if let Some(member) = Member::read(&subject, &said) {
                        let head = self.state.borrow().head.unwrap_or_default();
                        self.members.note(member, head, Moment::now());
                    }
                }
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Keeps since when this box has fewer entries than the log.
    pub(super) fn mark_behind(&self, links: &Links) {
        let Some(replicating) = links.store().replicating() else {
            return;
        };
        let position = *replicating.position().borrow();
        self.state.send_if_modified(|state| {
            let is_behind = state.head.is_some_and(|head| position.sequence < head);
            let was_behind = state.behind_since.is_some();
            if is_behind != was_behind {
                state.behind_since = is_behind.then(Instant::now);
            }
            is_behind != was_behind
        });
    }

    pub fn report(&self, links: &Links) -> ClusterReport {
        let (state, now) = (self.state(), Instant::now());
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let own = self.own(links);
        let (epoch, position) = own.as_ref().map_or((0, 0), |own| (own.epoch, own.sequence));
        let silent = since(state.silent_since);
        let halted = halted(links).map(|why| why.to_string()).or(state.stuck);
        ClusterReport {
            role: self.settings.role.name(),
            node: self.settings.node.clone(),
            epoch,
            position,
            head: state.head.unwrap_or(position).max(position),
            behind: since(state.behind_since),
            silent,
            clicks_waiting: self.clicks_waiting.load(Ordering::Relaxed),
            admin: own.filter(|_| !self.settings.is_edge()).map(|own| AdminBoxReport {
                refused: halted.clone().or_else(|| self.refused(silent)),
                appends: self.appending.metrics.read(),
                boxes: self.members.counted(&own, now),
                skew: self.members.skew(&own.node, now),
                skewed: self.members.skewed(&own.node, now),
            }),
            halted,
        }
    }

    /// On how many boxes what this one has up to an entry is visible, of how many that are heard, once all have it or
    /// have been asked for a moment; on an edge, nothing is known.
    pub async fn visible(&self, links: &Links, entry: u64) -> Option<(usize, usize)> {
        let own = self.own(links).filter(|_| !self.settings.is_edge())?;
        let since = Instant::now();
        loop {
            // Without an answer, it is as they have said before.
            let _ = self.nats.publish("ask", Vec::new()).await;
            let asked = Instant::now();
            while asked.elapsed() < VISIBLE_ASK_INTERVAL {
                let (has, all) = self.members.reached(entry, &own, Instant::now());
                if has == all || since.elapsed() > VISIBLE_PATIENCE {
                    return Some((has, all));
                }
                tokio::time::sleep(VISIBLE_LOOK).await;
            }
        }
    }

    fn own(&self, links: &Links) -> Option<Member> {
        let position = *links.store().replicating()?.position().borrow();
        Some(Member::at(
            &position,
            &self.settings.node,
            self.settings.role.name(),
            None,
        ))
    }

    /// Why this box takes no writes now.
    fn refused(&self, silent: Duration) -> Option<String> {
        match &*self.appending.writable.borrow() {
            // What was said before is of another time.
            _ if silent > SILENCE => Some("no answer from NATS".to_owned()),
            Writable::Yes { .. } => None,
            Writable::Soon(reason) | Writable::No(reason) => Some(reason.clone()),
        }
    }
}
