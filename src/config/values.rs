//! The value of each setting: from a flag or its variable, else the file, else the default; checked by its kind.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::config::keys::{self, Applies, Key, ValueKind};
use crate::config::{ConfigError, Overrides};

/// The old name of a section, and the name that it has now.
const RENAMED: (&str, &str) = ("proxy", "fetch");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Default,
    File,
    Flag,
}

/// The values by section and key. A setting without value or default is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(BTreeMap<(&'static str, &'static str), (Value, Source)>);

/// What is known of the file while it is read.
pub struct Reader {
    pub file: PathBuf,
    pub credentials: Vec<PathBuf>,
    pub used_credentials: Vec<String>,
    pub warnings: Vec<String>,
}

impl Reader {
    pub fn wrong(&self, key: String, value: impl ToString, reason: impl Into<String>) -> ConfigError {
        wrong(self.file.display().to_string(), key, value, reason)
    }

    /// Refuses keys of a section that the table of settings does not have.
    pub fn check_keys(&self, section: &str, name: &str, table: &Table) -> Result<(), ConfigError> {
        let mut known: Vec<_> = keys::of_section(section).map(|(key, _)| key.name).collect();
        if section.is_empty() {
            known.push("partner");
        }
        known.extend(keys::subsections(section));
        let is_known = |key: &str| known.contains(&key) || section.is_empty() && key == RENAMED.0;
        match table.keys().find(|key| !is_known(key)) {
            None => Ok(()),
            Some(key) => Err(ConfigError::UnknownKey {
                origin: self.file.display().to_string(),
                key: keys::path(name, key),
                known: known.join(", "),
            }),
        }
    }

    /// A path of the file, which is relative to the folder that the file is in.
    pub fn path(&self, text: &str) -> PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new(".")).join(text)
    }

    /// The value of every setting but those of partners.
    pub fn values(&mut self, root: &Table, overrides: &Overrides) -> Result<Values, ConfigError> {
        self.check_keys("", "", root)?;
        let mut values = Values(BTreeMap::new());
        let empty = Table::new();
        for section in keys::SECTIONS {
            let (name, table) = self.section(root, section, &empty)?;
            self.check_keys(section, name, table)?;
            for (key, default) in keys::of_section(section) {
                let of_default = || format!("x = {default}").parse::<Table>().ok()?.remove("x");
                // The file must be right even where a flag comes before it.
                let of_file = table.get(key.name);
                if let Some(value) = of_file {
                    check(key, value).map_err(|(shown, reason)| self.wrong(key.path(name), shown, reason))?;
                }
                let flag = key.flag.and_then(|flag| Some((flag, overrides.flags.get(flag)?)));
                let entry = match (flag, of_file) {
                    (Some((flag, text)), _) => {
                        let value = value_of_flag(key, text);
                        let origin = format!("--{flag} or {}", key.variable().unwrap_or_default());
                        check(key, &value).map_err(|(shown, reason)| wrong(origin, flag.to_owned(), shown, reason))?;
                        Some((value, Source::Flag))
                    }
                    (None, Some(value)) => Some((value.clone(), Source::File)),
                    (None, None) => of_default().map(|value| (value, Source::Default)),
                };
                if let Some(entry) = entry {
                    values.0.insert((section, key.name), entry);
                }
            }
        }
        Ok(values)
    }

    /// A section of the file, with the name that it has there.
    fn section<'t>(
        &mut self,
        root: &'t Table,
        section: &'static str,
        empty: &'t Table,
    ) -> Result<(&'static str, &'t Table), ConfigError> {
        if section.is_empty() {
            return Ok((section, root));
        }
        let (old, new) = RENAMED;
        let mut name = section;
        if section == new && root.contains_key(old) {
            name = old;
            if root.contains_key(new) {
                let reason = format!("this section is named [{new}] now, and the file has both: move its keys there");
                return Err(self.wrong(old.to_owned(), "(section)", reason));
            }
            self.warnings
                .push(format!("[{old}]: this section is named [{new}] now; rename it"));
        }
        let mut parts = name.split('.').peekable();
        let mut found = None;
        let mut table = root;
        while let Some(part) = parts.next() {
            found = table.get(part);
            match found {
                Some(Value::Table(of_part)) => table = of_part,
                // What is no table is said of the section itself.
                _ if parts.peek().is_some() => return Ok((name, empty)),
                _ => {}
            }
        }
        match found {
            None => Ok((name, empty)),
            Some(Value::Table(table)) => Ok((name, table)),
            Some(other) => Err(self.wrong(
                name.to_owned(),
                other.type_str(),
                format!("expected a section [{name}]"),
            )),
        }
    }
}

