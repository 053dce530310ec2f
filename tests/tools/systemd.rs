//! The watchdog while a thread hangs.

use std::fs;
use std::io::{ErrorKind, Read as _};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::fixture::{Appliance, configuration, folder};
use crate::support::manager::Manager;
use crate::support::wire::Connection;
use crate::wrapper::serve_with_fault;

/// Longer than any test takes.
const HANGS_MICROSECONDS: u32 = 600_000_000;

/// An appliance with one thread of each kind. The first call of a system call, in any thread, hangs until this is
/// dropped.
struct Hanging(Appliance);

impl Hanging {
    /// Starts it and waits for the first heartbeat.
    fn start(manager: &Manager, system_call: &str) -> Self {
        let folder = folder(&configuration("[public]\nthreads = 1\n"));
        let mut command = serve_with_fault(system_call, &format!("delay_enter={HANGS_MICROSECONDS}:when=1"));
        command
            .env("NOTIFY_SOCKET", manager.address())
            .env("WATCHDOG_USEC", "200000");
        let hanging = Self(Appliance::spawn_by(command, folder));
        manager.hear_until("WATCHDOG=1");
        hanging
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // strace keeps a hung thread from ending.
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.process_id())).unwrap();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        let tracer = Pid::from_raw(tracer.unwrap().trim().parse().unwrap());
        let _ = kill_process(tracer.unwrap(), Signal::KILL);
    }
}

pub fn hung_redirect_thread_stops_the_heartbeat() {
    let manager = Manager::new();
    // The thread hangs when it accepts its first connection, which is that of this test.
    let Hanging(appliance) = &Hanging::start(&manager, "accept4");
    let mut connection = Connection::open(&appliance.public);
    // The kernel holds a connection back while nothing has come.
    connection.send(b"G");
    appliance.wait_for_log("server thread unresponsive");
}

pub fn hung_general_thread_stops_the_heartbeat_not_redirects() {
    let manager = Manager::new();
    // The general thread hangs at its first response. The fast path uses another system call.
    let Hanging(appliance) = &Hanging::start(&manager, "writev");
    let goto = "/api_v3/service/shortlink_shortlink/action/goto/id/zzzzzzzz";
    let mut general = Connection::open(&appliance.public);
    general.send(format!("GET {goto}?x=y HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    appliance.wait_for_log("server thread unresponsive");
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
