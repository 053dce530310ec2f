//! What clients get over TLS, and what becomes of handshakes.

use rustls::version::{TLS12, TLS13};

use crate::support::certificates::Authority;
use crate::support::http::exchange;
use crate::support::tls::{Client, settings, start_with};

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
