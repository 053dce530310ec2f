//! The composition root: bound listeners, the services behind them, readiness, reload and drain.

mod admin;
mod drain;
mod event_loop;
mod exchange;
mod general;
mod https_redirect;
mod incoming;
mod inspection;
mod lock;
mod loop_connection;
mod redirect_task;
mod reload;
mod routes;
mod systemd;
mod workers;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use lock::DataLock;
pub use reload::Reloader;
pub use systemd::{ServiceManager, failed};

use crate::access::SessionStarts;
use crate::admin::Monitor;
use crate::api::Api;
use crate::cluster::{self, Cluster};
use crate::config::Settings;
use crate::console::{Console, ConsoleContext, CookieKey};
use crate::fetch::Fetcher;
use crate::http::connection::listener::Listening;
use crate::http::connection::serve::Signals;
use crate::http::connection::set::{Admission, ConnectionSets, Gate};
use crate::http::connection::{Bound, Scheme};
use crate::http::{BodyLimits, Budget};
use crate::kaltura::AccessLog;
use crate::links::{Links, NewDestinations};
use crate::metrics::{Listener, Metrics};
use crate::model::{Clock, priority};
use crate::redirect::{FastPath, Pages, Redirects, UnknownIdLimit};
use crate::server::admin::Admin;
use crate::server::drain::{Ends, Running};
use crate::server::general::General;
use crate::server::https_redirect::HttpsRedirect;
use crate::server::routes::{AdminService, PublicService};
use crate::server::workers::{Https, Worker};
use crate::store::Health;
use crate::tls::{TlsServer, TlsSettings};
use crate::transfer::Transfers;

/// How often the files of certificates are looked at. Not by events, which network file systems do not have.
const CERTIFICATES_INTERVAL: Duration = Duration::from_secs(5);
const SEARCH_SWEEP_INTERVAL: Duration = Duration::from_secs(60);
const SESSION_SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Serves until `shutdown` is ready, then drains.
pub async fn serve(
    bound: Bound,
    links: Arc<Links>,
    cluster: Option<Arc<Cluster>>,
    settings: &Settings,
    reloader: &Reloader,
    manager: &ServiceManager,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut running = build(bound, &links, cluster.as_ref(), settings, reloader, manager)?;
    // Redirect threads keep the priority they began with; what this one does from now on, such as reloads, can wait.
    priority::lower(priority::LOWEST_NICE);
    if let Some(cluster) = &cluster {
        running
            .background
            .spawn(cluster::keep_copies(Arc::clone(cluster), Arc::clone(&links)));
        running.background.spawn(Arc::clone(cluster).follow(Arc::clone(&links)));
        running
            .background
            .spawn(Arc::clone(cluster).exchange_clicks(Arc::clone(&links)));
    }
    manager.serving(&links, cluster.clone());
    tokio::select! {
        () = shutdown => {}
        () = running.workers.one_ended() => {
            return Err(io::Error::other("redirect thread ended"));
        }
    }
    tracing::info!("draining");
    manager.ending(settings.drain);
    running.drain(&links, cluster, settings.drain).await;
    Ok(())
}

