//! Whether the units of the packaged service fit its settings, so that a restart does not fail on that.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::cli::exit::{CliError, Failure};
use crate::config::Settings;
use crate::model::shown;

const SOCKET: &str = "tinyd.socket";
const SERVICE: &str = "tinyd.service";
/// The first port that needs no capability, where the kernel does not say.
const FREE_PORTS_DEFAULT: u16 = 1024;

/// What was compared, and what is not as it is best.
#[derive(Debug, Default)]
pub(super) struct Fit {
    pub(super) found: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// The units as the service manager has loaded them.
#[derive(Debug, Default)]
struct Units {
    /// Of the socket; empty if that is masked or missing.
    listens: Vec<String>,
    credentials: Credentials,
    may_bind_low_ports: bool,
    /// Units whose files have changed since.
    stale: Vec<&'static str>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Credentials {
    loaded: BTreeSet<String>,
    set: BTreeSet<String>,
}

/// Compares the settings with the units. Where there is no systemd, it only says so.
pub(super) fn compare(settings: &Settings) -> Result<Fit, CliError> {
    let units = match Units::read() {
        Ok(units) => units,
        Err(reason) => {
            return Ok(Fit {
                found: vec![format!("units: not compared: {reason}")],
                ..Fit::default()
            });
        }
    };
    let mut problems = units.wrong_addresses(settings);
    problems.extend(units.missing_credentials(settings));
    let stale = |unit: &&str| format!("{unit} has changed on disk: run systemctl daemon-reload");
    if problems.is_empty() {
        let mut warnings = units.own_listeners(settings);
        warnings.extend(units.stale.iter().map(stale));
        let found = vec![format!("units: {SOCKET} and {SERVICE} fit")];
        return Ok(Fit { found, warnings });
    }
    problems.extend(units.stale.iter().map(stale));
    let config = settings.config.display();
    Err(Failure::Usage.error(format!("{config} does not fit the units: {}", problems.join("; "))))
}

impl Units {
    fn read() -> Result<Self, String> {
        let properties = "--property=LoadState,NeedDaemonReload,Listen,AmbientCapabilities";
        let [socket, service] = [SOCKET, SERVICE].map(|unit| systemctl(&["show", properties, unit]));
        let (socket, service) = (socket?, service?);
        // `show` prints no credentials before systemd 254.
        let credentials = Credentials::of(&systemctl(&["cat", SERVICE])?);
        let is_loaded = values(&socket, "LoadState").any(|state| state == "loaded");
        let is_stale = |shown: &str| values(shown, "NeedDaemonReload").any(|needed| needed == "yes");
        let stale = [(SOCKET, &socket), (SERVICE, &service)].into_iter();
        Ok(Self {
            listens: values(&socket, "Listen")
                .filter(|_| is_loaded)
                .map(str::to_owned)
                .collect(),
            credentials,
            may_bind_low_ports: values(&service, "AmbientCapabilities").any(|all| all.contains("cap_net_bind_service")),
            stale: stale
                .filter(|(_, shown)| is_stale(shown))
                .map(|(unit, _)| unit)
                .collect(),
        })
    }

    fn wrong_addresses(&self, settings: &Settings) -> Vec<String> {
        let named = addresses(settings);
        let is_unknown = |listen: &&String| !tcp_address(listen).is_some_and(|address| named.contains(&address));
        let unknown = self.listens.iter().filter(is_unknown).map(|listen| {
            let address = listen.split(' ').next().unwrap_or(listen);
            format!("{SOCKET} listens on {address}, which no listen names, so tinyd would not start")
        });
        let first_free = first_free_port();
        let low = self
            .own(settings)
            .into_iter()
            .filter(|address| (1..first_free).contains(&address.port()) && !self.may_bind_low_ports);
        let low = low.map(|address| {
            format!("{address} is not in {SOCKET}, and tinyd may not open a port below {first_free} itself")
        });
        unknown.chain(low).collect()
    }

    /// What tinyd opens itself beside a socket unit.
    fn own_listeners(&self, settings: &Settings) -> Vec<String> {
        if self.listens.is_empty() {
            return Vec::new();
        }
        let own = self.own(settings).into_iter();
        own.map(|address| format!("{address} is not in {SOCKET}: connections to it are refused during a restart"))
            .collect()
    }

