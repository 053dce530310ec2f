//! `tinyd cluster`.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::ConfigArgs;
use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::{CliError, Failure};
use crate::cli::progress::Bars;
use crate::cli::store::{check_target, opened};
use crate::cluster::{self, ClusterSettings, KnownBox, LogLimits, LostEnd, StreamStore, Unfit};
use crate::config::Settings;
use crate::links::file::{FileFormat, LinkWriter};
use crate::model::shown;
use crate::server::DataLock;
use crate::store::{self, Concerned, FILE_NAME, Store};

pub(super) const EXAMPLES: &str = "\
Each command reads [cluster] of the configuration.

Examples:
  tinyd cluster init                    on the first box, with its links
  tinyd cluster join --url https://admin1.example.com:8081
  tinyd cluster join --from links.redb  with a backup of an admin box
  tinyd cluster status";

/// How long the servers keep messages of clicks.
const CLICKS_AGE: Duration = Duration::from_hours(24 * 30);

const INIT_EXAMPLES: &str = "\
Stop tinyd first. Makes the streams on the NATS servers; the links of this box
become those of the cluster.

Examples:
  tinyd cluster init --config /etc/tinyd/tinyd.toml
  tinyd cluster init --log-size 50 --log-days 60";

const JOIN_EXAMPLES: &str = "\
Takes the links into a data folder without links.redb, from the copy that an
admin box puts on the NATS servers every day. Refuses links of another cluster
and those that end before the log begins.

Examples:
  tinyd cluster join
  tinyd cluster join --url https://admin1.example.com:8081
  tinyd cluster join --from links.redb";

const STATUS_EXAMPLES: &str = "\
Compares the boxes by what they say of themselves within two seconds: boxes
with the same entry and digest have the same links.

Example:
  tinyd cluster status --config /etc/tinyd/tinyd.toml";

const KEY_EXAMPLES: &str = "\
Prints the role, the name and the public key of this box, for the file that
tinyd cluster include reads. The key itself never leaves its file. An existing
key is kept, so that this prints the line again.

Examples:
  tinyd cluster key /etc/tinyd/cluster.key --config /etc/tinyd/tinyd.toml
  tinyd cluster key /etc/tinyd/cluster.key >> boxes";

const INCLUDE_EXAMPLES: &str = "\
Prints the accounts with a user for each box, and where streams are kept: with
sync_interval = always. Write to the configuration of each server:
include \"tinyd.conf\". After a change, nats-server --signal reload.

Examples:
  tinyd cluster include boxes > tinyd.conf
  tinyd cluster include boxes --leaf > tinyd-leaf.conf";

const RECREATE_EXAMPLES: &str = "\
Goes on after the admin box that has the most entries, so start all of them
first. With --replace, deletes the stream that is there, if admin boxes have
all that it has.

Examples:
  tinyd cluster recreate
  tinyd cluster recreate --replace
  tinyd cluster recreate --log-size 50 --log-days 60   as with init";

const SALVAGE_EXAMPLES: &str = "\
Stop tinyd first. Writes each link that an entry concerns which this box has
and the log has not, as this box has it.

Examples:
  tinyd cluster salvage lost.jsonl
  tinyd import --on-conflict skip lost.jsonl   then, on an admin box";

const LEAVE_EXAMPLES: &str = "\
Stop tinyd first. Take [cluster] out of the configuration afterwards.

Example:
  systemctl stop tinyd
  tinyd cluster leave --config /etc/tinyd/tinyd.toml";

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make the stream of a new cluster, with the links of this box.
    #[command(after_help = INIT_EXAMPLES)]
    Init(InitArgs),
    /// Take the links of a cluster, before the first start of a box.
    #[command(after_help = JOIN_EXAMPLES)]
    Join(JoinArgs),
    /// Show the boxes of a cluster, and how far each is in the log.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(ConfigArgs),
    /// Make the key of this box, and print what the NATS servers need to know of it.
    #[command(after_help = KEY_EXAMPLES)]
    Key(KeyArgs),
    /// Print what the configuration of the NATS servers includes.
    #[command(after_help = INCLUDE_EXAMPLES)]
    Include(IncludeArgs),
    /// Make the stream anew after the NATS servers have lost it.
    #[command(after_help = RECREATE_EXAMPLES)]
    Recreate(RecreateArgs),
    /// Write the links of a box that does not fit into its cluster any more as an import file.
    #[command(after_help = SALVAGE_EXAMPLES)]
    Salvage(SalvageArgs),
    /// Take this box out of its cluster; it keeps its links.
    #[command(after_help = LEAVE_EXAMPLES)]
    Leave(ConfigArgs),
}

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// File of the key, as in key_file of [cluster]; made if it is not there
    file: PathBuf,

    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(super) struct IncludeArgs {
    /// File with the lines that tinyd cluster key prints, one for each box
    boxes: PathBuf,

    #[command(flatten)]
    config: ConfigArgs,

    /// Folder of the NATS servers for streams
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nats")]
    store_dir: String,

    /// Size of all streams of a NATS server, in GB
    #[arg(long, value_name = "NUMBER", default_value_t = 60)]
    max_file: u64,

    /// For a leaf node, with the users of edges only
    #[arg(long, conflicts_with_all = ["store_dir", "max_file"])]
    leaf: bool,
}

