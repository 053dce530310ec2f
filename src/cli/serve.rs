//! `tinyd serve`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::access::Grant;
use crate::cli::SettingArgs;
use crate::cli::console::FIRST_USER;
use crate::cli::exit::{CliError, Failure};
use crate::cli::log::{self, LogLevels};
use crate::cli::progress::bar;
use crate::cluster::Cluster;
use crate::config::{Overrides, Settings};
use crate::console::CONSOLE_PATH;
use crate::http::connection::{self, Bound};
use crate::kaltura::session::Kind;
use crate::links::Links;
use crate::model;
use crate::model::{Clock, priority, shown};
use crate::server::{self, DataLock, Reloader, ServiceManager};
use crate::store::FILE_NAME;

const EXAMPLES: &str = "\
A flag overrides its environment variable, which overrides the file, which
overrides the default. Without a file, tinyd creates a data folder
(./tinyd-data, or --data) with a configuration and new secrets.

SIGTERM and SIGINT drain: requests in flight end first; a second signal aborts
them. SIGHUP reloads the configuration. Sockets from systemd (tinyd.socket)
are used for the addresses that they listen on.

Examples:
  tinyd serve
  tinyd serve --config /etc/tinyd/tinyd.toml
  tinyd serve --data /var/lib/tinyd --public 0.0.0.0:80 --admin 127.0.0.1:8081
  tinyd serve --read-only --store /backup/links.redb
  TINYD_LOG=debug TINYD_LOG_FORMAT=json tinyd serve";

/// How long to wait at the end for threads that read the store, such as loading.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the bar of loading moves.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

pub(super) const API_IS_EXPOSED: &str =
    "other machines can reach the API: listen on loopback, or close the port to strangers";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    settings: SettingArgs,

    /// Serve redirects and reads of the API without writing to the store
    #[arg(long)]
    read_only: bool,

    /// Serve this store, for example a backup [default: links.redb in the data folder]
    #[arg(long, value_name = "FILE", requires = "read_only")]
    store: Option<PathBuf>,
}

pub(super) fn run(args: &ServeArgs) -> Result<(), CliError> {
    let overrides = args.settings.overrides();
    let (mut settings, created) = settings(args, &overrides)?;
    let configured = settings.warnings.len();
    settings.fit_connections(connection::room_for_connections(settings.threads));
    let log_levels = LogLevels::start(&settings)?;
    let version = env!("CARGO_PKG_VERSION");
    log_settings(&settings, created.then_some(configured));
    // It outlives the links, so that it can ask for time while these are written.
    let manager = ServiceManager::connect()?;
    let store = args.store.clone().unwrap_or_else(|| settings.data_dir.join(FILE_NAME));
    // Where that cannot be told, opening it says why.
    let is_missing = !args.read_only && store.try_exists().is_ok_and(|exists| !exists);
    if is_missing && settings.require_store {
        return Err(no_store(&settings.data_dir));
    }
    let (links, cluster, _lock) = if args.read_only {
        (Links::open_read_only(&store, Clock::system())?, None, None)
    } else {
        let lock = DataLock::take(&settings.data_dir)?;
        let (links, cluster) = open(&settings)?;
        (links, cluster, Some(lock))
    };
    // The first start makes its configuration too, and surprises nobody.
    if is_missing && !created {
        tracing::warn!(folder = %settings.data_dir.display(), "a new, empty store was made");
    }
    let bytes = std::fs::metadata(&store).map(|metadata| metadata.len()).ok();
    let (stored, read_only) = (links.stored(), args.read_only);
    if created {
        tracing::debug!(version, store = %store.display(), bytes, links = stored, read_only, "store opened");
    } else {
        tracing::info!(version, store = %store.display(), bytes, links = stored, read_only, "store opened");
    }
    let links = Arc::new(links);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(api_threads())
        .thread_name("tinyd-api")
        .on_thread_start(|| priority::lower(priority::LOWEST_NICE))
        .enable_all()
        .build()?;
    let is_new = overrides.config.is_none() && !args.read_only && links.stored() == 0 && !log::is_journal();
    let reload = |reloader: &Reloader| reload(&settings, &overrides, reloader, &log_levels);
    let serving = serve(&settings, reload, is_new, Arc::clone(&links), cluster.clone(), &manager);
    runtime.block_on(serving)?;
    // What clients were promised is on disk before this process ends: the last user of the links waits for the writer.
    runtime.shutdown_timeout(BLOCKED_TIMEOUT);
    // The next process waits for this one to end, and the kernel takes the map's memory back faster than it is freed.
    std::mem::forget(Arc::clone(links.index()));
    drop(links);
    // The writer needed it until now.
    drop(cluster);
    drop(manager);
    tracing::info!("ended");
    Ok(())
}

