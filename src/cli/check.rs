//! `tinyd check`: validates the settings and prints them.

use std::io::{self, Write as _};

use crate::cli::SettingArgs;
use crate::cli::exit::CliError;
use crate::config::Settings;

pub(super) const EXAMPLES: &str = "\
Exits with 0 if the settings are valid, else with 2. Starts nothing and
changes nothing. Flags and variables are those of tinyd serve.

Example:
  tinyd check --config /etc/tinyd/tinyd.toml";

pub(super) fn run(args: &SettingArgs) -> Result<(), CliError> {
    let settings = Settings::load(&args.overrides())?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}: ok", settings.config.display())?;
    let base = settings.short_url_base();
    writeln!(out, "short URLs: {base}/tiny/ID")?;
    for (what, addresses) in [("redirects", &settings.public_listen), ("API", &settings.admin_listen)] {
        for address in addresses {
            let is_local = address.ip().is_loopback();
            let reach = if is_local {
                "this machine only"
            } else {
                "other machines can reach it"
            };
            writeln!(out, "{what}: {address}, {reach}")?;
        }
    }
    for warning in &settings.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(
        out,
        "\nEffective settings, defaults included; of secrets, their number:"
    )?;
    for line in settings.effective() {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
