//! From the text of the file to [`Settings`].

use std::fs;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::Path;

use toml::Table;

use crate::cluster::ClusterSettings;
use crate::config::checks::parse_network;
use crate::config::keys;
use crate::config::values::{Reader, Values};
use crate::config::{ConfigError, LogFormat, Overrides, Settings};
use crate::config::{acme, branding, cluster, console, fetch, tls, without_default_port};
use crate::console::ConsoleSettings;
use crate::http::Limits;
use crate::kaltura::LoggedAddress;
use crate::model;
use crate::redirect::Tiny;

/// Most threads that the number of cores is turned into.
const THREADS_DEFAULT_MAX: usize = 256;

pub fn settings(path: &Path, overrides: &Overrides) -> Result<Settings, ConfigError> {
    let text = fs::read_to_string(path).map_err(|cause| ConfigError::File {
        path: path.to_owned(),
        action: "cannot read the configuration",
        cause,
    })?;
    parse(&text, path, overrides)
}

pub fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<Settings, ConfigError> {
    let root: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        reason: error.message().to_owned(),
    })?;
    let mut reader = Reader {
        file: path.to_owned(),
        credentials: overrides.credentials.clone(),
        used_credentials: Vec::new(),
        warnings: Vec::new(),
    };
    let mut values = reader.values(&root, overrides)?;
    if !values.is_set("public", &keys::THREADS) {
        values.set("public", &keys::THREADS, default_threads());
    }
    let addresses = |section| values.list(section, &keys::PUBLIC_LISTEN, |text| text.parse::<SocketAddr>().ok());
    let data_dir = values.path("", &keys::DATA_DIR, &reader);
    let public_listen = addresses("public");
    let public_tls = tls::read(&values, &mut reader, "public.tls", acme::is_on(&values))?;
    let cluster = cluster::read(&values, &mut reader)?;
    let is_edge = cluster.as_ref().is_some_and(ClusterSettings::is_edge);
    let partners = reader.partners(&root, is_edge)?;
    let admin_tls = tls::read(&values, &mut reader, "admin.tls", false)?;
    let console = console::read(&values, &mut reader, &partners, admin_tls.is_some())?;
    let console = unless_edge(console, is_edge, &values, &reader)?;
    let settings = Settings {
        config: path.to_owned(),
        data_dir: overrides.data.clone().or(data_dir).unwrap_or_default(),
        acme: acme::read(&values, &mut reader, &public_listen, public_tls.as_ref())?,
        acme_webroot: values.path("public", &keys::ACME_WEBROOT, &reader),
        public_listen,
        redirects_plain: values.text("public", &keys::PLAIN) == Some("redirect"),
        public_tls,
        public_url: public_url(&values),
        tiny: tiny(&values),
        guesses_per_minute: u32::try_from(values.number("public", &keys::GUESSES)).unwrap_or(u32::MAX),
        shut_out_guessers: values.flag("public", &keys::SHUT_OUT),
        forgiving: values.flag("public", &keys::FORGIVING),
        public_limits: limits(&values, &reader, "public")?,
        admin_limits: limits(&values, &reader, "admin")?,
        require_store: values.flag("", &keys::REQUIRE_STORE),
        drain: values.seconds("", &keys::DRAIN),
        threads: values.size("public", &keys::THREADS),
        admin_listen: addresses("admin"),
        admin_tls,
        console,
        body_max_bytes: values.size("admin", &keys::BODY_BYTES),
        buffered_bytes: values.size("admin", &keys::BUFFERED_BYTES),
        body_timeout: values.seconds("admin", &keys::BODY_TIMEOUT),
        branding: branding::read(&values, &reader)?,
        id_length: values.size("links", &keys::ID_LENGTH),
        destination_max_bytes: values.size("links", &keys::DESTINATION_BYTES),
        count_clicks: values.flag("links", &keys::COUNT_CLICKS),
        audit_entries: values.number("links", &keys::AUDIT_ENTRIES),
        cluster,
        fetch: fetch::read(&values, &mut reader)?,
        log: values.text("log", &keys::LOG_LEVEL).unwrap_or_default().to_owned(),
        log_format: log_format(&values),
        access_log: access_log(&values),
        access_addresses: access_addresses(&values),
        partners,
        credentials: reader.used_credentials.clone(),
        warnings: Vec::new(),
        values,
    };
    check_listeners(&settings, &reader)?;
    reader.warnings.extend(warnings_of_listeners(&settings));
    let mut values = settings.values.clone();
    values.set("", &keys::DATA_DIR, settings.data_dir.to_string_lossy().into_owned());
    if !values.is_set("public", &keys::URL) {
        values.set("public", &keys::URL, settings.short_url_base());
    }
    Ok(Settings {
        warnings: reader.warnings,
        values,
        ..settings
    })
}

/// An edge has no console.
fn unless_edge(
    console: Option<ConsoleSettings>,
    is_edge: bool,
    values: &Values,
    reader: &Reader,
) -> Result<Option<ConsoleSettings>, ConfigError> {
    if !is_edge {
        return Ok(console);
    }
    if values.is_set("console", &keys::CONSOLE_LISTEN) {
        let reason = "an edge of a cluster has no console: use that of an admin box, and leave this out";
        let shown = values.text("console", &keys::CONSOLE_LISTEN).unwrap_or("(set)");
        return Err(reader.wrong(keys::CONSOLE_LISTEN.path("console"), shown, reason));
    }
    Ok(None)
}

fn public_url(values: &Values) -> Option<String> {
    let url = values.text("public", &keys::URL)?;
    Some(without_default_port(url.trim_end_matches('/')))
}

