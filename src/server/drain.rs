//! The end of the process. Redirects go on until nothing else is left to do, because the next process begins only once
//! this one has ended: connections wait for it in the queues of the listeners meanwhile.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::http::connection::serve::Signals;
use crate::http::connection::set::ConnectionSets;
use crate::links::Links;
use crate::server::general::General;
use crate::server::workers::Workers;
use crate::store::Health;

/// How long threads may take to end.
const LETTING_GO: Duration = Duration::from_secs(2);
/// Least time to write clicks at the end.
const CLICKS_PATIENCE: Duration = Duration::from_secs(10);
const LOADING_INTERVAL: Duration = Duration::from_millis(10);

pub(super) struct Running {
    /// On the admin listener and the console's own.
    pub(super) accepting: JoinSet<io::Result<()>>,
    pub(super) admin: ConnectionSets,
    pub(super) workers: Workers,
    pub(super) general: General,
    pub(super) background: JoinSet<()>,
    pub(super) ends: Ends,
}

#[derive(Debug, Default)]
pub(super) struct Ends {
    /// The drain begins.
    pub(super) stop: watch::Sender<bool>,
    /// The listeners of the API take no more connections.
    admin: watch::Sender<bool>,
    /// Nor do those of redirects.
    pub(super) public: watch::Sender<bool>,
}

impl Ends {
    pub(super) fn of_admin(&self) -> Signals {
        Signals {
            stopped: self.stop.subscribe(),
            ending: self.admin.subscribe(),
        }
    }
}

impl Running {
    /// Ends the connections of before, with `patience` for requests in flight, then the API, then redirects.
    pub(super) async fn drain(mut self, links: &Arc<Links>, cluster: Option<Arc<Cluster>>, patience: Duration) {
        // From now on, nothing begins that takes long.
        links.end();
        self.ends.stop.send_replace(true);
        if tokio::time::timeout(patience, self.stragglers(links)).await.is_err() {
            tracing::warn!("aborted requests still in flight after {patience:?}");
            for connections in self.connections() {
                connections.before.abort_all();
            }
        }
        self.background.abort_all();
        self.ends.admin.send_replace(true);
        while self.accepting.join_next().await.is_some() {}
        self.admin.settled().await;
        // All but what the last redirects add, so that little is left to write while nobody answers.
        let patience = patience.max(CLICKS_PATIENCE);
        links.flush_all_clicks(patience).await;
        let mut reached = None;
        if let Some(cluster) = cluster
            && Arc::clone(&cluster).send_last_clicks(Arc::clone(links)).await
        {
            reached = Some(cluster);
        }
        links.store().checkpoint().await;
        self.ends.public.send_replace(true);
        let _ = tokio::time::timeout(LETTING_GO, self.workers.all_ended()).await;
        // The threads' connections on the general threads have ended with them.
        self.general.end(LETTING_GO).await;
        // No thread records clicks any more.
        if links.health() == Health::Accepting {
            links.flush_all_clicks(patience).await;
            // A box that is removed has no next start. Not where that has just failed: the next process waits.
            if let Some(cluster) = reached {
                cluster.send_last_clicks(Arc::clone(links)).await;
            }
        }
    }

    /// Waits for the connections of before, and for the map: the end would have to wait for what loads it.
    async fn stragglers(&self, links: &Links) {
        for connections in self.connections() {
            connections.before.all_ended().await;
        }
        while links.load_time().is_none() {
            tokio::time::sleep(LOADING_INTERVAL).await;
        }
    }

    fn connections(&self) -> impl Iterator<Item = &ConnectionSets> {
        self.workers.connections().iter().chain([&self.admin])
    }
}
