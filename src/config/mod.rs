//! Settings: what the operator wrote, checked and turned into addresses, secrets and sizes. Only [`Settings`] travels.

mod error;
mod first;
mod effective;
mod limits;
mod partners;
mod fetch;
mod read;

#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::ConfigError;

use crate::fetch::FetchSettings;
use crate::http::Limits;
use crate::kaltura::LoggedAddress;
use crate::kaltura::session::Partners;
use crate::model::{FULL_URL_MAX_BYTES, PartnerId};
use crate::redirect::Tiny;

/// The folder that is used if none is named, beside where the program is started.
pub const DATA_DIR_DEFAULT: &str = "./tinyd-data";
/// The configuration file's name in a data folder.
pub const FILE_NAME: &str = "tinyd.toml";

/// Length of new ids, in characters (contract, section 5).
const ID_LENGTH_DEFAULT: usize = 8;
/// Longest destination of a new link where nothing is said, in bytes: nginx passes on a head of 8 KB with the settings of the
/// operating guide.
const DESTINATION_MAX_BYTES_DEFAULT: usize = FULL_URL_MAX_BYTES;
/// Largest body that the API reads, in bytes: a multirequest of 100 links with long destinations.
const BODY_MAX_BYTES_DEFAULT: usize = 1024 * 1024;
/// Bytes that the admin listener holds for requests and answers at most: four of the largest answers.
const BUFFERED_BYTES_DEFAULT: usize = 128 * 1024 * 1024;
/// The public address where none is named: nobody but this machine, until the operator says otherwise.
const PUBLIC_LISTEN_DEFAULT: &str = "127.0.0.1:8080";
/// The admin address where none is named.
const ADMIN_LISTEN_DEFAULT: &str = "127.0.0.1:8081";

/// What a fetch has open at a time: its connection, before that two questions for addresses, or two attempts to connect.
const FILES_OF_A_FETCH: usize = 2;

