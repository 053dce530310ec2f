//! A network namespace for a test, in which every address is local.
//!
//! Each connection of an appliance in it reaches a listener of the test, and no packet leaves. So a test shows which
//! addresses are refused, and does no harm if one is not. Mounts are visible inside only.

use std::process::Command;

use crate::tool::succeeds;
use crate::wrapper::unshare;

/// Set in the process inside.
const INSIDE: &str = "IN_A_NETWORK_OF_ITS_OWN";

/// All of IPv4 and IPv6 is local; connections come from the loopback address.
const SETUP: &str = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo src 127.0.0.1 \
                     && ip -6 route add local ::/0 dev lo && exec \"$0\" \"$@\"";

/// The operations of the tests inside.
const TRY: &str = "mount --bind /dev/null /etc/resolv.conf && test -w /proc/sys/net/ipv4/ip_local_port_range";

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

pub fn works() -> bool {
    let wrapper = unshare(&["-n", "-m"]);
    succeeds(
        wrapper[0],
        &[&wrapper[1..], &["sh", "-c", SETUP, "sh", "-c", TRY]].concat(),
    )
}

/// Runs a test of this binary in such a network.
pub fn run(test: &str) {
    let wrapper = unshare(&["-n", "-m"]);
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .args(["sh", "-c", SETUP])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env(INSIDE, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{complained}"
    );
}