fn wrong(origin: String, key: String, value: impl ToString, reason: impl Into<String>) -> ConfigError {
    ConfigError::Setting {
        origin,
        key,
        value: value.to_string(),
        reason: reason.into(),
    }
}

fn value_of_flag(key: &Key, text: &str) -> Value {
    let number = || text.parse().ok().map(Value::Integer);
    match key.kind {
        ValueKind::Number(..) => number().unwrap_or_else(|| text.into()),
        ValueKind::Flag => text.parse().map_or_else(|_| text.into(), Value::Boolean),
        ValueKind::Texts(..) => Value::Array(text.split(',').map(|one| one.trim().into()).collect()),
        _ => text.into(),
    }
}

/// Checks a value by the kind of its key. An error has the part that is wrong, and what would be right.
fn check(key: &Key, value: &Value) -> Result<(), (String, String)> {
    let expect = |is_right: bool, what: &str| {
        let error = || (value.to_string(), format!("expected {what}"));
        is_right.then_some(()).ok_or_else(error)
    };
    let number_in = |range: &RangeInclusive<u64>| {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let (least, most) = (range.start(), range.end());
        let is_right = number.is_some_and(|number| range.contains(&number));
        expect(is_right, &format!("a whole number from {least} to {most}"))
    };
    let text = || expect(value.is_str(), "a string in quotes").map(|()| value.as_str().unwrap_or_default());
    let check_text = |text: &str, check: keys::Check| check(text).map_err(|reason| (shown(text), reason));
    match &key.kind {
        ValueKind::Flag => expect(value.is_bool(), "true or false"),
        ValueKind::Number(range, _) => number_in(range),
        ValueKind::Choice(names) => expect(names.contains(&text()?), &format!("one of {}", names.join(", "))),
        ValueKind::Text(_, check) => check_text(text()?, *check),
        ValueKind::Path => expect(!text()?.is_empty(), "the path of a file or folder"),
        ValueKind::Texts(_, check) => {
            let may_be_empty = key.sections.iter().any(|(_, default)| *default == "[]");
            let texts = strings(value).filter(|texts| !texts.is_empty() || may_be_empty);
            expect(texts.is_some(), "a string or a list of strings")?;
            let mut texts = texts.into_iter().flatten();
            texts.try_for_each(|text| check_text(&text, *check))
        }
        ValueKind::Ports => {
            let ports = ports(value);
            let is_right = !ports.is_empty() && ports.iter().all(|port| *port > 0);
            expect(is_right, "at least one port from 1 to 65535, such as [80, 443]")
        }
        ValueKind::Pairs => {
            const FORM: &str = "{ cert = \"FILE\", key = \"FILE\" } or a list of them; in place of a FILE, the name of \
                                a credential of systemd as cert_credential or key_credential";
            expect(pairs(value).is_some(), FORM)
        }
        ValueKind::Sample if value.is_integer() => number_in(&(1..=1_000_000_000)),
        ValueKind::Sample => expect(matches!(text()?, "off" | "all"), "one of off, all, or a number"),
        ValueKind::Partner(_) => Ok(()),
    }
}

/// A value in an error. What stands before the host of a URL may be a password.
fn shown(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("\"{scheme}://(secret)@{host}\""),
        _ => format!("{text:?}"),
    }
}

/// One string or a list of them.
pub fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// 0 for what is no port.
fn ports(value: &Value) -> Vec<u16> {
    let port = |item: &Value| item.as_integer().and_then(|port| u16::try_from(port).ok());
    let items = value
        .as_array()
        .map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    items.iter().map(|item| port(item).unwrap_or(0)).collect()
}

