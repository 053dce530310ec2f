//! The client's address: the peer, or the address that a trusted proxy forwards; and how it is logged.

use crate::support::fixture::{Appliance, code};
use crate::support::http::request;
use crate::support::scrape::refusals;
use crate::support::wire::Connection;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
const LOG: &str = "[log]\naccess = \"all\"\naccess_addresses = \"full\"\n";

/// A PROXY protocol version 2 header for an IPv4 client.
fn version_2(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client);
    header.extend([127, 0, 0, 1, 0x12, 0x34, 0, 80]);
    header
}

#[test]
fn forwarded_address_is_used_from_trusted_proxies_only() {
    let ks_of = |appliance: &Appliance| {
        appliance.start_session(
            crate::support::fixture::ADMIN_SECRET,
            "me",
            "2",
            "iprestrict:203.0.113.9",
        )
    };
    for (proxies, is_trusted) in [("\"127.0.0.0/8\"", true), ("[\"10.0.0.0/8\", \"::1\"]", false)] {
        let appliance = Appliance::start_with(&format!(
            "[public]\ntrusted_proxies = {proxies}\n[admin]\ntrusted_proxies = {proxies}\n{LOG}"
        ));
        let expected = if is_trusted {
            "client=203.0.113.9"
        } else {
            "client=127.0.0.1"
        };
        for (base, target) in [
            (&appliance.public, format!("{GOTO}aaaa")),
            (&appliance.public, format!("{GOTO}bbbb?x=y")),
            (&appliance.public, "/tiny/cccc".to_owned()),
            (&appliance.admin, format!("{GOTO}dddd")),
        ] {
            // The client's own value stands to the left.
            request(
                base,
                "GET",
                &target,
                &[("X-Forwarded-For", "1.1.1.1, 203.0.113.9")],
                b"",
            );
        }
        let log = appliance.log();
        for id in ["goto aaaa", "goto bbbb", "tiny cccc", "goto dddd"] {
            let line = log
                .lines()
                .find(|line| line.contains(id))
                .unwrap_or_else(|| panic!("{id}: {log}"));
            assert!(line.contains(expected), "{line}");
        }
        // A session restricted to an address.
        let ks = ks_of(&appliance);
        let target = format!("/api_v3/service/shortlink_shortlink/action/list?format=1&ks={ks}");
        let answer = request(
            &appliance.admin,
            "GET",
            &target,
            &[("X-Forwarded-For", "203.0.113.9")],
            b"",
        );
        assert_eq!(code(&answer.json()).is_empty(), is_trusted, "{answer:?}");
    }
}