/// Starts the threads and background tasks. Nothing else holds the services and links, so that all are dropped after
/// the drain.
fn build(
    bound: Bound,
    links: &Arc<Links>,
    cluster: Option<&Arc<Cluster>>,
    settings: &Settings,
    reloader: &Reloader,
    manager: &ServiceManager,
) -> io::Result<Running> {
    links.follow(reloader.partners.subscribe());
    let general = General::start(settings.threads)?;
    general.handle().spawn(manager.heartbeat().run());
    let metrics = Arc::new(metrics(reloader));
    let guesses = unknown_id_limit(settings, reloader, &metrics);
    let access_log = Arc::new(AccessLog::new(settings.access_log, settings.access_addresses));
    let fetcher = fetcher(settings, &bound, &general, &metrics)?;
    let pages = Arc::new(Pages::new(&settings.branding));
    let (tiny, forgiving) = (settings.tiny, settings.forgiving);
    let redirects = Redirects::new(links, tiny, forgiving, &guesses, &pages, fetcher, &metrics);
    let destinations = new_destinations(settings, &bound)?;
    let transfers = transfers(settings, links, &destinations);
    let api = Api::new(
        Arc::clone(links),
        Arc::clone(&redirects),
        Arc::clone(&reloader.starts),
        body_limits(settings),
        Arc::clone(&transfers),
        destinations.clone(),
        Arc::clone(&metrics),
    );
    let ends = Ends::default();
    let stopped = ends.stop.subscribe();
    let fast_path = || {
        let (links, guesses, access_log) = (Arc::clone(links), Arc::clone(&guesses), Arc::clone(&access_log));
        FastPath::new(links, tiny, guesses, Arc::clone(&pages), access_log)
    };
    let [gate_of_public, gate_of_admin] = gates(settings, reloader, &metrics, links.clock(), &stopped);
    let service = PublicService {
        redirects: Arc::clone(&redirects),
        access_log: Arc::clone(&access_log),
        challenges: Arc::clone(&reloader.challenges),
        https_redirect: None,
    };
    let https = reloader.public_tls.as_ref().map(|tls| {
        let redirecting = redirecting(settings, &bound, tls, &service);
        Https::new(fast_path(), &gate_of_public, tls, redirecting)
    });
    let worker = Worker {
        fast_path: Arc::new(fast_path()),
        https,
        general: general.handle().clone(),
        service,
        metrics: Arc::clone(&metrics),
        gate: gate_of_public,
        ending: ends.public.subscribe(),
        heartbeat: manager.heartbeat(),
    };
    let workers = workers::start(&worker, settings.threads, bound.public)?;
    let monitor = monitor(metrics, links, reloader, cluster);
    let service = AdminService {
        api: Arc::new(api.with_admin_box(admin_box(settings))),
        budget: Arc::clone(transfers.budget()),
        console: console(settings, destinations, transfers, links, &monitor, &reloader.starts)?,
        redirects,
        monitor: Arc::clone(&monitor),
        access_log,
    };
    let listeners = [bound.admin, bound.console];
    let (accepting, admin) = accept_admin(listeners, service, gate_of_admin, reloader, &ends.of_admin());
    // The watchdog also needs it during the drain.
    tokio::spawn(manager.heartbeat().run());
    Ok(Running {
        accepting,
        admin,
        workers,
        general,
        background: background(links, monitor, reloader),
        ends,
    })
}

fn monitor(
    metrics: Arc<Metrics>,
    links: &Arc<Links>,
    reloader: &Reloader,
    cluster: Option<&Arc<Cluster>>,
) -> Arc<Monitor> {
    let monitor = Monitor::new(metrics, Arc::clone(links), reloader.tls(), cluster.cloned());
    Arc::new(monitor)
}

/// Whose API and console to use in place of an edge's.
fn admin_box(settings: &Settings) -> Option<String> {
    let edge = settings.cluster.as_ref().filter(|cluster| cluster.is_edge())?;
    Some(edge.admin_box().to_owned())
}

/// Accepts connections of the admin listener and of the console's own, which have as many together as one may have.
fn accept_admin(
    [of_admin, of_console]: [Vec<Listening>; 2],
    service: AdminService,
    gate: Gate,
    reloader: &Reloader,
    signals: &Signals,
) -> (JoinSet<io::Result<()>>, ConnectionSets) {
    let (mut accepting, connections) = (JoinSet::new(), ConnectionSets::default());
    let tls = reloader.admin_tls.as_deref();
    if let Some(console) = service.only_console() {
        let console = Admin::new(console, gate.clone(), tls, connections.clone());
        console.accept(of_console, signals, &mut accepting);
    }
    let admin = Admin::new(service, gate, tls, connections);
    admin.accept(of_admin, signals, &mut accepting);
    (accepting, admin.connections)
}

/// Of the public and the admin listener.
fn gates(
    settings: &Settings,
    reloader: &Reloader,
    metrics: &Metrics,
    clock: &Clock,
    stopped: &watch::Receiver<bool>,
) -> [Gate; 2] {
    let gate = |listener, policy: &watch::Sender<_>, tls: &Option<TlsSettings>| Gate {
        admission: Admission::new(Arc::clone(metrics.connections(listener))),
        policy: policy.subscribe(),
        clock: clock.clone(),
        stopped: stopped.clone(),
        hsts: tls.as_ref().and_then(hsts),
    };
    [
        gate(Listener::Public, &reloader.public, &settings.public_tls),
        gate(Listener::Admin, &reloader.admin, &settings.admin_tls),
    ]
}

fn metrics(reloader: &Reloader) -> Metrics {
    let mut metrics = Metrics::default();
    if let Some(acme) = &reloader.acme {
        metrics.orders = Arc::clone(acme.orders());
    }
    metrics.session_starts = Arc::clone(reloader.starts.counters());
    metrics
}

fn unknown_id_limit(settings: &Settings, reloader: &Reloader, metrics: &Metrics) -> Arc<UnknownIdLimit> {
    let limit = UnknownIdLimit::new(
        Arc::clone(&reloader.guesses_per_minute),
        settings.shut_out_guessers,
        Arc::clone(metrics.connections(Listener::Public)),
    );
    Arc::new(limit.logging(settings.access_addresses))
}

