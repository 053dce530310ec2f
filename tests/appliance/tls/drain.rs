//! Connections of HTTPS when the appliance ends.

use std::io::Write as _;

use rustix::process::Signal;

use crate::support::certificates::Authority;
use crate::support::client::{Download, Part, request};
use crate::support::http::connect;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, THIS_MACHINE, ports, proxied};
use crate::support::tls::{Client, hello, settings, start_with};

/// Nothing but the drain ends a connection.
const PATIENT: &str = "handshake_timeout_seconds = 3600\n";

#[test]
fn idle_connections_end_with_close_notify() {
    let authority = Authority::new();
    let limits = "idle_timeout_seconds = 3600\n";
    let text = format!(
        "drain_seconds = 3600\n[public]\n{limits}[admin]\n{limits}{}",
        settings("")
    );
    let mut appliance = start_with(&authority, &text);
    let client = Client::new(&authority);
    let mut connections = Vec::new();
    for address in [&appliance.public_tls, &appliance.admin_tls] {
        for target in ["/tiny/zzzzzzzz", "/robots.txt"] {
            let mut connection = client.open(address);
            assert!(connection.get(target, "").is_some());
            connections.push(connection);
        }
        // Nothing was sent since the handshake.
        let mut connection = client.open(address);
        connection.stream.conn.complete_io(&mut connection.stream.sock).unwrap();
        connections.push(connection);
    }
    appliance.signal(Signal::TERM);
    for connection in &mut connections {
        connection.assert_says_goodbye();
    }
    assert!(appliance.end_by(Signal::CONT).success());
}

#[test]
fn handshakes_do_not_hold_up_the_end() {
    let authority = Authority::new();
    let mut appliance = start_with(
        &authority,
        &format!("drain_seconds = 3600\n{}{PATIENT}", settings(PATIENT)),
    );
    let hello = hello(&Client::new(&authority));
    let mut streams = Vec::new();
    for address in [&appliance.public_tls, &appliance.admin_tls] {
        for bytes in [&[][..], &hello[..10], &hello] {
            let mut stream = connect(address);
            stream.write_all(bytes).unwrap();
            streams.push(stream);
        }
    }
    assert!(appliance.terminate().success());
    drop(streams);
}

#[test]
fn request_in_flight_is_answered_before_the_end() {
    let authority = Authority::new();
    let (origin, release) = Origin::held();
    let fetch = format!(
        "drain_seconds = 3600\n[fetch]\nidle_timeout_seconds = 300\ntotal_timeout_seconds = 600\n{THIS_MACHINE}{}",
        ports(&[&origin])
    );
    let appliance = start_with(&authority, &(fetch + &settings("")));
    let mut proxy = Proxy::of(appliance);
    let id = proxy.link(&origin.url("/"));
    let client = Client::new(&authority);
    let stream = client.connect(&proxy.appliance.public_tls);
    let mut download = Download::ask(stream, &request("GET", &proxied(&id), ""));
    assert_eq!((download.status, download.read_exactly(1)), (200, b"1".to_vec()));
    proxy.appliance.signal(Signal::TERM);
    proxy.appliance.wait_for_log("draining");
    release.send(()).unwrap();
    assert_eq!(download.read_exactly(1), b"2");
    assert_eq!(download.read(&mut [0]), Part::End);
    let (_, kept) = download.finish_keeping();
    assert!(kept.has_ended());
    assert!(proxy.appliance.end_by(Signal::CONT).success());
}
