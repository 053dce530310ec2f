//! The machine: its cores and who is pinned to which, where benchmarks may write, what is installed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::interrupt;

/// What Debian calls the packages that are compared with or needed.
pub(crate) const INSTALL: &str = "apt-get install nginx-light haproxy caddy wrk nghttp2-client";

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The core of the server that is measured.
    Server,
    /// The core of what makes the load.
    Load,
    /// The same core, in the time that the load generator leaves.
    Aside,
    /// Wherever the kernel puts it.
    Anywhere,
}

impl Place {
    /// The core; none where nobody is pinned.
    fn core(self) -> Option<usize> {
        let core = match self {
            Self::Server => 0,
            Self::Load | Self::Aside => 1,
            Self::Anywhere => return None,
        };
        is_pinned().then_some(core)
    }

    /// A command that runs there.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let core = self.core().map(|core| core.to_string());
        let mut words = Vec::new();
        if matches!(self, Self::Server | Self::Anywhere) {
            // As a service has: Linux shares the time among sessions first, and priorities count within one. A server
            // that gives some threads a lower one would else give way to its clients by that. PostgreSQL's processes
            // each begin one.
            words.push(OsStr::new("setsid"));
        }
        if self == Self::Aside {
            words.extend(["chrt", "--idle", "0"].map(OsStr::new));
        }
        if let Some(core) = &core {
            words.extend(["taskset", "-c", core].map(OsStr::new));
        }
        words.push(program.as_ref());
        let mut command = Command::new(words.first().copied().unwrap_or_default());
        command.args(words.get(1..).unwrap_or_default());
        for (name, _) in std::env::vars_os() {
            // Settings of the person who measures are not those of the server that is measured.
            if name.to_string_lossy().starts_with("TINYD_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Has the calling thread run there.
    pub(crate) fn take_this_thread(self) -> Result<()> {
        if let Some(core) = self.core() {
            let mut cores = CpuSet::new();
            cores.set(core);
            sched_setaffinity(None, &cores).with_context(|| format!("pinning a thread to core {core}"))?;
        }
        if self == Self::Aside {
            schedule_this_thread(&["--idle", "--pid", "0"])?;
        }
        Ok(())
    }

    /// Has a process that is running go on there, with all its threads.
    pub(crate) fn take_process(self, process: u32) -> Result<()> {
        let policy = if self == Self::Aside { "--idle" } else { "--other" };
        let cores = self
            .core()
            .map_or_else(|| format!("0-{}", cores() - 1), |core| core.to_string());
        let process = process.to_string();
        run("chrt", &["--all-tasks", policy, "--pid", "0", &process])?;
        run("taskset", &["--all-tasks", "--cpu-list", "--pid", &cores, &process])
    }
}

/// Has the calling thread run before all others of its core, so that the latencies that it measures are not its own.
/// Only root may.
pub(crate) fn come_first() -> Result<()> {
    schedule_this_thread(&["--fifo", "--pid", "1"])
}

/// Has a process that began a session weigh against other sessions as a thread of tinyd that redirects weighs against
/// one of the lowest priority: Linux shares the time among sessions first. Only root may.
pub(crate) fn favour_session(process: u32) -> Result<()> {
    let file = format!("/proc/{process}/autogroup");
    match fs::write(&file, "-19") {
        // Then sessions make no difference.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.context(file),
    }
}

/// By chrt of util-linux, because safe Rust has no call for that.
fn schedule_this_thread(args: &[&str]) -> Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    run("chrt", &[args, &[&thread]].concat())
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Whether servers use every core.
static ALL_CORES: AtomicBool = AtomicBool::new(false);

/// Pins nobody from now on, and has servers redirect with a thread for each core.
pub(crate) fn use_all_cores() {
    ALL_CORES.store(true, Ordering::Relaxed);
}

/// With how many threads a server redirects.
pub(crate) fn server_threads() -> usize {
    match ALL_CORES.load(Ordering::Relaxed) {
        true => cores(),
        false => 1,
    }
}

/// Whether servers and the load generator have a core each.
fn is_pinned() -> bool {
    cores() > 1 && !ALL_CORES.load(Ordering::Relaxed)
}

/// How many cores there are.
pub(crate) fn cores() -> usize {
    let online = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    online.lines().filter(|line| line.starts_with("processor")).count()
}

/// What a reader of the figures must know of the machine.
pub(crate) fn description() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    json!({
        "cpu": model.map_or("unknown", |model| model.trim_start_matches(['\t', ' ', ':'])),
        "cores": cores(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "pinned": is_pinned(),
        "serverThreads": server_threads(),
        "measuredAt": jiff::Timestamp::now().to_string(),
    })
}

/// One line of the same, for people.
pub(crate) fn summary() -> String {
    let machine = description();
    let text = |name: &str| {
        machine
            .get(name)
            .map(ToString::to_string)
            .unwrap_or_default()
            .replace('"', "")
    };
    let pinned = if is_pinned() {
        "server on core 0, load generator on core 1"
    } else {
        "server and load generator share the cores, nothing is pinned"
    };
    format!(
        "{}, {} cores, Linux {}; {pinned}",
        text("cpu"),
        text("cores"),
        text("kernel")
    )
}

/// The program's path, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian has servers; not on everybody's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The program's path, or how to install it.
pub(crate) fn require(program: &str) -> Result<PathBuf> {
    find(program)
        .with_context(|| format!("{program} is not installed, and nothing can be measured without it: {INSTALL}"))
}

/// `target/bench`, where results go and where stores are kept between runs.
pub(crate) fn output() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// A folder on a disk that goes away with the value, and on Ctrl-C.
pub(crate) fn scratch() -> Result<TempDir> {
    scratch_in(&output()?)
}

/// The same where other users of the machine may enter: servers that refuse to run as root need that.
pub(crate) fn scratch_for_others() -> Result<TempDir> {
    let output = output()?.canonicalize()?;
    let may_enter = |folder: &Path| fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o001 != 0);
    let scratch = if output.ancestors().all(may_enter) {
        scratch_in(&output)?
    } else {
        scratch_in(&std::env::temp_dir())?
    };
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    Ok(scratch)
}

fn scratch_in(parent: &Path) -> Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("tinyd-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("making a folder in {}", parent.display()))?;
    interrupt::remove_on_interrupt(folder.path());
    Ok(folder)
}
