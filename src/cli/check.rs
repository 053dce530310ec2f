//! `tinyd check`: validates the settings and prints them.

use std::io::{self, Write as _};

use crate::acme::{AcmeFolder, AcmeSettings, Origin};
use crate::cli::cluster::{block_on, store_bytes};
use crate::cli::exit::{CliError, Failure};
use crate::cli::serve::API_IS_EXPOSED;
use crate::cli::{NAME, SettingArgs, units};
use crate::cluster::{self, ClusterSettings, Unfit};
use crate::config::Settings;
use crate::model::{Clock, shown};
use crate::tls::{Certificate, CertificateError, TlsServer, UtcTime};

pub(super) const EXAMPLES: &str = "\
Exits with 0 if the settings are valid, else with 2. Starts nothing and
changes nothing. Flags and variables are those of tinyd serve.

tinyd-admin check also compares the settings with tinyd.socket and
tinyd.service, as systemd has loaded them: addresses and credentials.

With [cluster], connects to its servers for up to 5 seconds and checks them as
an admin box does: exits with 2 if an admin box would refuse writes, and with 6
if they cannot be reached.

Example:
  tinyd check --config /etc/tinyd/tinyd.toml";

pub(super) fn run(args: &SettingArgs) -> Result<(), CliError> {
    let settings = Settings::load(&args.overrides())?;
    let fit = if shown::command() == NAME {
        units::Fit::default()
    } else {
        units::compare(&settings)?
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{}: ok", settings.config.display())?;
    let base = settings.short_url_base();
    writeln!(out, "short URLs: {base}/tiny/ID")?;
    let addresses = settings.addresses();
    for (what, addresses) in [
        ("redirects", &addresses.public),
        ("API", &addresses.admin),
        ("console", &addresses.console),
    ] {
        for (scheme, address) in addresses {
            let scheme = scheme.name();
            let is_local = address.ip().is_loopback();
            let reach = if is_local {
                "this machine only"
            } else {
                "other machines can reach it"
            };
            writeln!(out, "{what}: {scheme}://{address}, {reach}")?;
        }
    }
    for (section, tls) in [("public.tls", &settings.public_tls), ("admin.tls", &settings.admin_tls)] {
        if let Some(tls) = tls {
            let server = TlsServer::new(tls, Clock::system()).map_err(|error| wrong(section, &error))?;
            for certificate in server.subscribe().borrow().certificates.all() {
                show(&mut out, section, certificate)?;
            }
            if let Some(host) = host_without_certificate(&settings, &server).filter(|_| section == "public.tls") {
                writeln!(
                    out,
                    "warning: public.url: no certificate is for {host}, so browsers will refuse it"
                )?;
            }
        }
    }
    if let Some(acme) = &settings.acme {
        say_what_is_ordered(&mut out, acme, &AcmeFolder::new(&settings.data_dir))?;
    }
    for line in &fit.found {
        writeln!(out, "{line}")?;
    }
    let inspected = settings.cluster.as_ref();
    let inspected = inspected.map(|cluster| inspect(&mut out, cluster, store_bytes(&settings)));
    if let Some(address) = settings.exposed_api() {
        writeln!(out, "warning: {API_IS_EXPOSED} ({address})")?;
    }
    for warning in settings.warnings.iter().chain(&fit.warnings) {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(
        out,
        "\nEffective settings, defaults included; of secrets, their number:"
    )?;
    for line in settings.effective() {
        writeln!(out, "{line}")?;
    }
    inspected.unwrap_or(Ok(()))
}

/// Says what a box of a cluster is, and whether it could work with its servers.
fn inspect(out: &mut impl io::Write, settings: &ClusterSettings, store: u64) -> Result<(), CliError> {
    let (role, node, name) = (settings.role.name(), &settings.node, &settings.name);
    writeln!(out, "cluster {name}: {role} box {node}")?;
    match block_on(async { Ok(cluster::inspect(settings, store).await) })? {
        Ok(found) => Ok(found
            .iter()
            .try_for_each(|found| writeln!(out, "cluster {name}: {found}"))?),
        Err(Unfit::Unreachable(reason)) => Err(Failure::Unreachable.error(format!("cluster {name}: {reason}"))),
        Err(Unfit::Wrong(reason)) => Err(Failure::Usage.error(format!("cluster {name}: {reason}"))),
    }
}

/// The host of short URLs over HTTPS, if no certificate has its name and none is ordered for it.
fn host_without_certificate(settings: &Settings, server: &TlsServer) -> Option<String> {
    let url: url::Url = settings.public_url.as_deref()?.parse().ok()?;
    let host = url.host_str().filter(|_| url.scheme() == "https")?;
    let is_ordered = settings
        .acme
        .iter()
        .any(|acme| acme.domains.iter().any(|domain| domain == host));
    let is_covered = server.subscribe().borrow().certificates.covers(host);
    (!is_ordered && !is_covered).then(|| host.to_owned())
}

fn say_what_is_ordered(out: &mut impl io::Write, acme: &AcmeSettings, folder: &AcmeFolder) -> io::Result<()> {
    let (names, directory, challenge) = (acme.domains.join(", "), &acme.directory, acme.challenge.name());
    let profile = acme
        .profile
        .as_ref()
        .map_or_else(String::new, |profile| format!(", profile {profile}"));
    writeln!(
        out,
        "ACME: a certificate for {names} from {directory}, by {challenge}{profile}"
    )?;
    match folder.certificate() {
        Ok(None) => writeln!(out, "ACME: no certificate yet; tinyd serve orders one"),
        Err(reason) => writeln!(out, "warning: {reason}; tinyd serve orders another"),
        Ok(Some((certificate, origin, _))) => {
            show(out, "acme", &certificate)?;
            if origin != Origin::of(acme) {
                writeln!(out, "ACME: the settings have changed since; tinyd serve orders another")?;
            }
            Ok(())
        }
    }
}

/// Says what a certificate is and what clients will object to.
fn show(out: &mut impl io::Write, section: &str, certificate: &Certificate) -> io::Result<()> {
    let (file, names) = (&certificate.source, certificate.names.join(", "));
    let valid_until = UtcTime(certificate.not_after);
    writeln!(
        out,
        "certificate of {section}: {file}, valid until {valid_until}, for {names}"
    )?;
    for fault in certificate.faults(Clock::system().now()) {
        writeln!(out, "warning: {file}: {fault}")?;
    }
    Ok(())
}

fn wrong(section: &str, error: &CertificateError) -> CliError {
    Failure::Usage.error(format!("{section}: {error}"))
}