/// The service of plain HTTP that redirects to HTTPS, if it does.
fn redirecting(settings: &Settings, bound: &Bound, tls: &TlsServer, service: &PublicService) -> Option<PublicService> {
    let addresses = bound.addresses().ok()?.into_iter();
    let mut secure = addresses.filter(|(name, scheme, _)| *name == "public" && *scheme == Scheme::Https);
    let port = secure.next().map(|(.., address)| address.port())?;
    let redirect = HttpsRedirect::new(settings.public_url.as_deref(), port, tls.subscribe());
    settings.redirects_plain.then(|| PublicService {
        https_redirect: Some(Arc::new(redirect)),
        ..service.clone()
    })
}

fn hsts(settings: &TlsSettings) -> Option<HeaderValue> {
    let seconds = Some(settings.hsts_seconds).filter(|seconds| *seconds > 0)?;
    HeaderValue::try_from(format!("max-age={seconds}")).ok()
}

fn background(links: &Arc<Links>, monitor: Arc<Monitor>, reloader: &Reloader) -> JoinSet<()> {
    let mut background = JoinSet::new();
    background.spawn(async move { monitor.run().await });
    background.spawn(sweep_sessions(Arc::clone(links)));
    background.spawn(sweep_search(Arc::clone(links)));
    let listed = Arc::clone(links);
    background.spawn(async move { listed.keep_reading_for_lists().await });
    background.spawn(inspection::run(Arc::clone(links)));
    let counted = Arc::clone(links);
    background.spawn(async move { counted.keep_flushing_clicks().await });
    let swept = Arc::clone(links);
    background.spawn(async move { swept.keep_sweeping_days().await });
    for (_, tls) in reloader.tls() {
        background.spawn(refresh_certificates(tls));
    }
    if let Some(acme) = &reloader.acme
        && links.health() != Health::ReadOnly
    {
        background.spawn(Arc::clone(acme).run());
    }
    background
}

async fn refresh_certificates(tls: Arc<TlsServer>) {
    loop {
        tokio::time::sleep(CERTIFICATES_INTERVAL).await;
        let tls = Arc::clone(&tls);
        // A disk that does not answer holds up this task only.
        let _ = tokio::task::spawn_blocking(move || tls.refresh()).await;
    }
}

/// The web console, if there is one.
fn console(
    settings: &Settings,
    destinations: NewDestinations,
    transfers: Arc<Transfers>,
    links: &Arc<Links>,
    monitor: &Arc<Monitor>,
    starts: &Arc<SessionStarts>,
) -> io::Result<Option<Arc<Console>>> {
    let Some(of_console) = &settings.console else {
        return Ok(None);
    };
    let key = match links.health() {
        // Nothing is written.
        Health::ReadOnly => CookieKey::temporary(),
        Health::Accepting | Health::Refusing(_) => CookieKey::in_folder(&settings.data_dir),
    };
    let context = ConsoleContext {
        links: Arc::clone(links),
        starts: Arc::clone(starts),
        monitor: Arc::clone(monitor),
        destinations,
        transfers,
        key,
        short_url_base: settings.short_url_base(),
        branding: settings.branding.clone(),
        body_timeout: body_limits(settings).timeout,
    };
    let console = Console::new(of_console, context).map_err(io::Error::other)?;
    Ok(Some(Arc::new(console)))
}

fn new_destinations(settings: &Settings, bound: &Bound) -> io::Result<NewDestinations> {
    let public = bound.addresses()?.into_iter().filter(|(name, ..)| *name == "public");
    let public: Vec<_> = public.map(|(.., address)| address).collect();
    let url = settings.public_url.as_deref();
    Ok(NewDestinations::new(settings.destination_max_bytes, url, &public))
}

/// Imports and exports of the API and the console, with the memory that all requests share.
fn transfers(settings: &Settings, links: &Arc<Links>, destinations: &NewDestinations) -> Arc<Transfers> {
    let budget = Budget::new(settings.buffered_bytes);
    Arc::new(Transfers::new(Arc::clone(links), destinations.clone(), budget))
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
    let listeners = bound.addresses()?.into_iter().map(|(.., address)| address).collect();
    let fetcher = Fetcher::new(
        settings,
        listeners,
        general.handle().clone(),
        Arc::clone(&metrics.fetches),
    );
    fetcher.map(Some).map_err(io::Error::other)
}

/// Frees the memory of searches that nobody makes any more.
async fn sweep_search(links: Arc<Links>) {
    loop {
        tokio::time::sleep(SEARCH_SWEEP_INTERVAL).await;
        links.sweep_search();
    }
}

/// Drops expired sessions every hour, but not at the start, when the clock may be wrong.
async fn sweep_sessions(links: Arc<Links>) {
    if !links.store().takes_writes() {
        return;
    }
    loop {
        tokio::time::sleep(SESSION_SWEEP_INTERVAL).await;
        if let Err(error) = links.drop_expired_sessions().await {
            tracing::warn!(%error, "cannot drop expired sessions");
        }
    }
}
