//! The partners of the file, and their secrets.

use std::collections::HashMap;
use std::fs;

use toml::Value;

use crate::config::ConfigError;
use crate::config::read::{Reader, Section, strings};
use crate::ks::{Partner, Partners, Secret};
use crate::model::PartnerId;

/// Secrets shorter than this are worth a warning.
const SECRET_SHORT_BYTES: usize = 16;

impl Reader {
    pub(super) fn partners(&mut self, root: &Section<'_>) -> Result<Partners, ConfigError> {
        let mut partners = HashMap::new();
        let entries = match root.table.get("partner") {
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
            let known = [
                "id",
                "admin_secret",
                "admin_secret_file",
                "user_secret",
                "user_secret_file",
                "operator",
            ];
            self.check_keys(&section, &known)?;
            let id = match table.get("id") {
                Some(Value::Integer(number)) => u32::try_from(*number).ok().filter(|id| *id > 0),
                _ => None,
            };
            let shown = table
                .get("id")
                .map_or_else(|| "(missing)".to_owned(), ToString::to_string);
            let id = id.ok_or_else(|| self.wrong(section.key("id"), shown, "expected the partner's number, from 1"))?;
            let admin_secrets = self.secrets(&section, "admin_secret")?;
            if admin_secrets.is_empty() {
                let reason = format!("partner {id} needs admin_secret or admin_secret_file");
                return Err(self.wrong(section.key("admin_secret"), "(missing)", reason));
            }
            let user_secrets = self.secrets(&section, "user_secret")?;
            let is_operator = match table.get("operator") {
                Some(Value::Boolean(is_operator)) => *is_operator,
                Some(other) => return Err(self.wrong(section.key("operator"), other, "expected true or false")),
                // Whoever is alone is served by nobody else.
                None => entries.len() == 1,
            };
            let partner = Partner {
                admin_secrets,
                user_secrets,
                is_operator,
            };
            if partners.insert(PartnerId(id), partner).is_some() {
                return Err(self.wrong(section.key("id"), id, "this partner has a section already"));
            }
        }
        if partners.is_empty() {
            self.warnings
                .push("no [[partner]]: nobody can use the API, only redirects are served".to_owned());
        }
        Ok(Partners::new(partners))
    }

    /// The secrets under `KEY` (one or a list) or in the file under `KEY_file` (one a line).
    fn secrets(&mut self, section: &Section<'_>, key: &str) -> Result<Vec<Secret>, ConfigError> {
        const SHOWN: &str = "(secret)";
        let file_key = format!("{key}_file");
        let texts = match (section.table.get(key), self.text(section, &file_key)?) {
            (None, None) => return Ok(Vec::new()),
            (Some(_), Some(_)) => {
                return Err(self.wrong(
                    section.key(key),
                    SHOWN,
                    format!("give either {key} or {file_key}, not both"),
                ));
            }
            (Some(value), None) => strings(value)
                .ok_or_else(|| self.wrong(section.key(key), SHOWN, "expected a string or a list of strings"))?,
            (None, Some(file)) => {
                let path = self.path(file);
                let text = fs::read_to_string(&path).map_err(|cause| ConfigError::File {
                    path,
                    action: "the secret cannot be read",
                    cause,
                })?;
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                    .map(str::to_owned)
                    .collect()
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
}
