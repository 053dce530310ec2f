//! The command line: one file a subcommand, or two of a kind.

mod audit;
mod check;
mod client;
mod cluster;
mod console;
mod exit;
mod from_kaltura;
mod generated;
mod ks;
mod link;
mod log;
mod progress;
#[cfg(test)]
mod runbooks;
mod secure;
mod serve;
mod status;
mod store;
mod time;
mod transfer;
mod units;
mod user;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::exit::{CliError, Failure};
use crate::config::Overrides;
use crate::config::keys::{self, Key, ValueKind};
use crate::model::shown;
use crate::server;

const NAME: &str = "tinyd";

const EXAMPLES: &str = "\
Examples:
  tinyd serve                                  start with a new data folder here
  tinyd link add https://example.com/video --system-name PREVIEW
  tinyd status                                 show health of a running server
  tinyd link list --status enabled --order -createdAt
  tinyd console                                open the web console
  tinyd link update 67mk41xj --status disabled
  tinyd backup /backup/links.redb
  tinyd export --format csv links.csv
  tinyd ks --user me --type admin              print a Kaltura session
  tinyd completions bash > /etc/bash_completion.d/tinyd

Exit codes:
  0 success   1 failure   2 usage or settings invalid   3 no such link
  4 not allowed   5 value rejected   6 server not reached
  7 store unavailable, or outcome unknown   8 partial success";

const CLIENT_HELP: &str = "\
Signs a session with the secret in the configuration, or uses the one in
TINYD_KS. --url selects another server. With both, no configuration is needed.

Examples:
  tinyd link add https://example.com/video --system-name PREVIEW
  tinyd link list --system-name PREVIEW
  tinyd user delete editor@example.com";

/// A redirect appliance for short links that speaks Kaltura's Short Link API.
#[derive(Debug, Parser)]
#[command(name = NAME, version, about, after_help = EXAMPLES, propagate_version = true, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve redirects and the API.
    Serve(serve::ServeArgs),
    /// Show health, traffic and errors of a running server.
    Status(status::StatusArgs),
    /// Print a Kaltura session (KS), signed with the partner's admin secret.
    Ks(ks::KsArgs),
    /// Add, show, list, update, delete and restore links.
    #[command(subcommand, after_help = CLIENT_HELP)]
    Link(link::LinkCommand),
    /// Export all links as JSON Lines or CSV.
    Export(transfer::ExportArgs),
    /// Import links from JSON Lines, CSV or a Kaltura account.
    Import(transfer::ImportArgs),
    /// Show who changed what, and when.
    Audit(audit::AuditArgs),
    /// Back up the store, online or offline.
    Backup(store::BackupArgs),
    /// Check a store for corruption.
    #[command(after_help = store::VERIFY_EXAMPLES)]
    Verify(store::FileArgs),
    /// Compact the store to reclaim disk space.
    #[command(after_help = store::COMPACT_EXAMPLES)]
    Compact(store::FileArgs),
    /// Make a cluster, join it, and show its boxes.
    #[command(subcommand, after_help = cluster::EXAMPLES)]
    Cluster(cluster::ClusterCommand),
    /// Print a link that signs a browser in to the web console.
    Console(console::ConsoleArgs),
    /// Manage users' links.
    #[command(subcommand, after_help = CLIENT_HELP)]
    User(user::UserCommand),
    /// Validate the configuration and print effective settings.
    #[command(after_help = check::EXAMPLES)]
    Check(SettingArgs),
    /// Generate shell completions.
    #[command(after_help = generated::COMPLETIONS_EXAMPLES)]
    Completions {
        /// Shell
        shell: Shell,

        /// Name of the command to complete
        #[arg(long, value_name = "NAME", default_value = NAME, value_parser = generated::command_name)]
        name: String,
    },
    /// Write the man pages into a folder.
    #[command(after_help = generated::MAN_EXAMPLES)]
    Man {
        /// An existing folder; the pages are in man1 and man5 below it
        folder: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// Configuration file [default: tinyd.toml in the data folder]
    #[arg(long, value_name = "FILE", env = "TINYD_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,

    /// Data folder [default: from the file, else ./tinyd-data]
    #[arg(long, value_name = "DIR", env = "TINYD_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
}

