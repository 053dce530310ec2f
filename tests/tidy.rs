//! Rules of the code base: imports between rooms, owners of packages, lengths, names, documents.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking"
)]

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/files.rs"]
mod files;

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, bottom to top, each with rooms below it that it must not use.
const ROOMS: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("metrics", &["model"]),
    ("http", &[]),
    ("tls", &[]),
    ("kaltura", &["metrics", "tls"]),
    ("store", &["http", "tls", "kaltura"]),
    ("links", &["metrics", "http", "tls"]),
    ("cluster", &["http", "kaltura"]),
    ("access", &["tls", "store", "links", "cluster"]),
    ("fetch", &["kaltura", "store", "links", "cluster", "access"]),
    ("acme", &["kaltura", "links", "cluster", "access", "fetch"]),
    ("redirect", &["tls", "store", "cluster", "access", "acme"]),
    (
        "transfer",
        &["metrics", "tls", "cluster", "access", "fetch", "acme", "redirect"],
    ),
    ("api", &["cluster", "fetch", "acme"]),
    (
        "admin",
        &["kaltura", "access", "fetch", "acme", "redirect", "transfer", "api"],
    ),
    ("console", &["cluster", "fetch", "acme", "api"]),
    (
        "config",
        &["metrics", "store", "links", "access", "transfer", "api", "admin"],
    ),
    ("server", &[]),
    ("cli", &["metrics"]),
];

/// Packages, and the only rooms, folders or files of `src` that may name them.
const OWNED: [(&str, &[&str]); 25] = [
    ("async_nats", &["cluster/nats"]),
    ("bincode", &["store/format/record.rs"]),
    ("clap", &["cli"]),
    ("csv", &["links/file"]),
    ("hashbrown", &["links"]),
    ("hickory_resolver", &["fetch"]),
    ("httparse", &["redirect/fast"]),
    ("instant_acme", &["acme"]),
    ("listenfd", &["http/connection"]),
    ("nkeys", &["cluster/key.rs"]),
    ("openidconnect", &["console/oidc"]),
    (
        "parking_lot",
        &[
            "metrics", "http", "tls", "store", "links", "cluster", "access", "fetch", "acme", "api", "console",
        ],
    ),
    ("ppp", &["http/connection"]),
    ("procfs", &["metrics"]),
    ("prometheus_client", &["metrics/prometheus.rs"]),
    ("rcgen", &["acme", "tls/testing.rs"]),
    ("redb", &["store"]),
    ("roxmltree", &["redirect/branding.rs"]),
    ("rustls", &["acme", "fetch", "tls"]),
    ("rustls_native_certs", &["tls"]),
    ("sd_notify", &["server/systemd"]),
    ("tokio_rustls", &["acme", "fetch", "tls"]),
    ("ureq", &["cli"]),
    ("webpki_roots", &["tls"]),
    ("x509_parser", &["tls"]),
];

/// Longest source file, in lines. A longer one has two subjects.
const FILE_MAX_LINES: usize = 600;
/// Longest function, in lines.
const FUNCTION_MAX_LINES: usize = 80;

struct Source {
    path: PathBuf,
    room: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let is_of_tests = |part: &std::ffi::OsStr| {
            let part = part.to_str().unwrap();
            ["tests", "testing"].contains(&part) || part.ends_with("tests.rs")
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        self.path.strip_prefix(root).unwrap().iter().any(is_of_tests)
    }

    /// Whether it is this file, or in this folder of `src`.
    fn is_in(&self, place: &str) -> bool {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        self.path.starts_with(root.join(place))
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
fn rooms_use_only_rooms_below_them() {
    for source in sources() {
        let Some(position) = ROOMS.iter().position(|(room, _)| *room == source.room) else {
            assert!(
                ["build.rs", "lib.rs", "main.rs"].contains(&source.room.as_str()),
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
fn owned_packages_are_named_in_their_places_only() {
    for source in sources() {
        for (number, line) in source.program() {
            for (package, places) in OWNED {
                let forms = [
                    format!("{package}::"),
                    format!("use {package};"),
                    format!("use {package} as"),
                ];
                let named = forms.iter().any(|form| line.contains(form)) && !line.trim_start().starts_with("//");
                assert!(
                    !named || places.iter().any(|place| source.is_in(place)),
                    "{:?}:{number}: {package} outside {places:?}",
                    source.path
                );
            }
        }
    }
}

#[test]
fn files_and_functions_are_short_and_documented() {
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
fn no_code_is_unfinished() {
    for source in sources() {
        for word in ["todo!", "unimplemented!", "FIXME", "XXX", "#[ignore"] {
            assert!(!source.text.contains(word), "{:?} has {word}", source.path);
        }
    }
}
