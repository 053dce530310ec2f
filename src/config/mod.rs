//! Settings: what the operator wrote, checked and turned into addresses, secrets and sizes. Only [`Settings`] travels.

mod acme;
mod branding;
mod checks;
mod cluster;
mod console;
mod error;
mod fetch;
mod first;
pub mod keys;
mod partners;
mod read;
pub mod reference;
mod tls;
mod values;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod console_tests;
#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::ConfigError;

use crate::acme::AcmeSettings;
use crate::cluster::ClusterSettings;
use crate::config::values::Values;
use crate::console::ConsoleSettings;
use crate::fetch::FetchSettings;
use crate::http::Limits;
use crate::http::connection::{Addresses, Scheme};
use crate::kaltura::LoggedAddress;
use crate::kaltura::session::Partners;
use crate::model::{PartnerId, is_local};
use crate::redirect::{Branding, Tiny};
use crate::tls::TlsSettings;

/// In the data folder.
pub const FILE_NAME: &str = "tinyd.toml";

/// What a fetch has open at a time: its connection, before that two questions for addresses, or two attempts to
/// connect.
const FILES_OF_A_FETCH: usize = 2;

/// The configuration of the packaged service.
const OF_SERVICE: &str = "/etc/tinyd/tinyd.toml";

/// What the command line and the environment say; it comes before the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub data: Option<PathBuf>,
    /// The folders with the credentials of the service manager; the first one that has a credential counts.
    pub credentials: Vec<PathBuf>,
    pub flags: BTreeMap<&'static str, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The table in [`keys`] says what each is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub config: PathBuf,
    pub data_dir: PathBuf,
    pub public_listen: Vec<SocketAddr>,
    pub public_tls: Option<TlsSettings>,
    /// Whether plain HTTP redirects to HTTPS.
    pub redirects_plain: bool,
    /// What tinyd orders for [`Self::public_tls`].
    pub acme: Option<AcmeSettings>,
    /// Challenges of other ACME clients.
    pub acme_webroot: Option<PathBuf>,
    /// The base of short URLs as people see them, without a slash at the end; `None`: as the public listener.
    pub public_url: Option<String>,
    pub tiny: Tiny,
    /// 0: any number.
    pub guesses_per_minute: u32,
    pub shut_out_guessers: bool,
    pub forgiving: bool,
    pub public_limits: Limits,
    pub admin_limits: Limits,
    /// Whether the start fails without a store.
    pub require_store: bool,
    pub drain: Duration,
    pub threads: usize,
    pub admin_listen: Vec<SocketAddr>,
    pub admin_tls: Option<TlsSettings>,
    /// `None`: there is none.
    pub console: Option<ConsoleSettings>,
    pub body_max_bytes: usize,
    pub buffered_bytes: usize,
    pub body_timeout: Duration,
    /// For pages that people see.
    pub branding: Branding,
    pub id_length: usize,
    pub destination_max_bytes: usize,
    pub count_clicks: bool,
    /// 0: none are kept.
    pub audit_entries: u64,
    /// `None`: this box is alone.
    pub cluster: Option<ClusterSettings>,
    /// `None`: `goto` with `proxy=true` redirects as without.
    pub fetch: Option<FetchSettings>,
    pub log: String,
    pub log_format: LogFormat,
    /// tinyd logs one request of so many; `None`: none at all.
    pub access_log: Option<NonZero<usize>>,
    pub access_addresses: LoggedAddress,
    pub partners: Partners,
    /// The names of credentials that these settings use.
    pub credentials: Vec<String>,
    /// What is allowed but perhaps not meant, a sentence each.
    pub warnings: Vec<String>,
    /// Every value, as it was given or by default.
    values: Values,
}

