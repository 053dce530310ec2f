//! The reference of settings in docs/configuration.md and docs/tinyd.example.toml follow the table: `TINYD_BLESS=1`
//! writes them anew.

use std::fs;
use std::path::Path;

use super::keys::{self, Applies, Key, ValueKind};
use super::{Overrides, read};

const COLUMNS: usize = 100;
const BEGIN: &str = "<!-- settings -->\n";
const END: &str = "<!-- end of settings -->\n";

const SECTIONS: [(&str, &[&str]); 14] = [
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

fn keys_of(sections: &[&str]) -> Vec<&'static Key> {
    let has = |key: &&Key| key.sections.iter().map(|(section, _)| section).eq(sections);
    keys::ALL.iter().copied().filter(has).collect()
}

fn wrapped(text: &str, first: &str, rest: &str) -> String {
    let (mut lines, mut line) = (String::new(), first.to_owned());
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = rest.to_owned();
        } else if !line.ends_with(' ') {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &line + "\n"
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

fn reference() -> String {
    let mut text = String::new();
    for (heading, sections) in SECTIONS {
        text.push_str(&format!("\n### {heading}\n\n"));
        for key in keys_of(sections) {
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
            text.push_str(&wrapped(&format!("**`{}`**: {}", key.name, key.doc), "- ", "  "));
            if !key.why.is_empty() {
                text.push_str(&wrapped(key.why, "  ", "  "));
            }
            text.push_str(&wrapped(
                &format!("({}{defaults}{flag}; {applies}.)", form(&key.kind)),
                "  ",
                "  ",
            ));
        }
    }
    text.push('\n');
    text
}

fn example() -> String {
    let mut text = "# Every setting of tinyd with its default. docs/configuration.md explains them.\n".to_owned();
    for section in keys::SECTIONS.into_iter().chain(["partner"]) {
        match section {
            "" => {}
            "partner" => text.push_str("\n# A section for each partner.\n#[[partner]]\n"),
            section => text.push_str(&format!("\n[{section}]\n")),
        }
        for (key, default) in keys::of_section(section) {
            text.push('\n');
            text.push_str(&wrapped(&key.doc.replace('`', ""), "# ", "# "));
            match default {
                "" if key.name == "id" => text.push_str("#id = 1234567\n"),
                "" => text.push_str(&format!("# {} = …\n", key.name)),
                default => text.push_str(&format!("#{} = {default}\n", key.name)),
            }
        }
    }
    text
}

/// Compares a document with what it should be, or writes it.
fn expect(path: &Path, actual: &str, expected: &str) {
    if std::env::var_os("TINYD_BLESS").is_some() {
        fs::write(path, expected).unwrap();
        return;
    }
    assert!(
        actual == expected,
        "{} does not follow the table: set TINYD_BLESS=1 once",
        path.display()
    );
}

#[test]
fn reference_follows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let actual = fs::read_to_string(&path).unwrap();
    let (before, rest) = actual.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = [before, BEGIN, &reference(), END, after].concat();
    expect(&path, &actual, &expected);
    let documented: usize = SECTIONS.iter().map(|(_, sections)| keys_of(sections).len()).sum();
    assert_eq!(documented, keys::ALL.len(), "a key is in no section of the reference");
}

#[test]
fn example_has_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tinyd.example.toml");
    let expected = example();
    expect(&path, &fs::read_to_string(&path).unwrap_or_default(), &expected);
    // A path in the file is relative to its folder.
    let parse = |text: &str| read::parse(text, Path::new("tinyd.toml"), &Overrides::default()).unwrap();
    let of_nothing = parse("").effective();
    assert_eq!(parse(&expected).effective(), of_nothing);
    let (settings, _) = expected.split_once("\n# A section for each partner.").unwrap();
    let uncommented: String = settings
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(parse(&uncommented).effective(), of_nothing);
}
