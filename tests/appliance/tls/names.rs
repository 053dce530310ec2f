//! Which certificate a client gets: by the name that it asks for, and by the keys that it can verify.

use std::fs;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{SignatureScheme, SupportedProtocolVersion};

use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, configuration, folder};
use crate::support::tls::{Client, NAME, leaf, served_certificate};

type Pair = (String, String);

/// An appliance with several certificates, in this order.
fn start(pairs: &[&Pair]) -> Appliance {
    let files: Vec<_> = (0..pairs.len())
        .map(|number| format!("{{ cert = \"{number}.pem\", key = \"{number}.key\" }}"))
        .collect();
    let settings = format!(
        "[public.tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{}]\n",
        files.join(", ")
    );
    let folder = folder(&configuration(&settings));
    for (number, (chain, key)) in pairs.iter().enumerate() {
        fs::write(folder.path().join(format!("{number}.pem")), chain).unwrap();
        fs::write(folder.path().join(format!("{number}.key")), key).unwrap();
    }
    Appliance::start_in(folder)
}

/// A client that asks for a name, and gets a certificate that is valid for it.
fn asks(client: &Client, appliance: &Appliance, name: &str) -> CertificateDer<'static> {
    let client = Client {
        name: name.to_owned(),
        ..client.clone()
    };
    served_certificate(&client, &appliance.public_tls)
}

fn without_sni(client: &Client) -> Client {
    let mut client = client.clone();
    client.config.enable_sni = false;
    client
}

#[test]
fn client_gets_the_certificate_of_its_name() {
    let authority = Authority::new();
    let issue = |names: &[&str]| authority.issue(names, |_| {});
    let (first, second) = (issue(&[NAME, "127.0.0.1", "::1"]), issue(&["a.example", "b.example"]));
    let (wildcard, named) = (issue(&["*.example.net"]), issue(&["x.example.net"]));
    let appliance = start(&[&first, &second, &wildcard, &named]);
    for version in [&TLS12, &TLS13] {
        let client = Client::with_versions(&authority, &[version]);
        for (name, pair) in [
            (NAME, &first),
            ("a.example", &second),
            ("B.EXAMPLE", &second),
            ("y.example.net", &wildcard),
            ("x.example.net", &named),
            // An address is in no SNI.
            ("127.0.0.1", &first),
            ("::1", &first),
        ] {
            assert_eq!(asks(&client, &appliance, name), leaf(pair), "{name} {version:?}");
        }
        let nameless = without_sni(&client);
        assert_eq!(asks(&nameless, &appliance, NAME), leaf(&first));
        // The first, which is not for these names.
        for name in ["unknown.example", "a.y.example.net", "example.net"] {
            let client = Client {
                name: name.to_owned(),
                ..client.clone()
            };
            let mut connection = client.connect(&appliance.public_tls);
            let error = connection.conn.complete_io(&mut connection.sock).unwrap_err();
            assert!(error.to_string().contains(NAME), "{name}: {error}");
        }
    }
}

/// A client that verifies these signatures, and has these cipher suites, named by what they contain.
fn client(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    schemes: impl Fn(SignatureScheme) -> bool,
    suites: &str,
) -> Client {
    let mut provider: CryptoProvider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|suite| format!("{:?}", suite.suite()).contains(suites));
    let WebPkiSupportedAlgorithms { all, mapping } = provider.signature_verification_algorithms;
    let mapping: Vec<_> = mapping.iter().filter(|(scheme, _)| schemes(*scheme)).copied().collect();
    provider.signature_verification_algorithms = WebPkiSupportedAlgorithms {
        all,
        // As in a provider, which lives as long as the process.
        mapping: Vec::leak(mapping),
    };
    let mut client = Client::with_provider(authority, Arc::new(provider), &[version]);
    client.config.resumption = Resumption::disabled();
    client
}

#[test]
fn client_gets_the_key_that_it_can_verify() {
    let authority = Authority::new();
    let ecdsa = authority.issue(&[NAME], |_| {});
    let rsa = authority.issue_by(&rcgen::PKCS_RSA_SHA256, &[NAME], |_| {});
    let is_rsa = |scheme: SignatureScheme| format!("{scheme:?}").starts_with("RSA");
    let is_ecdsa = move |scheme| !is_rsa(scheme);
    for pairs in [[&rsa, &ecdsa], [&ecdsa, &rsa]] {
        let appliance = start(&pairs);
        for (client, pair) in [
            (client(&authority, &TLS13, |_| true, ""), &ecdsa),
            (client(&authority, &TLS13, is_rsa, ""), &rsa),
            (client(&authority, &TLS13, is_ecdsa, ""), &ecdsa),
            (client(&authority, &TLS12, |_| true, ""), &ecdsa),
            (client(&authority, &TLS12, is_rsa, ""), &rsa),
            (client(&authority, &TLS12, |_| true, "ECDHE_RSA"), &rsa),
            (client(&authority, &TLS12, |_| true, "ECDHE_ECDSA"), &ecdsa),
        ] {
            for client in [&client, &without_sni(&client)] {
                assert!(asks(client, &appliance, NAME) == leaf(pair));
            }
        }
    }
    // With one key, clients that cannot verify it are refused.
    let appliance = start(&[&ecdsa]);
    let client = client(&authority, &TLS12, |_| true, "ECDHE_RSA");
    let mut connection = client.connect(&appliance.public_tls);
    assert!(connection.conn.complete_io(&mut connection.sock).is_err());
}
