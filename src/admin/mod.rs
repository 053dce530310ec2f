//! The appliance about itself: metrics for Prometheus, health, and the samples of the disk behind them.

mod health;
mod readiness;
mod status;
mod words;

pub use status::ApplianceStatus;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Method, Request, StatusCode};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::http::{self, Response};
use crate::links::Links;
use crate::metrics::{Exposition, History, Listener, MapReport, Metrics, Report, SAMPLE_INTERVAL, Sample, StoreReport};
use crate::model::{Status, Timestamp};
use crate::store::{DiskSpace, Health};
use crate::tls::TlsServer;

/// Reads the state of the server for metrics and status.
#[derive(Debug)]
pub struct Monitor {
    metrics: Arc<Metrics>,
    links: Arc<Links>,
    tls: Vec<(Listener, Arc<TlsServer>)>,
    /// `None`: this box is alone.
    cluster: Option<Arc<Cluster>>,
    started: Instant,
    /// The same by the clock, once and for all: a clock that is set later has not restarted the program.
    started_at: Timestamp,
    history: History,
    /// The latest sample of the disk: no request waits for a new one.
    disk: watch::Sender<Option<DiskSpace>>,
}

impl Monitor {
    pub fn new(
        metrics: Arc<Metrics>,
        links: Arc<Links>,
        tls: Vec<(Listener, Arc<TlsServer>)>,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        Self {
            metrics,
            started: Instant::now(),
            started_at: links.clock().now(),
            links,
            tls,
            cluster,
            history: History::default(),
            disk: watch::Sender::new(None),
        }
    }

    /// Takes samples for as long as it is polled.
    pub async fn run(&self) {
        tokio::join!(self.take_samples(), self.look_at_disk());
    }

    async fn take_samples(&self) {
        let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
        // The first tick is at once, when there is nothing to see.
        interval.tick().await;
        loop {
            interval.tick().await;
            self.history.push(Sample::new(&self.report(), self.uptime()));
        }
    }

    async fn look_at_disk(&self) {
        let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
        loop {
            interval.tick().await;
            let links = Arc::clone(&self.links);
            // A disk that does not answer holds up this task only.
            let looked = tokio::task::spawn_blocking(move || links.store().disk_space()).await;
            if let Ok(space) = looked {
                self.disk.send_replace(space.ok());
            }
        }
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn report(&self) -> Report {
        let (store, index) = (self.links.store(), self.links.index());
        let (writer, health) = (store.metrics().read(), store.health());
        let mut counted = writer.links.into_iter();
        let links = Status::ALL.map(|status| (status.name(), counted.next().unwrap_or_default()));
        let disk = *self.disk.borrow();
        let store = StoreReport {
            writer,
            is_accepting: health == Health::Accepting,
            is_read_only: health == Health::ReadOnly,
            queued: store.queued() as u64,
            links,
            disk: disk.map(|disk| [disk.file, disk.free, disk.total]),
            last_backup: store.last_backup().map(Timestamp::as_unix),
            verified: store.inspected().at.map(Timestamp::as_unix),
            problems: store.inspected().problems,
            dropped_clicks: self.links.dropped_clicks(),
        };
        let map = MapReport {
            is_loaded: index.is_loaded(),
            load_time: self.links.load_time(),
            links: index.links() as u64,
            damaged: index.damaged() as u64,
            bytes: index.memory_bytes(),
            search_bytes: self.links.search_memory_bytes(),
        };
        Report {
            tls: self.tls.iter().map(|(listener, tls)| tls.report(*listener)).collect(),
            cluster: self.cluster.as_ref().map(|cluster| cluster.report(&self.links)),
            ..self.metrics.report(store, map, self.started_at.as_unix())
        }
    }

    /// The answer to a question about the appliance itself; `None` where the path is no such question.
    pub fn respond<B>(&self, path: &str, request: &Request<B>) -> Option<Response> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut response = match path {
            "/healthz" | "/readyz" | "/metrics" | "/status" if !is_read => {
                return Some(http::allow(request.method(), http::READ_METHODS));
            }
            "/healthz" => http::text(StatusCode::OK, "ok\n"),
            "/readyz" => readiness::respond(
                &self.links,
                self.cluster.as_ref().map(|cluster| cluster.report(&self.links)),
            ),
            "/metrics" => self.metrics(request.headers()),
            "/status" => status::respond(self),
            _ => return None,
        };
        http::no_store(response.headers_mut());
        Some(response)
    }

    /// The last entry of the cluster's log that this box has.
    pub fn entry(&self) -> Option<u64> {
        let replicating = self.links.store().replicating()?;
        Some(replicating.position().borrow().sequence)
    }

    /// On how many boxes of the cluster an entry is visible, of how many, after they had a moment for it.
    pub async fn visible(&self, entry: u64) -> Option<(usize, usize)> {
        self.cluster.as_ref()?.visible(&self.links, entry).await
    }

    /// What `/status` answers.
    pub fn status(&self) -> ApplianceStatus {
        status::describe(self)
    }

    fn metrics(&self, headers: &HeaderMap) -> Response {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Exposition::accepted(accept.unwrap_or_default());
        http::bytes(StatusCode::OK, format.content_type(), format.render(self.report()))
    }
}
