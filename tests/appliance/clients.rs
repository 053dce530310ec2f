//! Kaltura's own clients, unchanged (`tests/clients`): each is installed from its lock file and exercises the API.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET};

/// Runs a command that must succeed; shows what it printed if not.
fn run(command: &mut Command, hint: &str) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}. {hint}"));
    let shown = [output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    assert!(output.status.success(), "{command:?} failed. {hint}\n{shown}");
    println!("{shown}");
}

/// A copy of a client's folder with what it needs installed, kept under `target` until its lock file or the runtime that
/// it was installed for changes.
fn installed(client: &str, lock: &str, runtime: &str, install: impl FnOnce(&Path)) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(client);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(client);
    let stamp = folder.join("installed");
    let version = Command::new(runtime).arg("--version").output();
    let version = version
        .unwrap_or_else(|error| panic!("{runtime}: {error}. The clients need it."))
        .stdout;
    let wanted = fs::read_to_string(source.join(lock)).unwrap() + &String::from_utf8_lossy(&version);
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&wanted) {
        // A half-finished installation is begun anew.
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

fn npm_installed(client: &str) -> PathBuf {
    installed(client, "package-lock.json", "node", |folder| {
        let mut command = Command::new("npm");
        command
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(folder);
        run(&mut command, "The clients need Node.js and npm.");
    })
}

#[test]
fn the_python_client_works_unchanged() {
    let folder = installed("python", "requirements.txt", "python3", |folder| {
        let hint = "The clients need Python 3 with venv and pip.";
        run(
            Command::new("python3").args(["-m", "venv", "venv"]).current_dir(folder),
            hint,
        );
        let mut command = Command::new(folder.join("venv/bin/pip"));
        command.args([
            "install",
            "--quiet",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "-r",
            "requirements.txt",
        ]);
        run(command.current_dir(folder), hint);
    });
    exercise(
        Command::new(folder.join("venv/bin/python"))
            .arg("-B")
            .arg(folder.join("exercise.py")),
        "",
    );
}

#[test]
fn the_node_client_and_the_kmc_work_unchanged() {
    exercise(Command::new("node").arg(npm_installed("node").join("exercise.js")), "");
}

#[test]
fn the_typescript_client_works_unchanged_in_a_browser() {
    let script = npm_installed("typescript").join("exercise.mjs");
    exercise(
        Command::new("node").arg(script),
        "It needs Chromium: apt-get install chromium, or set CHROMIUM.",
    );
}

#[test]
fn php_reads_its_format() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/php/exercise.php");
    exercise(
        Command::new("php").arg(script),
        "It needs PHP: apt-get install php-cli.",
    );
}
