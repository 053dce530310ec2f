//! Timeouts and limits of connections, on both listeners.

use std::fs;
use std::io::Write as _;
use std::net::Shutdown;

use crate::support::connections::{open_connections, open_files, wait_until_all_is_as_before};
use rustix::process::Signal;

use crate::support::fixture::{Appliance, configuration, poll};
use crate::support::scrape::refusals;
use crate::support::wire::Connection;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/zzzzzzzz";
/// The same link on the path through hyper.
const GENERAL: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/zzzzzzzz?x=y";

/// The same settings for both listeners.
fn start_with(settings: &str) -> Appliance {
    Appliance::start_with(&format!(
        "[public]\nmax_guesses_per_minute = 0\n{settings}\n[admin]\n{settings}\n"
    ))
}

fn listeners(appliance: &Appliance) -> [(&'static str, String); 2] {
    [("public", appliance.public.clone()), ("admin", appliance.admin.clone())]
}

#[test]
fn head_timeout_closes_the_connection() {
    let appliance = start_with("head_timeout_seconds = 1\nidle_timeout_seconds = 3600");
    for (listener, base) in listeners(&appliance) {
        let mut silent = Connection::open(&base);
        let mut begun = Connection::open(&base);
        begun.send(b"GET /tiny/");
        // After a request on either path, the head timeout covers the next head.
        let mut used = [GOTO, GENERAL].map(|target| {
            let mut used = Connection::open(&base);
            assert_eq!(used.get(target, "").unwrap().status, 404);
            used.send(b"GET / HTTP/1.1\r\n");
            used
        });
        let mut trickling = Connection::open(&base);
        // Each byte arrives in time, the whole head does not.
        let mut sender = trickling.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
                if sender.write_all(&[*byte]).is_err() {
                    return;
                }
                // The pace of the client under test, not a wait for a condition.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        for connection in [&mut silent, &mut begun, &mut trickling].into_iter().chain(&mut used) {
            connection.assert_closed();
        }
        sending.join().unwrap();
        // The requests for metrics open connections too.
        assert!(refusals(&appliance, listener, "head_timeout") >= 5, "{listener}");
    }
}

#[test]
fn idle_timeout_closes_the_connection() {
    let appliance = start_with("idle_timeout_seconds = 1\nhead_timeout_seconds = 3600");
    for (listener, base) in listeners(&appliance) {
        for target in [GOTO, GENERAL] {
            let mut connection = Connection::open(&base);
            assert_eq!(connection.get(target, "").unwrap().status, 404);
            connection.assert_closed();
        }
        assert_eq!(refusals(&appliance, listener, "idle_timeout"), 2, "{listener}");
    }
}

#[test]
fn lifetime_ends_the_connection_after_a_response() {
    let appliance = start_with("lifetime_seconds = 1");
    for (listener, base) in listeners(&appliance) {
        for target in [GOTO, GENERAL] {
            let mut busy = Connection::open(&base);
            loop {
                let received = busy.get(target, "").unwrap();
                assert_eq!(received.status, 404);
                if received.is_last() {
                    break;
                }
            }
            busy.assert_closed();
        }
        let mut idle = Connection::open(&base);
        assert_eq!(idle.get(GOTO, "").unwrap().status, 404);
        idle.assert_closed();
        assert_eq!(refusals(&appliance, listener, "lifetime"), 3, "{listener}");
    }
}

#[test]
fn client_that_stops_reading_is_disconnected() {
    let appliance = start_with("write_timeout_seconds = 1");
    let ask = |base: &str, target: &str| {
        let mut connection = Connection::open(base);
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(1_000);
        // Until the server stops reading and disconnects the client.
        while connection.stream.write_all(request.as_bytes()).is_ok() {}
    };
    ask(&appliance.public, GOTO);
    ask(&appliance.public, GENERAL);
    assert_eq!(refusals(&appliance, "public", "write_timeout"), 2);
    ask(&appliance.admin, "/metrics");
    assert_eq!(refusals(&appliance, "admin", "write_timeout"), 1);
}