fn tiny(values: &Values) -> Tiny {
    match values.text("public", &keys::TINY) {
        Some("direct") => Tiny::Direct,
        _ => Tiny::Hop,
    }
}

fn log_format(values: &Values) -> LogFormat {
    match values.text("log", &keys::LOG_FORMAT) {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    }
}

fn access_log(values: &Values) -> Option<NonZero<usize>> {
    match values.text("log", &keys::ACCESS) {
        Some("all") => NonZero::new(1),
        // 0 where it is off.
        _ => NonZero::new(values.size("log", &keys::ACCESS)),
    }
}

fn access_addresses(values: &Values) -> LoggedAddress {
    match values.text("log", &keys::ACCESS_ADDRESSES) {
        Some("none") => LoggedAddress::None,
        Some("full") => LoggedAddress::Full,
        _ => LoggedAddress::Prefix,
    }
}

fn default_threads() -> i64 {
    i64::try_from(model::cores().min(THREADS_DEFAULT_MAX)).unwrap_or(1)
}

fn limits(values: &Values, reader: &Reader, section: &'static str) -> Result<Limits, ConfigError> {
    let limits = Limits {
        head_timeout: values.seconds(section, &keys::HEAD_TIMEOUT),
        idle_timeout: values.seconds(section, &keys::IDLE_TIMEOUT),
        write_timeout: values.seconds(section, &keys::WRITE_TIMEOUT),
        lifetime: values.seconds(section, &keys::LIFETIME),
        head_bytes: values.size(section, &keys::HEAD_BYTES),
        target_bytes: values.size(section, &keys::TARGET_BYTES),
        headers: values.size(section, &keys::HEADERS),
        connections: values.size(section, &keys::MAX_CONNECTIONS),
        connections_per_address: values.limit(section, &keys::PER_ADDRESS),
        requests: values.limit(section, &keys::MAX_REQUESTS),
        trusted_proxies: values.list(section, &keys::TRUSTED_PROXIES, parse_network),
        proxy_protocol: values.flag(section, &keys::PROXY_PROTOCOL),
    };
    if limits.proxy_protocol && limits.trusted_proxies.is_empty() {
        let reason = "no proxy is trusted: name the proxies in trusted_proxies";
        return Err(reader.wrong(keys::PROXY_PROTOCOL.path(section), true, reason));
    }
    Ok(limits)
}

fn check_listeners(settings: &Settings, reader: &Reader) -> Result<(), ConfigError> {
    if settings.redirects_plain && settings.public_tls.is_none() {
        let reason = "there is no HTTPS to redirect to: expected \"serve\", or public.tls.listen";
        return Err(reader.wrong(keys::PLAIN.path("public"), "\"redirect\"", reason));
    }
    let plain = settings.public_listen.iter().chain(&settings.admin_listen);
    let secure = [&settings.public_tls, &settings.admin_tls].into_iter().flatten();
    let console = settings.console.iter().flat_map(|console| &console.listen);
    let console = console.map(|(_, address)| address);
    let mut addresses: Vec<_> = plain.chain(secure.flat_map(|tls| &tls.listen)).chain(console).collect();
    addresses.sort();
    let twice = |pair: &&[&SocketAddr; 2]| pair[0] == pair[1] && pair[0].port() != 0;
    match addresses.array_windows().find(twice) {
        None => Ok(()),
        Some([address, _]) => Err(ConfigError::Setting {
            origin: "public, admin and console".to_owned(),
            key: "listen".to_owned(),
            value: address.to_string(),
            reason: "named twice: each listener needs an address of its own".to_owned(),
        }),
    }
}

fn warnings_of_listeners(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    let (public, admin) = (&settings.public_limits, &settings.admin_limits);
    let is_local = |network: &ipnet::IpNet| network.addr().is_loopback();
    if admin.proxy_protocol && admin.trusted_proxies.iter().any(is_local) {
        warnings.push(
            "admin.proxy_protocol: tinyd's own commands connect from this machine without the PROXY header; tinyd \
             closes their connections"
                .to_owned(),
        );
    }
    // An exposed listener may be behind a proxy that is not configured.
    let secure = settings.public_tls.iter().flat_map(|tls| &tls.listen);
    let exposed = settings.public_listen.iter().chain(secure);
    let exposed = exposed.filter(|address| !address.ip().is_loopback()).count();
    let is_exposed = exposed > 0;
    let shuts_out = settings.shut_out_guessers && settings.guesses_per_minute > 0;
    let is_decided = settings.values.is_set("public", &keys::SHUT_OUT);
    if is_exposed && shuts_out && !is_decided && public.trusted_proxies.is_empty() {
        warnings.push(
            "public.listen: other machines reach it, and neither public.trusted_proxies nor \
             public.shut_out_guessers is set: behind a proxy or CDN all clients share one address and are shut out \
             together if one of them guesses IDs; name the proxies, or set shut_out_guessers = true if there are none"
                .to_owned(),
        );
    }
    if (settings.public_tls.is_some() || is_exposed) && !settings.values.is_set("public", &keys::URL) {
        warnings.push(format!(
            "public.url: not set, so short URLs are shown as {}/tiny/ID; set it to the URL that clients use",
            settings.short_url_base()
        ));
    }
    let mut partners = settings.partners.ids().filter_map(|id| settings.partners.get(id));
    if settings.partners.ids().count() > 1 && !partners.any(|partner| partner.is_operator) {
        warnings.push(
            "partner.operator: true for none of several partners, so nobody can take backups; set operator = true \
             for one"
                .to_owned(),
        );
    }
    warnings
}

fn line_of(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|&byte| byte == b'\n').count() + 1
}
