//! Versions of TLS and sessions that clients resume.

use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion, SupportedProtocolVersion};

use crate::support::certificates::Authority;
use crate::support::fixture::Appliance;
use crate::support::scrape::Scrape;
use crate::support::tls::{Client, settings, start_with};

const TARGET: &str = "/robots.txt";

fn handshakes(appliance: &Appliance, listener: &str) -> (f64, f64) {
    let scrape = Scrape::of(appliance);
    let of = |kind: &str| {
        scrape.get(&format!(
            "tinyd_tls_handshakes_total{{listener=\"{listener}\",kind=\"{kind}\"}}"
        ))
    };
    (of("full"), of("resumed"))
}

/// The kind of handshake of one more connection, after which the client has another ticket.
fn shake_hands(client: &Client, address: &str) -> HandshakeKind {
    let mut connection = client.open(address);
    assert_eq!(connection.get(TARGET, "").unwrap().status, 200);
    connection.stream.conn.handshake_kind().unwrap()
}

#[test]
fn sessions_are_resumed_and_counted() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let appliance = start_with(&authority, &settings(""));
        for (listener, address) in [("public", &appliance.public_tls), ("admin", &appliance.admin_tls)] {
            let client = Client::with_versions(&authority, &[version]);
            assert_eq!(shake_hands(&client, address), HandshakeKind::Full);
            for _ in 0..5 {
                assert_eq!(shake_hands(&client, address), HandshakeKind::Resumed, "{version:?}");
            }
            assert_eq!(handshakes(&appliance, listener), (1.0, 5.0), "{version:?}");
        }
        // Neither listener takes what the other has given.
        let client = Client::with_versions(&authority, &[version]);
        for (address, kind) in [
            (&appliance.public_tls, HandshakeKind::Full),
            (&appliance.admin_tls, HandshakeKind::Full),
            (&appliance.admin_tls, HandshakeKind::Resumed),
        ] {
            assert_eq!(shake_hands(&client, address), kind, "{version:?}");
        }
    }
}

#[test]
fn no_early_data_is_taken() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let mut client = Client::with_versions(&authority, &[&TLS13]);
    client.config.enable_early_data = true;
    assert_eq!(shake_hands(&client, &appliance.public_tls), HandshakeKind::Full);
    let mut connection = client.open(&appliance.public_tls);
    assert!(connection.stream.conn.early_data().is_none());
    assert_eq!(connection.get(TARGET, "").unwrap().status, 200);
    assert_eq!(connection.stream.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(!connection.stream.conn.is_early_data_accepted());
}

#[test]
fn client_without_tickets_gets_full_handshakes() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    for version in [&TLS12, &TLS13] {
        let mut client = Client::with_versions(&authority, &[version]);
        client.config.resumption = Resumption::disabled();
        for _ in 0..3 {
            assert_eq!(shake_hands(&client, &appliance.public_tls), HandshakeKind::Full);
        }
    }
    assert_eq!(handshakes(&appliance, "public"), (6.0, 0.0));
}

/// The version that a client with these versions agrees on, if any.
fn agreed(
    authority: &Authority,
    address: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> Option<ProtocolVersion> {
    let mut connection = Client::with_versions(authority, versions).connect(address);
    let shaken = connection.conn.complete_io(&mut connection.sock);
    shaken.ok().and_then(|_| connection.conn.protocol_version())
}

#[test]
fn older_versions_than_the_least_are_refused() {
    let authority = Authority::new();
    for (setting, of_1_2) in [
        ("", Some(ProtocolVersion::TLSv1_2)),
        ("min_version = \"1.2\"", Some(ProtocolVersion::TLSv1_2)),
        ("min_version = \"1.3\"", None),
    ] {
        let appliance = start_with(&authority, &settings(setting));
        let agreed = |versions: &[_]| agreed(&authority, &appliance.public_tls, versions);
        assert_eq!(agreed(&[&TLS12]), of_1_2, "{setting}");
        assert_eq!(agreed(&[&TLS13]), Some(ProtocolVersion::TLSv1_3), "{setting}");
        assert_eq!(agreed(&[&TLS12, &TLS13]), Some(ProtocolVersion::TLSv1_3), "{setting}");
        let refused = Scrape::of(&appliance).get("tinyd_refusals_total{listener=\"public\",reason=\"tls_handshake\"}");
        assert_eq!(refused > 0.0, of_1_2.is_none(), "{setting}");
    }
}

#[test]
fn http_1_is_agreed_by_its_name() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let mut client = Client::new(&authority);
    client.config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut connection = client.open(&appliance.public_tls);
    assert_eq!(connection.get(TARGET, "").unwrap().status, 200);
    assert_eq!(connection.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    // With no name in common, there is nothing to speak.
    client.config.alpn_protocols = vec![b"spdy/3".to_vec()];
    let mut connection = client.connect(&appliance.public_tls);
    assert!(connection.conn.complete_io(&mut connection.sock).is_err());
}
