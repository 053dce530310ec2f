//! A running appliance in a temporary folder, and calls of its API.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Answer, encode, request};

pub const PARTNER: &str = "1234567";
pub const ADMIN_SECRET: &str = "admin-secret-0123456789abcdef";
pub const USER_SECRET: &str = "user-secret-0123456789abcdef";

const SERVICE: &str = "shortlink_shortlink";

/// Timeout for operations that take milliseconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_PAUSE: Duration = Duration::from_millis(1);

/// A process that does not outlive the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Appliance {
    pub folder: TempDir,
    pub public: String,
    pub admin: String,
    /// Addresses of HTTPS, without a scheme; empty without TLS.
    pub public_tls: String,
    pub admin_tls: String,
    /// The console's own listener; empty without one.
    pub console: String,
    process: Process,
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_tinyd")
}

/// A configuration with the two secrets above, and `more` before the partners.
pub fn configuration(more: &str) -> String {
    format!(
        "{more}\n[[partner]]\nid = {PARTNER}\nadmin_secret = \"{ADMIN_SECRET}\"\nuser_secret = \"{USER_SECRET}\"\n\
         [[partner]]\nid = 7654321\nadmin_secret = \"of another partner\"\n"
    )
}

/// The same, with the first partner as operator.
pub fn configuration_with_operator() -> String {
    let partner = format!("id = {PARTNER}\n");
    configuration("").replacen(&partner, &format!("{partner}operator = true\n"), 1)
}

/// A command without the `TINYD_` variables of the test's environment.
pub fn tinyd() -> Command {
    without_settings(Command::new(binary()))
}

/// The `serve` command, before its options.
pub fn serve() -> Command {
    let mut command = service(binary());
    command.arg("serve");
    command
}

/// The same as [`tinyd`] for any program, in a session of its own, as a service has one: Linux shares the time among
/// sessions first, and in this one the threads that serve the API, whose priority is the lowest, would starve.
pub fn service(program: &str) -> Command {
    let mut command = without_settings(Command::new("setsid"));
    command.arg(program);
    command
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TINYD_")) {
        // The gate runs the tests of redirects once more without the fast path.
        if name == "TINYD_FAST_PATH" {
            continue;
        }
        command.env_remove(name);
    }
    command
}

/// A folder with this configuration.
pub fn folder(configuration: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tinyd.toml"), configuration).unwrap();
    folder
}

impl Appliance {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts with the first partner as operator.
    pub fn start_with_operator() -> Self {
        Self::start_in(folder(&configuration_with_operator()))
    }

    /// Starts with more settings in the configuration.
    pub fn start_with(more: &str) -> Self {
        Self::start_in(folder(&configuration(more)))
    }

    pub fn start_in(folder: TempDir) -> Self {
        Self::start_by(serve(), folder)
    }

    /// Starts by this command in a folder with a configuration.
    pub fn start_by(command: Command, folder: TempDir) -> Self {
        let appliance = Self::spawn_by(command, folder);
        appliance.wait_until_ready();
        appliance
    }

    /// The same, without waiting until all links are loaded.
    pub fn spawn_by(command: Command, folder: TempDir) -> Self {
        let (process, [public, admin, public_tls, admin_tls, console]) = spawn(command, folder.path());
        Self {
            folder,
            public,
            admin,
            public_tls,
            admin_tls,
            console,
            process,
        }
    }

    fn wait_until_ready(&self) {
        poll("ready", || self.get_admin("/readyz").status == 200);
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("tinyd.toml")
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("data/links.redb")
    }

