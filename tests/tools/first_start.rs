//! The commands that the first start prints.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::support::fixture::{Process, tinyd};
use crate::support::http::request;

pub fn first_start_prints_commands_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let child = tinyd()
        .args(["serve", "--public", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut lines = BufReader::new(process.0.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let public = lines.next().unwrap().strip_prefix("public ").unwrap().to_owned();
    assert!(lines.next().unwrap().starts_with("admin http://127.0.0.1:"));

    let mut said = BufReader::new(process.0.stderr.take().unwrap());
    let mut pasted = String::new();
    let mut line = String::new();
    while !pasted.contains("/tiny/") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it has ended");
        if line.starts_with("  ") {
            pasted.push_str(&line);
        }
    }
    let config = folder.path().join("tinyd-data/tinyd.toml");
    let mode = fs::metadata(&config).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let settings = fs::read_to_string(&config).unwrap();
    let secret = settings
        .split("admin_secret = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(secret.len() == 32 && !pasted.contains(secret));

    let output = Command::new("bash").args(["-c", &pasted]).output().unwrap();
    let url = String::from_utf8(output.stdout).unwrap();
    let path = url
        .trim()
        .strip_prefix(&public)
        .unwrap_or_else(|| panic!("{url} from {pasted}"));
    let hop = request(&public, "GET", path, &[], b"");
    let goto = request(&public, "GET", hop.header("location"), &[], b"");
    assert_eq!((hop.status, goto.status), (301, 302));
    drop(process);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains(secret));
}
