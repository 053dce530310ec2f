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
use crate::http::connection::guard::Past;
use crate::http::connection::set::ConnectionContext;
use crate::http::connection::set::{
    AcceptedConnection, Admission, ConnectionEntry, ConnectionPolicy, ConnectionSet, ConnectionSlot, Gate,
};
use crate::http::connection::{Bound, proxy_protocol, serve};
use crate::http::{Budget, Peer};
use crate::kaltura::AccessLog;
use crate::kaltura::session::Partners;
use crate::links::Links;
use crate::metrics::{Listener, Metrics};
use crate::redirect::{FastPath, Redirects, UnknownIdLimit};
use crate::server::general::General;
use crate::server::routes::{AdminService, PublicService};
use crate::server::workers::{Worker, Workers};
use crate::store::Health;

/// How long the threads that serve may take to end after requests in flight have had their time.
const LETTING_GO: Duration = Duration::from_secs(2);
/// Clicks that nobody takes are given up at the end after so long, or as long as requests may take if that is longer.
const CLICKS_PATIENCE: Duration = Duration::from_secs(10);
/// How often sessions that have expired are forgotten.
const SESSION_SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Serves until `shutdown` is done, then drains for as long as the settings say.
pub async fn serve(
    bound: Bound,
    links: Arc<Links>,
    settings: &Settings,
    live: Live,
    manager: &ServiceManager,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut running = build(bound, &links, settings, live, manager)?;
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
    // Nobody records clicks any more.
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

/// Starts the threads and everything in the background. Only these hold the services and the links when this returns,
/// so that nothing does after the drain.
fn build(
    bound: Bound,
    links: &Arc<Links>,
    settings: &Settings,
    live: Live,
    manager: &ServiceManager,
) -> io::Result<Running> {
    let general = General::start(settings.threads)?;
    general.handle().spawn(manager.heartbeat().run());
    let metrics = Arc::new(Metrics::default());
    let guesses = UnknownIdLimit::new(
        live.guesses_per_minute,
        settings.shut_out_guessers,
        Arc::clone(metrics.connections(Listener::Public)),
    );
    let guesses = Arc::new(guesses.logging(settings.access_addresses));
    let access_log = Arc::new(AccessLog::new(settings.access_log, settings.access_addresses));
    let fetcher = fetcher(settings, &bound, &general, &metrics)?;
    let public = Redirects::new(links, settings.tiny, settings.forgiving, &guesses, fetcher, &metrics);
    let budget = Budget::new(settings.buffered_bytes);
    let api = Arc::new(Api::new(
        Arc::clone(links),
        Arc::clone(&public),
        live.partners,
        body_limits(settings),
        Arc::clone(&budget),
        new_destinations(settings, &bound)?,
        Arc::clone(&metrics),
    ));
    let (stop, stopped) = watch::channel(false);
    let entrance = |listener, policy| Gate {
        admission: Admission::new(Arc::clone(metrics.connections(listener))),
        policy,
        clock: links.clock().clone(),
        stopped: stopped.clone(),
    };
    let fast_path = FastPath::new(Arc::clone(links), settings.tiny, guesses, Arc::clone(&access_log));
    let worker = Worker {
        fast_path: Arc::new(fast_path),
        general: general.handle().clone(),
        service: PublicService::new(Arc::clone(&public), Arc::clone(&access_log)),
        metrics: Arc::clone(&metrics),
        entrance: entrance(Listener::Public, live.public),
        drain: settings.drain,
        heartbeat: manager.heartbeat(),
    };
    let workers = workers::start(&worker, settings.threads, bound.public)?;
    let of_admin = entrance(Listener::Admin, live.admin);
    let monitor = Arc::new(Monitor::new(metrics, Arc::clone(links)));
    let admin = Admin {
        service: AdminService::new(api, public, Arc::clone(&monitor), access_log, budget),
        entrance: of_admin,
        crowd: ConnectionSet::default(),
    };
    let mut accepting = JoinSet::new();
    for listener in bound.admin {
        let admin = admin.clone();
        let serve = move |stream, address| admin.take(stream, address);
        accepting.spawn(serve::accept(listener, stopped.clone(), serve));
    }
    let serving = Serving {
        accepting,
        admin: admin.crowd.clone(),
        workers,
        general,
    };
    let mut background = JoinSet::new();
    background.spawn(async move { monitor.run().await });
    background.spawn(sweep_sessions(Arc::clone(links)));
    background.spawn(inspection::run(Arc::clone(links)));
    // The watchdog listens during the drain too.
    tokio::spawn(manager.heartbeat().run());
    let counted = Arc::clone(links);
    background.spawn(async move { counted.keep_flushing_clicks().await });
    Ok(Running {
        serving,
        background,
        stop,
    })
}

/// The rules for destinations of new links.
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

/// What fetches destinations, if that is wanted.
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
    /// Waits until requests in flight are answered, and cuts off those that take longer than this.
    async fn finish(mut self, drain: Duration) {
        let since = Instant::now();
        let drained = tokio::time::timeout(drain, async {
            while self.accepting.join_next().await.is_some() {}
            self.admin.all_ended().await;
        });
        let is_drained = drained.await.is_ok();
        // These keep to the deadline by themselves, and then need a moment to let go of what they hold.
        let _ = tokio::time::timeout(drain + LETTING_GO, self.workers.all_ended()).await;
        if !is_drained || since.elapsed() >= drain {
            tracing::warn!("aborted requests still in flight after {drain:?}");
        }
        // With them, their connections on the general threads have ended.
        self.general.end(LETTING_GO).await;
    }
}

