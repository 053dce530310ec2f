//! Keeps the house in order: who may use whom, who alone names which package, and how long a file may be.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, bottom to top, each with those below it that it must not use all the same.
const ROOMS: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("metrics", &["model"]),
    ("wire", &["model"]),
    ("ks", &["wire"]),
    ("store", &["wire", "ks"]),
    ("rows", &["ks", "store"]),
    ("links", &["wire"]),
    ("http", &["ks", "store", "rows", "links"]),
    ("fetch", &["wire", "ks", "store", "rows", "links"]),
    ("public", &["ks", "store", "rows"]),
    ("api", &[]),
    ("config", &["store", "rows", "links", "api"]),
    ("server", &[]),
    ("cli", &[]),
];

/// Packages that only some rooms name.
const OWNED: [(&str, &[&str]); 15] = [
    ("csv", &["rows"]),
    ("redb", &["store"]),
    ("bincode", &["store"]),
    (
        "parking_lot",
        &["links", "store", "rows", "fetch", "public", "api", "server", "metrics"],
    ),
    ("hashbrown", &["links"]),
    ("sd_notify", &["server"]),
    ("clap", &["cli"]),
    ("ureq", &["cli"]),
    ("prometheus_client", &["metrics"]),
    ("procfs", &["metrics"]),
    ("rustls", &["fetch"]),
    ("tokio_rustls", &["fetch"]),
    ("rustls_native_certs", &["fetch"]),
    ("webpki_roots", &["fetch"]),
    ("hickory_resolver", &["fetch"]),
];

/// Longest source file, in lines. A longer one has a second room inside.
const FILE_MAX_LINES: usize = 600;
/// Longest function, in lines.
const FUNCTION_MAX_LINES: usize = 100;

struct Source {
    path: PathBuf,
    room: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        name.ends_with("tests.rs") || name == "simulated.rs"
    }

    /// The lines of the program, without the tests beside it.
    fn program(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(number, line)| (number + 1, line));
        lines
            .take_while(|(_, line)| *line != "mod tests {")
            .filter(|_| !self.is_test())
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let room = path
                    .strip_prefix(&root)
                    .unwrap()
                    .iter()
                    .next()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { path, room, text });
            }
        }
    }
    sources
}

#[test]
fn every_room_uses_only_rooms_below_it() {
    for source in sources() {
        let Some(position) = ROOMS.iter().position(|(room, _)| *room == source.room) else {
            assert!(
                ["lib.rs", "main.rs"].contains(&source.room.as_str()),
                "{:?} is in no room",
                source.path
            );
            continue;
        };
        for (number, line) in source.program() {
            for (above, (other, _)) in ROOMS.iter().enumerate() {
                let allowed = above <= position && !ROOMS[position].1.contains(other);
                let named = line.contains(&format!("crate::{other}::")) && !line.trim_start().starts_with("//");
                assert!(
                    !line.contains("use crate::{"),
                    "{:?}:{number}: name each room in a line of its own",
                    source.path
                );
                assert!(
                    allowed || !named,
                    "{:?}:{number}: {} uses {other}",
                    source.path,
                    source.room
                );
            }
        }
    }
}

#[test]
fn some_packages_are_named_in_their_rooms_only() {
    for source in sources() {
        for (number, line) in source.program() {
            for (package, rooms) in OWNED {
                let forms = [
                    format!("{package}::"),
                    format!("use {package};"),
                    format!("use {package} as"),
                ];
                let named = forms.iter().any(|form| line.contains(form)) && !line.trim_start().starts_with("//");
                assert!(
                    !named || rooms.contains(&source.room.as_str()),
                    "{:?}:{number}: {package} outside {rooms:?}",
                    source.path
                );
            }
        }
    }
}

#[test]
fn files_and_functions_are_short_and_say_what_they_are() {
    for source in sources() {
        let path = &source.path;
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            !["utils", "util", "helpers", "misc", "common"].contains(&name),
            "{path:?}: name it by what it holds"
        );
        let lines = source.text.lines().count();
        assert!(lines <= FILE_MAX_LINES, "{path:?} has {lines} lines");
        assert!(
            source.is_test() || source.text.starts_with("//! "),
            "{path:?} does not say what it owns"
        );
        let mut begun = None;
        for (number, line) in source.program() {
            let code = line.trim_start();
            let indent = line.len() - code.len();
            let qualifiers = ["pub", "pub(super)", "pub(crate)", "const", "async"];
            let first_word = code.split(' ').find(|word| !qualifiers.contains(word));
            if first_word == Some("fn") {
                begun = Some((number, indent));
            }
            if let Some((first, outer)) = begun
                && code == "}"
                && indent == outer
            {
                assert!(
                    number - first < FUNCTION_MAX_LINES,
                    "{path:?}:{first}: {} lines",
                    number - first
                );
                begun = None;
            }
        }
    }
}

#[test]
fn what_is_not_finished_is_not_there() {
    for source in sources() {
        for word in ["todo!", "unimplemented!", "FIXME", "XXX", "#[ignore"] {
            assert!(!source.text.contains(word), "{:?} has {word}", source.path);
        }
    }
}
