//! The composition root: bound listeners, the services behind them, readiness, reload and drain.

mod connection;
mod listeners;
mod lock;
mod readiness;
mod service;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use listeners::{Bound, bind};
pub use lock::{DataLock, LockError};

use crate::api::Api;
use crate::config::Settings;
use crate::ks::Partners;
use crate::links::Links;
use crate::public::Public;
use crate::server::connection::{Limits, Service};
use crate::server::service::{AdminService, PublicService};
use crate::store::Health;

/// How long requests in flight may take once the appliance has been asked to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// How often sessions that have expired are forgotten.
const SESSION_SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Buffer of a public connection, in bytes: no request there needs a longer head.
const PUBLIC_BUFFER_BYTES: usize = 16 * 1024;
/// Buffer of an admin connection, in bytes: a GET of `add` carries a destination of 8,192 bytes, percent-encoded.
const ADMIN_BUFFER_BYTES: usize = 64 * 1024;

/// Serves until `shutdown` is done, then finishes what is in flight, at most for ten seconds.
pub async fn serve(
    bound: Bound,
    links: Arc<Links>,
    settings: &Settings,
    partners: watch::Receiver<Arc<Partners>>,
    shutdown: impl Future<Output = ()>,
) {
    let public = Arc::new(Public::new(Arc::clone(&links), settings.tiny));
    let api = Arc::new(Api::new(
        Arc::clone(&links),
        Arc::clone(&public),
        partners,
        settings.body_max_bytes,
    ));
    let (stop, stopped) = watch::channel(false);
    let public_service = PublicService::new(Arc::clone(&public));
    let admin_service = AdminService::new(api, public, Arc::clone(&links));
    let public_limits = Limits {
        buffer_bytes: PUBLIC_BUFFER_BYTES,
    };
    let admin_limits = Limits {
        buffer_bytes: ADMIN_BUFFER_BYTES,
    };
    let mut accepting = JoinSet::new();
    accept_all(&mut accepting, bound.public, &public_service, public_limits, &stopped);
    accept_all(&mut accepting, bound.admin, &admin_service, admin_limits, &stopped);
    let sweeping = tokio::spawn(sweep_sessions(Arc::clone(&links)));

    shutdown.await;
    tracing::info!("draining");
    links.end();
    sweeping.abort();
    stop.send_replace(true);
    let drained = tokio::time::timeout(DRAIN_DEADLINE, async { while accepting.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("requests still in flight after {DRAIN_DEADLINE:?} were cut off");
    }
}

fn accept_all(
    accepting: &mut JoinSet<()>,
    listeners: Vec<TcpListener>,
    service: &impl Service,
    limits: Limits,
    stopped: &watch::Receiver<bool>,
) {
    for listener in listeners {
        accepting.spawn(connection::accept(listener, service.clone(), limits, stopped.clone()));
    }
}

/// Forgets sessions that have expired, at the start and every hour.
async fn sweep_sessions(links: Arc<Links>) {
    if links.health() == Health::ReadOnly {
        return;
    }
    let mut interval = tokio::time::interval(SESSION_SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = links.drop_expired_sessions().await {
            tracing::warn!(%error, "expired sessions could not be dropped");
        }
    }
}
