//! `tinyd serve`: the appliance.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::SettingArgs;
use crate::cli::exit::CliError;
use crate::cli::log::LogLevels;
use crate::cli::progress::bar;
use crate::config::{Overrides, Settings};
use crate::http::connection;
use crate::http::connection::Bound;
use crate::links::Links;
use crate::model::{Clock, priority};
use crate::server::{self, DataLock, Reloader, ServiceManager};
use crate::store::FILE_NAME;

const EXAMPLES: &str = "\
Settings: flag, then environment, then file, then default.

Without a configuration file anywhere, a data folder is made (./tinyd-data, or --data)
with a file in it that holds new secrets, and you are told what to do next.

Signals: SIGTERM and SIGINT end it after the requests in flight, a second one at once;
SIGHUP reads the configuration again, and says what of it needs a restart.

Listening sockets that systemd passes on (tinyd.socket) are used for the addresses
they listen on.

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

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    settings: SettingArgs,

    /// Serve redirects, and reads of the API, from a store that is never written to
    #[arg(long)]
    read_only: bool,

    /// The store to serve, a backup for instance [default: links.redb in the data folder]
    #[arg(long, value_name = "FILE", requires = "read_only")]
    store: Option<PathBuf>,
}

pub(super) fn run(args: &ServeArgs) -> Result<(), CliError> {
    let overrides = args.settings.overrides();
    let (mut settings, created) = if args.read_only {
        (Settings::load_or_default(&overrides)?, false)
    } else {
        Settings::load_or_create(&overrides)?
    };
    settings.fit_connections(connection::room_for_connections(settings.threads));
    let log_levels = LogLevels::start(&settings)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %settings.config.display(),
        "starting"
    );
    for line in settings.in_force() {
        tracing::info!("settings: {line}");
    }
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    // It outlives the links, so that it can ask for time while these are written.
    let manager = ServiceManager::connect()?;
    let (links, _lock) = if args.read_only {
        let store = args.store.clone().unwrap_or_else(|| settings.data_dir.join(FILE_NAME));
        tracing::info!(store = %store.display(), "serving read-only");
        (Links::open_read_only(&store, Clock::system())?, None)
    } else {
        tracing::info!(data_dir = %settings.data_dir.display(), "serving");
        let lock = DataLock::take(&settings.data_dir)?;
        let links = Links::open(&settings.data_dir, Clock::system(), settings.id_length)?;
        (links.counting_clicks(settings.count_clicks), Some(lock))
    };
    let store = args.store.clone().unwrap_or_else(|| settings.data_dir.join(FILE_NAME));
    // Only for people: what cannot be told is left out.
    let bytes = std::fs::metadata(&store).map(|metadata| metadata.len()).ok();
    tracing::info!(store = %store.display(), bytes, links = links.stored(), "store opened");
    let links = Arc::new(links);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("tinyd-api")
        .on_thread_start(|| priority::lower(priority::API_NICE))
        .enable_all()
        .build()?;
    // Who starts without links and without having written a configuration is new here.
    let newcomer = overrides.config.is_none() && !args.read_only && links.stored() == 0;
    let welcome = newcomer.then_some(created);
    let reload = |reloader: &Reloader| reload(&settings, &overrides, reloader, &log_levels);
    runtime.block_on(serve(&settings, reload, welcome, Arc::clone(&links), &manager))?;
    // What clients were promised is on disk before this process ends: the last user of the links waits for the writer.
    runtime.shutdown_timeout(BLOCKED_TIMEOUT);
    drop(links);
    drop(manager);
    tracing::info!("ended");
    Ok(())
}

async fn serve(
    settings: &Settings,
    reload: impl Fn(&Reloader) -> Option<String>,
    welcome: Option<bool>,
    links: Arc<Links>,
    manager: &ServiceManager,
) -> Result<(), CliError> {
    // Before anything is announced, so that no signal finds its default.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let (public, admin) = (&settings.public_listen, &settings.admin_listen);
    let bound = connection::inherited().and_then(|sockets| connection::bind(public, settings.threads, admin, sockets));
    let bound = bound.map_err(anyhow::Error::from)?;
    announce(&bound)?;
    if let Some(created) = welcome {
        say_what_to_do_next(settings, &bound, created)?;
    }
    load(Arc::clone(&links));
    let deleting = Arc::clone(&links);
    tokio::spawn(async move {
        if let Err(error) = deleting.finish_deletions().await {
            tracing::error!(%error, "cannot find out whether a deletion was interrupted");
        }
    });

    let (reloader, live) = Reloader::new(settings);
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
        // Whoever asks again does not want to wait. What was acknowledged is in the journal.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("asked to end a second time: requests in flight are cut off");
            std::process::exit(1);
        });
    };
    server::serve(bound, links, settings, live, manager, shutdown).await?;
    Ok(())
}