#[test]
fn proxy_protocol_is_for_trusted_proxies_only() {
    let listener = "trusted_proxies = \"127.0.0.1\"\nproxy_protocol = true";
    let appliance = Appliance::start_with(&format!("[public]\n{listener}\n[admin]\n{LOG}"));
    let get = |id: &str| format!("GET {GOTO}{id} HTTP/1.1\r\nHost: a\r\n\r\n");
    for (id, header, client) in [
        (
            "aaaa",
            b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n".to_vec(),
            "203.0.113.9",
        ),
        (
            "bbbb",
            b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n".to_vec(),
            "2001:db8::9",
        ),
        ("cccc", version_2([203, 0, 113, 10]), "203.0.113.10"),
        ("dddd", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        // In one piece, and byte by byte.
        for size in [usize::MAX, 1] {
            let mut connection = Connection::open(&appliance.public);
            let bytes = [&header[..], get(id).as_bytes(), get(&format!("{id}e")).as_bytes()].concat();
            for piece in bytes.chunks(size.min(bytes.len())) {
                connection.send(piece);
            }
            for _ in 0..2 {
                assert_eq!(connection.receive(true).unwrap().status, 404, "{id}");
            }
        }
        let log = appliance.log();
        let lines = log.lines().filter(|line| line.contains(&format!("goto {id}")));
        let expected = format!("client={client} ");
        assert_eq!(lines.filter(|line| line.contains(&expected)).count(), 4, "{id}: {log}");
    }
    // A trusted proxy must send the header.
    for bytes in [get("ffff"), "PROXY TCP4 nonsense\r\n".to_owned() + &get("ffff")] {
        let mut connection = Connection::open(&appliance.public);
        connection.send(bytes.as_bytes());
        connection.assert_closed();
    }
    assert_eq!(refusals(&appliance, "public", "proxy_header"), 2);
    // The other listener does not use the PROXY protocol.
    let mut connection = Connection::open(&appliance.admin);
    connection.send(format!("PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n{}", get("gggg")).as_bytes());
    assert_eq!(connection.receive(true).unwrap().status, 400);
}

#[test]
fn untrusted_peer_is_served_without_proxy_header() {
    let settings = "trusted_proxies = \"10.0.0.0/8\"\nproxy_protocol = true";
    let appliance = Appliance::start_with(&format!("[public]\n{settings}\n[admin]\n{settings}\n{LOG}"));
    for base in [&appliance.public, &appliance.admin] {
        assert_eq!(
            Connection::open(base).get(&format!("{GOTO}aaaa"), "").unwrap().status,
            404
        );
        let mut connection = Connection::open(base);
        connection.send(b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n");
        assert_eq!(connection.receive(true).unwrap().status, 400);
        connection.assert_closed();
    }
    assert!(!appliance.log().contains("203.0.113.9"), "{}", appliance.log());
}

#[test]
fn connections_count_for_the_forwarded_client() {
    let settings = "trusted_proxies = \"127.0.0.1\"\nproxy_protocol = true\nmax_connections_per_address = 2";
    let appliance = Appliance::start_with(&format!("[public]\n{settings}\n"));
    let open = |client: u8| {
        let mut connection = Connection::open(&appliance.public);
        connection.send(&version_2([203, 0, 113, client]));
        let received = connection.get(&format!("{GOTO}aaaa"), "");
        received.map(|received| (connection, received.status))
    };
    let _kept: Vec<_> = [1, 1, 2, 2, 3].map(|client| open(client).unwrap()).into();
    assert_eq!(open(1).unwrap().1, 429);
    assert_eq!(open(3).unwrap().1, 404);
    assert_eq!(refusals(&appliance, "public", "address_connections"), 1);
}

#[test]
fn access_log_masks_addresses_as_set() {
    for (settings, expected) in [
        ("", None),
        ("[log]\naccess = \"all\"\n", Some("client=127.0.0.0 ")),
        (
            "[log]\naccess = \"all\"\naccess_addresses = \"none\"\n",
            Some("listener=\"public\" method"),
        ),
        (
            "[log]\naccess = \"all\"\naccess_addresses = \"full\"\n",
            Some("client=127.0.0.1 "),
        ),
    ] {
        let appliance = Appliance::start_with(settings);
        let ks = appliance.admin_ks();
        let id = appliance.add(&ks, &[]);
        let target = format!("{GOTO}{id}/ks/{ks}");
        assert_eq!(request(&appliance.public, "GET", &target, &[], b"").status, 302);
        assert_eq!(appliance.goto(&id).status, 302);
        let log = appliance.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("subject=")).collect();
        match expected {
            None => assert!(lines.is_empty(), "{log}"),
            Some(expected) => {
                let gotos: Vec<_> = lines
                    .iter()
                    .filter(|line| line.contains(&format!("goto {id}")))
                    .collect();
                assert_eq!(gotos.len(), 2, "{log}");
                assert!(gotos.iter().all(|line| line.contains(expected)), "{log}");
                assert!(
                    gotos
                        .iter()
                        .all(|line| line.contains("method=\"GET\"") && line.contains("status=302"))
                );
                assert!(
                    lines.iter().any(|line| line.contains("shortlink_shortlink add")),
                    "{log}"
                );
                assert!(lines.iter().any(|line| line.contains("session start")), "{log}");
            }
        }
        assert!(!log.contains(&ks), "a session in the log:\n{log}");
    }
    let appliance = Appliance::start_with("[log]\naccess = 10\nlevel = \"error\"\n");
    for _ in 0..100 {
        appliance.goto("aaaa");
    }
    let sampled = appliance
        .log()
        .lines()
        .filter(|line| line.contains("goto aaaa"))
        .count();
    // The polls for readiness count too.
    assert!((9..=11).contains(&sampled), "{sampled}");
}