impl ConfigArgs {
    fn overrides(&self) -> Overrides {
        // Clients have no flags for the listeners of the server, but need its variables.
        let of_environment = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let listeners = [&keys::PUBLIC_LISTEN, &keys::ADMIN_LISTEN].into_iter();
        let listeners = listeners.filter_map(|key| Some((key.flag?, of_environment(&key.variable()?)?)));
        Overrides {
            config: self.config.clone(),
            data: self.data.clone(),
            credentials: of_environment("CREDENTIALS_DIRECTORY")
                .iter()
                .flat_map(|folders| std::env::split_paths(folders).collect::<Vec<_>>())
                .collect(),
            flags: listeners.collect(),
        }
    }
}

/// A flag for each setting that has one.
#[derive(Debug)]
struct SettingArgs {
    config: ConfigArgs,
    flags: BTreeMap<&'static str, String>,
}

/// The settings with flags; the data folder is an argument of [`ConfigArgs`].
fn setting_flags() -> impl Iterator<Item = (&'static str, &'static Key)> {
    let flags = keys::ALL.iter().filter_map(|key| Some((key.flag?, *key)));
    flags.filter(|(flag, _)| *flag != "data")
}

impl Args for SettingArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let argument = |(flag, key): (&'static str, &'static Key)| {
            let default = key.default_text().map(|default| format!(" [default: {default}]"));
            let default = default.unwrap_or_default();
            let value_name = match key.kind {
                ValueKind::Number(..) => "NUMBER",
                ValueKind::Choice(_) => "CHOICE",
                ValueKind::Flag => "true|false",
                ValueKind::Texts(..) => "IP:PORT,…",
                _ => "TEXT",
            };
            let argument = clap::Arg::new(flag)
                .long(flag)
                .value_name(value_name)
                .help(format!("{}{default}", key.doc.replace('`', "")));
            match key.variable() {
                Some(variable) => argument.env(variable).hide_env_values(true),
                None => argument,
            }
        };
        ConfigArgs::augment_args(command).args(setting_flags().map(argument))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let given = |(flag, _)| Some((flag, matches.get_one::<String>(flag)?.clone()));
        Ok(Self {
            config: ConfigArgs::from_arg_matches(matches)?,
            flags: setting_flags().filter_map(given).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SettingArgs {
    fn overrides(&self) -> Overrides {
        let mut overrides = self.config.overrides();
        overrides.flags.extend(self.flags.clone());
        overrides
    }
}

/// The arguments without variables of the environment that are empty: those count as not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let without = |argument: clap::Arg| match argument.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => argument.env(None::<&'static str>),
        _ => argument,
    };
    command.mut_args(without).mut_subcommands(without_empty_variables)
}

pub fn main() -> ExitCode {
    let mut arguments = without_empty_variables(Cli::command());
    let cli = Cli::from_arg_matches(&arguments.get_matches_mut()).map_err(|error| error.format(&mut arguments));
    let command = cli.unwrap_or_else(|error| error.exit()).command;
    let is_service = matches!(command, Command::Serve(_));
    // redb panics on some pages that something else has changed.
    let result = catch_unwind(AssertUnwindSafe(|| run(command))).unwrap_or_else(|_| {
        let text = format!(
            "tinyd ended because of the panic above: if it names redb, the store is damaged. Run {} verify on a copy \
             of it, or restore a backup",
            shown::command()
        );
        Err(Failure::Other.error(text))
    });
    if let (true, Err(error)) = (is_service, &result) {
        server::failed(&format!("{:#}", error.error));
    }
    exit::report(result)
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Ks(args) => ks::run(&args),
        Command::Link(command) => link::run(&command),
        Command::Export(args) => transfer::export(&args),
        Command::Import(args) => transfer::import(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Backup(args) => store::backup(&args),
        Command::Verify(args) => store::verify(&args),
        Command::Compact(args) => store::compact(&args),
        Command::Cluster(command) => cluster::run(&command),
        Command::Console(args) => console::run(&args),
        Command::User(command) => user::run(&command),
        Command::Check(args) => check::run(&args),
        Command::Completions { shell, name } => generated::completions(shell, &name),
        Command::Man { folder } => generated::man(&folder),
    }
}
