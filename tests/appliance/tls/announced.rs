//! The PROXY protocol before TLS.

use std::io::{Read as _, Write as _};

use crate::support::certificates::Authority;
use crate::support::http::connect;
use crate::support::scrape::refusals;
use crate::support::tls::{Client, Secured, hello, settings, start_with};
use crate::support::wire::Connection;

const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";
const TRUSTED: &str = "trusted_proxies = \"127.0.0.1\"\nproxy_protocol = true\n";
const LOG: &str = "[log]\naccess = \"all\"\naccess_addresses = \"full\"\n";

fn version_1(client: u8) -> Vec<u8> {
    format!("PROXY TCP4 203.0.113.{client} 127.0.0.1 4711 443\r\n").into_bytes()
}

fn version_2(client: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([203, 0, 113, client, 127, 0, 0, 1, 0x12, 0x34, 1, 0xbb]);
    header
}

/// Sends the header and the client's hello in pieces of this size.
fn open(client: &Client, address: &str, header: &[u8], size: usize) -> Connection<Secured> {
    let mut connection = client.open(address);
    connection.stream.sock.set_nodelay(true).unwrap();
    let mut bytes = header.to_vec();
    connection.stream.conn.write_tls(&mut bytes).unwrap();
    for piece in bytes.chunks(size) {
        connection.stream.sock.write_all(piece).unwrap();
    }
    connection
}

#[test]
fn header_before_a_handshake_names_the_client() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &format!("[public]\n{TRUSTED}{LOG}{}", settings("")));
    let client = Client::new(&authority);
    for (header, client_number) in [(version_1(1), 1), (version_2(2), 2)] {
        // In one write, the header apart, and byte by byte.
        for (number, size) in [usize::MAX, header.len(), 1].into_iter().enumerate() {
            let mut connection = open(&client, &appliance.public_tls, &header, size);
            let id = format!("id{client_number}{number}");
            for target in [format!("{GOTO}{id}"), format!("{GOTO}{id}?x=y")] {
                assert_eq!(connection.get(&target, "").unwrap().status, 404);
            }
            let log = appliance.log();
            let lines: Vec<_> = log
                .lines()
                .filter(|line| line.contains(&format!("goto {id}")))
                .collect();
            let expected = format!("client=203.0.113.{client_number} ");
            assert!(
                lines.len() == 2 && lines.iter().all(|line| line.contains(&expected)),
                "{lines:?}"
            );
        }
    }
    // A trusted proxy must send the header.
    let mut stream = connect(&appliance.public_tls);
    stream.write_all(&hello(&client)).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(refusals(&appliance, "public", "proxy_header"), 1);
}

#[test]
fn secured_connections_count_for_the_forwarded_client() {
    let authority = Authority::new();
    let limit = "max_connections_per_address = 2\n";
    let appliance = start_with(&authority, &format!("[public]\n{TRUSTED}{limit}{}", settings("")));
    let client = Client::new(&authority);
    let open = |number| open(&client, &appliance.public_tls, &version_2(number), usize::MAX);
    let is_served = |connection: &mut Connection<Secured>| connection.get("/robots.txt", "").is_some();
    let mut kept = [1, 1, 2, 2, 3].map(open);
    assert!(kept.iter_mut().all(is_served));
    assert!(is_served(&mut open(3)));
    // What it would be sent before a handshake is nothing that a client understands.
    let mut stream = connect(&appliance.public_tls);
    stream.write_all(&[version_2(1), hello(&client)].concat()).unwrap();
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    assert_eq!(received.escape_ascii().to_string(), "");
    assert_eq!(refusals(&appliance, "public", "address_connections"), 1);
}

#[test]
fn header_of_others_is_no_handshake() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    let answers = [version_1(1), version_2(1)].map(|header| {
        let mut stream = connect(&appliance.public_tls);
        stream.write_all(&[header, hello(&client)].concat()).unwrap();
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        received
    });
    // The first begins like a request of plain HTTP.
    assert!(
        answers[0].starts_with(b"HTTP/1.1 400 "),
        "{:?}",
        answers[0].escape_ascii()
    );
    assert!(!answers[1].starts_with(b"HTTP/"), "{:?}", answers[1].escape_ascii());
    assert_eq!(refusals(&appliance, "public", "plain_http"), 1);
    assert_eq!(refusals(&appliance, "public", "tls_handshake"), 1);
}
