//! Slow clients by the thousand: ours, and those of slowhttptest. Their timeouts end them, and nobody else notices.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::connections::{
    Redirecting, address, connect_with_little_room, goto, open_connections, open_files, refused,
    wait_until_all_is_as_before,
};
use crate::support::fixture::{Appliance, Process, poll};
use crate::support::scrape::Scrape;

const CLIENTS: usize = 1000;
/// Timeouts that end within the test's time.
const IMPATIENT: &str = "[public]\nhead_timeout_seconds = 3\nidle_timeout_seconds = 3\nwrite_timeout_seconds = 3\n\
                         max_requests_per_connection = 0\n\
                         [admin]\nbody_timeout_seconds = 3\n";
/// So long that a few answers are more than a connection's buffers hold.
const LONG_DESTINATION_BYTES: usize = 8000;

/// Has slow clients go on beside well-behaved ones until the appliance has closed all of them; returns what it refused for
/// these reasons.
fn beside_redirects<C>(
    appliance: &Appliance,
    slow: impl FnOnce() -> C,
    is_over: impl FnMut(&mut C) -> bool,
    reasons: &[(&str, &str)],
) -> Vec<f64> {
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    let before = (open_files(appliance), Scrape::of(appliance));
    let redirecting = Redirecting::start(appliance, &id);
    redirecting.wait_for_more();
    let (mut clients, mut is_over) = (slow(), is_over);
    redirecting.wait_for_more();
    poll("the slow ones have ended", || is_over(&mut clients));
    redirecting.wait_for_more();
    redirecting.end();
    drop(clients);
    wait_until_all_is_as_before(appliance, before.0);
    let after = Scrape::of(appliance);
    let added =
        |&(listener, reason): &(&str, &str)| refused(&after, listener, reason) - refused(&before.1, listener, reason);
    reasons.iter().map(added).collect()
}

#[test]
fn a_thousand_who_send_a_byte_a_second_cost_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let target = address(&appliance.public);
    let slow = || {
        let connect = |_| {
            let mut stream = TcpStream::connect(target).unwrap();
            stream
                .write_all(b"GET /tiny/zzzzzzzz HTTP/1.1\r\nHost: a\r\nX: ")
                .unwrap();
            stream
        };
        (0..CLIENTS).map(connect).collect::<Vec<_>>()
    };
    // Nothing comes from it: it is the clock by which they send.
    let (_sender, second) = mpsc::channel::<()>();
    let is_over = |clients: &mut Vec<TcpStream>| {
        let _ = second.recv_timeout(Duration::from_secs(1));
        // One that is closed takes nothing more.
        clients.retain_mut(|stream| stream.write(b"x").is_ok());
        clients.is_empty()
    };
    let refused = beside_redirects(&appliance, slow, is_over, &[("public", "head_timeout")]);
    assert_eq!(refused, [CLIENTS as f64]);
}

#[test]
fn a_thousand_who_ask_for_much_and_read_nothing_cost_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let long = format!("https://example.com/{}", "x".repeat(LONG_DESTINATION_BYTES));
    let id = appliance.add(&appliance.admin_ks(), &[("shortLink[fullUrl]", &long)]);
    let requests = goto(&id).repeat(200);
    let target = address(&appliance.public);
    let slow = || {
        let connect = |_| {
            let mut stream = connect_with_little_room(target);
            stream.write_all(requests.as_bytes()).unwrap();
            stream
        };
        (0..CLIENTS).map(connect).collect::<Vec<_>>()
    };
    let of_slow = |appliance: &Appliance| refused(&Scrape::of(appliance), "public", "write_timeout");
    let is_over = |_: &mut Vec<TcpStream>| of_slow(&appliance) >= CLIENTS as f64;
    let reasons = [("public", "write_timeout"), ("public", "idle_timeout")];
    assert_eq!(
        beside_redirects(&appliance, slow, is_over, &reasons),
        [CLIENTS as f64, 0.0]
    );
}

/// Starts slowhttptest, which ends by itself once all its connections are closed, and at the latest after these seconds.
fn slowhttptest(connections: usize, url: &str, args: &[&str]) -> Process {
    let connections = connections.to_string();
    let child: Result<Child, _> = Command::new("slowhttptest")
        .args([
            "-c",
            &connections,
            "-r",
            &connections,
            "-l",
            "15",
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

#[test]
fn the_slow_heads_of_slowhttptest_cost_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let url = format!("{}/tiny/zzzzzzzz", appliance.public);
    let slow = || slowhttptest(CLIENTS, &url, &["-H", "-x", "8"]);
    let refused = beside_redirects(&appliance, slow, has_ended, &[("public", "head_timeout")]);
    assert!(refused[0] >= CLIENTS as f64, "{refused:?}");
}

#[test]
fn the_slow_bodies_of_slowhttptest_cost_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let target = "/api_v3/service/session/action/start";
    // The public listener reads no body: each is answered and closed at once.
    let url = format!("{}{target}", appliance.public);
    let slow = || slowhttptest(CLIENTS, &url, &["-B", "-x", "8", "-s", "4096"]);
    beside_redirects(&appliance, slow, has_ended, &[]);
    // The admin listener waits for it, as long as it may take.
    let url = format!("{}{target}", appliance.admin);
    let slow = || slowhttptest(100, &url, &["-B", "-x", "8", "-s", "4096"]);
    let refused = beside_redirects(&appliance, slow, has_ended, &[("admin", "body_timeout")]);
    assert!(refused[0] >= 100.0, "{refused:?}");
    let of_admin = |appliance: &Appliance| Scrape::of(appliance).get("tinyd_connections_open{listener=\"admin\"}");
    // That by which it is asked.
    poll("no connection is left", || of_admin(&appliance) == 1.0);
}

#[test]
fn the_slow_reads_of_slowhttptest_cost_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let long = format!("https://example.com/{}", "x".repeat(LONG_DESTINATION_BYTES));
    let id = appliance.add(&appliance.admin_ks(), &[("shortLink[fullUrl]", &long)]);
    let url = format!("{}{}{id}", appliance.public, crate::support::connections::GOTO);
    let reading = ["-X", "-k", "10", "-w", "512", "-y", "1024", "-n", "1", "-z", "8"];
    let slow = || slowhttptest(CLIENTS, &url, &reading);
    // The appliance is done with them before slowhttptest is done with reading.
    let mut has_begun = false;
    let is_over = |_: &mut Process| {
        let open = open_connections(&appliance);
        has_begun |= open >= CLIENTS as f64 / 2.0;
        // Those of the well-behaved clients stay.
        has_begun && open < 10.0
    };
    let reasons = [("public", "idle_timeout"), ("public", "write_timeout")];
    let refused = beside_redirects(&appliance, slow, is_over, &reasons);
    assert!(refused.iter().sum::<f64>() >= CLIENTS as f64, "{refused:?}");
}