#[derive(Debug, Args)]
pub(super) struct SalvageArgs {
    /// Output file, JSON Lines
    file: PathBuf,

    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// NATS servers that keep the log: 3, or 5 to survive two failures
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    replicas: usize,

    /// Size of the log that the servers keep, in GB
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    log_size: u64,

    /// Days of the log that the servers keep
    #[arg(long, value_name = "NUMBER", default_value_t = 30)]
    log_days: u64,

    /// Size of the stream of clicks that the servers keep, in GB
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    clicks_size: u64,
}

#[derive(Debug, Args)]
pub(super) struct RecreateArgs {
    #[command(flatten)]
    init: InitArgs,

    /// Delete the stream that is there
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    #[command(flatten)]
    client: ClientArgs,

    /// Backup of an admin box [default: the copy on the NATS servers, or with --url one over its API]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

pub(super) fn run(command: &ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Init(args) => init(args),
        ClusterCommand::Join(args) => join(args),
        ClusterCommand::Status(config) => status(config),
        ClusterCommand::Key(args) => key(args),
        ClusterCommand::Include(args) => include(args),
        ClusterCommand::Recreate(args) => recreate(args),
        ClusterCommand::Salvage(args) => salvage(args),
        ClusterCommand::Leave(config) => leave(config),
    }
}

impl InitArgs {
    const fn limits(&self) -> LogLimits {
        LogLimits {
            bytes: self.log_size * 1_000_000_000,
            age: Duration::from_hours(24 * self.log_days),
            replicas: self.replicas,
        }
    }

    const fn limits_of_clicks(&self) -> LogLimits {
        LogLimits {
            bytes: self.clicks_size * 1_000_000_000,
            age: CLICKS_AGE,
            ..self.limits()
        }
    }
}

fn settings(config: &ConfigArgs) -> Result<(Settings, ClusterSettings), CliError> {
    let settings = Settings::load(&config.overrides())?;
    match settings.cluster.clone() {
        Some(cluster) => Ok((settings, cluster)),
        None => {
            let reason = format!("{}: set servers in [cluster] first", settings.config.display());
            Err(Failure::Usage.error(reason))
        }
    }
}

pub(super) fn block_on<R>(work: impl Future<Output = Result<R, CliError>>) -> Result<R, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn failed(error: impl std::fmt::Display) -> CliError {
    Failure::Unavailable.error(error.to_string())
}

fn init(args: &InitArgs) -> Result<(), CliError> {
    let (settings, of_cluster) = settings(&args.config)?;
    let _lock = DataLock::take(&settings.data_dir)?;
    let path = settings.data_dir.join(FILE_NAME);
    let store = opened(Store::open(&path, None))?;
    let position = block_on(async {
        let nats = cluster::connected(&of_cluster).await.map_err(failed)?;
        let made = cluster::make_streams(&nats, args.limits(), args.limits_of_clicks()).await;
        let after = made.map_err(failed)?;
        store.enter_cluster(after).await.map_err(failed)
    })?;
    let name = &of_cluster.name;
    let mut out = io::stdout();
    writeln!(
        out,
        "cluster {name} made, with the links of this box (digest {})",
        position.digest
    )?;
    let command = shown::command();
    writeln!(out, "start this box, then run {command} cluster join on the others")?;
    Ok(())
}

