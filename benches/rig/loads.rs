//! What else tinyd does while redirects are measured. Clients run on the load generator's core, in the time that it
//! leaves, so that latencies tell of tinyd.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::downloads;
use crate::rig::http::{self, Connection};
use crate::rig::links::{self, DESTINATION_BYTES, FIRST_CREATED, Kind};
use crate::rig::machine::Place;
use crate::rig::origin::{Downloads, Origin, Source, Speed};
use crate::rig::tinyd::{self, Tinyd};
use crate::rig::wrk::{self, Manner};

/// Clients that add.
const ADDERS: u32 = 64;
/// Clients that list.
const LISTERS: usize = 10;
/// A list that is quicker was answered from memory, while there is no other.
const LISTED_FROM_MEMORY: Duration = Duration::from_millis(100);
/// So many lists at most are from the store.
const LISTS_MAX: usize = 50;
/// Links of an import: none that the store has at first.
const IMPORTED: u64 = 20_000;
const FIRST_IMPORTED: u64 = 10_000_000_000;
/// Links added before each checkpoint, in one call.
const CHECKPOINTED: usize = 200;
/// When the store's file is written after that: it waits for a second without writes.
const IDLE: Duration = Duration::from_millis(1_100);
/// How often a client looks whether something has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const SCRAPE_INTERVAL: Duration = Duration::from_millis(100);
const RELOAD_INTERVAL: Duration = Duration::from_millis(200);
/// Downloads that take what they get.
const FETCHES: usize = 4;
/// Clicks are written so often, and redirects are measured from so long before.
const FLUSH_INTERVAL: Duration = Duration::from_secs(20);
const BEFORE_FLUSH: Duration = Duration::from_millis(1_500);
const CLICKERS: u32 = 16;

/// How long a load goes on before redirects are measured.
const LEAD: Duration = Duration::from_secs(1);

/// Metrics that say that something has happened.
pub(crate) const CHECKPOINTS: &str = "tinyd_store_checkpoint_duration_seconds_count";
const BATCHES: &str = "tinyd_store_batch_writes_count";

/// Something that tinyd does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// 64 clients add links as fast as they can
    Adds,
    /// Ten clients ask for an expensive list, again and again
    Lists,
    /// One import of 20,000 links after the other
    Import,
    /// One backup after the other
    Backup,
    /// A checkpoint after each 200 links that are added
    Checkpoint,
    /// The clicks of all links are written
    Clicks,
    /// Ten scrapes a second
    Scrape,
    /// Five reloads a second
    Reload,
    /// Four downloads through goto with proxy=true
    Fetch,
}

impl Load {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Adds => "64 clients that add",
            Self::Lists => "ten expensive lists",
            Self::Import => "an import",
            Self::Backup => "a backup",
            Self::Checkpoint => "a checkpoint",
            Self::Clicks => "a flush of clicks",
            Self::Scrape => "a scrape",
            Self::Reload => "a reload",
            Self::Fetch => "a fetch",
        }
    }

    /// Whether it keeps the core busy: then the floor is measured beside it too.
    pub(crate) const fn is_heavy(self) -> bool {
        matches!(self, Self::Adds | Self::Lists | Self::Import | Self::Backup)
    }

    /// What is counted of it.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Adds => "adds/s",
            Self::Lists => "lists/s",
            Self::Import => "links/s",
            Self::Backup => "backups/s",
            Self::Checkpoint => "checkpoints/s",
            Self::Clicks => "batches/s",
            Self::Scrape => "scrapes/s",
            Self::Reload => "reloads/s",
            Self::Fetch => "MB/s",
        }
    }
}

/// An appliance that is given something to do.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) tinyd: Tinyd,
    session: String,
    /// Links that can be asked for.
    links: u64,
    scratch: PathBuf,
    downloads: Source,
    imported: Arc<AtomicU64>,
    /// Whether each import is of the same links, which the second one updates.
    imports_again: bool,
    /// A number of its own for each run of wrk.
    runs: AtomicU64,
}

impl Target {
    pub(crate) fn new(name: String, tinyd: Tinyd, links: u64, scratch: &Path, origin: &Origin) -> Result<Self> {
        Ok(Self {
            name,
            session: tinyd.session()?,
            downloads: downloads::source(&tinyd, origin)?,
            tinyd,
            links,
            scratch: scratch.to_owned(),
            imported: Arc::default(),
            imports_again: false,
            runs: AtomicU64::new(0),
        })
    }

    /// Has each import be of the same links, so that the store does not grow.
    pub(crate) const fn importing_again(mut self) -> Self {
        self.imports_again = true;
        self
    }

    /// Has content fetched through this listener.
    pub(crate) const fn fetching_through(mut self, server: SocketAddr) -> Self {
        self.downloads.server = server;
        self
    }

    pub(crate) const fn source(&self) -> &Source {
        &self.downloads
    }

    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    fn url(&self) -> String {
        format!("http://{}", self.tinyd.admin)
    }