/// What a reload may change while the appliance runs.
#[derive(Debug)]
pub struct Live {
    guesses_per_minute: Arc<AtomicU32>,
    partners: watch::Receiver<Arc<Partners>>,
    public: watch::Receiver<Arc<ConnectionPolicy>>,
    admin: watch::Receiver<Arc<ConnectionPolicy>>,
}

#[derive(Debug)]
pub struct Reloader {
    guesses_per_minute: Arc<AtomicU32>,
    partners: watch::Sender<Arc<Partners>>,
    public: watch::Sender<Arc<ConnectionPolicy>>,
    admin: watch::Sender<Arc<ConnectionPolicy>>,
}

impl Reloader {
    pub fn new(settings: &Settings) -> (Self, Live) {
        let (partners, of_partners) = watch::channel(Arc::new(settings.partners.clone()));
        let (public, of_public) = watch::channel(Arc::new(ConnectionPolicy::from(&settings.public_limits)));
        let (admin, of_admin) = watch::channel(Arc::new(ConnectionPolicy::from(&settings.admin_limits)));
        let guesses_per_minute = Arc::new(AtomicU32::new(settings.guesses_per_minute));
        let live = Live {
            guesses_per_minute: Arc::clone(&guesses_per_minute),
            partners: of_partners,
            public: of_public,
            admin: of_admin,
        };
        let reloader = Self {
            guesses_per_minute,
            partners,
            public,
            admin,
        };
        (reloader, live)
    }

    /// Puts what can be changed into force: the partners and the limit of guesses at once, limits and proxies for
    /// connections that are new.
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

/// What admin connections are served with.
#[derive(Debug, Clone)]
struct Admin {
    service: AdminService,
    entrance: Gate,
    crowd: ConnectionSet,
}

impl Admin {
    fn take(&self, stream: StdStream, address: IpAddr) {
        let Some(admitted) = self.entrance.admit(&stream, address, &self.crowd) else {
            return;
        };
        let AcceptedConnection {
            peer,
            place,
            policy,
            at,
        } = admitted;
        let (service, terms) = (self.service.clone(), self.entrance.terms(policy));
        self.crowd
            .spawn(at, |member| serve_admin(stream, peer, place, service, terms, member));
    }
}

async fn serve_admin(
    stream: StdStream,
    mut peer: Peer,
    mut place: ConnectionSlot,
    service: AdminService,
    terms: ConnectionContext,
    member: ConnectionEntry,
) {
    let mut stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "cannot serve a connection"),
    };
    let mut past = Past::none();
    if terms.policy.is_announced_by(&peer) {
        match proxy_protocol::introduce(&mut stream, &mut peer, &mut place, &terms).await {
            Ok(received) => past.held = received,
            Err(error) => return tracing::trace!(%error, "connection ended"),
        }
    }
    serve::serve(stream, past, peer, service, terms, member.activity()).await;
}

/// Forgets sessions that have expired, every hour, and not at the start, when the clock may not be set yet.
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
