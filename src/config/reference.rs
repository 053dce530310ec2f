//! How documents describe the settings: docs/configuration.md and the man page tinyd.toml(5).

use crate::config::keys::{self, Applies, Key, ValueKind};

/// The headings, each with the sections whose keys it has. Backquotes enclose what stands in a file as it is.
pub const HEADINGS: [(&str, &[&str]); 14] = [
    ("Top of the file", &[""]),
    ("`[public]`", &["public"]),
    ("`[admin]`", &["admin"]),
    ("`[public]` and `[admin]`", &["public", "admin"]),
    ("`[public.tls]` and `[admin.tls]`", &["public.tls", "admin.tls"]),
    ("`[admin.tls]`", &["admin.tls"]),
    ("`[acme]`", &["acme"]),
    ("`[console]`", &["console"]),
    ("`[console.oidc]`", &["console.oidc"]),
    ("`[links]`", &["links"]),
    ("`[cluster]`", &["cluster"]),
    ("`[fetch]`", &["fetch"]),
    ("`[log]`", &["log"]),
    ("`[[partner]]`", &["partner"]),
];

/// The keys that are in exactly these sections.
pub fn keys_of(sections: &[&str]) -> Vec<&'static Key> {
    let has = |key: &&Key| key.sections.iter().map(|(section, _)| section).eq(sections);
    keys::ALL.iter().copied().filter(has).collect()
}

/// The values that a key takes, its default, its flag, and when a change applies.
pub fn conditions(key: &Key) -> String {
    let defaults = match key.sections {
        [(_, "")] => String::new(),
        [(_, default)] => format!("; default `{default}`"),
        [(_, default), (_, same)] if default == same => format!("; default `{default}`"),
        several => several
            .iter()
            .map(|(section, default)| format!("; default of `{section}`: `{default}`"))
            .collect(),
    };
    let flag = match (key.flag, key.variable()) {
        (Some(flag), Some(variable)) => format!("; `--{flag}`, `{variable}`"),
        _ => String::new(),
    };
    let applies = match key.applies {
        Applies::AtReload => "applies at once after a reload",
        Applies::ToNewConnections => "applies to new connections after a reload",
        Applies::AfterRestart => "applies after a restart",
    };
    format!("({}{defaults}{flag}; {applies}.)", form(&key.kind))
}

fn form(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Flag => "`true` or `false`".to_owned(),
        ValueKind::Number(range, unit) => {
            let unit = if unit.is_empty() {
                String::new()
            } else {
                format!(" {unit}")
            };
            format!("{} to {}{unit}", range.start(), range.end())
        }
        ValueKind::Choice(names) => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        }
        ValueKind::Text(form, _) | ValueKind::Partner(form) => (*form).to_owned(),
        ValueKind::Texts(form, _) => format!("{form}: a string or a list"),
        ValueKind::Path => "a path".to_owned(),
        ValueKind::Pairs => "`{ cert = \"FILE\", key = \"FILE\" }` or a list".to_owned(),
        ValueKind::Ports => "a port or a list".to_owned(),
        ValueKind::Sample => "`off`, `all`, or a number".to_owned(),
    }
}
