//! Kaltura's own clients, unchanged (`tests/clients`): each is installed from its lock file and exercises the API. Also
//! installs Python tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET};

/// Runs a command that must succeed; shows its output if not.
pub fn run(command: &mut Command, hint: &str) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}. {hint}"));
    let shown = [output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    assert!(output.status.success(), "{command:?} failed. {hint}\n{shown}");
}

/// A copy of a folder in `tests` with its dependencies, kept under `target` until its lock file or its runtime
/// changes.
fn installed(folder: &str, lock: &str, runtime: &str, install: impl FnOnce(&Path)) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let stamp = folder.join("installed");
    let version = Command::new(runtime).arg("--version").output();
    let version = version
        .unwrap_or_else(|error| panic!("{runtime}: {error}. The tests need it."))
        .stdout;
    let wanted = fs::read_to_string(source.join(lock)).unwrap() + &String::from_utf8_lossy(&version);
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&wanted) {
        // Removes an incomplete installation.
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        copy_files(&source, &folder);
        install(&folder);
        fs::write(stamp, wanted).unwrap();
    }
    copy_files(&source, &folder);
    folder
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn exercise(command: &mut Command, hint: &str) {
    let appliance = Appliance::start();
    command
        .env("TINYD_ADMIN_URL", &appliance.admin)
        .env("TINYD_PUBLIC_URL", &appliance.public)
        .env("TINYD_PARTNER_ID", PARTNER)
        .env("TINYD_ADMIN_SECRET", ADMIN_SECRET)
        .env("TINYD_USER_SECRET", USER_SECRET);
    run(command, hint);
}

/// A copy of a folder in `tests` with the packages of its lock file.
pub fn npm_installed(folder: &str) -> PathBuf {
    installed(folder, "package-lock.json", "node", |folder| {
        let mut command = Command::new("npm");
        command
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(folder);
        run(&mut command, "The tests need Node.js and npm.");
    })
}

/// A copy of a folder in `tests` with a virtual environment, `venv`, of its `requirements.txt` and, if it has one, its
/// `sources.txt`.
pub fn python_installed(folder: &str) -> PathBuf {
    installed(folder, "requirements.txt", "python3", |folder| {
        let hint = "The tests need Python 3 with venv and pip.";
        run(
            Command::new("python3").args(["-m", "venv", "venv"]).current_dir(folder),
            hint,
        );
        let install = ["install", "--quiet", "--require-hashes", "--no-deps"];
        let wheels = ["--only-binary", ":all:", "-r", "requirements.txt"];
        // No build isolation: an isolated build would use packages without hashes.
        let sources = ["--no-binary", ":all:", "--no-build-isolation", "-r", "sources.txt"];
        let has_sources = folder.join("sources.txt").exists();
        for what in [&wheels[..]].into_iter().chain(has_sources.then_some(&sources[..])) {
            let mut command = Command::new(folder.join("venv/bin/pip"));
            run(command.args(install).args(what).current_dir(folder), hint);
        }
    })
}

pub fn python_client_works_unchanged() {
    let folder = python_installed("clients/python");
    exercise(
        Command::new(folder.join("venv/bin/python"))
            .arg("-B")
            .arg(folder.join("exercise.py")),
        "",
    );
}

pub fn node_client_and_kmc_work_unchanged() {
    exercise(
        Command::new("node").arg(npm_installed("clients/node").join("exercise.js")),
        "",
    );
}

pub fn typescript_client_works_unchanged_in_a_browser() {
    let script = npm_installed("clients/typescript").join("exercise.mjs");
    exercise(
        Command::new("node").arg(script),
        "It needs Chromium: apt-get install chromium, or set CHROMIUM.",
    );
}

pub fn php_reads_the_php_format() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/php/exercise.php");
    exercise(
        Command::new("php").arg(script),
        "It needs PHP: apt-get install php-cli.",
    );
}