    fn next_run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A load that goes on until it is ended.
pub(crate) struct Going {
    is_over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<()>>>,
    downloads: Option<Downloads>,
    /// What had been done when measuring began, and when that was.
    since: (u64, Instant),
}

impl Going {
    /// Starts it for redirects that are measured for so long, and returns when it is time for that.
    pub(crate) fn start(load: Load, target: &Target, measured: Duration) -> Result<Self> {
        let mut going = Self {
            is_over: Arc::default(),
            done: Arc::default(),
            clients: Vec::new(),
            downloads: None,
            since: (0, Instant::now()),
        };
        let admin = target.tinyd.admin;
        match load {
            Load::Adds => going.add(target, measured)?,
            Load::Lists => (0..LISTERS).try_for_each(|number| going.list(target, number))?,
            Load::Import => going.import(target),
            Load::Backup => going.back_up(target),
            Load::Checkpoint => going.checkpoint(target)?,
            Load::Clicks => going.click(target)?,
            Load::Scrape => going.client(move || {
                let answer = http::get(admin, "/metrics")?;
                ensure!(answer.status == 200, "/metrics was answered {}", answer.status);
                thread::sleep(SCRAPE_INTERVAL);
                Ok(1)
            }),
            Load::Reload => going.reload(target)?,
            Load::Fetch => going.downloads = Some(Downloads::start(&target.downloads, FETCHES, Speed::Fast)?),
        }
        if load != Load::Clicks {
            thread::sleep(LEAD);
        }
        going.since = (going.done(), Instant::now());
        Ok(going)
    }

    fn done(&self) -> u64 {
        let received = self.downloads.iter().flat_map(Downloads::received);
        self.done.load(Ordering::Relaxed) + received.sum::<u64>() / 1_000_000
    }