#[test]
fn connection_ends_after_its_maximum_of_requests() {
    let appliance = start_with("max_requests_per_connection = 3");
    for (listener, base) in listeners(&appliance) {
        for targets in [[GOTO; 3], [GENERAL; 3], [GOTO, GENERAL, GOTO], [GOTO, GOTO, GENERAL]] {
            let mut connection = Connection::open(&base);
            for (number, target) in targets.into_iter().enumerate() {
                let received = connection.get(target, "").unwrap();
                assert_eq!(
                    (received.status, received.is_last()),
                    (404, number == 2),
                    "{listener} {targets:?}"
                );
            }
            connection.assert_closed();
            // Further requests do not affect the pending responses.
            let mut connection = Connection::open(&base);
            let requests = targets.iter().chain(&targets).chain(&targets);
            let requests = requests.map(|target| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            connection.send(requests.collect::<String>().as_bytes());
            for number in 0..3 {
                let received = connection.receive(true);
                let received = received.unwrap_or_else(|| panic!("{listener} {targets:?} {number}"));
                assert_eq!(received.status, 404);
            }
            connection.stream.shutdown(Shutdown::Write).unwrap();
            connection.assert_closed();
        }
        assert_eq!(refusals(&appliance, listener, "requests"), 8, "{listener}");
    }
}

#[test]
fn head_size_limits_follow_the_settings() {
    let appliance = start_with("max_head_bytes = 1024\nmax_target_bytes = 256\nmax_headers = 16");
    let long = "x".repeat(900);
    for (listener, base) in listeners(&appliance) {
        for (target, headers, status) in [
            (GOTO, "X: y\r\n".repeat(15), 404),
            (GOTO, "X: y\r\n".repeat(16), 431),
            (GOTO, format!("X: {}\r\n", &long[..800]), 404),
            (GOTO, format!("X: {long}\r\nY: {long}\r\n"), 431),
            (&format!("{GOTO}?{}", &long[..180]), String::new(), 404),
            (&format!("{GOTO}?{}", &long[..200]), String::new(), 414),
        ] {
            let received = Connection::open(&base).get(target, &headers).unwrap();
            assert_eq!(received.status, status, "{listener} {target} {headers}");
        }
        assert_eq!(refusals(&appliance, listener, "head_too_large"), 3, "{listener}");
    }
}

#[test]
fn idle_connection_is_evicted_when_full() {
    for target in [GOTO, GENERAL] {
        let appliance = Appliance::start_with(
            "[public]\nthreads = 1\nmax_connections = 10\nmax_guesses_per_minute = 0\nidle_timeout_seconds = 3600",
        );
        let before = open_files(&appliance);
        let mut idle: Vec<_> = (0..10).map(|_| Connection::open(&appliance.public)).collect();
        for connection in &mut idle {
            assert_eq!(connection.get(target, "").unwrap().status, 404);
        }
        // All were used just now.
        let refused = Connection::open(&appliance.public).get(GOTO, "").unwrap();
        assert_eq!((refused.status, refused.is_last()), (503, true));
        assert!(refused.head.contains("retry-after: 5\r\n"), "{refused:?}");

        let mut busy = idle.split_off(1);
        let mut newcomer = None;
        poll("a place", || {
            for connection in &mut busy {
                assert_eq!(connection.get(target, "").unwrap().status, 404);
            }
            let mut connection = Connection::open(&appliance.public);
            let is_in = connection.get(target, "").unwrap().status == 404;
            newcomer = is_in.then_some(connection);
            is_in
        });
        for connection in &mut idle {
            connection.assert_closed();
        }
        for connection in busy.iter_mut().chain(&mut newcomer) {
            assert_eq!(connection.get(GENERAL, "").unwrap().status, 404);
        }
        assert!(refusals(&appliance, "public", "connections") >= 2);
        poll("who gave way has gone", || open_connections(&appliance) == 10.0);
        drop((busy, newcomer));
        wait_until_all_is_as_before(&appliance, before);
    }
}

#[test]
fn connections_per_address_are_limited() {
    let appliance = Appliance::start_with("[public]\nmax_connections_per_address = 2");
    let mut first = Connection::open(&appliance.public);
    let mut second = Connection::open(&appliance.public);
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.get(GOTO, "").unwrap().status, 404);
    }
    let third = Connection::open(&appliance.public).get(GOTO, "").unwrap();
    assert_eq!((third.status, third.is_last()), (429, true));
    assert_eq!(refusals(&appliance, "public", "address_connections"), 1);
    drop(first);
    poll("the place that is free again", || {
        Connection::open(&appliance.public).get(GOTO, "").unwrap().status == 404
    });
}

#[test]
fn reloaded_limits_apply_to_new_connections() {
    let appliance = start_with("max_requests_per_connection = 1000");
    let mut before = Connection::open(&appliance.public);
    assert!(!before.get(GOTO, "").unwrap().is_last());
    let settings = "drain_seconds = 77\n[public]\nmax_requests_per_connection = 1\n[admin]\nmax_headers = 16\n";
    fs::write(appliance.config(), configuration(settings)).unwrap();
    appliance.signal(Signal::HUP);
    appliance.wait_for_log("configuration reloaded");
    appliance.wait_for_log("key=\"drain_seconds\"");
    assert!(Connection::open(&appliance.public).get(GOTO, "").unwrap().is_last());
    assert!(!before.get(GOTO, "").unwrap().is_last());
    let many = Connection::open(&appliance.admin).get(GOTO, &"X: y\r\n".repeat(20));
    assert_eq!(many.unwrap().status, 431);
}

#[test]
fn second_signal_aborts_requests_in_flight() {
    let mut appliance = Appliance::start_with("drain_seconds = 3600\n[public]\nwrite_timeout_seconds = 3600\n");
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let mut stuck = Connection::open(&appliance.public);
    stuck
        .stream
        .set_write_timeout(Some(std::time::Duration::from_secs(1)))
        .unwrap();
    let request = format!("GET /tiny/{id} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(1_000);
    while stuck.stream.write_all(request.as_bytes()).is_ok() {}
    appliance.signal(Signal::TERM);
    appliance.wait_for_log("draining");
    let status = appliance.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(1));
    appliance.restart();
    assert_eq!(appliance.goto(&id).status, 302);
}