/// One line for each listener on standard output, so that port 0 can be used.
fn announce(bound: &Bound) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, address) in bound.addresses()? {
        tracing::info!(%address, "{name} listener");
        writeln!(out, "{name} http://{address}")?;
    }
    out.flush()
}

/// Loads the map beside the listeners. An appliance that cannot read its store ends: it would answer 503 for ever.
fn load(links: Arc<Links>) {
    let (loading, bar) = (Arc::clone(&links), bar("loading links", "links", Some(links.stored())));
    let shown = bar.clone();
    tokio::spawn(async move {
        while !shown.is_hidden() && !shown.is_finished() {
            shown.set_position(loading.index().links() as u64);
            tokio::time::sleep(BAR_INTERVAL).await;
        }
    });
    let loading = tokio::task::spawn_blocking(move || {
        let started = std::time::Instant::now();
        let loaded = links.load();
        bar.finish_and_clear();
        match loaded {
            Ok(count) => {
                tracing::info!(links = count, elapsed = ?started.elapsed(), "links loaded");
            }
            Err(error) => {
                tracing::error!(%error, "the links cannot be loaded");
                std::process::exit(1);
            }
        }
    });
    tokio::spawn(async move {
        if loading.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("the store is damaged: restore a backup, or see what tinyd verify says");
            std::process::exit(1);
        }
    });
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
                tracing::warn!(
                    key,
                    "changed in the configuration, but read at the start only: restart to apply it"
                );
            }
            let count = settings.partners.ids().count();
            reloader.reload(&settings);
            if let Err(error) = log_levels.reload(&settings) {
                tracing::error!(%error, "cannot change log levels; keeping the current ones");
            }
            tracing::info!(
                partners = count,
                "secrets reloaded, and limits, trusted proxies and the log's levels"
            );
            None
        }
        Err(error) => {
            tracing::error!(%error, "the configuration is wrong; the running settings stay");
            Some(error.to_string())
        }
    }
}

/// For people, so on standard error: what to paste for a first link, with no secret in it.
fn say_what_to_do_next(settings: &Settings, bound: &Bound, created: bool) -> Result<(), CliError> {
    let quoted = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if text.chars().all(plain) {
            text.to_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let program = std::env::current_exe()?;
    let program = quoted(&program.to_string_lossy());
    let config = std::fs::canonicalize(&settings.config)?;
    let config = quoted(&config.to_string_lossy());
    let url_of = |name| {
        let addresses = bound.addresses()?;
        let found = addresses
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, address)| *address);
        Ok::<_, io::Error>(found.map_or_else(String::new, |address| format!("http://{address}")))
    };
    let (public, admin) = (url_of("public")?, url_of("admin")?);
    let found = if created {
        "A new data folder with secrets of its own was made; its settings are in"
    } else {
        "There are no links yet; the settings are in"
    };
    writeln!(
        io::stderr(),
        "
{found} {config}

Make a first link and see where to click, in another terminal:

  {program} ks --config {config} --user me --type admin |
  curl -s {admin}/api_v3/service/shortlink_shortlink/action/add \\
    --data-urlencode ks@- -d format=1 -d 'shortLink[systemName]=FIRST-LINK' \\
    --data-urlencode 'shortLink[fullUrl]=https://www.kaltura.com/' |
  sed -E 's#.*\"id\":\"([^\"]*)\".*#{public}/tiny/\\1#; a\\'

The same with tinyd itself, which also lists, updates and deletes links:

  {program} link add https://www.kaltura.com/ --system-name FIRST-LINK --config {config} --url {admin}
"
    )?;
    Ok(())
}