/// Half of the cores: the writer needs another. Whenever a write is done, a runtime wakes one more thread than there is
/// work for.
fn api_threads() -> usize {
    (model::cores() / 2).max(1)
}

/// The settings, and whether their file was made now.
fn settings(args: &ServeArgs, overrides: &Overrides) -> Result<(Settings, bool), CliError> {
    if args.read_only {
        return Ok((Settings::load_or_default(overrides)?, false));
    }
    if Settings::are_missing(overrides) {
        try_listeners(overrides)?;
    }
    Ok(Settings::load_or_create(overrides)?)
}

/// At the first start, warnings after the configured ones can wait: default limits were lowered, and the addresses and
/// what to do next are printed.
fn log_settings(settings: &Settings, configured: Option<usize>) {
    // `--read-only` needs none.
    let config = settings.config.exists().then(|| settings.config.display());
    let config = config.map_or_else(|| "none".to_owned(), |config| config.to_string());
    tracing::debug!(version = env!("CARGO_PKG_VERSION"), config, "starting");
    tracing::debug!(settings = settings.effective().join(", "), "effective settings");
    for (number, warning) in settings.warnings.iter().enumerate() {
        if configured.is_some_and(|configured| number >= configured) {
            tracing::debug!("{warning}");
        } else {
            tracing::warn!("{warning}");
        }
    }
    // In a container, the engine decides which ports are published.
    if let Some(address) = settings.exposed_api().filter(|_| std::process::id() != FIRST_PROCESS) {
        tracing::warn!(%address, "{API_IS_EXPOSED}");
    }
}

/// Listens for a moment, so that a first start on a taken port leaves no data folder behind.
fn try_listeners(overrides: &Overrides) -> Result<(), CliError> {
    // Those of the service manager can be taken over once only.
    if std::env::var_os("LISTEN_FDS").is_none() {
        let settings = Settings::load_or_default(overrides)?;
        connection::bind(&settings.addresses(), settings.threads, Vec::new()).map_err(anyhow::Error::from)?;
    }
    Ok(())
}

/// The links of the data folder, and the cluster that they are shared in.
fn open(settings: &Settings) -> Result<(Links, Option<Arc<Cluster>>), CliError> {
    let cluster = settings.cluster.as_ref().map(Cluster::connect).transpose()?;
    let log = cluster.as_ref().map(Cluster::log).transpose()?;
    let links = Links::open_in_cluster(&settings.data_dir, Clock::system(), settings.id_length, log)?;
    let node = settings.cluster.as_ref().map_or("", |cluster| &cluster.node);
    let links = links
        .in_box(node)
        .counting_clicks(settings.count_clicks)
        .auditing(settings.audit_entries);
    Ok((links, cluster.map(Arc::new)))
}

fn no_store(folder: &Path) -> CliError {
    Failure::Usage.error(format!(
        "require_store is set, and {} has no {FILE_NAME}: mount its disk, or restore a backup; to begin with an empty \
         store, set require_store to false",
        folder.display()
    ))
}

async fn serve(
    settings: &Settings,
    reload: impl Fn(&Reloader) -> Option<String>,
    is_new: bool,
    links: Arc<Links>,
    cluster: Option<Arc<Cluster>>,
    manager: &ServiceManager,
) -> Result<(), CliError> {
    // Before anything is announced, so that no signal finds its default.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let reloader = Reloader::new(settings).map_err(|error| Failure::Usage.error(error))?;
    let bind = |sockets| connection::bind(&settings.addresses(), settings.threads, sockets);
    let bound = connection::inherited().and_then(bind).map_err(anyhow::Error::from)?;
    announce(&bound)?;
    if is_new {
        print_next_step(settings, &bound, &reloader)?;
    }
    load(Arc::clone(&links))?;
    let deleting = Arc::clone(&links);
    tokio::spawn(async move {
        if let Err(error) = deleting.finish_deletions().await {
            tracing::error!(%error, "cannot find out whether a deletion was interrupted");
        }
    });

    let reload = async {
        while hangup.recv().await.is_some() {
            manager.reloading();
            manager.reloaded(reload(&reloader));
        }
    };
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = reload => {}
        }
        // What was acknowledged is in the journal.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("second signal: aborting in-flight requests");
            std::process::exit(1);
        });
    };
    server::serve(bound, links, cluster, settings, &reloader, manager, shutdown).await?;
    Ok(())
}

/// One line for each listener on standard output, so that port 0 can be used.
fn announce(bound: &Bound) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, scheme, address) in bound.addresses()? {
        let scheme = scheme.name();
        tracing::debug!(%address, scheme, "{name} listener");
        writeln!(out, "{name} {scheme}://{address}")?;
    }
    out.flush()
}

