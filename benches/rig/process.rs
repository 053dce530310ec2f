//! A server as a process that does not outlive its value.

use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::cpu;
use crate::rig::interrupt;

/// How long a server may take to end when it is asked to.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A process that was started, and those that it starts.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    name: String,
    end_signal: Signal,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| {
            let program = command.get_program().display();
            format!("{name} could not be started ({program}); is it installed?")
        })?;
        let running = Self {
            child,
            name: name.to_owned(),
            end_signal: Signal::TERM,
        };
        if let Some(pid) = running.pid() {
            interrupt::end_on_interrupt(pid);
        }
        Ok(running)
    }

    /// Ends it by this signal instead of SIGTERM.
    pub(crate) const fn ended_by(mut self, signal: Signal) -> Self {
        self.end_signal = signal;
        self
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// Waits until `done`, which may fail meanwhile, as long as the process is there.
    pub(crate) fn wait_until(&mut self, timeout: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        loop {
            let failure = match done() {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                Err(error) => Some(error),
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended by itself: {status}", self.name);
            }
            if started.elapsed() > timeout {
                let why = failure.map_or_else(String::new, |error| format!(": {error:#}"));
                bail!("{} did not answer within {timeout:?}{why}", self.name);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let tree = cpu::tree(self.child.id());
        if let Some(pid) = self.pid() {
            // That it has ended in between is what is wanted.
            let _ = kill_process(pid, self.end_signal);
        }
        let asked = Instant::now();
        while asked.elapsed() < END_TIMEOUT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
        for pid in tree.into_iter().filter_map(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        if let Some(pid) = self.pid() {
            interrupt::has_ended(pid);
        }
    }
}