    fn own(&self, settings: &Settings) -> Vec<SocketAddr> {
        let inherited: Vec<_> = self.listens.iter().filter_map(|listen| tcp_address(listen)).collect();
        let named = addresses(settings).into_iter();
        named.filter(|address| !inherited.contains(address)).collect()
    }

    fn missing_credentials(&self, settings: &Settings) -> Vec<String> {
        let names: BTreeSet<_> = settings.credentials.iter().collect();
        let missing = names.into_iter().filter(|name| !self.credentials.have(name));
        missing
            .map(|name| {
                let name = shown::line(name);
                format!("{SERVICE} has no LoadCredential= for the credential {name}: add it in a drop-in")
            })
            .collect()
    }
}

impl Credentials {
    /// Of the files of a unit, as `systemctl cat` prints them one after the other.
    fn of(files: &str) -> Self {
        let mut credentials = Self::default();
        let files = files.replace("\\\n", " ");
        for (key, value) in files.lines().filter_map(|line| line.trim().split_once('=')) {
            let (key, value) = (key.trim_end(), value.trim());
            let names = match key {
                "LoadCredential" | "LoadCredentialEncrypted" | "ImportCredential" => &mut credentials.loaded,
                "SetCredential" | "SetCredentialEncrypted" => &mut credentials.set,
                _ => continue,
            };
            match value.split(':').next() {
                None | Some("") => names.clear(),
                Some(name) => drop(names.insert(name.to_owned())),
            }
        }
        credentials
    }

    /// Also those of a folder, whose names begin with that of the folder's credential.
    fn have(&self, name: &str) -> bool {
        let is_it = |known: &String| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => {
                name == known
                    || name
                        .strip_prefix(known.as_str())
                        .is_some_and(|rest| rest.starts_with('_'))
            }
        };
        self.loaded.iter().any(is_it) || self.set.contains(name)
    }
}

fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("systemctl").arg("--no-pager").args(arguments).output();
    let output = output.map_err(|error| format!("systemctl: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.lines().next().unwrap_or("failed");
    Err(format!("systemctl: {}", shown::line(reason)))
}

/// The values of a property, which `systemctl show` prints a line each.
fn values<'s>(shown: &'s str, property: &'s str) -> impl Iterator<Item = &'s str> {
    let lines = shown.lines().filter_map(|line| line.split_once('='));
    lines.filter(move |(name, _)| *name == property).map(|(_, value)| value)
}

/// Of a value such as `127.0.0.1:8080 (Stream)`.
fn tcp_address(listen: &str) -> Option<SocketAddr> {
    listen.strip_suffix(" (Stream)")?.parse().ok()
}

/// The addresses of all listeners, without those whose port the kernel chooses.
fn addresses(settings: &Settings) -> Vec<SocketAddr> {
    let addresses = settings.addresses();
    let all = addresses
        .public
        .iter()
        .chain(&addresses.admin)
        .chain(&addresses.console);
    all.map(|(_, address)| *address)
        .filter(|address| address.port() != 0)
        .collect()
}

fn first_free_port() -> u16 {
    let configured = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let configured = configured.ok().and_then(|text| text.trim().parse().ok());
    configured.unwrap_or(FREE_PORTS_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_drop_ins_are_those_after_the_last_empty_line() {
        let unit = "# /usr/lib/systemd/system/tinyd.service\n[Service]\nLoadCredential=admin_secret:/etc/a\n";
        let drop_in = "\n# /etc/systemd/system/tinyd.service.d/x.conf\n[Service]\nLoadCredential=\n\
                       LoadCredentialEncrypted=user_secret:/etc/u\nSetCredential=set:text\nImportCredential=tinyd.*\n";
        assert!(Credentials::of(unit).have("admin_secret"));
        let both = Credentials::of(&format!("{unit}{drop_in}"));
        for (name, is_there) in [
            ("admin_secret", false),
            ("user_secret", true),
            ("user_secret_more", true),
            ("user", false),
            ("set", true),
            ("tinyd.key", true),
        ] {
            assert_eq!(both.have(name), is_there, "{name}");
        }
        let folder = Credentials::of("LoadCredential=tinyd:\\\n  /etc/tinyd/credentials\n");
        assert!(folder.have("tinyd_admin_secret") && !folder.have("admin_secret"));
    }
}
