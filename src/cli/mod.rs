//! The command line: one file a subcommand.

mod check;
mod client;
mod completions;
mod exit;
mod ks;
mod link;
mod log;
mod man;
mod progress;
mod serve;
mod shown;
mod status;
mod store;
mod time;
mod transfer;
mod user;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::cli::exit::{CliError, Failure};
use crate::config::Overrides;

const EXAMPLES: &str = "\
Examples:
  tinyd serve                                  start with a new data folder here
  tinyd link add https://example.com/video --system-name PREVIEW
  tinyd status                                 how a running appliance is
  tinyd link list --status enabled --order -createdAt
  tinyd link update 67mk41xj --status disabled
  tinyd backup /backup/links.redb
  tinyd export --format csv links.csv
  tinyd ks --user me --type admin              print a Kaltura session
  tinyd completions bash > /etc/bash_completion.d/tinyd

Exit codes:
  0 done   1 failed   2 wrong usage or settings   3 no such link   4 not allowed
  5 value refused   6 appliance not reached   7 store unavailable, or outcome unknown
  8 done, but not for everything";

const CLIENT_HELP: &str = "\
Signs a session of its own with the secret of the configuration. TINYD_KS in the
environment gives it another one, and --url another appliance; with both, no
configuration is needed.

Examples:
  tinyd link add https://example.com/video --system-name PREVIEW
  tinyd link list --system-name PREVIEW
  tinyd user delete editor@example.com";

/// A redirect appliance for short links that speaks Kaltura's Short Link API.
#[derive(Debug, Parser)]
#[command(name = "tinyd", version, about, after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve redirects and the API.
    Serve(serve::ServeArgs),
    /// Say how a running appliance is: healthy or not and why, rates, errors, memory.
    Status(status::StatusArgs),
    /// Print a Kaltura session (KS), signed with the partner's admin secret.
    Ks(ks::KsArgs),
    /// Add, get, list, update, delete and restore links through the admin listener.
    #[command(subcommand, after_help = CLIENT_HELP)]
    Link(link::LinkCommand),
    /// Write all links to a file, as JSON Lines or CSV.
    Export(transfer::ExportArgs),
    /// Bring links in from a file.
    Import(transfer::ImportArgs),
    /// Write a backup of the store, of a running appliance too.
    Backup(store::BackupArgs),
    /// Find out whether a store is whole.
    Verify(store::VerifyArgs),
    /// Make a store's file smaller.
    Compact(store::CompactArgs),
    /// Act on users through the admin listener.
    #[command(subcommand, after_help = CLIENT_HELP)]
    User(user::UserCommand),
    /// Check the settings and say what they mean.
    Check(check::CheckArgs),
    /// Print a script that completes tinyd's arguments in a shell.
    Completions(completions::CompletionsArgs),
    /// Write the man pages into a folder.
    Man(man::ManArgs),
}

/// Where the settings are.
#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// The configuration file [default: tinyd.toml in the data folder]
    #[arg(long, value_name = "FILE", env = "TINYD_CONFIG")]
    config: Option<PathBuf>,

    /// The data folder [default: as the file says, else ./tinyd-data]
    #[arg(long, value_name = "DIR", env = "TINYD_DATA")]
    data: Option<PathBuf>,
}

impl ConfigArgs {
    fn overrides(&self) -> Overrides {
        // Where the appliance listens matters to its clients too, which have no flags for it.
        let of_environment = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        Overrides {
            config: self.config.clone(),
            data: self.data.clone(),
            public: of_environment("TINYD_PUBLIC"),
            admin: of_environment("TINYD_ADMIN"),
            credentials: of_environment("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            ..Overrides::default()
        }
    }
}

/// The settings that flags and environment can set.
#[derive(Debug, Args)]
struct SettingArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// Where to serve redirects: IP:PORT, several separated by commas [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "TINYD_PUBLIC")]
    public: Option<String>,

    /// Where to serve the API: IP:PORT, several separated by commas [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", env = "TINYD_ADMIN")]
    admin: Option<String>,

    /// What /tiny/ID answers: "hop", a 301 to goto as Kaltura does, or "direct", the 302 at once [default: hop]
    #[arg(long, value_name = "HOW", env = "TINYD_TINY")]
    tiny: Option<String>,

    /// Threads that serve redirects, 1 to 256 [default: one for each core]
    #[arg(long, value_name = "NUMBER", env = "TINYD_THREADS")]
    threads: Option<String>,

    /// Length of new ids, 4 to 20 [default: 8]
    #[arg(long, value_name = "CHARACTERS", env = "TINYD_ID_LENGTH")]
    id_length: Option<String>,

    /// Levels of the log on standard error: error, warn, info, debug, trace, off [default: info]
    #[arg(long, value_name = "LEVEL", env = "TINYD_LOG")]
    log: Option<String>,

    /// How log lines are written: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "TINYD_LOG_FORMAT")]
    log_format: Option<String>,
}

impl SettingArgs {
    fn overrides(&self) -> Overrides {
        Overrides {
            public: self.public.clone(),
            admin: self.admin.clone(),
            tiny: self.tiny.clone(),
            threads: self.threads.clone(),
            id_length: self.id_length.clone(),
            log: self.log.clone(),
            log_format: self.log_format.clone(),
            ..self.config.overrides()
        }
    }
}

/// The arguments without variables of the environment that are empty: those count as not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let without = |argument: clap::Arg| {
        let variable = argument.get_env().and_then(std::env::var_os);
        match variable {
            Some(value) if value.is_empty() => argument.env(None::<&'static str>),
            _ => argument,
        }
    };
    command.mut_args(without).mut_subcommands(without_empty_variables)
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let mut arguments = without_empty_variables(Cli::command());
    let cli = Cli::from_arg_matches(&arguments.get_matches_mut()).map_err(|error| error.format(&mut arguments));
    let command = cli.unwrap_or_else(|error| error.exit()).command;
    // redb panics on some pages that something else has changed.
    let result = catch_unwind(AssertUnwindSafe(|| run(command))).unwrap_or_else(|_| {
        let text = "tinyd ended because of the panic above: if it names redb, the store is damaged. Run tinyd verify on a copy \
                    of it, or restore a backup";
        Err(CliError::new(Failure::Other, text))
    });
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
        Command::Backup(args) => store::backup(&args),
        Command::Verify(args) => store::verify(&args),
        Command::Compact(args) => store::compact(&args),
        Command::User(command) => user::run(&command),
        Command::Check(args) => check::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
