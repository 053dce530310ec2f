//! What the service manager is told, over a socket like systemd's.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::fixture::{Appliance, configuration};
use crate::support::wire::Connection;

/// How long a message may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test takes.
const HANGS_MICROSECONDS: u32 = 600_000_000;

/// The manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    /// Starts an appliance that is told of this, with more in its environment.
    fn start(&self, folder: TempDir, environment: &[&str]) -> Appliance {
        Appliance::start_under(&[&["env", &self.variable()][..], environment].concat(), folder)
    }

    fn variable(&self) -> String {
        format!("NOTIFY_SOCKET={}/notify", self.folder.path().display())
    }

    /// The lines of the next message.
    fn hear(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The messages up to the one with this line.
    fn hear_until(&self, line: &str) -> Vec<Vec<String>> {
        let mut heard = Vec::new();
        loop {
            let message = self.hear();
            let is_it = message.iter().any(|one| one == line);
            heard.push(message);
            if is_it {
                return heard;
            }
        }
    }
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tinyd.toml"), configuration("")).unwrap();
    folder
}

#[test]
fn the_service_manager_hears_of_the_start_a_reload_and_the_end() {
    let manager = Manager::new();
    let mut appliance = manager.start(folder(), &[]);
    let heard = manager.hear_until("READY=1");
    assert_eq!(heard[0], ["STATUS=opening the store"]);
    assert!(heard[1][0].starts_with("EXTEND_TIMEOUT_USEC="), "{heard:?}");
    let ready = heard.last().unwrap();
    assert!(ready[1].starts_with("STATUS="), "{ready:?}");

    let config = appliance.config();
    for text in [configuration("[log]\nformat = \"text\"\n"), "colour = 1".to_owned()] {
        fs::write(&config, text).unwrap();
        appliance.signal("HUP");
        let heard = manager.hear_until("READY=1");
        let reloading = heard.iter().find(|message| message[0] == "RELOADING=1").unwrap();
        let since = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
    }

    let status = manager.hear();
    assert!(
        status[0].starts_with("STATUS=serving 0 links; the last reload changed nothing: "),
        "{status:?}"
    );
    assert!(status[0].contains("colour: unknown key"), "{status:?}");

    assert!(appliance.terminate().success());
    let heard = manager.hear_until("STOPPING=1");
    assert!(heard.iter().flatten().all(|line| line != "WATCHDOG=1"), "{heard:?}");
    let more_time = manager.hear();
    assert!(more_time[0].starts_with("EXTEND_TIMEOUT_USEC="), "{more_time:?}");
}

#[test]
fn the_status_says_how_many_links_are_served() {
    let mut appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for _ in 0..2 {
        appliance.add(&ks, &[]);
    }
    appliance.terminate();
    let folder = std::mem::replace(&mut appliance.folder, folder());
    fs::write(appliance.folder.path().join("log"), "").unwrap();
    let manager = Manager::new();
    let _appliance = manager.start(folder, &[]);
    manager.hear_until("STATUS=serving 2 links");
}

#[test]
fn the_watchdog_hears_that_all_threads_are_alive() {
    let manager = Manager::new();
    let appliance = manager.start(folder(), &["WATCHDOG_USEC=200000"]);
    manager.hear_until("READY=1");
    for _ in 0..3 {
        manager.hear_until("WATCHDOG=1");
    }
    // It watches a process of another number.
    drop(appliance);
    let other = Manager::new();
    let mut appliance = other.start(folder(), &["WATCHDOG_USEC=200000", "WATCHDOG_PID=1"]);
    other.hear_until("READY=1");
    appliance.terminate();
    let heard = other.hear_until("STOPPING=1");
    assert!(heard.iter().flatten().all(|line| line != "WATCHDOG=1"), "{heard:?}");
}

/// An appliance with one thread of each kind, in which the first call of a system call does not come back for as long as this
/// lives, in whatever thread it is made.
struct Hanging(Appliance);

impl Hanging {
    /// Starts it, and waits until its watchdog has been told that all is well.
    fn start(manager: &Manager, system_call: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = configuration("[public]\nthreads = 1\n");
        fs::write(folder.path().join("tinyd.toml"), settings).unwrap();
        let (variable, trace) = (manager.variable(), format!("trace={system_call}"));
        let inject = format!("inject={system_call}:delay_enter={HANGS_MICROSECONDS}:when=1");
        let environment = ["env", &variable, "WATCHDOG_USEC=200000"];
        let strace = ["strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null"];
        let wrapper = [&environment[..], &strace, &["-e", &trace, "-e", &inject]].concat();
        let hanging = Self(Appliance::spawn_under(&wrapper, folder));
        manager.hear_until("WATCHDOG=1");
        hanging
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // A thread that hangs cannot be ended while strace holds it.
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.process_id())).unwrap();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        let script = format!("kill -KILL {}", tracer.unwrap().trim());
        let _ = Command::new("bash").args(["-c", &script]).status();
    }
}

#[test]
fn the_watchdog_hears_nothing_when_a_thread_hangs() {
    let manager = Manager::new();
    // The thread hangs when it takes its first connection: nobody else takes one here.
    let Hanging(appliance) = &Hanging::start(&manager, "accept4");
    let _connection = Connection::open(&appliance.public);
    appliance.wait_for_log("a thread that serves does not answer");
}

#[test]
fn a_general_thread_that_hangs_keeps_no_redirect_waiting_and_the_watchdog_hears_nothing() {
    let manager = Manager::new();
    // The general thread hangs when it answers for the first time. The fast path sends its answers with another call.
    let Hanging(appliance) = &Hanging::start(&manager, "writev");
    let goto = "/api_v3/service/shortlink_shortlink/action/goto/id/zzzzzzzz";
    let mut general = Connection::open(&appliance.public);
    general.send(format!("GET {goto}?x=y HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    appliance.wait_for_log("a thread that serves does not answer");
    for _ in 0..10 {
        let mut redirected = Connection::open(&appliance.public);
        for _ in 0..10 {
            assert_eq!(redirected.get(goto, "").unwrap().status, 404);
        }
    }
    general.stream.set_nonblocking(true).unwrap();
    let answered = general.stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(answered, Err(ErrorKind::WouldBlock));
}
