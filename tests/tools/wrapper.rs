//! Programs that run the appliance: strace, unshare, bash.

use std::process::Command;

use tempfile::TempDir;

use crate::support::fixture::{Appliance, binary, service};

/// The `serve` command, run by another program.
pub fn serve_under(wrapper: &[&str]) -> Command {
    let mut command = service(wrapper[0]);
    command.args(&wrapper[1..]).args([binary(), "serve"]);
    command
}

/// The `serve` command under strace, which injects this fault into a system call.
pub fn serve_with_fault(system_call: &str, fault: &str) -> Command {
    let (trace, inject) = (format!("trace={system_call}"), format!("inject={system_call}:{fault}"));
    let strace = ["strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null"];
    serve_under(&[&strace[..], &["-e", &trace, "-e", &inject]].concat())
}

/// Starts an appliance, in a folder with a configuration, in which these calls of a system call fail; `when` has the
/// syntax of strace.
pub fn start_with_failing(system_call: &str, error: &str, when: &str, folder: TempDir) -> Appliance {
    Appliance::start_by(
        serve_with_fault(system_call, &format!("error={error}:when={when}")),
        folder,
    )
}

/// The words that run a program in new namespaces, as root or in a user namespace.
pub fn unshare<'a>(namespaces: &[&'a str]) -> Vec<&'a str> {
    let user: &[&str] = if rustix::process::geteuid().is_root() {
        &[]
    } else {
        &["-U", "-r"]
    };
    [&["unshare"], user, namespaces].concat()
}

/// The start of a command that changes a mounted tmpfs. Without the option, mount repeats the user ID of the mount
/// table, which a user namespace does not have.
pub const REMOUNT: &str = "mount --options-mode ignore -o remount";
