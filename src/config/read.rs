//! Reading the file, with the key, the value and the reason for everything that is wrong.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::config::limits;
use crate::config::{
    ADMIN_LISTEN_DEFAULT, BODY_MAX_BYTES_DEFAULT, BUFFERED_BYTES_DEFAULT, ConfigError, DATA_DIR_DEFAULT,
    DESTINATION_MAX_BYTES_DEFAULT, ID_LENGTH_DEFAULT, LogFormat, Overrides, PUBLIC_LISTEN_DEFAULT, Settings, fetch,
    without_default_port,
};
use crate::kaltura::LoggedAddress;
use crate::model::{FULL_URL_MAX_BYTES, ID_MAX_BYTES, ID_MIN_BYTES};
use crate::redirect::Tiny;

/// Bodies must at least hold one link with the longest destination, percent-encoded.
const BODY_MAX_BYTES_LEAST: usize = 32 * 1024;
/// Bodies are held in memory while they are read.
const BODY_MAX_BYTES_MOST: usize = 64 * 1024 * 1024;

/// What the admin listener holds. Less would refuse the longest page of a list.
const BUFFERED_BYTES: RangeInclusive<usize> = 64 * 1024 * 1024..=64 * 1024 * 1024 * 1024;
/// Longest destinations that new links can have, in bytes: up to what the longest one takes with every byte percent-encoded.
const DESTINATION_BYTES: RangeInclusive<usize> = 1_024..=3 * FULL_URL_MAX_BYTES;

/// Lengths that new ids can have, in characters.
const ID_LENGTHS: RangeInclusive<usize> = ID_MIN_BYTES..=ID_MAX_BYTES;

/// How long requests in flight may take at the end where nothing is said, in seconds.
const DRAIN_SECONDS_DEFAULT: usize = 10;
const DRAIN_SECONDS: RangeInclusive<usize> = 1..=3600;
/// How long a body may take to arrive where nothing is said, in seconds.
const BODY_TIMEOUT_DEFAULT: usize = 30;
const BODY_TIMEOUT_SECONDS: RangeInclusive<usize> = 1..=3600;
/// Unknown ids that a client may ask for in a minute where nothing is said: far more than people do, far fewer than would
/// find anything.
const GUESSES_DEFAULT: usize = 600;
const GUESSES: RangeInclusive<usize> = 0..=1_000_000_000;
/// Of how many requests one can be logged.
const SAMPLES: RangeInclusive<usize> = 1..=1_000_000_000;

/// Threads that can serve redirects: each has listeners of its own.
const THREADS: RangeInclusive<usize> = 1..=256;

pub(super) fn settings(path: &Path, overrides: &Overrides) -> Result<Settings, ConfigError> {
    let text = fs::read_to_string(path).map_err(|cause| ConfigError::File {
        path: path.to_owned(),
        action: "the configuration cannot be read",
        cause,
    })?;
    parse(&text, path, overrides)
}

