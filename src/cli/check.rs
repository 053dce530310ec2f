//! `tinyd check`: validates the settings and says what they mean.

use std::io::{self, Write as _};

use clap::Args;

use crate::cli::SettingArgs;
use crate::cli::exit::CliError;
use crate::config::{LogFormat, Settings};
use crate::fetch::FetchSettings;
use crate::redirect::Tiny;

const EXAMPLES: &str = "\
Ends with 0 if the settings are right, with 2 if not. Starts nothing and changes
nothing. Flags and environment count as they would for tinyd serve.

Example:
  tinyd check --config /etc/tinyd/tinyd.toml";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    settings: SettingArgs,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), CliError> {
    let settings = Settings::load(&args.settings.overrides())?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}: ok", settings.config.display())?;
    writeln!(out, "data folder        {}", settings.data_dir.display())?;
    for address in &settings.public_listen {
        let reach = if address.ip().is_loopback() {
            ", this machine only"
        } else {
            ""
        };
        writeln!(out, "redirects          on {address}{reach}")?;
    }
    let base = settings.short_url_base();
    match settings.tiny {
        Tiny::Hop => writeln!(out, "short URLs         {base}/tiny/ID: 301 to goto, which answers 302")?,
        Tiny::Direct => writeln!(out, "short URLs         {base}/tiny/ID: 302 at once")?,
    }
    writeln!(out, "                   by {} threads", settings.threads)?;
    for address in &settings.admin_listen {
        let reach = if address.ip().is_loopback() {
            "this machine only"
        } else {
            "other machines can reach it"
        };
        writeln!(out, "API                on {address}, {reach}")?;
    }
    writeln!(out, "API bodies         up to {} bytes", settings.body_max_bytes)?;
    writeln!(out, "new ids            {} characters", settings.id_length)?;
    let counted = if settings.count_clicks {
        "counted"
    } else {
        "not counted"
    };
    writeln!(out, "clicks             {counted}")?;
    write_fetch(&mut out, settings.fetch.as_ref())?;
    let format = if settings.log_format == LogFormat::Json {
        "json"
    } else {
        "text"
    };
    writeln!(out, "log                {}, as {format}", settings.log)?;
    let mut ids: Vec<_> = settings.partners.ids().collect();
    ids.sort();
    for id in ids {
        if let Some(partner) = settings.partners.get(id) {
            let (admin, user) = (partner.admin_secrets.len(), partner.user_secrets.len());
            writeln!(
                out,
                "partner {id:<10} {admin} admin secret(s), the first one signs; {user} user secret(s)"
            )?;
        }
    }
    for warning in &settings.warnings {
        writeln!(out, "warning            {warning}")?;
    }
    writeln!(out, "\nIn force, defaults included; of secrets, how many there are:")?;
    for line in settings.in_force() {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn write_fetch(out: &mut impl io::Write, fetch: Option<&FetchSettings>) -> io::Result<()> {
    let Some(fetch) = fetch else {
        return writeln!(out, "proxy=true         ignored, goto redirects");
    };
    let words = |words: Vec<String>| words.join(", ");
    let ports = words(fetch.ports.iter().map(ToString::to_string).collect());
    writeln!(out, "proxy=true         fetches from ports {ports} of public addresses")?;
    if !fetch.allow.is_empty() {
        let networks = words(fetch.allow.iter().map(ToString::to_string).collect());
        writeln!(out, "                   and of {networks}")?;
    }
    if !fetch.trusted_hosts.is_empty() {
        let hosts = words(fetch.trusted_hosts.iter().map(ToString::to_string).collect());
        writeln!(out, "                   with scripts as if they were ours from {hosts}")?;
    }
    let (all, each) = (fetch.fetches, fetch.fetches_per_client);
    writeln!(out, "                   {all} at a time, {each} for one client")
}
