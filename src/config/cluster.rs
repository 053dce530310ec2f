//! The section `[cluster]`.

use std::fs;

use crate::cluster::{ClusterSettings, Reads, Role, check_name, check_seed};
use crate::config::ConfigError;
use crate::config::keys;
use crate::config::values::{Reader, Values};
use crate::model::shown;

const SECTION: &str = "cluster";

/// `None`: this box is alone.
pub fn read(values: &Values, reader: &mut Reader) -> Result<Option<ClusterSettings>, ConfigError> {
    let authorities = reader.authorities(values, SECTION, &keys::CLUSTER_CA_FILE)?;
    let servers = values.list(SECTION, &keys::CLUSTER_SERVERS, |text| Some(text.to_owned()));
    if servers.is_empty() {
        // A default that is written down asks for nothing.
        let mut keys = keys::of_section(SECTION).filter(|(_, default)| default.is_empty());
        let given = keys.find(|(key, _)| values.is_set(SECTION, key)).map(|(key, _)| key);
        let is_edge = values.text(SECTION, &keys::CLUSTER_ROLE) == Some("edge");
        let given = given.or_else(|| is_edge.then_some(&keys::CLUSTER_ROLE));
        return given.map_or(Ok(None), |key| {
            let reason = format!("[{SECTION}] has {} and no servers: expected those of NATS", key.name);
            Err(reader.wrong(keys::CLUSTER_SERVERS.path(SECTION), "(missing)", reason))
        });
    }
    let text = |key| values.text(SECTION, key).map(str::to_owned);
    let role = match values.text(SECTION, &keys::CLUSTER_ROLE) {
        Some("edge") => Role::Edge,
        _ => Role::Admin,
    };
    let node = match text(&keys::CLUSTER_NODE) {
        Some(node) => node,
        None => host_name(reader)?,
    };
    Ok(Some(ClusterSettings {
        role,
        name: text(&keys::CLUSTER_NAME).unwrap_or_default(),
        node,
        servers,
        seed: seed(values, reader)?,
        authorities,
        write_patience: values.seconds(SECTION, &keys::CLUSTER_PATIENCE),
        reads: match values.text(SECTION, &keys::CLUSTER_READS) {
            Some("available") => Reads::Available,
            _ => Reads::Current,
        },
        admin_url: text(&keys::CLUSTER_ADMIN_URL),
        accept_lazy_fsync: values.flag(SECTION, &keys::CLUSTER_LAZY),
    }))
}

fn host_name(reader: &Reader) -> Result<String, ConfigError> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = name.split('.').next().unwrap_or_default().to_owned();
    check_name(&name).map_err(|reason| {
        let reason = format!("the host name {name:?} cannot be used: {reason}");
        reader.wrong(keys::CLUSTER_NODE.path(SECTION), "(missing)", reason)
    })?;
    Ok(name)
}

/// Neither the text of the file nor a part of it may come into an error.
fn seed(values: &Values, reader: &mut Reader) -> Result<Option<String>, ConfigError> {
    let Some(path) = values.path(SECTION, &keys::CLUSTER_KEY_FILE, reader) else {
        return Ok(None);
    };
    reader.check_mode(&path);
    let wrong = |reason: String| reader.wrong(keys::CLUSTER_KEY_FILE.path(SECTION), path.display(), reason);
    let text = fs::read_to_string(&path).map_err(|error| {
        wrong(format!(
            "cannot be read: {error} ({} cluster key makes one)",
            shown::command()
        ))
    })?;
    let seed = text.trim();
    check_seed(seed).map_err(wrong)?;
    Ok(Some(seed.to_owned()))
}