/// The settings of a file with this text.
pub(super) fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<Settings, ConfigError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        reason: error.message().to_owned(),
    })?;
    let mut reader = Reader {
        origin: path.display().to_string(),
        file: path.to_owned(),
        credentials: overrides.credentials.clone(),
        warnings: Vec::new(),
    };
    let empty = Table::new();
    let root = Section::root(&table);
    reader.check_keys(
        &root,
        &[
            "data_dir",
            "drain_seconds",
            "public",
            "admin",
            "links",
            "proxy",
            "log",
            "partner",
        ],
    )?;
    let public_keys = [
        "listen",
        "tiny",
        "url",
        "threads",
        "max_guesses_per_minute",
        "shut_out_guessers",
        "forgiving",
    ];
    let public = reader.section(&root, "public", &empty, &[&public_keys[..], &limits::KEYS].concat())?;
    let admin_keys = ["listen", "max_body_bytes", "max_buffered_bytes", "body_timeout_seconds"];
    let admin = reader.section(&root, "admin", &empty, &[&admin_keys[..], &limits::KEYS].concat())?;
    let link_keys = ["id_length", "max_destination_bytes", "count_clicks"];
    let links = reader.section(&root, "links", &empty, &link_keys)?;
    let log = reader.section(&root, "log", &empty, &["level", "format", "access", "access_addresses"])?;

    let data_dir = match (&overrides.data, reader.text(&root, "data_dir")?) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => reader.path(folder),
        (None, None) => PathBuf::from(DATA_DIR_DEFAULT),
    };
    let tiny = [("hop", Tiny::Hop), ("direct", Tiny::Direct)];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    // What the file says must be right even where something else comes before it.
    let id_length = reader.size(&links, "id_length", ID_LENGTH_DEFAULT, ID_LENGTHS)?;
    let threads = reader.threads(&public)?;
    let level = reader.text(&log, "level")?.unwrap_or("info");
    let log_level = check_level(&reader.origin, "log.level", level)?;
    let settings = Settings {
        config: path.to_owned(),
        data_dir,
        public_listen: reader.listen(&public, &overrides.public, PUBLIC_LISTEN_DEFAULT)?,
        public_url: reader.base_url(&public, "url")?,
        tiny: reader.choice(&public, "tiny", &overrides.tiny, "tiny", &tiny)?,
        guesses_per_minute: reader.guesses(&public)?,
        shut_out_guessers: reader.flag(&public, "shut_out_guessers", true)?,
        forgiving: reader.flag(&public, "forgiving", true)?,
        public_limits: limits::read(&reader, &public, limits::of_public())?,
        admin_limits: limits::read(&reader, &admin, limits::of_admin())?,
        drain: reader.drain(&root)?,
        threads: size_or(&overrides.threads, "threads", threads, THREADS)?,
        admin_listen: reader.listen(&admin, &overrides.admin, ADMIN_LISTEN_DEFAULT)?,
        body_max_bytes: reader.size(
            &admin,
            "max_body_bytes",
            BODY_MAX_BYTES_DEFAULT,
            BODY_MAX_BYTES_LEAST..=BODY_MAX_BYTES_MOST,
        )?,
        buffered_bytes: reader.size(&admin, "max_buffered_bytes", BUFFERED_BYTES_DEFAULT, BUFFERED_BYTES)?,
        body_timeout: reader.body_timeout(&admin)?,
        id_length: size_or(&overrides.id_length, "id-length", id_length, ID_LENGTHS)?,
        destination_max_bytes: reader.destination_bytes(&links)?,
        count_clicks: reader.flag(&links, "count_clicks", true)?,
        fetch: fetch::read(&mut reader, &root)?,
        log: match &overrides.log {
            Some(level) => check_level(&of_flag("log"), "log", level)?,
            None => log_level,
        },
        log_format: reader.choice(&log, "format", &overrides.log_format, "log-format", &formats)?,
        access_log: reader.access(&log)?,
        access_addresses: reader.logged_address(&log)?,
        partners: reader.partners(&root)?,
        warnings: Vec::new(),
    };
    reader.check_listeners(&settings)?;
    reader.check_guessers(&public, &settings);
    Ok(Settings {
        warnings: reader.warnings,
        ..settings
    })
}

/// What a flag says, else what was read before.
fn size_or(
    flag: &Option<String>,
    name: &str,
    otherwise: usize,
    range: RangeInclusive<usize>,
) -> Result<usize, ConfigError> {
    match flag {
        Some(text) => in_range(&of_flag(name), name, text, text.parse().ok(), range),
        None => Ok(otherwise),
    }
}

/// A table of the file, with the name that stands before its keys.
pub(super) struct Section<'t> {
    pub(super) name: String,
    pub(super) table: &'t Table,
}

impl<'t> Section<'t> {
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        matches!(self.table.get(key), Some(Value::Array(items)) if items.is_empty())
    }

    fn root(table: &'t Table) -> Self {
        Self {
            name: String::new(),
            table,
        }
    }

    pub(super) fn key(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }
}

pub(super) struct Reader {
    origin: String,
    pub(super) file: PathBuf,
    pub(super) credentials: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
}

impl Reader {
    pub(super) fn wrong(&self, key: String, value: impl ToString, reason: impl Into<String>) -> ConfigError {
        ConfigError::Setting {
            origin: self.origin.clone(),
            key,
            value: value.to_string(),
            reason: reason.into(),
        }
    }

