//! The reference of settings in docs/configuration.md and docs/tinyd.example.toml follow the table: `TINYD_BLESS=1`
//! writes them anew.

use std::fs;
use std::path::Path;

use super::{Overrides, keys, read, reference};

const COLUMNS: usize = 100;
const BEGIN: &str = "<!-- settings -->\n";
const END: &str = "<!-- end of settings -->\n";

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

fn all_keys() -> String {
    let mut text = String::new();
    for (heading, sections) in reference::HEADINGS {
        text.push_str(&format!("\n### {heading}\n\n"));
        for key in reference::keys_of(sections) {
            text.push_str(&wrapped(&format!("**`{}`**: {}", key.name, key.doc), "- ", "  "));
            if !key.why.is_empty() {
                text.push_str(&wrapped(key.why, "  ", "  "));
            }
            text.push_str(&wrapped(&reference::conditions(key), "  ", "  "));
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
    let expected = [before, BEGIN, &all_keys(), END, after].concat();
    expect(&path, &actual, &expected);
    let sections = reference::HEADINGS.iter().map(|(_, sections)| sections);
    let documented: usize = sections.map(|sections| reference::keys_of(sections).len()).sum();
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
