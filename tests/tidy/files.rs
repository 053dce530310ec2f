//! The files that the rules read.

use std::fs;
use std::path::{Path, PathBuf};

/// A file, by its path from the root of the repository.
pub struct File {
    pub path: String,
    pub text: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files with one of these endings in these files and folders, sorted by path, without pictures.
pub fn files(places: &[&str], endings: &[&str]) -> Vec<File> {
    let mut paths: Vec<PathBuf> = places.iter().map(|place| root().join(place)).collect();
    let mut files = Vec::new();
    while let Some(path) = paths.pop() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            let is_ours = !["target", "node_modules", "corpus", "artifacts"].contains(&name);
            if is_ours {
                paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if path.exists() && endings.iter().any(|ending| name.ends_with(ending)) {
            let Ok(text) = String::from_utf8(fs::read(&path).unwrap()) else {
                continue;
            };
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            files.push(File { path, text });
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// The Rust files of the program, its tests, benchmarks and fuzz targets.
pub fn code() -> Vec<File> {
    files(&["src", "tests", "benches", "fuzz"], &[".rs"])
}

/// The Markdown files.
pub fn documents() -> Vec<File> {
    files(
        &["README.md", "docs", "src", "tests", "benches", "systemd", "fuzz"],
        &[".md"],
    )
}

/// The lines with their numbers.
pub fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(number, line)| (number + 1, line))
}

/// Fails with all violations at once.
#[track_caller]
pub fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}
