//! The first start, and invalid settings.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::fixture::{Appliance, Process, configuration, folder, tinyd};
use crate::support::http::request;

/// Runs `tinyd serve`, which must fail, and returns its exit code and standard error.
fn refused(args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    refused_in(&tempfile::tempdir().unwrap(), args, environment)
}

fn refused_in(folder: &TempDir, args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = tinyd();
    command
        .arg("serve")
        .args(args)
        .current_dir(folder.path())
        .envs(environment.iter().copied());
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "it listened");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn first_start_prints_addresses_and_a_command_that_works() {
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

    let mut stderr = BufReader::new(process.0.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    // A warning comes before, where the limits of this machine are low.
    let mut printed = stderr.by_ref().skip_while(|line| line.contains(" WARN ")).take(5);
    let printed: [String; 5] = std::array::from_fn(|_| printed.next().unwrap());
    let [_, heading, _, command, _] = &printed;
    assert_eq!(heading, "Create a link, in another terminal:");
    assert!(command.starts_with("  "), "{command}");
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
    assert!(secret.len() == 32 && !command.contains(secret));

    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let link = String::from_utf8(output.stdout).unwrap();
    let url = link
        .lines()
        .find_map(|line| line.strip_prefix("short URL"))
        .unwrap_or_else(|| panic!("{link}"));
    let id = url.rsplit('/').next().unwrap();
    let hop = request(&public, "GET", &format!("/tiny/{id}"), &[], b"");
    let goto = request(&public, "GET", hop.header("location"), &[], b"");
    assert_eq!((hop.status, goto.status), (301, 302));
    let pid = Pid::from_child(&process.0);
    kill_process(pid, Signal::TERM).unwrap();
    let rest: Vec<_> = stderr.collect();
    assert!(
        matches!(&rest[..], [draining, ended] if draining.contains("draining") && ended.contains("ended")),
        "{rest:?}"
    );
}

/// What a server writes to standard error, with the device and inode of that in `JOURNAL_STREAM` or not.
fn log_of_a_start(is_journal: bool, config: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tinyd.toml"), config).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let metadata = log.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino() + u64::from(!is_journal));
    let mut command = tinyd();
    command
        .args(["serve", "--public", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .env("JOURNAL_STREAM", stream)
        .stdout(Stdio::piped())
        .stderr(log);
    let mut process = Process(command.spawn().unwrap());
    // The first line, or the end.
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    // Not killed while it writes a line.
    kill_process(Pid::from_child(&process.0), Signal::TERM).unwrap();
    process.0.wait().unwrap();
    fs::read_to_string(folder.path().join("log")).unwrap()
}

#[test]
fn journal_gets_priorities_and_no_timestamps() {
    let (valid, invalid) = (configuration(""), "drain_seconds = 0");
    let log = log_of_a_start(true, &valid);
    assert!(log.lines().any(|line| line.starts_with("<6>store opened ")), "{log}");
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    let log = log_of_a_start(true, invalid);
    assert!(log.starts_with("<3>tinyd: "), "{log}");
    let year = |line: &str| line.get(..2) == Some("20");
    let log = log_of_a_start(false, &valid);
    assert!(
        year(&log) && log.contains("store opened") && !log.contains("<6>"),
        "{log}"
    );
    let log = log_of_a_start(false, invalid);
    assert!(log.starts_with("tinyd: "), "{log}");
}

#[test]
fn invalid_setting_is_reported_with_key_value_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tinyd.toml");
    fs::write(&path, configuration("[public]\nlisten = \"everywhere\"")).unwrap();
    let path = path.to_str().unwrap();
    for (args, environment, parts) in [
        (
            vec!["--config", path],
            vec![],
            ["tinyd.toml: public.listen", "\"everywhere\"", "IP:PORT"],
        ),
        (
            vec!["--public", "8080"],
            vec![],
            ["TINYD_PUBLIC: public", "\"8080\"", "IP:PORT"],
        ),
        (
            vec![],
            vec![("TINYD_TINY", "fast")],
            ["TINYD_TINY: tiny", "\"fast\"", "hop, direct"],
        ),
        (vec!["--threads", "0"], vec![], ["TINYD_THREADS", "0", "1 to 256"]),
        (vec!["--id-length", "3"], vec![], ["TINYD_ID_LENGTH", "3", "4 to 20"]),
        (
            vec![],
            vec![("TINYD_LOG_FORMAT", "xml")],
            ["TINYD_LOG_FORMAT", "\"xml\"", "text, json"],
        ),
        (
            vec!["--config", "/nonexistent/tinyd.toml"],
            vec![],
            ["/nonexistent/tinyd.toml", "cannot read", "No such file"],
        ),
    ] {
        let (exit, said) = refused(&args, &environment);
        assert_eq!(exit, 2, "{said}");
        for part in parts {
            assert!(said.contains(part), "{said:?} without {part:?}");
        }
    }
}

#[test]
fn environment_variables_set_the_same_as_flags() {
    let folder = tempfile::tempdir().unwrap();
    let child = tinyd()
        .arg("serve")
        .current_dir(folder.path())
        .envs([
            ("TINYD_PUBLIC", "127.0.0.1:0"),
            ("TINYD_ADMIN", "127.0.0.1:0, 127.0.0.1:0"),
            ("TINYD_LOG", "debug"),
            ("TINYD_LOG_FORMAT", "json"),
        ])
        .env("TINYD_DATA", folder.path().join("elsewhere"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let lines = BufReader::new(process.0.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let names: Vec<_> = lines
        .take(3)
        .map(|line| {
            line.split("127.0.0.1")
                .next()
                .unwrap()
                .split("[::1]")
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(names, ["public http://", "admin http://", "admin http://"]);
    assert!(folder.path().join("elsewhere/tinyd.toml").exists());
    let log = BufReader::new(process.0.stderr.take().unwrap());
    let json = log
        .lines()
        .map(Result::unwrap)
        .find(|line| line.starts_with('{'))
        .unwrap();
    let event: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(event["message"], "starting");
}

#[test]
fn second_process_on_a_data_folder_is_refused() {
    let appliance = Appliance::start();
    let data = appliance.folder.path().join("data");
    let config = appliance.config();
    let args = [
        "--config",
        config.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
        "--public",
        "127.0.0.1:0",
    ];
    let (exit, said) = refused(&args, &[]);
    assert_eq!(exit, 1);
    assert!(said.contains("is already in use by process "), "{said}");
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    appliance.admin_ks();
}

#[test]
fn new_ids_have_the_configured_length() {
    let appliance = Appliance::start_with("[links]\nid_length = 12\n");
    assert_eq!(appliance.add(&appliance.admin_ks(), &[]).len(), 12);
}

#[test]
fn log_starts_with_version_settings_store_and_addresses() {
    let mut appliance = Appliance::start_with("[public]\ntiny = \"direct\"\n");
    appliance.add(&appliance.admin_ks(), &[]);
    appliance.terminate();
    appliance.restart();
    let log = appliance.log();
    let lines: Vec<_> = log.lines().skip_while(|line| !line.contains("ended")).collect();
    let has = |parts: &[&str]| lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    let public = appliance.public.strip_prefix("http://").unwrap();
    let admin = appliance.admin.strip_prefix("http://").unwrap();
    for parts in [
        &["starting", "version=\"0.", "tinyd.toml"][..],
        &["effective settings", "data_dir = /", "/data, "],
        &[
            "public.listen = 127.0.0.1:0, public.tiny = direct",
            "admin.listen = 127.0.0.1:0",
        ],
        &["partner.id = 1234567, partner.admin_secret = (1)"],
        &["store opened", "links.redb", "bytes=", "links=1"],
        &["public listener", public],
        &["admin listener", admin],
    ] {
        assert!(has(parts), "{parts:?} not in {lines:#?}");
    }
}

#[test]
fn interrupt_ends_the_process_cleanly() {
    let mut appliance = Appliance::start();
    assert!(appliance.end_by(Signal::INT).success());
    assert!(appliance.log().contains("ended"), "{}", appliance.log());
}

#[test]
fn address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let (exit, said) = refused_in(&folder, &["--public", &address, "--admin", "127.0.0.1:0"], &[]);
    assert_eq!(exit, 1);
    assert!(
        said.contains(&format!("cannot listen on {address}: Address already in use")),
        "{said}"
    );
    assert!(!folder.path().join("tinyd-data").exists(), "a data folder was made");
}

#[test]
fn exposed_api_is_warned_of_at_the_start() {
    let folder = folder(&configuration(""));
    let (config, data) = (folder.path().join("tinyd.toml"), folder.path().join("data"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (admin, is_warned) in [("0.0.0.0:0", true), ("127.0.0.1:0", false), ("10.0.0.5:8081", false)] {
        let mut command = tinyd();
        command.args(["serve", "--public", &taken, "--admin", admin, "--config"]);
        let output = command.arg(&config).arg("--data").arg(&data).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            log.contains("other machines can reach the API"),
            is_warned,
            "{admin}: {log}"
        );
    }
}

#[test]
fn old_name_of_the_fetch_section_works_with_a_warning() {
    let appliance = Appliance::start_with("[proxy]\nenabled = false\n");
    let log = appliance.log();
    assert!(log.contains("[proxy]: this section is named [fetch] now"), "{log}");
    let checked = appliance.tinyd(&["check"]);
    let checked = String::from_utf8(checked.stdout).unwrap();
    assert!(
        checked.contains("warning: [proxy]: ") && checked.contains("\nfetch.enabled = false\n"),
        "{checked}"
    );
}

#[test]
fn new_store_is_warned_of_and_required_one_is_not_made() {
    let mut appliance = Appliance::start();
    let folder = appliance.folder.path().join("data");
    let warning = format!("a new, empty store was made folder={}", folder.display());
    assert!(appliance.log().contains(&warning), "{}", appliance.log());
    assert!(appliance.terminate().success());
    fs::write(appliance.config(), configuration("require_store = true\n")).unwrap();
    appliance.restart();
    assert!(appliance.terminate().success());
    assert_eq!(appliance.log().matches(&warning).count(), 1);

    let away = appliance.folder.path().join("away");
    fs::rename(&folder, &away).unwrap();
    for required in ["in the file", "in the environment"] {
        let mut command = tinyd();
        command
            .args(["serve", "--config"])
            .arg(appliance.config())
            .arg("--data")
            .arg(&folder);
        if required == "in the environment" {
            fs::write(appliance.config(), configuration("")).unwrap();
            command.env("TINYD_REQUIRE_STORE", "true");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = format!(
            "tinyd: require_store is set, and {} has no links.redb",
            folder.display()
        );
        assert!(
            output.status.code() == Some(2) && said.contains(&reason),
            "{required}: {said}"
        );
        // Not even an empty folder, which would hide that nothing is mounted.
        assert!(!folder.exists());
    }
    fs::rename(&away, &folder).unwrap();
    appliance.restart();
}
