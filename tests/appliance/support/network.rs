//! A network of a test's own, in which every address there is belongs to this machine.
//!
//! Whatever an appliance tries to reach in there, it reaches a listener of the test, and nothing ever leaves: so it shows what
//! is not refused, and does no harm when that is tried. What is mounted in there is seen in there only.

use std::process::Command;

/// Tells the test that it runs inside.
const INSIDE: &str = "IN_A_NETWORK_OF_ITS_OWN";

/// All of IPv4 and IPv6 is local; what is sent to an address comes from that of the loopback.
const SETUP: &str = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo src 127.0.0.1 \
                     && ip -6 route add local ::/0 dev lo && exec \"$0\" \"$@\"";

/// Runs the body of a test, which it is told the name of, in such a network.
pub fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let user: &[&str] = if is_root { &[] } else { &["-U", "-r"] };
    let output = Command::new("unshare")
        .args(user)
        .args(["-n", "-m", "sh", "-c", SETUP])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("fetch::{test}"), "--exact", "--nocapture"])
        .env(INSIDE, "yes")
        .output()
        .expect("unshare: apt-get install util-linux iproute2");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{complained}"
    );
    println!("{said}");
}