/// What flags and environment say; they come before the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The data folder.
    pub data: Option<PathBuf>,
    /// Public addresses, separated by commas.
    pub public: Option<String>,
    /// Admin addresses, separated by commas.
    pub admin: Option<String>,
    /// `hop` or `direct`.
    pub tiny: Option<String>,
    /// Threads that serve redirects.
    pub threads: Option<String>,
    /// Length of new ids.
    pub id_length: Option<String>,
    /// Levels of the log.
    pub log: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// The folder with what the service manager gives as credentials.
    pub credentials: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The file that was read.
    pub config: PathBuf,
    /// Where the store is.
    pub data_dir: PathBuf,
    /// Where redirects are served.
    pub public_listen: Vec<SocketAddr>,
    /// The base of short URLs as people see them, without a slash at the end; `None`: as the public listener.
    pub public_url: Option<String>,
    /// What `/tiny/{id}` answers.
    pub tiny: Tiny,
    /// Unknown ids that a client may ask for in a minute; 0: any number.
    pub guesses_per_minute: u32,
    /// Whether a client that asks for twice as many is refused everything for the rest of the minute.
    pub shut_out_guessers: bool,
    /// Whether `/tiny` and goto find the link in a text that is more than its id.
    pub forgiving: bool,
    /// What the public listener bears.
    pub public_limits: Limits,
    /// What the admin listener bears.
    pub admin_limits: Limits,
    /// How long requests in flight may take once the appliance has been asked to end.
    pub drain: Duration,
    /// Threads that serve redirects, at least one.
    pub threads: usize,
    /// Where the API is served.
    pub admin_listen: Vec<SocketAddr>,
    /// Largest body that the API reads, in bytes.
    pub body_max_bytes: usize,
    /// Bytes that the admin listener holds for requests and answers at a time, at most.
    pub buffered_bytes: usize,
    /// How long such a body may take to arrive.
    pub body_timeout: Duration,
    /// Length of new ids, 4 to 20.
    pub id_length: usize,
    /// Longest destination of a new link, in bytes, as it is stored and as it is rendered.
    pub destination_max_bytes: usize,
    /// Whether clicks are counted.
    pub count_clicks: bool,
    /// What is fetched for `goto` with `proxy=true`; `None`: nothing, such a request is redirected as any other.
    pub fetch: Option<FetchSettings>,
    /// Levels of the log, as `tracing_subscriber::EnvFilter` reads them.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Of how many requests one is logged; `None`: of any number none.
    pub access_log: Option<NonZero<usize>>,
    /// How much of a client's address stands there.
    pub access_addresses: LoggedAddress,
    /// Who may use the API.
    pub partners: Partners,
    /// What is allowed but perhaps not meant, a sentence each.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads the settings: flag or environment, then file, then default. That there is no file
    /// is an error; see [`Settings::load_or_create`].
    ///
    /// # Errors
    /// When a file cannot be read or a setting is wrong; the error names the key, the value and the reason.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        read::settings(&config_path(overrides), overrides)
    }

    /// As [`Settings::load`], but where no file is named and the data folder has none, makes the folder and a file with
    /// new secrets in it. Says whether it did.
    ///
    /// # Errors
    /// As [`Settings::load`], and when folder or file cannot be made.
    pub fn load_or_create(overrides: &Overrides) -> Result<(Self, bool), ConfigError> {
        let path = config_path(overrides);
        let created = overrides.config.is_none() && first::create(&path)?;
        Ok((read::settings(&path, overrides)?, created))
    }

    /// As [`Settings::load`], but where no file is named and the data folder has none, the settings are the defaults, and
    /// nobody may use the API.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_or_default(overrides: &Overrides) -> Result<Self, ConfigError> {
        let path = config_path(overrides);
        if overrides.config.is_none() && !path.exists() {
            return read::parse("", &path, overrides);
        }
        read::settings(&path, overrides)
    }

    /// The settings that differ from `other` and are read at the start only, by key.
    #[must_use]
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let differences = [
            ("data_dir", self.data_dir != other.data_dir),
            ("public.listen", self.public_listen != other.public_listen),
            ("public.tiny", self.tiny != other.tiny),
            ("public.threads", self.threads != other.threads),
            ("admin.listen", self.admin_listen != other.admin_listen),
            ("admin.max_body_bytes", self.body_max_bytes != other.body_max_bytes),
            ("admin.max_buffered_bytes", self.buffered_bytes != other.buffered_bytes),
            ("admin.body_timeout_seconds", self.body_timeout != other.body_timeout),
            ("links.id_length", self.id_length != other.id_length),
            (
                "links.max_destination_bytes",
                self.destination_max_bytes != other.destination_max_bytes,
            ),
            ("drain_seconds", self.drain != other.drain),
            (
                "public.shut_out_guessers",
                self.shut_out_guessers != other.shut_out_guessers,
            ),
            ("public.forgiving", self.forgiving != other.forgiving),
            ("links.count_clicks", self.count_clicks != other.count_clicks),
            ("log.format", self.log_format != other.log_format),
            ("log.access", self.access_log != other.access_log),
            ("log.access_addresses", self.access_addresses != other.access_addresses),
        ];
        differences
            .into_iter()
            .filter_map(|(key, differs)| differs.then_some(key))
            .chain(fetch::differences(self.fetch.as_ref(), other.fetch.as_ref()))
            .collect()
    }

    /// Lowers the limits of connections, to clients and to destinations, to what there is room for, and warns of it.
    pub fn fit_connections(&mut self, room: usize) {
        // A quarter of the room at most: redirects come first.
        let fetches = self.fetch.as_ref().map_or(0, |fetch| {
            let most = (room / 4 / FILES_OF_A_FETCH).max(1);
            fetch.fetches.min(most)
        });
        let room = room.saturating_sub(fetches * FILES_OF_A_FETCH);
        // The admin listener keeps its places, so that it can be asked what is going on.
        let admin = self.admin_limits.connections.min(room.div_ceil(2));
        let public = self.public_limits.connections.min((room - admin).max(1));
        let limits = [
            ("admin.max_connections", &mut self.admin_limits.connections, admin),
            ("public.max_connections", &mut self.public_limits.connections, public),
        ];
        let of_fetches = self
            .fetch
            .as_mut()
            .map(|fetch| ("proxy.max_fetches", &mut fetch.fetches, fetches));
        for (key, limit, fitting) in limits.into_iter().chain(of_fetches) {
            if *limit > fitting {
                self.warnings.push(format!(
                    "{key} = {limit}: the process may open so few files that it is {fitting}; raise \
                     LimitNOFILE or ulimit -n"
                ));
                *limit = fitting;
            }
        }
    }

    /// The partner to use where none is named: the only one there is, or the only operator.
    #[must_use]
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

    /// The base of short URLs as people see them.
    #[must_use]
    pub fn short_url_base(&self) -> String {
        self.public_url
            .clone()
            .unwrap_or_else(|| url_of(self.public_listen.first()))
    }

    /// The base of the API's URLs, as seen from this machine.
    #[must_use]
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
    let data = || overrides.data.as_deref().unwrap_or_else(|| Path::new(DATA_DIR_DEFAULT));
    overrides.config.clone().unwrap_or_else(|| data().join(FILE_NAME))
}
