//! What clients get over TLS, and what becomes of handshakes.

use std::io::{Read as _, Write as _};

use rustls::version::{TLS12, TLS13};

use crate::support::certificates::Authority;
use crate::support::connections::open_connections;
use crate::support::fixture::poll;
use crate::support::http::{connect, exchange};
use crate::support::scrape::refusals;
use crate::support::tls::{Client, hello, settings, start_with};

#[test]
fn answers_are_those_of_plain_http() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let id = appliance.add(&appliance.admin_ks(), &[]);
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let client = Client::with_versions(&authority, versions);
        for target in [
            &*format!("/tiny/{id}"),
            "/tiny/unknown1",
            "/robots.txt",
            "/tiny/x/y",
            "/",
        ] {
            let secured = client.get(&appliance.public_tls, target);
            let plain = appliance.get_public(target);
            assert_eq!((secured.status, &secured.body), (plain.status, &plain.body), "{target}");
            assert_eq!(secured.header("location"), plain.header("location"));
            assert_eq!(secured.header("strict-transport-security"), "");
        }
    }
    let client = Client::new(&authority);
    assert_eq!(client.get(&appliance.admin_tls, "/healthz").text(), "ok\n");
}

#[test]
fn https_only_is_said_over_tls_where_it_is_set() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings("hsts_seconds = 3600"));
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let client = Client::new(&authority);
    for target in [&*format!("/tiny/{id}"), "/tiny/unknown1", "/robots.txt"] {
        let hsts = |answer: crate::support::http::Answer| answer.header("strict-transport-security").to_owned();
        assert_eq!(
            hsts(client.get(&appliance.public_tls, target)),
            "max-age=3600",
            "{target}"
        );
        assert_eq!(hsts(appliance.get_public(target)), "", "{target}");
        assert_eq!(hsts(client.get(&appliance.admin_tls, target)), "", "{target}");
    }
}

#[test]
fn plain_http_on_a_port_for_https_is_told_so() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let answer = exchange(&appliance.public_tls, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("use an https URL"), "{answer:?}");
}

#[test]
fn plain_http_is_counted_on_both_listeners() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    for (listener, address) in [("public", &appliance.public_tls), ("admin", &appliance.admin_tls)] {
        // In pieces, with a body, and cut off.
        for bytes in [
            &b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"[..],
            b"G",
            b"HEAD / HTTP/1.0\r\n\r\n",
        ] {
            let answer = exchange(address, bytes);
            assert_eq!((answer.status, answer.header("connection")), (400, "close"));
        }
        assert_eq!(refusals(&appliance, listener, "plain_http"), 3, "{listener}");
        assert_eq!(refusals(&appliance, listener, "tls_handshake"), 0, "{listener}");
    }
}

#[test]
fn refused_client_reads_the_reason() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    for (begin, answer) in [
        (&b"\x16\x03\x01\0\x04\x01\0\0\0"[..], &b"\x15\x03"[..]),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 400 "),
    ] {
        let mut stream = connect(&appliance.public_tls);
        // Closing with unread bytes would reset the connection.
        stream.write_all(&[begin, &[b'x'; 500_000]].concat()).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("an orderly end");
        assert!(received.starts_with(answer), "{}", received.escape_ascii());
    }
}

#[test]
fn handshake_timeout_closes_the_connection() {
    let authority = Authority::new();
    let timeout = "handshake_timeout_seconds = 1";
    let appliance = start_with(&authority, &(settings(timeout) + timeout));
    let hello = hello(&Client::new(&authority));
    for (listener, address) in [("public", &appliance.public_tls), ("admin", &appliance.admin_tls)] {
        let clients = [&[][..], &hello[..1], &hello[..hello.len() - 1], &hello].map(|bytes| {
            let mut stream = connect(address);
            stream.write_all(bytes).unwrap();
            stream
        });
        for mut stream in clients {
            // The whole hello is answered, and then nothing follows.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        poll("they are counted", || {
            refusals(&appliance, listener, "tls_timeout") >= 4
        });
        assert_eq!(refusals(&appliance, listener, "tls_timeout"), 4, "{listener}");
        assert_eq!(refusals(&appliance, listener, "tls_handshake"), 0, "{listener}");
    }
}

#[test]
fn half_open_handshakes_give_way_before_idle_clients() {
    let authority = Authority::new();
    let limits = "[public]\nthreads = 1\nmax_connections = 4\nidle_timeout_seconds = 3600\n";
    let settings = settings("handshake_timeout_seconds = 3600");
    let appliance = start_with(&authority, &format!("{limits}{settings}"));
    let client = Client::new(&authority);
    let mut idle = [(); 2].map(|()| client.open(&appliance.public_tls));
    for connection in &mut idle {
        assert_eq!(connection.get("/robots.txt", "").unwrap().status, 200);
    }
    // It has been idle for long enough to give way.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let hello = hello(&client);
    let mut newer = Vec::new();
    for number in 0..8 {
        let mut half_open = connect(&appliance.public_tls);
        half_open.write_all(&hello[..hello.len() / 2]).unwrap();
        newer.push(half_open);
        let expected = (number + 3).min(4);
        poll("it is counted", || open_connections(&appliance) == f64::from(expected));
    }
    assert_eq!(refusals(&appliance, "public", "connections"), 6);
    // Full of half-open handshakes, it has room for a client.
    let mut last = client.open(&appliance.public_tls);
    for connection in idle.iter_mut().chain([&mut last]) {
        assert_eq!(connection.get("/robots.txt", "").unwrap().status, 200);
    }
    drop(newer);
}