    /// Ends it, and returns how much a second was done of it. Nothing is an error.
    pub(crate) fn end(mut self) -> Result<f64> {
        let (before, since) = self.since;
        let (now, elapsed) = (self.done(), since.elapsed());
        self.is_over.store(true, Ordering::Relaxed);
        drop(self.downloads.take());
        for client in self.clients.drain(..) {
            let ended = client.join();
            ended.unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))?;
        }
        // What took longer has gone on all the while.
        let now = if now == before { self.done() } else { now };
        ensure!(now > before, "nothing was done");
        Ok((now - before) as f64 / elapsed.as_secs_f64())
    }

    /// Has a thread do something again and again. It says how much that was.
    fn client(&mut self, mut step: impl FnMut() -> Result<u64> + Send + 'static) {
        let (is_over, done) = (Arc::clone(&self.is_over), Arc::clone(&self.done));
        self.clients.push(thread::spawn(move || {
            Place::Aside.take_this_thread()?;
            while !is_over.load(Ordering::Relaxed) {
                done.fetch_add(step()?, Ordering::Relaxed);
            }
            Ok(())
        }));
    }

    fn add(&mut self, target: &Target, measured: Duration) -> Result<()> {
        let script = wrk::adds(&target.scratch, &target.session, DESTINATION_BYTES)?;
        let (url, run, done) = (target.url(), target.next_run(), Arc::clone(&self.done));
        let seconds = (measured + 2 * LEAD).as_secs();
        self.clients.push(thread::spawn(move || {
            let run = wrk::run_without_errors(Place::Aside, &url, &script, ADDERS, seconds, run)?;
            // Those while redirects were measured.
            done.store(
                (run.requests as f64 / run.seconds * measured.as_secs_f64()) as u64,
                Ordering::Relaxed,
            );
            Ok(())
        }));
        Ok(())
    }

    /// No index has what is asked for, so that every link is read.
    fn list(&mut self, target: &Target, number: usize) -> Result<()> {
        let (mut connection, session) = (Connection::open(target.tinyd.admin)?, target.session.clone());
        let from = (FIRST_CREATED + 1 + i64::try_from(number)?).to_string();
        let mut step = move || {
            let params = [
                ("ks", session.as_str()),
                ("filter[updatedAtGreaterThanOrEqual]", &from),
                ("filter[systemNameIn]", "KMC-PREVIEW,LECTURE"),
                ("filter[statusIn]", "1,2"),
                ("orderBy", "+expiresAt"),
                ("pager[pageIndex]", "1000"),
            ];
            connection.call("list", &params)?;
            Ok(1)
        };
        if number == 0 {
            // After many changes, the first ones come from the store, and have the links read into memory again.
            let is_quick = |_| {
                let since = Instant::now();
                step().map(|_: u64| since.elapsed() < LISTED_FROM_MEMORY)
            };
            let quick = (0..LISTS_MAX)
                .map(is_quick)
                .find(|is_quick| !matches!(is_quick, Ok(false)));
            ensure!(quick.transpose()?.is_some(), "lists are not answered from memory");
        }
        self.client(step);
        Ok(())
    }

    fn import(&mut self, target: &Target) {
        let (file, imported, url) = (
            target.scratch.join("import.jsonl"),
            Arc::clone(&target.imported),
            target.url(),
        );
        let config = target.tinyd.config().to_string_lossy().into_owned();
        let (step, policy) = if target.imports_again {
            (0, "update")
        } else {
            (IMPORTED, "fail")
        };
        self.client(move || {
            let first = FIRST_IMPORTED + imported.fetch_add(step, Ordering::Relaxed);
            links::write_lines_of(&file, Kind::Named, first..first + IMPORTED)?;
            let file = file.to_string_lossy();
            let args = [
                "import",
                "--on-conflict",
                policy,
                "--url",
                &url,
                "--config",
                &config,
                &file,
            ];
            tinyd::run_at(Place::Aside, &args)?;
            Ok(IMPORTED)
        });
    }

    fn back_up(&mut self, target: &Target) {
        let (file, url) = (target.scratch.join("backup.redb"), target.url());
        let config = target.tinyd.config().to_string_lossy().into_owned();
        self.client(move || {
            let file = file.to_string_lossy();
            let args = ["backup", "--overwrite", "--url", &url, "--config", &config, &file];
            tinyd::run_at(Place::Aside, &args)?;
            Ok(1)
        });
    }

    fn checkpoint(&mut self, target: &Target) -> Result<()> {
        let (admin, session, run) = (target.tinyd.admin, target.session.clone(), target.next_run());
        let (mut connection, mut number) = (Connection::open(admin)?, 0);
        self.client(move || {
            let mut params = vec![("ks".to_owned(), session.clone())];
            for call in 1..=CHECKPOINTED {
                number += 1;
                let url = links::destination(run << 32 | number);
                let words = [
                    ("service", "shortlink_shortlink"),
                    ("action", "add"),
                    ("shortLink:systemName", "CHECKPOINT"),
                    ("shortLink:fullUrl", &url),
                ];
                params.extend(words.map(|(name, value)| (format!("{call}:{name}"), value.to_owned())));
            }
            let params: Vec<_> = params
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let before = tinyd::metric(admin, CHECKPOINTS)?;
            let results = connection.call_at("multirequest", &params)?;
            let added = results
                .as_array()
                .into_iter()
                .flatten()
                .filter(|result| result.get("id").is_some());
            let added = added.count();
            ensure!(added == CHECKPOINTED, "{added} of {CHECKPOINTED} links were added");
            thread::sleep(IDLE);
            let written = tinyd::metric(admin, CHECKPOINTS)? - before;
            Ok(written as u64)
        });
        Ok(())
    }

    /// Has all links clicked after a flush, and waits until the next one is near.
    fn click(&mut self, target: &Target) -> Result<()> {
        let admin = target.tinyd.admin;
        let batches = || tinyd::metric(admin, BATCHES);
        let (before, mut flushed) = (batches()?, Instant::now());
        let limit = flushed + 3 * FLUSH_INTERVAL;
        ask_all(target, 1)?;
        while batches()? <= before {
            ensure!(Instant::now() < limit, "no clicks were written");
            thread::sleep(LOOK_INTERVAL);
            flushed = Instant::now();
        }
        let seconds = (FLUSH_INTERVAL - 3 * BEFORE_FLUSH).as_secs();
        ask_all(target, seconds)?;
        thread::sleep((flushed + FLUSH_INTERVAL - BEFORE_FLUSH).saturating_duration_since(Instant::now()));
        let (seen, is_over, done) = (batches()? as u64, Arc::clone(&self.is_over), Arc::clone(&self.done));
        self.clients.push(thread::spawn(move || {
            Place::Aside.take_this_thread()?;
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(LOOK_INTERVAL);
            }
            done.store(tinyd::metric(admin, BATCHES)? as u64 - seen, Ordering::Relaxed);
            Ok(())
        }));
        Ok(())
    }

    fn reload(&mut self, target: &Target) -> Result<()> {
        let id = i32::try_from(target.tinyd.process.id())?;
        let pid = Pid::from_raw(id).context("no process")?;
        let log = target.tinyd.log_file();
        let reloads =
            move || Ok::<_, anyhow::Error>(std::fs::read_to_string(&log)?.matches("configuration reloaded").count());
        self.client(move || {
            let before = reloads()?;
            kill_process(pid, Signal::HUP)?;
            thread::sleep(RELOAD_INTERVAL);
            Ok((reloads()? - before) as u64)
        });
        Ok(())
    }
}

/// Has clients ask for all links, as often as they can.
fn ask_all(target: &Target, seconds: u64) -> Result<()> {
    let ids = target.scratch.join("clicked-ids");
    if !ids.exists() {
        links::write_ids(&ids, (0..target.links).map(links::id))?;
    }
    let script = wrk::goto(&target.scratch, "clicked", &ids, Manner::KeepAlive)?;
    let url = format!("http://{}", target.tinyd.public);
    let run = wrk::run_without_errors(Place::Aside, &url, &script, CLICKERS, seconds, target.next_run())?;
    if run.requests == 0 {
        bail!("no link was asked for");
    }
    Ok(())
}
