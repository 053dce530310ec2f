//! The slow clients of slowhttptest: timeouts disconnect them, and no redirect fails.

use std::process::{Child, Command, Stdio};

use crate::support::connections::{GOTO, refused};
use crate::support::fixture::{Appliance, Process, poll};
use crate::support::scrape::Scrape;
use crate::support::slow::{CLIENTS, IMPATIENT, LONG_DESTINATION_BYTES, beside_redirects};

/// Starts slowhttptest, which ends once all its connections are closed, at the latest after these seconds.
fn slowhttptest(connections: usize, url: &str, args: &[&str]) -> Process {
    let connections = connections.to_string();
    let child: Result<Child, _> = Command::new("slowhttptest")
        .args([
            "-c",
            &connections,
            "-r",
            &connections,
            "-l",
            "60",
            "-i",
            "1",
            "-p",
            "3",
            "-u",
            url,
        ])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    Process(child.expect("slowhttptest: apt-get install slowhttptest"))
}

fn has_ended(process: &mut Process) -> bool {
    process.0.try_wait().unwrap().is_some()
}

pub fn slow_heads_fail_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let url = format!("{}/tiny/zzzzzzzz", appliance.public);
    let slow = || slowhttptest(CLIENTS, &url, &["-H", "-x", "8"]);
    let refused = beside_redirects(&appliance, slow, has_ended, &[("public", "head_timeout")]);
    assert!(refused[0] >= CLIENTS as f64, "{refused:?}");
}

pub fn slow_bodies_fail_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let target = "/api_v3/service/session/action/start";
    // The public listener reads no body: it responds and closes at once.
    let url = format!("{}{target}", appliance.public);
    let slow = || slowhttptest(CLIENTS, &url, &["-B", "-x", "8", "-s", "4096"]);
    beside_redirects(&appliance, slow, has_ended, &[]);
    // The admin listener waits for the body until the timeout.
    let url = format!("{}{target}", appliance.admin);
    let slow = || slowhttptest(100, &url, &["-B", "-x", "8", "-s", "4096"]);
    let refused = beside_redirects(&appliance, slow, has_ended, &[("admin", "body_timeout")]);
    assert!(refused[0] >= 100.0, "{refused:?}");
    let of_admin = |appliance: &Appliance| Scrape::of(appliance).get("tinyd_connections_open{listener=\"admin\"}");
    // The connection of the request for the metrics.
    poll("no connection is left", || of_admin(&appliance) == 1.0);
}

pub fn slow_reads_fail_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let long = format!("https://example.com/{}", "x".repeat(LONG_DESTINATION_BYTES));
    let id = appliance.add(&appliance.admin_ks(), &[("shortLink[fullUrl]", &long)]);
    let url = format!("{}{}{id}", appliance.public, GOTO);
    let reading = ["-X", "-k", "10", "-w", "512", "-y", "1024", "-n", "1", "-z", "8"];
    let slow = || slowhttptest(CLIENTS, &url, &reading);
    // The server is done before slowhttptest has read everything.
    let reasons = [("public", "idle_timeout"), ("public", "write_timeout")];
    let is_over = |_: &mut Process| {
        let scrape = Scrape::of(&appliance);
        let refused = reasons.map(|(listener, reason)| refused(&scrape, listener, reason));
        refused.iter().sum::<f64>() >= CLIENTS as f64
    };
    beside_redirects(&appliance, slow, is_over, &[]);
}
