//! What a box knows of its cluster, for metrics and operators.

use std::time::{Duration, Instant};

use crate::cluster::follow::Cluster;
use crate::cluster::log::Writable;
use crate::cluster::presence::Member;
use crate::links::Links;
use crate::metrics::{AdminBoxReport, ClusterReport};

/// Silence of the log that is no chance.
pub const SILENCE: Duration = Duration::from_secs(10);

impl Cluster {
    pub fn report(&self, links: &Links) -> ClusterReport {
        let (state, now) = (self.state(), Instant::now());
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let replicating = links.store().replicating();
        let halted = replicating.and_then(|replicating| replicating.halted());
        let own = self.own(links);
        let (epoch, position) = own.as_ref().map_or((0, 0), |own| (own.epoch, own.sequence));
        let silent = since(state.silent_since);
        let halted = halted.map(|why| why.to_string()).or(state.stuck);
        ClusterReport {
            role: self.settings.role.name(),
            node: self.settings.node.clone(),
            epoch,
            position,
            head: state.head.unwrap_or(position).max(position),
            behind: since(state.behind_since),
            silent,
            admin: own.filter(|_| !self.settings.is_edge()).map(|own| AdminBoxReport {
                refused: halted.clone().or_else(|| self.refused(silent)),
                appends: self.appends.read(),
                boxes: self.members.counted(&own, now),
                skew: self.members.skew(&own.node, now),
                skewed: self.members.skewed(&own.node, now),
            }),
            halted,
        }
    }

    /// On how many boxes what this one has up to an entry is visible, of how many that are heard; on an edge, nothing
    /// is known.
    pub fn visible(&self, links: &Links, entry: u64) -> Option<(usize, usize)> {
        let own = self.own(links).filter(|_| !self.settings.is_edge())?;
        Some(self.members.reached(entry, &own, Instant::now()))
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

    /// Why this box takes no writes, unless that is over in a moment.
    fn refused(&self, silent: Duration) -> Option<String> {
        match &*self.writable.borrow() {
            // What was said before is of another time.
            _ if silent > SILENCE => Some("no answer from NATS".to_owned()),
            Writable::Yes | Writable::Soon(_) => None,
            Writable::No(reason) => Some(reason.clone()),
        }
    }
}
