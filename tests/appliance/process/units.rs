//! `tinyd-admin check` compares the settings with the units that systemd has loaded; here a script stands in for
//! systemctl.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::support::fixture::{folder, tinyd};

const PARTNER: &str = "[[partner]]\nid = 7\nadmin_secret_credential = \"admin_secret\"\n";
const SOCKET: &str = "Listen=127.0.0.1:8080 (Stream)\nListen=127.0.0.1:8081 (Stream)\nLoadState=loaded\n\
                      NeedDaemonReload=no\n";
const SERVICE: &str = "AmbientCapabilities=\nLoadState=loaded\nNeedDaemonReload=no\n";
const FILES: &str = "[Service]\nLoadCredential=admin_secret:/etc/tinyd/credentials/admin_secret\n";

/// What `systemctl` prints.
struct Units<'u> {
    socket: &'u str,
    service: &'u str,
    files: &'u str,
}

const AS_INSTALLED: Units<'_> = Units {
    socket: SOCKET,
    service: SERVICE,
    files: FILES,
};

fn install(units: &Units<'_>, folder: &Path) {
    fs::write(folder.join("show-tinyd.socket"), units.socket).unwrap();
    fs::write(folder.join("show-tinyd.service"), units.service).unwrap();
    fs::write(folder.join("cat-tinyd.service"), units.files).unwrap();
    // --no-pager, the verb, perhaps properties, and the unit.
    let script = format!(
        "#!/bin/sh\nfor unit; do :; done\nexec cat {}/$2-$unit\n",
        folder.display()
    );
    let path = folder.join("systemctl");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn check_by(command: &str, settings: &str, units: &Units<'_>) -> (TempDir, Output) {
    let folder = folder(&format!("{settings}\n{PARTNER}"));
    for name in ["admin_secret", "second"] {
        fs::write(folder.path().join(name), "secret secret secret").unwrap();
    }
    install(units, folder.path());
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = tinyd()
        .args(["check", "--config"])
        .arg(folder.path().join("tinyd.toml"))
        .envs([("PATH", path.as_str()), ("TINYD_COMMAND", command)])
        .env("CREDENTIALS_DIRECTORY", folder.path())
        .output()
        .unwrap();
    (folder, output)
}

fn check(settings: &str, units: &Units<'_>) -> (Option<i32>, String) {
    let (_folder, output) = check_by("tinyd-admin", settings, units);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn settings_that_fit_the_units_are_valid() {
    let (exit, said) = check("", &AS_INSTALLED);
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("units: tinyd.socket and tinyd.service fit"), "{said}");
    assert!(!said.contains("is not in tinyd.socket"), "{said}");
}

#[test]
fn settings_that_do_not_fit_the_units_are_named() {
    let second = "[[partner]]\nid = 8\nadmin_secret_credential = \"second\"\n";
    let low_port = "[public]\nlisten = [\"127.0.0.1:8080\", \"127.0.0.1:81\"]";
    let unix = format!("{SOCKET}Listen=/run/tinyd (Stream)\n");
    for (settings, socket, problem) in [
        (
            "[public]\nlisten = \"127.0.0.1:9080\"",
            SOCKET,
            "tinyd.socket listens on 127.0.0.1:8080",
        ),
        ("", unix.as_str(), "tinyd.socket listens on /run/tinyd"),
        (
            low_port,
            SOCKET,
            "127.0.0.1:81 is not in tinyd.socket, and tinyd may not open a port below 1024",
        ),
        (
            second,
            SOCKET,
            "tinyd.service has no LoadCredential= for the credential second",
        ),
    ] {
        let (exit, said) = check(settings, &Units { socket, ..AS_INSTALLED });
        assert_eq!(exit, Some(2), "{said}");
        assert!(said.contains(problem) && !said.contains(": ok"), "{problem}: {said}");
    }
    let service = "AmbientCapabilities=cap_net_bind_service\nLoadState=loaded\nNeedDaemonReload=no\n";
    let (exit, said) = check(
        low_port,
        &Units {
            service,
            ..AS_INSTALLED
        },
    );
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("warning: 127.0.0.1:81 is not in tinyd.socket"), "{said}");
}

#[test]
fn masked_socket_and_changed_units_are_understood() {
    let masked = "LoadState=masked\nNeedDaemonReload=no\n";
    let settings = "[public]\nlisten = \"127.0.0.1:9080\"";
    let (exit, said) = check(
        settings,
        &Units {
            socket: masked,
            ..AS_INSTALLED
        },
    );
    assert_eq!(exit, Some(0), "{said}");
    let stale = SOCKET.replace("NeedDaemonReload=no", "NeedDaemonReload=yes");
    for (settings, expected) in [("", 0), (settings, 2)] {
        let (exit, said) = check(
            settings,
            &Units {
                socket: &stale,
                ..AS_INSTALLED
            },
        );
        assert_eq!(exit, Some(expected), "{said}");
        assert!(
            said.contains("tinyd.socket has changed on disk: run systemctl daemon-reload"),
            "{said}"
        );
    }
}

#[test]
fn units_are_left_alone_without_systemd_or_wrapper() {
    let (folder, output) = check_by("", "[public]\nlisten = \"127.0.0.1:9080\"", &AS_INSTALLED);
    assert!(output.status.success());
    assert!(!String::from_utf8(output.stdout).unwrap().contains("units"));
    fs::write(
        folder.path().join("systemctl"),
        "#!/bin/sh\necho not booted >&2\nexit 1\n",
    )
    .unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = tinyd()
        .args(["check", "--config"])
        .arg(folder.path().join("tinyd.toml"))
        .envs([("PATH", path.as_str()), ("TINYD_COMMAND", "tinyd-admin")])
        .env("CREDENTIALS_DIRECTORY", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && said.contains("units: not compared: systemctl: not booted"),
        "{said}"
    );
}
