//! Certificates of clients, which `client_ca` requires.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};

use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, configuration, folder, poll};
use crate::support::scrape::{Scrape, refusals};
use crate::support::tls::{Client, NAME, settings, write_pair};

/// Clients of the admin listener need a certificate of this authority.
fn start(authority: &Authority, client_ca: &Authority) -> Appliance {
    let client_ca = format!("client_ca = {:?}\n", client_ca.file());
    let folder = folder(&configuration(&(settings("") + &client_ca)));
    write_pair(folder.path(), &authority.issue(&[NAME], |_| {}));
    Appliance::start_in(folder)
}

/// The client with a certificate.
fn with_certificate(client: &Client, (chain, key): &(String, String)) -> Client {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let (chain, key) = (chain.collect(), key);
    let mut client = client.clone();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let certified = Arc::new(CertifiedKey::new(chain, key));
    client.config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    client
}

/// The answer to a request, or why there is none.
fn ask(client: &Client, appliance: &Appliance) -> Result<String, String> {
    let mut stream = client.connect(&appliance.admin_tls);
    let mut answer = String::new();
    // With TLS 1.3, a client may send a request before the server has its certificate.
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let read = stream.read_to_string(&mut answer);
    read.map(|_| answer).map_err(|error| error.to_string())
}

#[test]
fn client_needs_a_certificate_of_the_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let appliance = start(&authority, &authority);
    let issue = |authority: &Authority, purpose: ExtendedKeyUsagePurpose| {
        authority.issue(&["client.example"], |params| params.extended_key_usages = vec![purpose])
    };
    let of = ExtendedKeyUsagePurpose::ClientAuth;
    let known = issue(&authority, of.clone());
    let unknown = issue(&other, of.clone());
    let expired = authority.issue(&["client.example"], |params| {
        params.extended_key_usages = vec![of];
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    });
    let for_servers = issue(&authority, ExtendedKeyUsagePurpose::ServerAuth);
    let mut refused = 0;
    for version in [&TLS12, &TLS13] {
        let client = Client::with_versions(&authority, &[version]);
        for (pair, alert) in [
            (None, "CertificateRequired"),
            (Some(&unknown), "DecryptError"),
            (Some(&expired), "CertificateExpired"),
            (Some(&for_servers), "alert"),
        ] {
            let client = pair.map_or_else(|| client.clone(), |pair| with_certificate(&client, pair));
            let error = ask(&client, &appliance).unwrap_err();
            assert!(error.contains(alert), "{version:?} {alert}: {error}");
            refused += 1;
            poll("it is counted", || {
                refusals(&appliance, "admin", "tls_handshake") >= refused
            });
            assert_eq!(refusals(&appliance, "admin", "tls_handshake"), refused);
        }
        let answer = ask(&with_certificate(&client, &known), &appliance).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        // The other listener asks for none.
        assert_eq!(client.get(&appliance.public_tls, "/robots.txt").status, 200);
    }
}

#[test]
fn client_with_a_certificate_resumes_no_session() {
    let authority = Authority::new();
    let appliance = start(&authority, &authority);
    let known = authority.issue(&["client.example"], |_| {});
    for version in [&TLS12, &TLS13] {
        let client = with_certificate(&Client::with_versions(&authority, &[version]), &known);
        for _ in 0..3 {
            let mut connection = client.open(&appliance.admin_tls);
            assert_eq!(connection.get("/healthz", "").unwrap().status, 200);
            assert_eq!(connection.stream.conn.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
    let resumed = "tinyd_tls_handshakes_total{listener=\"admin\",kind=\"resumed\"}";
    assert_eq!(Scrape::of(&appliance).get(resumed), 0.0);
}