/// A file or a credential.
#[derive(Debug, Clone, Copy)]
pub enum FileName<'v> {
    Path(&'v str),
    Credential(&'v str),
}

/// Certificates and keys.
fn pairs(value: &Value) -> Option<Vec<[FileName<'_>; 2]>> {
    let items = value
        .as_array()
        .map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    items.iter().map(pair).collect()
}

fn pair(item: &Value) -> Option<[FileName<'_>; 2]> {
    let table = item.as_table()?;
    let text = |name: &str| table.get(name)?.as_str().filter(|text| !text.is_empty());
    let name = |path: &str, credential: &str| match (text(path), text(credential)) {
        (Some(path), None) => Some(FileName::Path(path)),
        (None, Some(name)) => Some(FileName::Credential(name)),
        _ => None,
    };
    let pair = [name("cert", "cert_credential")?, name("key", "key_credential")?];
    (table.len() == pair.len()).then_some(pair)
}

impl Values {
    fn get(&self, section: &'static str, key: &Key) -> Option<&Value> {
        self.0.get(&(section, key.name)).map(|(value, _)| value)
    }

    /// Replaces a value by what the program has worked out.
    pub fn set(&mut self, section: &'static str, key: &'static Key, value: impl Into<Value>) {
        self.0.insert((section, key.name), (value.into(), Source::Default));
    }

    /// Whether a flag or the file has it.
    pub fn is_set(&self, section: &'static str, key: &Key) -> bool {
        let entry = self.0.get(&(section, key.name));
        entry.is_some_and(|(_, source)| *source != Source::Default)
    }

    pub fn number(&self, section: &'static str, key: &Key) -> u64 {
        let number = self.get(section, key).and_then(Value::as_integer).unwrap_or_default();
        u64::try_from(number).unwrap_or_default()
    }

    pub fn size(&self, section: &'static str, key: &Key) -> usize {
        usize::try_from(self.number(section, key)).unwrap_or(usize::MAX)
    }

    /// None for 0.
    pub fn limit(&self, section: &'static str, key: &Key) -> Option<usize> {
        Some(self.size(section, key)).filter(|size| *size > 0)
    }

    pub fn seconds(&self, section: &'static str, key: &Key) -> Duration {
        Duration::from_secs(self.number(section, key))
    }

    pub fn flag(&self, section: &'static str, key: &Key) -> bool {
        self.get(section, key).and_then(Value::as_bool).unwrap_or_default()
    }

    pub fn text(&self, section: &'static str, key: &Key) -> Option<&str> {
        self.get(section, key)?.as_str()
    }

    /// What each text of a list parses to.
    pub fn list<T>(&self, section: &'static str, key: &Key, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let texts = self.get(section, key).and_then(strings).unwrap_or_default();
        texts.iter().filter_map(|text| parse(text.trim())).collect()
    }

    pub fn ports(&self, section: &'static str, key: &Key) -> Vec<u16> {
        self.get(section, key).map(ports).unwrap_or_default()
    }

    pub fn pairs(&self, section: &'static str, key: &Key) -> Vec<[FileName<'_>; 2]> {
        self.get(section, key).and_then(pairs).unwrap_or_default()
    }

    pub fn path(&self, section: &'static str, key: &Key, reader: &Reader) -> Option<PathBuf> {
        let (value, source) = self.0.get(&(section, key.name))?;
        let text = value.as_str()?;
        Some(match source {
            Source::File => reader.path(text),
            Source::Default | Source::Flag => PathBuf::from(text),
        })
    }

    /// Every value as `section.key = value`, in the order of the table.
    pub fn effective(&self) -> Vec<String> {
        let shown = |value: &Value| match value {
            Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(" "),
            value => text_of(value),
        };
        let of_key = |key: &'static Key| {
            let sections = key.sections.iter().filter(|(section, _)| *section != "partner");
            sections.map(move |(section, _)| {
                let value = self.get(section, key).map_or_else(|| "(none)".to_owned(), shown);
                format!("{} = {value}", key.path(section))
            })
        };
        keys::ALL.iter().flat_map(|key| of_key(key)).collect()
    }

    /// The settings that differ and apply after a restart only.
    pub fn fixed_differences(&self, other: &Self) -> Vec<String> {
        let fixed = keys::ALL.iter().filter(|key| key.applies == Applies::AfterRestart);
        let differs = |section: &'static str, key: &Key| self.get(section, key) != other.get(section, key);
        let differing = fixed.flat_map(|key| {
            let sections = key.sections.iter().filter(|(section, _)| differs(section, key));
            sections.map(|(section, _)| key.path(section))
        });
        differing.collect()
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