fn join(args: &JoinArgs) -> Result<(), CliError> {
    let (settings, of_cluster) = settings(&args.client.config)?;
    let _lock = DataLock::take(&settings.data_dir)?;
    let path = settings.data_dir.join(FILE_NAME);
    if path.try_exists()? {
        let reason = format!(
            "{}: there is a store already; move it away to take the cluster's links",
            path.display()
        );
        return Err(Failure::Usage.error(reason));
    }
    let log = block_on(async { cluster::log_origin(&of_cluster).await.map_err(unfit) })?;
    let mut bars = Bars::default();
    let copied = match (&args.from, &args.client.url) {
        (Some(from), _) => opened(Store::open_verified(from))?
            .snapshot()?
            .copy_to(&path, &mut bars)
            .map(drop)
            .map_err(|error| error.to_string()),
        (None, Some(_)) => {
            let (dump, _) = Client::new(&args.client)?.stream("backup", json!({}))?;
            let restored = store::restore_dump(dump, &path, &mut bars);
            restored.map(drop).map_err(|error| error.to_string())
        }
        (None, None) => block_on(async {
            let nats = cluster::connected(&of_cluster).await.map_err(failed)?;
            let fits = |position: &_| log.check_follows(position);
            let taken = cluster::take_copy(&nats.copies(), &path, fits, &mut bars).await;
            Ok(taken.map(drop))
        })?,
    };
    drop(bars);
    copied.map_err(|error| failed(format!("cannot take the links of the cluster: {error}")))?;
    let position = opened(Store::open_read_only(&path))?.snapshot()?.position();
    let checked = match &position {
        Some(position) => log.check_follows(position),
        None => Err(format!(
            "it is not of a box in a cluster; run {} cluster init there",
            shown::command()
        )),
    };
    if let Err(reason) = checked {
        std::fs::remove_file(&path)?;
        return Err(Failure::Usage.error(format!("the copy cannot be used: {reason}")));
    }
    if let Some(position) = position {
        let (sequence, digest) = (position.sequence, position.digest);
        writeln!(io::stdout(), "joined after entry {sequence} (digest {digest})")?;
    }
    Ok(())
}

fn unfit(unfit: Unfit) -> CliError {
    match unfit {
        Unfit::Unreachable(reason) => Failure::Unreachable.error(reason),
        Unfit::Wrong(reason) => Failure::Usage.error(reason),
    }
}

fn recreate(args: &RecreateArgs) -> Result<(), CliError> {
    let (_, of_cluster) = settings(&args.init.config)?;
    let (limits, of_clicks) = (args.init.limits(), args.init.limits_of_clicks());
    let made = block_on(async {
        cluster::recreate(&of_cluster, limits, of_clicks, args.replace)
            .await
            .map_err(failed)
    })?;
    let mut out = io::stdout();
    let Some(made) = made else {
        writeln!(out, "stream of clicks, which was gone, made anew")?;
        return Ok(());
    };
    if let Some((first, last)) = made.removed {
        let stream = of_cluster.stream();
        writeln!(out, "stream {stream} with entries {first} to {last} deleted")?;
    }
    let (node, sequence) = (&made.base.node, made.base.sequence);
    writeln!(out, "stream made anew, after entry {sequence}, which {node} has")?;
    Ok(())
}

/// Makes the key if there is none yet.
fn key(args: &KeyArgs) -> Result<(), CliError> {
    let path = &args.file;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let seed = cluster::generate_key().map_err(|error| Failure::Other.error(error))?;
            writeln!(file, "{seed}")?;
            file.sync_all()?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Failure::Usage.error(format!("{}: {error}", path.display()))),
    }
    let seed = std::fs::read_to_string(path)?;
    let public = cluster::public_key(seed.trim());
    let public = public.map_err(|error| Failure::Usage.error(format!("{}: {error}", path.display())))?;
    // After the file is there, because the settings may name it.
    let (_, of_cluster) = settings(&args.config)?;
    let ClusterSettings { role, node, .. } = of_cluster;
    let known = KnownBox {
        role,
        node,
        public_key: public,
    };
    writeln!(io::stdout(), "{known}")?;
    writeln!(
        io::stderr(),
        "{}: key of this box. Add the line above to the file for {} cluster include",
        path.display(),
        shown::command()
    )?;
    Ok(())
}

fn include(args: &IncludeArgs) -> Result<(), CliError> {
    let (_, of_cluster) = settings(&args.config)?;
    let wrong = |error: String| Failure::Usage.error(format!("{}: {error}", args.boxes.display()));
    let text = std::fs::read_to_string(&args.boxes).map_err(|error| wrong(error.to_string()))?;
    let boxes = KnownBox::read_all(&text).map_err(wrong)?;
    let printed = if args.leaf {
        cluster::include_of_leaf(&of_cluster, &boxes)
    } else {
        let store = StreamStore {
            folder: args.store_dir.clone(),
            max_gigabytes: args.max_file,
        };
        cluster::include(&of_cluster, &boxes, &store)
    };
    write!(io::stdout(), "{printed}")?;
    Ok(())
}

