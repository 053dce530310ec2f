//! The composition root: bound listeners, the services behind them, readiness, reload and drain.

mod general;
mod inspection;
mod lock;
mod redirect_loop;
mod routes;
mod systemd;
mod workers;

use std::io;
use std::net::{IpAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use lock::DataLock;
pub use systemd::ServiceManager;

use crate::admin::Monitor;
use crate::api::{Api, BodyLimits, NewDestinations};
use crate::config::Settings;
use crate::fetch::Fetcher;
use crate::http::Budget;
use crate::http::connection::guard::Handover;
use crate::http::connection::listener::Listening;
use crate::http::connection::set::{
    AcceptedConnection, Admission, ConnectionContext, ConnectionEntry, ConnectionPolicy, ConnectionSet, Gate,
};
use crate::http::connection::{Bound, proxy_protocol, serve};
use crate::kaltura::AccessLog;
use crate::kaltura::session::Partners;
use crate::links::Links;
use crate::metrics::{Listener, Metrics};
use crate::redirect::{FastPath, Redirects, UnknownIdLimit};
use crate::server::general::General;
use crate::server::routes::{AdminService, PublicService};
use crate::server::workers::{Worker, Workers};
use crate::store::Health;

/// How long threads may take to end after the drain.
const LETTING_GO: Duration = Duration::from_secs(2);
/// Least time to write clicks at the end.
const CLICKS_PATIENCE: Duration = Duration::from_secs(10);
const SESSION_SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Serves until `shutdown` is ready, then drains.
pub async fn serve(
    bound: Bound,
    links: Arc<Links>,
    settings: &Settings,
    reloader: &Reloader,
    manager: &ServiceManager,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut running = build(bound, &links, settings, reloader, manager)?;
    manager.serving(&links);
    tokio::select! {
        () = shutdown => {}
        () = running.serving.workers.one_ended() => {
            return Err(io::Error::other("redirect thread ended"));
        }
    }
    tracing::info!("draining");
    manager.ending(settings.drain);
    links.end();
    running.drain(settings.drain).await;
    // No thread records clicks any more.
    links.flush_all_clicks(settings.drain.max(CLICKS_PATIENCE)).await;
    Ok(())
}

struct Running {
    serving: Serving,
    background: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    async fn drain(mut self, patience: Duration) {
        self.background.abort_all();
        self.stop.send_replace(true);
        self.serving.finish(patience).await;
    }
}

/// Starts the threads and background tasks. Nothing else holds the services and links, so that all are dropped after
/// the drain.
fn build(
    bound: Bound,
    links: &Arc<Links>,
    settings: &Settings,
    reloader: &Reloader,
    manager: &ServiceManager,
) -> io::Result<Running> {
    let general = General::start(settings.threads)?;
    general.handle().spawn(manager.heartbeat().run());
    let metrics = Arc::new(Metrics::default());
    let guesses = UnknownIdLimit::new(
        Arc::clone(&reloader.guesses_per_minute),
        settings.shut_out_guessers,
        Arc::clone(metrics.connections(Listener::Public)),
    );
    let guesses = Arc::new(guesses.logging(settings.access_addresses));
    let access_log = Arc::new(AccessLog::new(settings.access_log, settings.access_addresses));
    let fetcher = fetcher(settings, &bound, &general, &metrics)?;
    let redirects = Redirects::new(links, settings.tiny, settings.forgiving, &guesses, fetcher, &metrics);
    let budget = Budget::new(settings.buffered_bytes);
    let api = Arc::new(Api::new(
        Arc::clone(links),
        Arc::clone(&redirects),
        reloader.partners.subscribe(),
        body_limits(settings),
        Arc::clone(&budget),
        new_destinations(settings, &bound)?,
        Arc::clone(&metrics),
    ));
    let (stop, stopped) = watch::channel(false);
    let gate = |listener, policy: &watch::Sender<_>| Gate {
        admission: Admission::new(Arc::clone(metrics.connections(listener))),
        policy: policy.subscribe(),
        clock: links.clock().clone(),
        stopped: stopped.clone(),
    };
    let fast_path = FastPath::new(Arc::clone(links), settings.tiny, guesses, Arc::clone(&access_log));
    let worker = Worker {
        fast_path: Arc::new(fast_path),
        general: general.handle().clone(),
        service: PublicService {
            redirects: Arc::clone(&redirects),
            access_log: Arc::clone(&access_log),
        },
        metrics: Arc::clone(&metrics),
        gate: gate(Listener::Public, &reloader.public),
        drain: settings.drain,
        heartbeat: manager.heartbeat(),
    };
    let workers = workers::start(&worker, settings.threads, bound.public)?;
    let admin_gate = gate(Listener::Admin, &reloader.admin);
    let monitor = Arc::new(Monitor::new(metrics, Arc::clone(links)));
    let admin = Admin {
        service: AdminService {
            api,
            redirects,
            monitor: Arc::clone(&monitor),
            access_log,
            budget,
        },
        gate: admin_gate,
        connections: ConnectionSet::default(),
    };
    let serving = Serving {
        accepting: admin.accept(bound.admin, &stopped),
        admin: admin.connections.clone(),
        workers,
        general,
    };
    // The watchdog also needs it during the drain.
    tokio::spawn(manager.heartbeat().run());
    let background = background(links, monitor);
    Ok(Running {
        serving,
        background,
        stop,
    })
}

fn background(links: &Arc<Links>, monitor: Arc<Monitor>) -> JoinSet<()> {
    let mut background = JoinSet::new();
    background.spawn(async move { monitor.run().await });
    background.spawn(sweep_sessions(Arc::clone(links)));
    background.spawn(inspection::run(Arc::clone(links)));
    let counted = Arc::clone(links);
    background.spawn(async move { counted.keep_flushing_clicks().await });
    background
}

fn new_destinations(settings: &Settings, bound: &Bound) -> io::Result<NewDestinations> {
    let public = bound.addresses()?.into_iter().filter(|(name, _)| *name == "public");
    let public: Vec<_> = public.map(|(_, address)| address).collect();
    let url = settings.public_url.as_deref();
    Ok(NewDestinations::new(settings.destination_max_bytes, url, &public))
}

const fn body_limits(settings: &Settings) -> BodyLimits {
    BodyLimits {
        max_bytes: settings.body_max_bytes,
        timeout: settings.body_timeout,
    }
}

fn fetcher(settings: &Settings, bound: &Bound, general: &General, metrics: &Metrics) -> io::Result<Option<Fetcher>> {
    let Some(settings) = &settings.fetch else {
        return Ok(None);
    };
    let listeners = bound.addresses()?.into_iter().map(|(_, address)| address).collect();
    let fetcher = Fetcher::new(
        settings,
        listeners,
        general.handle().clone(),
        Arc::clone(&metrics.fetches),
    );
    fetcher.map(Some).map_err(io::Error::other)
}

struct Serving {
    accepting: JoinSet<io::Result<()>>,
    admin: ConnectionSet,
    workers: Workers,
    general: General,
}

impl Serving {
    /// Waits for requests in flight, and aborts them after `drain`.
    async fn finish(mut self, drain: Duration) {
        let since = Instant::now();
        let drained = tokio::time::timeout(drain, async {
            while self.accepting.join_next().await.is_some() {}
            self.admin.all_ended().await;
        });
        let is_drained = drained.await.is_ok();
        // They keep the deadline themselves, and need a moment to end.
        let _ = tokio::time::timeout(drain + LETTING_GO, self.workers.all_ended()).await;
        if !is_drained || since.elapsed() >= drain {
            tracing::warn!("aborted requests still in flight after {drain:?}");
        }
        // The threads' connections on the general threads have ended with them.
        self.general.end(LETTING_GO).await;
    }
}

/// What a reload changes while the server runs.
#[derive(Debug)]
pub struct Reloader {
    guesses_per_minute: Arc<AtomicU32>,
    partners: watch::Sender<Arc<Partners>>,
    public: watch::Sender<Arc<ConnectionPolicy>>,
    admin: watch::Sender<Arc<ConnectionPolicy>>,
}

impl Reloader {
    pub fn new(settings: &Settings) -> Self {
        Self {
            guesses_per_minute: Arc::new(AtomicU32::new(settings.guesses_per_minute)),
            partners: watch::Sender::new(Arc::new(settings.partners.clone())),
            public: watch::Sender::new(Arc::new(ConnectionPolicy::from(&settings.public_limits))),
            admin: watch::Sender::new(Arc::new(ConnectionPolicy::from(&settings.admin_limits))),
        }
    }

    /// Applies the partners and the limit of guesses at once, limits and proxies to new connections.
    pub fn reload(&self, settings: &Settings) {
        let guesses = settings.guesses_per_minute;
        self.guesses_per_minute.store(guesses, Ordering::Relaxed);
        self.partners.send_replace(Arc::new(settings.partners.clone()));
        self.public
            .send_replace(Arc::new(ConnectionPolicy::from(&settings.public_limits)));
        self.admin
            .send_replace(Arc::new(ConnectionPolicy::from(&settings.admin_limits)));
    }
}

#[derive(Debug, Clone)]
struct Admin {
    service: AdminService,
    gate: Gate,
    connections: ConnectionSet,
}

impl Admin {
    fn accept(&self, listeners: Vec<Listening>, stopped: &watch::Receiver<bool>) -> JoinSet<io::Result<()>> {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let admin = self.clone();
            let serve = move |stream, address| admin.take(stream, address);
            accepting.spawn(serve::accept(listener, stopped.clone(), serve));
        }
        accepting
    }

    fn take(&self, stream: StdStream, address: IpAddr) {
        let Some(accepted) = self.gate.admit(&stream, address, &self.connections) else {
            return;
        };
        let AcceptedConnection { peer, slot, policy, at } = accepted;
        let (service, context) = (self.service.clone(), self.gate.context(policy));
        self.connections.spawn(at, |entry| {
            serve_admin(Handover::new(stream, peer, slot), service, context, entry)
        });
    }
}

async fn serve_admin(
    connection: Handover<StdStream>,
    service: AdminService,
    context: ConnectionContext,
    entry: ConnectionEntry,
) {
    let mut connection = match connection.try_map(TcpStream::from_std) {
        Ok(connection) => connection,
        Err(error) => return tracing::warn!(%error, "cannot serve a connection"),
    };
    if context.policy.is_announced_by(&connection.peer)
        && let Err(error) = proxy_protocol::introduce(&mut connection, &context).await
    {
        return tracing::trace!(%error, "connection ended");
    }
    serve::serve(connection, service, context, entry.activity()).await;
}

/// Drops expired sessions every hour, but not at the start, when the clock may be wrong.
async fn sweep_sessions(links: Arc<Links>) {
    if links.health() == Health::ReadOnly {
        return;
    }
    loop {
        tokio::time::sleep(SESSION_SWEEP_INTERVAL).await;
        if let Err(error) = links.drop_expired_sessions().await {
            tracing::warn!(%error, "cannot drop expired sessions");
        }
    }
}