/// Loads the map beside the listeners. An appliance that cannot read its store ends: it would answer 503 for ever.
fn load(links: Arc<Links>) -> io::Result<()> {
    let (loading, bar) = (Arc::clone(&links), bar("loading links", "links", Some(links.stored())));
    let shown = bar.clone();
    tokio::spawn(async move {
        while !shown.is_hidden() && !shown.is_finished() {
            shown.set_position(loading.index().links() as u64);
            tokio::time::sleep(BAR_INTERVAL).await;
        }
    });
    // On a thread of its own, because those of the runtime have too low a priority: redirects wait for it.
    let loading = thread::Builder::new().name("tinyd-load".to_owned()).spawn(move || {
        priority::lower(priority::LOAD_NICE);
        let started = std::time::Instant::now();
        let loaded = links.load();
        bar.finish_and_clear();
        match loaded {
            Ok(0) => tracing::debug!("no links to load"),
            Ok(count) => tracing::info!(links = count, elapsed = ?started.elapsed(), "links loaded"),
            Err(error) => {
                tracing::error!(%error, "cannot load the links");
                server::failed(&format!("cannot load the links: {error}"));
                std::process::exit(1);
            }
        }
    })?;
    let loading = tokio::task::spawn_blocking(move || loading.join());
    tokio::spawn(async move {
        if loading.await.is_ok_and(|ended| ended.is_err()) {
            let reason = format!(
                "the store is damaged: restore a backup, or run {} verify",
                shown::command()
            );
            tracing::error!("{reason}");
            server::failed(&reason);
            std::process::exit(1);
        }
    });
    Ok(())
}

/// Reads the settings again. A bad file changes nothing; what is wrong with it is returned.
fn reload(running: &Settings, overrides: &Overrides, reloader: &Reloader, log_levels: &LogLevels) -> Option<String> {
    match Settings::load(overrides) {
        Ok(mut settings) => {
            settings.fit_connections(connection::room_for_connections(settings.threads));
            for warning in &settings.warnings {
                tracing::warn!("{warning}");
            }
            for key in running.fixed_differences(&settings) {
                tracing::warn!(key, "setting changed: restart to apply it");
            }
            let problem = reloader.reload(&settings);
            if let Err(error) = log_levels.reload(&settings) {
                tracing::error!(%error, "cannot change log levels; keeping the current ones");
            }
            if let Some(problem) = &problem {
                tracing::warn!("configuration reloaded, but not the certificates: {problem}");
            } else {
                tracing::info!(partners = settings.partners.ids().count(), "configuration reloaded");
            }
            problem
        }
        Err(error) => {
            tracing::error!(%error, "cannot reload the configuration; keeping the running settings");
            Some(error.to_string())
        }
    }
}

/// In a container, whose output is logged even if it looks like a terminal.
const FIRST_PROCESS: u32 = 1;

/// A link that opens the console, on a terminal only: others read the log.
fn print_console_link(settings: &Settings, admin_url: Option<&str>, reloader: &Reloader) -> Result<(), CliError> {
    let mut err = io::stderr();
    let on_terminal = err.is_terminal() && std::process::id() != FIRST_PROCESS;
    let (Some(partner), Some(url)) = (settings.default_partner(), admin_url.filter(|_| on_terminal)) else {
        return Ok(());
    };
    let grant = Grant {
        partner,
        user: FIRST_USER.to_owned(),
        kind: Kind::Admin,
    };
    if let Some(path) = reloader.sign_in_link(grant) {
        writeln!(
            err,
            "\nMake and share links in a browser (this link works once, within ten minutes):\n\n  \
             {url}{CONSOLE_PATH}/{path}"
        )?;
    }
    Ok(())
}

/// The command for a first link, on standard error: programs read the addresses.
fn print_next_step(settings: &Settings, bound: &Bound, reloader: &Reloader) -> Result<(), CliError> {
    let quoted = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if text.chars().all(plain) {
            text.to_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let program = quoted(&std::env::current_exe()?.to_string_lossy());
    let config = quoted(&std::fs::canonicalize(&settings.config)?.to_string_lossy());
    let addresses = bound.addresses()?;
    let admin = addresses.iter().find(|(name, ..)| *name == "admin");
    let url = admin.map(|(_, scheme, address)| format!("{}://{address}", scheme.name()));
    print_console_link(settings, url.as_deref(), reloader)?;
    // Flags, variables and port 0 are not in the file, which is all that the command reads.
    let file = Settings::load(&Overrides {
        config: Some(settings.config.clone()),
        ..Overrides::default()
    })?;
    let url = url.filter(|url| *url != file.admin_url());
    let url = url.map_or_else(String::new, |url| format!(" --url {url}"));
    writeln!(
        io::stderr(),
        "\nCreate a link, in another terminal:\n\n  \
         {program} link add https://www.kaltura.com/ --system-name FIRST-LINK --config {config}{url}\n"
    )?;
    Ok(())
}