/// Links that the entries concern which this box has and its cluster has not.
fn salvage(args: &SalvageArgs) -> Result<(), CliError> {
    let (settings, of_cluster) = settings(&args.config)?;
    let path = settings.data_dir.join(FILE_NAME);
    let store = opened(Store::open_read_only(&path))?;
    let snapshot = store.snapshot()?;
    let Some(position) = snapshot.position() else {
        return Err(Failure::Usage.error(format!("{}: it is in no cluster", path.display())));
    };
    let lost = block_on(async {
        let nats = cluster::connected(&of_cluster).await.map_err(failed)?;
        cluster::lost_end(&nats, &snapshot, &position).await.map_err(failed)
    })?;
    let concerned = match lost {
        LostEnd::Nothing => return Err(Failure::Usage.error("this box has no entry that its cluster does not have")),
        LostEnd::From(first) => Concerned::since(&snapshot, first)?,
        LostEnd::Unknown => None,
    };
    check_target(&args.file, false)?;
    let mut file = BufWriter::new(
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&args.file)?,
    );
    let mut writer = LinkWriter::new(FileFormat::JsonLines, &mut file)?;
    let mut links = 0;
    for entry in snapshot.iter()? {
        // A damaged record cannot be salvaged.
        if let Ok((_, Ok(link))) = entry
            && concerned.as_ref().is_none_or(|concerned| concerned.has(&link))
        {
            writer.write(&link)?;
            links += 1;
        }
    }
    writer.finish()?;
    let file = args.file.display();
    let what = match concerned {
        Some(_) => "links changed since the cluster went another way",
        None => "links, which are all of this box: it does not keep enough of its history to tell which it changed",
    };
    writeln!(io::stdout(), "{file}: {links} {what}")?;
    writeln!(
        io::stdout(),
        "import it on an admin box, move {} away, and join again",
        path.display()
    )?;
    Ok(())
}

fn leave(config: &ConfigArgs) -> Result<(), CliError> {
    let settings = Settings::load(&config.overrides())?;
    let _lock = DataLock::take(&settings.data_dir)?;
    let path = settings.data_dir.join(FILE_NAME);
    let left = store::leave_cluster(&path)?;
    let what = if left { "left its cluster" } else { "is in no cluster" };
    writeln!(io::stdout(), "{}: {what}", path.display())?;
    Ok(())
}

/// The size of the store of this box; 0 if there is none.
pub(super) fn store_bytes(settings: &Settings) -> u64 {
    std::fs::metadata(settings.data_dir.join(FILE_NAME)).map_or(0, |file| file.len())
}

fn status(config: &ConfigArgs) -> Result<(), CliError> {
    let (settings, of_cluster) = settings(config)?;
    let store = store_bytes(&settings);
    let (info, members, copy) = block_on(async { cluster::look(&of_cluster, store).await.map_err(failed) })?;
    let mut out = io::stdout().lock();
    let (first, last) = (info.state.first_seq, info.state.last_seq);
    writeln!(
        out,
        "cluster {}: log from {first} to {last}, {} bytes",
        of_cluster.name, info.state.bytes
    )?;
    writeln!(out, "{copy}")?;
    for replica in info.cluster.iter().flat_map(|cluster| &cluster.replicas) {
        if replica.offline || !replica.current {
            writeln!(out, "NATS server {} is not current", replica.name)?;
        }
    }
    let newest = members
        .iter()
        .max_by_key(|member| (member.epoch, member.sequence))
        .cloned();
    for member in &members {
        let behind = last.saturating_sub(member.sequence);
        let same = newest.as_ref().filter(|newest| newest.sequence == member.sequence);
        let state = match (&member.halted, same) {
            (Some(why), _) => why.clone(),
            (None, Some(newest)) if newest.chain != member.chain => "differs: another history".to_owned(),
            (None, Some(newest)) if newest.digest != member.digest => "differs: other links".to_owned(),
            (None, _) if behind > 0 => format!("{behind} behind"),
            _ => "ok".to_owned(),
        };
        let (node, role, sequence) = (&member.node, &member.role, member.sequence);
        let digest = member.digest.get(..8).unwrap_or_default();
        writeln!(
            out,
            "{node:24} {role:6} {:>3}:{sequence:<12} {digest}  {state}",
            member.epoch
        )?;
    }
    let current = members
        .iter()
        .filter(|member| member.sequence >= last && member.halted.is_none())
        .count();
    writeln!(out, "{current} of {} boxes are current", members.len())?;
    Ok(())
}
