//! The composition root: bound listeners, the services behind them, readiness, reload and drain.

mod connection;
mod listeners;
mod lock;
mod notify;
mod readiness;
mod redirects;
mod service;
mod workers;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use listeners::{Bound, bind};
pub use lock::{DataLock, LockError};
pub use notify::ServiceManager;

use crate::api::Api;
use crate::config::Settings;
use crate::ks::Partners;
use crate::links::Links;
use crate::public::{FastPath, Public};
use crate::server::service::{AdminService, PublicService};
use crate::server::workers::Worker;
use crate::store::Health;

/// How long requests in flight may take once the appliance has been asked to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// How long the threads that serve redirects may take to end after that.
const LETTING_GO: Duration = Duration::from_secs(2);
/// How often sessions that have expired are forgotten.
const SESSION_SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Buffer of an admin connection, in bytes: a GET of `add` carries a destination of 8,192 bytes, percent-encoded.
const ADMIN_BUFFER_BYTES: usize = 64 * 1024;

/// Serves until `shutdown` is done, then finishes what is in flight, at most for ten seconds. The service manager is told.
///
/// # Errors
/// When the operating system gives no more threads or descriptors.
pub async fn serve(
    bound: Bound,
    links: Arc<Links>,
    settings: &Settings,
    partners: watch::Receiver<Arc<Partners>>,
    manager: &ServiceManager,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let public = Arc::new(Public::new(Arc::clone(&links), settings.tiny));
    let api = Arc::new(Api::new(
        Arc::clone(&links),
        Arc::clone(&public),
        partners,
        settings.body_max_bytes,
    ));
    let (stop, stopped) = watch::channel(false);
    let worker = Worker {
        fast_path: Arc::new(FastPath::new(Arc::clone(&links), settings.tiny)),
        service: PublicService::new(Arc::clone(&public)),
        stopped: stopped.clone(),
        roll_call: manager.roll_call(),
    };
    let mut workers = workers::start(&worker, bound.public)?;
    drop(worker);
    let admin_service = AdminService::new(api, public, Arc::clone(&links));
    let mut accepting = JoinSet::new();
    for listener in bound.admin {
        let service = admin_service.clone();
        let serve = move |stream, address, graceful: &GracefulShutdown| match TcpStream::from_std(stream) {
            Ok(stream) => {
                let serving =
                    connection::serve(stream, address, service.clone(), ADMIN_BUFFER_BYTES, graceful.watcher());
                tokio::spawn(serving);
            }
            Err(error) => tracing::warn!(%error, "a connection cannot be served"),
        };
        accepting.spawn(connection::accept(listener, stopped.clone(), serve));
    }
    let sweeping = tokio::spawn(sweep_sessions(Arc::clone(&links)));
    tokio::spawn(manager.roll_call().answer());
    manager.serving(&links);

    tokio::select! {
        () = shutdown => {}
        () = workers.one_ended() => return Err(io::Error::other("a thread that serves redirects has ended")),
    }
    tracing::info!("draining");
    manager.ending();
    links.end();
    sweeping.abort();
    stop.send_replace(true);
    let since = Instant::now();
    let drained = tokio::time::timeout(DRAIN_DEADLINE, async { while accepting.join_next().await.is_some() {} });
    let is_drained = drained.await.is_ok();
    // These keep to the deadline by themselves, and then need a moment to let go of what they hold.
    let _ = tokio::time::timeout(DRAIN_DEADLINE + LETTING_GO, workers.all_ended()).await;
    if !is_drained || since.elapsed() >= DRAIN_DEADLINE {
        tracing::warn!("requests still in flight after {DRAIN_DEADLINE:?} were cut off");
    }
    Ok(())
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
