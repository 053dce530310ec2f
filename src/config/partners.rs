//! The partners of the file, and their secrets.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::config::ConfigError;
use crate::config::keys::{self, LINKS_PER_DAY_MAX};
use crate::config::values::{Reader, strings};
use crate::kaltura::session::{Partner, Partners, Secret};
use crate::model::{InvalidHost, LinkPolicy, PartnerId};

/// Secrets shorter than this are worth a warning.
const SECRET_SHORT_BYTES: usize = 16;

/// A section `[[partner]]`, with the name that errors give it.
struct Section<'t> {
    name: String,
    table: &'t Table,
}

impl Section<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn text(&self, reader: &Reader, key: &str) -> Result<Option<&str>, ConfigError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(reader.wrong(self.key(key), other, "expected a string in quotes")),
        }
    }
}

impl Reader {
    pub(super) fn partners(&mut self, root: &Table, is_edge: bool) -> Result<Partners, ConfigError> {
        let mut partners = HashMap::new();
        let entries = match root.get("partner") {
            None => &[][..],
            Some(Value::Array(entries)) => entries,
            Some(other) => {
                return Err(self.wrong("partner".to_owned(), other.type_str(), "expected sections [[partner]]"));
            }
        };
        for (position, entry) in entries.iter().enumerate() {
            let name = format!("partner[{position}]");
            let Value::Table(table) = entry else {
                return Err(self.wrong(name, entry.type_str(), "expected a section [[partner]]"));
            };
            let section = Section { name, table };
            self.check_keys("partner", &section.name, table)?;
            let id = table.get("id");
            let shown = id.map_or_else(|| "(missing)".to_owned(), ToString::to_string);
            let id = id
                .and_then(|id| u32::try_from(id.as_integer()?).ok())
                .filter(|id| *id > 0);
            let id = id.ok_or_else(|| self.wrong(section.key("id"), shown, "expected the partner's number, from 1"))?;
            let admin_secrets = self.secrets(&section, "admin_secret")?;
            if admin_secrets.is_empty() {
                let reason = format!("partner {id} needs admin_secret, admin_secret_file or admin_secret_credential");
                return Err(self.wrong(section.key("admin_secret"), "(missing)", reason));
            }
            let user_secrets = self.secrets(&section, "user_secret")?;
            let is_operator = match table.get("operator") {
                Some(Value::Boolean(is_operator)) => *is_operator,
                Some(other) => return Err(self.wrong(section.key("operator"), other, "expected true or false")),
                // An only partner has no other operator.
                None => entries.len() == 1,
            };
            let partner = Partner {
                admin_secrets,
                user_secrets,
                is_operator,
                policy: self.policy(&section)?,
            };
            if partners.insert(PartnerId(id), partner).is_some() {
                return Err(self.wrong(section.key("id"), id, "this partner has a section already"));
            }
        }
        if partners.is_empty() && !is_edge {
            self.warnings
                .push("no [[partner]]: tinyd serves redirects only, and the API accepts no session".to_owned());
        }
        Ok(Partners(partners))
    }

    fn policy(&self, section: &Section<'_>) -> Result<LinkPolicy, ConfigError> {
        let (hosts_key, links_key) = (keys::DESTINATION_HOSTS.name, keys::LINKS_PER_DAY.name);
        let hosts = match section.table.get(hosts_key) {
            None => Vec::new(),
            Some(value) => strings(value).ok_or_else(|| {
                let reason = "expected a string or a list of strings";
                self.wrong(section.key(hosts_key), value, reason)
            })?,
        };
        let pattern = |text: &String| {
            text.parse().map_err(|error: InvalidHost| {
                self.wrong(section.key(hosts_key), format!("{text:?}"), error.to_string())
            })
        };
        let links = match section.table.get(links_key) {
            None => 0,
            Some(value) => value
                .as_integer()
                .and_then(|links| u32::try_from(links).ok())
                .filter(|links| *links <= LINKS_PER_DAY_MAX)
                .ok_or_else(|| {
                    let reason = format!("expected a number from 0 (no limit) to {LINKS_PER_DAY_MAX}");
                    self.wrong(section.key(links_key), value, reason)
                })?,
        };
        Ok(LinkPolicy {
            destination_hosts: hosts.iter().map(pattern).collect::<Result<_, _>>()?,
            links_per_user_and_day: links,
        })
    }

    /// The secrets under `KEY` (one or a list), in the file under `KEY_file`, or in the credential under
    /// `KEY_credential` (one a line in both).
    fn secrets(&mut self, section: &Section<'_>, key: &str) -> Result<Vec<Secret>, ConfigError> {
        const SHOWN: &str = "(secret)";
        let (file_key, credential_key) = (format!("{key}_file"), format!("{key}_credential"));
        let file = section.text(self, &file_key)?.map(|file| self.path(file));
        let credential = section.text(self, &credential_key)?;
        let credential = credential.map(|name| self.credential(section.key(&credential_key), name));
        let texts = match (section.table.get(key), file, credential.transpose()?) {
            (None, None, None) => return Ok(Vec::new()),
            (Some(value), None, None) => {
                self.check_mode(&self.file.clone());
                strings(value)
                    .ok_or_else(|| self.wrong(section.key(key), SHOWN, "expected a string or a list of strings"))?
            }
            (None, Some(path), None) | (None, None, Some(path)) => {
                self.check_mode(&path);
                let text = fs::read_to_string(&path).map_err(|cause| ConfigError::File {
                    path,
                    action: "cannot read the secret",
                    cause,
                })?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                lines.map(str::to_owned).collect()
            }
            _ => {
                let reason = format!("give one of {key}, {file_key} and {credential_key}, not several");
                return Err(self.wrong(section.key(key), SHOWN, reason));
            }
        };
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            return Err(self.wrong(section.key(key), SHOWN, "a secret cannot be empty"));
        }
        if texts.iter().any(|text| text.len() < SECRET_SHORT_BYTES) {
            let key = section.key(key);
            self.warnings.push(format!(
                "{key}: shorter than {SECRET_SHORT_BYTES} characters, which can be guessed"
            ));
        }
        Ok(texts.into_iter().map(Secret::new).collect())
    }

    /// The file of a credential that the service manager gives (`LoadCredential=` of systemd).
    pub(super) fn credential(&mut self, key: String, name: &str) -> Result<PathBuf, ConfigError> {
        // What systemd takes for a name.
        let is_name =
            !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && ![".", ".."].contains(&name);
        if !is_name {
            let reason = "expected the name of a credential, as after LoadCredential= in the unit, without a folder";
            return Err(self.wrong(key, format!("{name:?}"), reason));
        }
        let folders = || self.credentials.iter();
        let folder = folders().find(|folder| folder.join(name).exists());
        let folder = folder.or_else(|| folders().find(|folder| folder.exists()));
        let Some(folder) = folder.or_else(|| folders().next()) else {
            let reason = "CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with LoadCredential=; \
                          elsewhere, set it to the folder that has a file of this name";
            return Err(self.wrong(key, format!("{name:?}"), reason));
        };
        let file = folder.join(name);
        self.used_credentials.push(name.to_owned());
        Ok(file)
    }

    /// Warns if other users can read a file with secrets.
    pub(super) fn check_mode(&mut self, path: &Path) {
        const OTHERS: u32 = 0o007;
        if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & OTHERS != 0) {
            let path = path.display();
            let warning = format!("{path} is readable by other users: run chmod 600 {path}");
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}