    pub(super) fn check_keys(&self, section: &Section<'_>, known: &[&str]) -> Result<(), ConfigError> {
        match section.table.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(ConfigError::UnknownKey {
                origin: self.origin.clone(),
                key: section.key(key),
                known: known.join(", "),
            }),
        }
    }

    pub(super) fn section<'t>(
        &self,
        root: &Section<'t>,
        name: &str,
        empty: &'t Table,
        known: &[&str],
    ) -> Result<Section<'t>, ConfigError> {
        let table = match root.table.get(name) {
            None => empty,
            Some(Value::Table(table)) => table,
            Some(other) => {
                let reason = format!("expected a section [{name}]");
                return Err(self.wrong(name.to_owned(), other.type_str(), reason));
            }
        };
        let section = Section {
            name: name.to_owned(),
            table,
        };
        self.check_keys(&section, known)?;
        Ok(section)
    }

    pub(super) fn text<'t>(&self, section: &Section<'t>, key: &str) -> Result<Option<&'t str>, ConfigError> {
        match section.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(section.key(key), other, "expected a string in quotes")),
        }
    }

    /// One string or a list of them.
    pub(super) fn texts(&self, section: &Section<'_>, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(value) = section.table.get(key) else {
            return Ok(None);
        };
        let texts = strings(value).filter(|texts| !texts.is_empty());
        texts
            .map(Some)
            .ok_or_else(|| self.wrong(section.key(key), value, "expected a string or a list of strings"))
    }

    pub(super) fn size(
        &self,
        section: &Section<'_>,
        key: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ConfigError> {
        let Some(value) = section.table.get(key) else {
            return Ok(default);
        };
        let number = value.as_integer().and_then(|number| usize::try_from(number).ok());
        in_range(&self.origin, &section.key(key), &value.to_string(), number, range)
    }

    pub(super) fn flag(&self, section: &Section<'_>, key: &str, default: bool) -> Result<bool, ConfigError> {
        match section.table.get(key) {
            None => Ok(default),
            Some(Value::Boolean(is_on)) => Ok(*is_on),
            Some(other) => Err(self.wrong(section.key(key), other, "expected true or false")),
        }
    }

    /// What concerns both listeners together.
    fn check_listeners(&mut self, settings: &Settings) -> Result<(), ConfigError> {
        let is_local = |network: &ipnet::IpNet| network.addr().is_loopback();
        if settings.admin_limits.proxy_protocol && settings.admin_limits.trusted_proxies.iter().any(is_local) {
            self.warnings.push(
                "admin.proxy_protocol: tinyd's own commands come from this machine without its header, and are closed"
                    .to_owned(),
            );
        }
        let mut addresses: Vec<_> = settings.public_listen.iter().chain(&settings.admin_listen).collect();
        addresses.sort();
        if let Some([twice, _]) = addresses
            .array_windows()
            .find(|[one, next]| one == next && one.port() != 0)
        {
            return Err(ConfigError::Setting {
                origin: "public and admin".to_owned(),
                key: "listen".to_owned(),
                value: twice.to_string(),
                reason: "named twice: each listener needs an address of its own".to_owned(),
            });
        }
        Ok(())
    }

    /// Where strangers can reach the public listener, one of them may be a proxy that nobody has declared.
    fn check_guessers(&mut self, public: &Section<'_>, settings: &Settings) {
        let is_exposed = settings.public_listen.iter().any(|address| !address.ip().is_loopback());
        let shuts_out = settings.shut_out_guessers && settings.guesses_per_minute > 0;
        let is_decided = public.table.contains_key("shut_out_guessers");
        if is_exposed && shuts_out && !is_decided && settings.public_limits.trusted_proxies.is_empty() {
            self.warnings.push(
                "public.listen: other machines reach it, and neither public.trusted_proxies nor \
                 public.shut_out_guessers is set: behind a proxy or CDN all clients share one address and are shut out \
                 together if one of them guesses ids; name the proxies, or set shut_out_guessers = true if there are none"
                    .to_owned(),
            );
        }
    }

    /// One for each core where nothing is said.
    fn threads(&self, public: &Section<'_>) -> Result<usize, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        self.size(public, "threads", cores.min(*THREADS.end()), THREADS)
    }

    fn drain(&self, root: &Section<'_>) -> Result<Duration, ConfigError> {
        let seconds = self.size(root, "drain_seconds", DRAIN_SECONDS_DEFAULT, DRAIN_SECONDS)?;
        Ok(Duration::from_secs(seconds as u64))
    }

    fn body_timeout(&self, admin: &Section<'_>) -> Result<Duration, ConfigError> {
        let seconds = self.size(
            admin,
            "body_timeout_seconds",
            BODY_TIMEOUT_DEFAULT,
            BODY_TIMEOUT_SECONDS,
        )?;
        Ok(Duration::from_secs(seconds as u64))
    }

    fn guesses(&self, public: &Section<'_>) -> Result<u32, ConfigError> {
        let guesses = self.size(public, "max_guesses_per_minute", GUESSES_DEFAULT, GUESSES)?;
        Ok(u32::try_from(guesses).unwrap_or(u32::MAX))
    }

    fn destination_bytes(&self, links: &Section<'_>) -> Result<usize, ConfigError> {
        let (key, default) = ("max_destination_bytes", DESTINATION_MAX_BYTES_DEFAULT);
        self.size(links, key, default, DESTINATION_BYTES)
    }

    /// Of how many requests one is logged: a name, or the number itself.
    fn access(&self, log: &Section<'_>) -> Result<Option<NonZero<usize>>, ConfigError> {
        let names = [("off", None), ("all", NonZero::new(1))];
        match log.table.get("access") {
            Some(Value::Integer(_)) => Ok(NonZero::new(self.size(log, "access", 0, SAMPLES)?)),
            _ => self.choice(log, "access", &None, "", &names),
        }
    }

    fn logged_address(&self, log: &Section<'_>) -> Result<LoggedAddress, ConfigError> {
        let names = [
            ("prefix", LoggedAddress::Prefix),
            ("none", LoggedAddress::None),
            ("full", LoggedAddress::Full),
        ];
        self.choice(log, "access_addresses", &None, "", &names)
    }

    /// The addresses of a listener, whose flag has the name of its section.
    fn listen(
        &self,
        section: &Section<'_>,
        flag: &Option<String>,
        default: &str,
    ) -> Result<Vec<SocketAddr>, ConfigError> {
        let texts = self
            .texts(section, "listen")?
            .unwrap_or_else(|| vec![default.to_owned()]);
        let key = section.key("listen");
        let of_file = texts
            .iter()
            .map(|one| address(&self.origin, &key, one))
            .collect::<Result<_, _>>()?;
        match flag {
            Some(text) => {
                let origin = of_flag(&section.name);
                text.split(',')
                    .map(|one| address(&origin, &section.name, one))
                    .collect()
            }
            None => Ok(of_file),
        }
    }

    fn base_url(&self, section: &Section<'_>, key: &str) -> Result<Option<String>, ConfigError> {
        let Some(text) = self.text(section, key)? else {
            return Ok(None);
        };
        let is_base = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if url::Url::parse(text).is_ok_and(|url| is_base(&url)) {
            return Ok(Some(without_default_port(text.trim_end_matches('/'))));
        }
        let reason = "expected an http or https URL, such as https://go.example.com";
        Err(self.wrong(section.key(key), format!("{text:?}"), reason))
    }

    fn choice<T: Copy + Default>(
        &self,
        section: &Section<'_>,
        key: &str,
        flag: &Option<String>,
        flag_name: &str,
        choices: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let chosen = |origin: &str, key: &str, text: &str| {
            let found = choices
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, choice)| *choice);
            found.ok_or_else(|| ConfigError::Setting {
                origin: origin.to_owned(),
                key: key.to_owned(),
                value: format!("{text:?}"),
                reason: format!(
                    "expected one of {}",
                    choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                ),
            })
        };
        let of_file = match self.text(section, key)? {
            Some(text) => chosen(&self.origin, &section.key(key), text)?,
            None => T::default(),
        };
        match flag {
            Some(text) => chosen(&of_flag(flag_name), flag_name, text),
            None => Ok(of_file),
        }
    }

    /// A path of the file, which is relative to the folder that the file is in.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new(".")).join(text)
    }
}

pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn of_flag(name: &str) -> String {
    format!("--{name} or TINYD_{}", name.replace('-', "_").to_ascii_uppercase())
}

fn address(origin: &str, key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.trim().parse().map_err(|_| ConfigError::Setting {
        origin: origin.to_owned(),
        key: key.to_owned(),
        value: format!("{text:?}"),
        reason: "expected IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080".to_owned(),
    })
}

fn check_level(origin: &str, key: &str, text: &str) -> Result<String, ConfigError> {
    // What is no level would be taken for the name of a target.
    let is_level = |text: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&text);
    let is_directive = |one: &str| is_level(one.rsplit('=').next().unwrap_or(one).trim());
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) if text.split(',').all(is_directive) => Ok(text.to_owned()),
        _ => Err(ConfigError::Setting {
            origin: origin.to_owned(),
            key: key.to_owned(),
            value: format!("{text:?}"),
            reason: "expected error, warn, info, debug, trace, off, or TARGET=LEVEL, separated by commas".to_owned(),
        }),
    }
}

fn in_range(
    origin: &str,
    key: &str,
    value: &str,
    number: Option<usize>,
    range: RangeInclusive<usize>,
) -> Result<usize, ConfigError> {
    let fitting = number.filter(|number| range.contains(number));
    fitting.ok_or_else(|| ConfigError::Setting {
        origin: origin.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        reason: format!("expected a whole number from {} to {}", range.start(), range.end()),
    })
}

fn line_of(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|&byte| byte == b'\n').count() + 1
}
