//! `tinyd completions` and `tinyd man`: what the arguments and the table of settings generate.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::cli::exit::CliError;
use crate::cli::{Cli, NAME};
use crate::config::{FILE_NAME, reference};

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tinyd completions bash > /etc/bash_completion.d/tinyd
  tinyd completions zsh > \"${fpath[1]}/_tinyd\"
  tinyd completions fish > ~/.config/fish/completions/tinyd.fish
  tinyd completions bash --name tinyd-admin > /etc/bash_completion.d/tinyd-admin";

pub(super) const MAN_EXAMPLES: &str = "\
Example:
  tinyd man /usr/local/share/man";

const EXAMPLE: [&str; 6] = [
    "[public]",
    "listen = [\"0.0.0.0:80\", \"[::]:80\"]",
    "url = \"https://go.example.com\"",
    "[[partner]]",
    "id = 1234567",
    "admin_secret_file = \"credentials/admin_secret\"",
];

/// The name goes into scripts that shells run.
pub(super) fn command_name(name: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_plain) {
        Ok(name.to_owned())
    } else {
        Err("expected letters, digits and hyphens, beginning with a letter".to_owned())
    }
}

pub(super) fn completions(shell: Shell, name: &str) -> Result<(), CliError> {
    // Of a name with a hyphen, clap_complete writes a script for bash that completes nothing.
    let generated = match shell {
        Shell::Bash => name.replace('-', "_"),
        _ => name.to_owned(),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), &generated, &mut script);
    let mut out = io::stdout().lock();
    for line in String::from_utf8(script)?.lines() {
        let registered = line
            .strip_suffix(&generated)
            .filter(|start| start.trim_start().starts_with("complete -F "));
        match registered {
            Some(start) => writeln!(out, "{start}{name}")?,
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(out.flush()?)
}

/// Writes `man1/tinyd.1`, `man1/tinyd-COMMAND.1` for each command, and `man5/tinyd.toml.5`.
pub(super) fn man(folder: &Path) -> Result<(), CliError> {
    let failed = || format!("cannot write man pages into {}", folder.display());
    let (commands, files) = (folder.join("man1"), folder.join("man5"));
    for folder in [&commands, &files] {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).with_context(failed)?,
            _ => {}
        }
    }
    clap_mangen::generate_to(Cli::command(), &commands).with_context(failed)?;
    fs::write(files.join(format!("{FILE_NAME}.5")), settings_page()).with_context(failed)?;
    Ok(())
}

/// tinyd.toml(5), from the table of settings.
fn settings_page() -> String {
    let mut page = Roff::new();
    let source = format!("{NAME} {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", [FILE_NAME, "5", "", &source, ""]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{FILE_NAME} - configuration of tinyd"))]);
    page.control("SH", ["DESCRIPTION"]);
    let paragraphs = [
        "A TOML file. The service reads `/etc/tinyd/tinyd.toml`; `tinyd serve` reads `tinyd.toml` in its data folder, \
         or the file of `--config` (`TINYD_CONFIG`). All settings are optional; the API needs a `[[partner]]`. \
         A path is relative to the folder of the file.",
        "A flag overrides its environment variable, which overrides the file. tinyd refuses unknown keys and wrong \
         values. Check the file with `tinyd check`, apply it with SIGHUP or a restart, as each setting says.",
    ];
    for paragraph in paragraphs {
        page.control("PP", []);
        page.text(inlines(paragraph));
    }
    page.control("SH", ["SETTINGS"]);
    for (heading, sections) in reference::HEADINGS {
        page.control("SS", [heading.replace('`', "").as_str()]);
        for key in reference::keys_of(sections) {
            page.control("TP", []);
            page.text([bold(key.name)]);
            let parts = [key.doc, key.why, &reference::conditions(key)].map(str::to_owned);
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            page.text(inlines(&parts.join(" ")));
        }
    }
    page.control("SH", ["EXAMPLE"]);
    page.control("nf", []);
    for line in EXAMPLE {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold(NAME), roman("(1), "), bold("tinyd-check"), roman("(1)")]);
    page.render()
}

/// Text in which backquotes enclose what is typed as it is.
fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts
        .map(|(number, part)| if number % 2 == 0 { roman(part) } else { bold(part) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn every_setting_is_in_the_man_page() {
        let page = settings_page();
        for key in keys::ALL {
            let name = bold(key.name);
            let line = Roff::new().text([name]).render();
            let line = line.lines().last().unwrap();
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains('`'), "{page}");
    }

    #[test]
    fn command_names_that_shells_would_run_are_refused() {
        assert_eq!(command_name("tinyd-admin").as_deref(), Ok("tinyd-admin"));
        for name in ["", "-x", "a b", "a;b", "$(a)", "a/b"] {
            assert!(command_name(name).is_err(), "{name}");
        }
    }
}