    pub fn process_id(&self) -> u32 {
        self.process.0.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn wait_for_log(&self, text: &str) {
        poll(text, || self.log().contains(text));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }

    /// Ends it by SIGTERM.
    pub fn terminate(&mut self) -> ExitStatus {
        self.end_by(Signal::TERM)
    }

    /// Sends a signal that ends it, and waits for the end.
    pub fn end_by(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.process.0.wait().unwrap()
    }

    pub fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Starts it again in the same folder, on other ports.
    pub fn restart(&mut self) {
        self.restart_by(serve());
    }

    pub fn restart_by(&mut self, command: Command) {
        let addresses;
        (self.process, addresses) = spawn(command, self.folder.path());
        [self.public, self.admin, self.public_tls, self.admin_tls, self.console] = addresses;
        self.wait_until_ready();
    }

    pub fn get_public(&self, target: &str) -> Answer {
        request(&self.public, "GET", target, &[], b"")
    }

    pub fn get_admin(&self, target: &str) -> Answer {
        request(&self.admin, "GET", target, &[], b"")
    }

    pub fn goto(&self, id: &str) -> Answer {
        self.get_public(&format!("/api_v3/service/{SERVICE}/action/goto/id/{id}"))
    }

    /// Posts a form to an action, as curl in the guide does.
    pub fn post(&self, service: &str, action: &str, params: &[(&str, &str)]) -> Answer {
        let pairs = params
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        let form = pairs.collect::<Vec<_>>().join("&");
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let target = format!("/api_v3/service/{service}/action/{action}");
        request(&self.admin, "POST", &target, &headers, form.as_bytes())
    }

    /// Calls an action and returns its result or exception.
    pub fn call(&self, service: &str, action: &str, ks: &str, params: &[(&str, &str)]) -> Value {
        let params = [&[("format", "1"), ("ks", ks)], params].concat();
        let answer = self.post(service, action, &params);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub fn link(&self, action: &str, ks: &str, params: &[(&str, &str)]) -> Value {
        self.call(SERVICE, action, ks, params)
    }

    /// Adds a link and returns its ID.
    pub fn add(&self, ks: &str, params: &[(&str, &str)]) -> String {
        let defaults = [
            ("shortLink[systemName]", "NAME"),
            ("shortLink[fullUrl]", "https://example.com/video"),
        ];
        let link = self.link("add", ks, &[&defaults, params].concat());
        link["id"].as_str().unwrap_or_else(|| panic!("{link}")).to_owned()
    }

    /// The IDs and the total of a list.
    pub fn list(&self, ks: &str, params: &[(&str, &str)]) -> (Vec<String>, u64) {
        let listing = self.link("list", ks, params);
        let objects = listing["objects"].as_array().unwrap_or_else(|| panic!("{listing}"));
        let ids = objects
            .iter()
            .map(|link| link["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, listing["totalCount"].as_u64().unwrap())
    }

    pub fn admin_ks(&self) -> String {
        self.start_session(ADMIN_SECRET, "admin", "2", "")
    }

    /// An administrator's session of another partner.
    pub fn other_partners_ks(&self) -> String {
        let params = [
            ("format", "1"),
            ("secret", "of another partner"),
            ("partnerId", "7654321"),
            ("type", "2"),
        ];
        self.post("session", "start", &params)
            .json()
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub fn user_ks(&self, user: &str) -> String {
        self.start_session(USER_SECRET, user, "0", "")
    }

    pub fn start_session(&self, secret: &str, user: &str, kind: &str, privileges: &str) -> String {
        let params = [
            ("format", "1"),
            ("secret", secret),
            ("partnerId", PARTNER),
            ("userId", user),
            ("type", kind),
            ("privileges", privileges),
        ];
        let answer = self.post("session", "start", &params).json();
        answer.as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Runs the command line against it.
    pub fn tinyd(&self, args: &[&str]) -> Output {
        let mut command = tinyd();
        command
            .args(args)
            .env("TINYD_CONFIG", self.config())
            .env("TINYD_URL", &self.admin);
        command.output().unwrap()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let log = self.log();
        for secret in [ADMIN_SECRET, USER_SECRET] {
            assert!(
                std::thread::panicking() || !log.contains(secret),
                "a secret is in the log:\n{log}"
            );
        }
        assert!(std::thread::panicking() || !log.contains("panicked"), "a panic:\n{log}");
        if std::thread::panicking() {
            println!("log of the appliance:\n{log}");
        }
    }
}

/// Starts it, and reads the addresses of the listeners: public, admin, both with TLS, and the console's own.
fn spawn(mut command: Command, folder: &Path) -> (Process, [String; 5]) {
    let configured = fs::read_to_string(folder.join("tinyd.toml")).unwrap();
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    // Under load, traces would be most of the work.
    let log_level = match configured.contains("[cluster]") {
        true => "debug,hyper=info",
        false => "trace,hyper=info",
    };
    let child = command
        .args(["--public", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", log_level])
        .arg("--config")
        .arg(folder.join("tinyd.toml"))
        .arg("--data")
        .arg(folder.join("data"))
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let mut address = |name: &str| {
        let line = lines.next().expect("a line for each listener").unwrap();
        line.strip_prefix(name).unwrap_or_else(|| panic!("{line}")).to_owned()
    };
    let mut addresses = [const { String::new() }; 5];
    for (position, (name, section)) in [("public", "[public.tls]"), ("admin", "[admin.tls]")]
        .into_iter()
        .enumerate()
    {
        addresses[position] = address(&format!("{name} "));
        if configured.contains(section) {
            addresses[position + 2] = address(&format!("{name} https://"));
        }
    }
    if configured.contains("[console]\nlisten") {
        addresses[4] = address("console ");
    }
    (process, addresses)
}

/// Waits for a condition; fails after a timeout.
pub fn poll(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        // A core is left to what is waited for: threads of low priority would starve beside a busy one.
        std::thread::sleep(POLL_PAUSE);
    }
}

/// The code of an exception; empty for a result.
pub fn code(result: &Value) -> &str {
    if result["objectType"] == "KalturaAPIException" {
        result["code"].as_str().unwrap()
    } else {
        ""
    }
}