impl Settings {
    /// Reads the settings: flag or environment, then file, then default. A missing file is an error.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let settings = read::settings(&config_path(overrides), overrides);
        if overrides.data.is_some() || !Self::are_missing(overrides) {
            return settings;
        }
        settings.map_err(|error| error.beside_service(Path::new(OF_SERVICE)))
    }

    /// Whether no file is named and the data folder has none.
    pub fn are_missing(overrides: &Overrides) -> bool {
        overrides.config.is_none() && !config_path(overrides).exists()
    }

    /// As [`Settings::load`], but where no file is named and the data folder has none, makes the folder and a file with
    /// new secrets in it. Says whether it did.
    pub fn load_or_create(overrides: &Overrides) -> Result<(Self, bool), ConfigError> {
        let path = config_path(overrides);
        let created = overrides.config.is_none() && first::create(&path)?;
        Ok((read::settings(&path, overrides)?, created))
    }

    /// As [`Settings::load`], but without a file the settings are the defaults, and the API accepts no session.
    pub fn load_or_default(overrides: &Overrides) -> Result<Self, ConfigError> {
        let path = config_path(overrides);
        if Self::are_missing(overrides) {
            return read::parse("", &path, overrides);
        }
        read::settings(&path, overrides)
    }

    /// The settings that differ from `other` and apply after a restart only, by key.
    pub fn fixed_differences(&self, other: &Self) -> Vec<String> {
        let mut keys = self.values.fixed_differences(&other.values);
        // The file may have changed, and not its name.
        let authorities = |settings: &Self| settings.fetch.as_ref().map(|fetch| fetch.authorities.clone());
        let ca_file = keys::CA_FILE.path("fetch");
        let is_still_on = self.fetch.is_some() == other.fetch.is_some();
        if is_still_on && authorities(self) != authorities(other) && !keys.contains(&ca_file) {
            keys.push(ca_file);
        }
        let oidc = |settings: &Self| settings.console.as_ref().and_then(|console| console.oidc.clone());
        let secret_file = keys::OIDC_SECRET_FILE.path("console.oidc");
        if let (Some(own), Some(theirs)) = (oidc(self), oidc(other))
            && own.secret != theirs.secret
            && !keys.contains(&secret_file)
        {
            keys.push(secret_file);
        }
        let of_cluster = |settings: &Self| {
            let cluster = settings.cluster.as_ref();
            cluster.map(|cluster| (cluster.seed.clone(), cluster.authorities.clone()))
        };
        if let (Some((own_seed, own_authorities)), Some((seed, authorities))) = (of_cluster(self), of_cluster(other)) {
            for (key, is_same) in [
                (&keys::CLUSTER_KEY_FILE, own_seed == seed),
                (&keys::CLUSTER_CA_FILE, own_authorities == authorities),
            ] {
                let key = key.path("cluster");
                if !is_same && !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        let logo = keys::CONSOLE_LOGO.path("console");
        if self.branding.logo != other.branding.logo && !keys.contains(&logo) {
            keys.push(logo);
        }
        keys
    }

    /// A line for each setting and partner, defaults included. Of secrets, it says how many there are.
    pub fn effective(&self) -> Vec<String> {
        let mut lines = self.values.effective();
        let mut ids: Vec<_> = self.partners.ids().collect();
        ids.sort();
        for (id, partner) in ids.into_iter().filter_map(|id| Some((id, self.partners.get(id)?))) {
            let (admin, user) = (partner.admin_secrets.len(), partner.user_secrets.len());
            lines.push(format!(
                "partner.id = {id}, partner.admin_secret = ({admin}), partner.user_secret = ({user}), \
                partner.operator = {}, partner.destination_hosts = {}, partner.links_per_user_and_day = {}",
                partner.is_operator,
                partner.policy.hosts(" "),
                partner.policy.links_per_user_and_day
            ));
        }
        lines
    }

    /// Lowers the limits of connections, to clients and to destinations, to what there is room for, and warns of it.
    pub fn fit_connections(&mut self, room: usize) {
        // A quarter of the room at most: redirects come first.
        let fetches = self.fetch.as_ref().map_or(0, |fetch| {
            let most = (room / 4 / FILES_OF_A_FETCH).max(1);
            fetch.fetches.min(most)
        });
        let room = room.saturating_sub(fetches * FILES_OF_A_FETCH);
        // The admin listener keeps its places, so that operators can see what is going on.
        let admin = self.admin_limits.connections.min(room.div_ceil(2));
        let public = self.public_limits.connections.min((room - admin).max(1));
        let key = &keys::MAX_CONNECTIONS;
        let limits = [
            ("admin", key, &mut self.admin_limits.connections, admin),
            ("public", key, &mut self.public_limits.connections, public),
        ];
        let of_fetches = self.fetch.as_mut();
        let of_fetches = of_fetches.map(|fetch| ("fetch", &keys::MAX_FETCHES, &mut fetch.fetches, fetches));
        for (section, key, limit, fitting) in limits.into_iter().chain(of_fetches) {
            if *limit > fitting {
                self.warnings.push(format!(
                    "{} = {limit}: lowered to {fitting}, the process may not open more files (raise LimitNOFILE or \
                    ulimit -n)",
                    key.path(section)
                ));
                *limit = fitting;
            }
        }
    }

    /// The partner to use where none is named: the only one there is, or the only operator.
    pub fn default_partner(&self) -> Option<PartnerId> {
        let is_operator = |id: &PartnerId| self.partners.get(*id).is_some_and(|partner| partner.is_operator);
        let mut ids: Vec<_> = self.partners.ids().collect();
        if ids.len() > 1 {
            ids.retain(is_operator);
        }
        match ids.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    pub fn short_url_base(&self) -> String {
        self.public_url
            .clone()
            .unwrap_or_else(|| url_of(self.public_listen.first()))
    }

    pub fn addresses(&self) -> Addresses {
        let of = |plain: &[SocketAddr], tls: &Option<TlsSettings>| {
            let plain = plain.iter().map(|address| (Scheme::Http, *address));
            let secure = tls.iter().flat_map(|tls| &tls.listen);
            plain.chain(secure.map(|address| (Scheme::Https, *address))).collect()
        };
        Addresses {
            public: of(&self.public_listen, &self.public_tls),
            admin: of(&self.admin_listen, &self.admin_tls),
            console: self
                .console
                .as_ref()
                .map(|console| console.listen.clone())
                .unwrap_or_default(),
        }
    }

    /// An address at which strangers may reach the API and need no certificate.
    pub fn exposed_api(&self) -> Option<SocketAddr> {
        let is_exposed = |address: &&SocketAddr| !is_local(address.ip());
        let secure = self.admin_tls.iter().filter(|tls| tls.client_ca.is_none());
        let secure = secure.flat_map(|tls| &tls.listen);
        self.admin_listen.iter().chain(secure).find(is_exposed).copied()
    }

    /// The base of the API's URLs, as seen from this machine.
    pub fn admin_url(&self) -> String {
        url_of(self.admin_listen.first())
    }
}

/// The URL of a listener as seen from this machine: "every address" is reached by the loopback one.
fn url_of(address: Option<&SocketAddr>) -> String {
    let Some(mut address) = address.copied() else {
        return String::new();
    };
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    without_default_port(&format!("http://{address}"))
}

/// A base URL without the port that browsers leave out, 80 of http or 443 of https.
fn without_default_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let path = rest.find('/').and_then(|at| rest.split_at_checked(at));
    let (authority, path) = path.unwrap_or((rest, ""));
    let port = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else {
        ":80"
    };
    let authority = authority.strip_suffix(port).unwrap_or(authority);
    format!("{scheme}://{authority}{path}")
}

fn config_path(overrides: &Overrides) -> PathBuf {
    let default = keys::DATA_DIR.default_text().unwrap_or_default();
    let data = overrides.data.as_deref().unwrap_or_else(|| Path::new(default));
    overrides.config.clone().unwrap_or_else(|| data.join(FILE_NAME))
}
