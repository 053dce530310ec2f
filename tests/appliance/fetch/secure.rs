//! HTTPS: an upstream without a valid certificate gets no request.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::ServerConfig;

use crate::support::certificates::{Authority, self_signed};
use crate::support::name_server::{NameServer, at};
use crate::support::origin::{Conversation, Origin, Server};
use crate::support::proxy::{Proxy, THIS_MACHINE, assert_fault};

fn secret(conversation: &mut Conversation) {
    conversation.answer("", crate::support::proxy::SECRET);
}

#[test]
fn bad_certificate_ends_the_fetch_before_the_request() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let names = NameServer::start();
    names.says("*.example", at(&["127.0.0.1"]));
    let good = ["www.good.example", "127.0.0.1"];
    let clients_only = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let cases: Vec<(&str, Arc<ServerConfig>, bool)> = vec![
        ("good", authority.certify(&good), true),
        (
            "for all below",
            authority.certify(&["*.good.example", "127.0.0.1"]),
            true,
        ),
        ("self-signed", self_signed(&good), false),
        ("of an authority that is not known", stranger.certify(&good), false),
        ("over", authority.certify_until_2020(&good), false),
        ("to come", authority.certify_from_3000(&good), false),
        (
            "for others",
            authority.certify(&["www.other.example", "127.0.0.2"]),
            false,
        ),
        ("for the folder above", authority.certify(&["good.example"]), false),
        ("for too many", authority.certify(&["*.example"]), false),
        ("for nobody", authority.certify(&[]), false),
        ("for clients", authority.certify_as(&good, clients_only), false),
    ];
    for (what, config, is_good) in cases {
        let origin = Origin::over_tls(config, secret);
        let settings = format!("{}{}", authority.setting(), names.setting());
        let proxy = Proxy::with(&[&origin], &settings);
        for url in [
            origin.url("/private?x"),
            origin.url_by("www.good.example", "/private?x"),
        ] {
            let before = origin.connections();
            let fetched = proxy.fetch(&url);
            assert_eq!(origin.connections(), before + 1, "{what}");
            if is_good {
                assert_eq!(
                    (fetched.status, fetched.text().as_str()),
                    (200, crate::support::proxy::SECRET),
                    "{what}"
                );
            } else {
                println!("{what}: {url}");
                assert_fault(&fetched, 502, "DESTINATION_UNREACHABLE");
                assert!(origin.requests().is_empty(), "{what}: {:?}", origin.requests());
            }
        }
        proxy.assert_redirects();
    }
}

#[test]
fn only_system_authorities_are_trusted_by_default() {
    let authority = Authority::new();
    let origin = Origin::over_tls(authority.certify(&["127.0.0.1"]), secret);
    let proxy = Proxy::to(&[&origin]);
    assert_fault(&proxy.fetch(&origin.url("/")), 502, "DESTINATION_UNREACHABLE");
    assert!(origin.requests().is_empty());
}

#[test]
fn ca_file_is_relative_to_the_configuration() {
    let authority = Authority::new();
    let origin = Origin::over_tls(authority.certify(&["127.0.0.1"]), secret);
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(authority.file(), folder.path().join("mine.pem")).unwrap();
    let settings = format!(
        "[fetch]\n{THIS_MACHINE}ports = [{}]\nca_file = \"mine.pem\"\n",
        origin.port()
    );
    std::fs::write(
        folder.path().join("tinyd.toml"),
        crate::support::fixture::configuration(&settings),
    )
    .unwrap();
    let proxy = Proxy::of(crate::support::fixture::Appliance::start_in(folder));
    assert_eq!(proxy.fetch(&origin.url("/")).status, 200);
}

#[test]
fn plain_http_on_an_https_port_is_502() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let plain = Server::start("127.0.0.1:0", move |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\ninternal-word");
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        hears.lock().extend(all);
    });
    let authority = Authority::new();
    let secure = Origin::over_tls(authority.certify(&["127.0.0.1"]), secret);
    let ports = [plain.address.port(), secure.port()];
    let proxy = Proxy::start(&format!("{THIS_MACHINE}ports = {ports:?}\n{}", authority.setting()));
    let url = format!("https://{}/private", plain.address);
    assert_fault(&proxy.fetch(&url), 502, "DESTINATION_UNREACHABLE");
    crate::support::fixture::poll("it has heard all", || !heard.lock().is_empty());
    let heard = heard.lock().escape_ascii().to_string();
    assert!(!heard.contains("private") && !heard.contains("GET"), "{heard}");
    // And the reverse: TLS on a plain port.
    let url = format!("http://127.0.0.1:{}/", secure.port());
    assert_fault(&proxy.fetch(&url), 502, "DESTINATION_UNREACHABLE");
    assert!(secure.requests().is_empty());
    proxy.assert_redirects();
}

#[test]
fn body_without_tls_close_notify_is_truncated() {
    let authority = Authority::new();
    let origin = Origin::over_tls(authority.certify(&["127.0.0.1"]), |conversation| {
        conversation.is_torn = conversation.path() != "/said";
        match conversation.path().as_str() {
            "/length" => conversation.answer("", "0123456789"),
            "/head" => conversation.send("HTTP/1.1 200 OK\r\n\r\n"),
            _ => conversation.send("HTTP/1.1 200 OK\r\n\r\n0123456789"),
        };
    });
    let proxy = Proxy::with(&[&origin], &authority.setting());
    // An attacker could cut the connection; only the length proves that the body is complete.
    for (path, is_whole) in [("/length", true), ("/said", true), ("/torn", false)] {
        let id = proxy.link(&origin.url(path));
        let fetched = proxy.ask(&id, "GET", "").finish();
        assert_eq!(
            (fetched.status, fetched.is_whole),
            (200, is_whole),
            "{path}: {fetched:?}"
        );
    }
    // A connection that breaks before the first byte is no response.
    assert_fault(&proxy.fetch(&origin.url("/head")), 502, "DESTINATION_UNREACHABLE");
}
