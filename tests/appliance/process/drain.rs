//! What is answered between the signal to end and the end.

use std::io::{Read as _, Write as _};
use std::sync::mpsc;

use rustix::process::Signal;

use crate::support::certificates::Authority;
use crate::support::client::{Download, Part, request};
use crate::support::fixture::{Appliance, poll};
use crate::support::http::{connect, encode};
use crate::support::http2::{self, Connection as Http2};
use crate::support::origin::Origin;
use crate::support::proxy::{GOTO, Proxy, THIS_MACHINE, ports, proxied};
use crate::support::tls::{Client, hello, settings, start_with};
use crate::support::wire::Connection;

/// An appliance that drains for as long as a download lasts, and the download.
fn draining(authority: &Authority, origin: &Origin) -> (Proxy, Download) {
    let patience = "idle_timeout_seconds = 300\ntotal_timeout_seconds = 600\n";
    let fetch = format!("[fetch]\n{patience}{THIS_MACHINE}{}", ports(&[origin]));
    let tls = settings("handshake_timeout_seconds = 3600\n");
    let appliance = start_with(authority, &format!("drain_seconds = 3600\n{fetch}{tls}"));
    let proxy = Proxy::of(appliance);
    let id = proxy.link(&origin.url("/"));
    let mut download = proxy.ask(&id, "GET", "");
    assert_eq!((download.status, download.read_exactly(1)), (200, b"1".to_vec()));
    proxy.appliance.signal(Signal::TERM);
    proxy.appliance.wait_for_log("draining");
    (proxy, download)
}

/// Lets the download end, upon which the appliance does.
fn finish(proxy: &mut Proxy, mut download: Download, release: &mpsc::Sender<()>) {
    release.send(()).unwrap();
    assert_eq!(download.read_exactly(1), b"2");
    assert_eq!(download.read(&mut [0]), Part::End);
    drop(download);
    assert!(proxy.appliance.end_by(Signal::CONT).success());
    let log = proxy.appliance.log();
    assert!(!log.contains("aborted requests"), "{log}");
}

/// The link is redirected to on a new connection, which ends with that.
fn assert_redirects_once<S: std::io::Read + std::io::Write>(mut connection: Connection<S>, target: &str) {
    let received = connection.get(target, "").expect("an answer");
    assert_eq!(received.status, 302, "{received:?}");
    assert!(received.is_last(), "{received:?}");
    connection.assert_closed();
}

#[test]
fn drain_answers_redirects_until_downloads_have_ended() {
    let authority = Authority::new();
    let (origin, release) = Origin::held();
    let (mut proxy, download) = draining(&authority, &origin);
    let client = Client::new(&authority);
    let appliance = &proxy.appliance;
    // A write, which is short.
    let id = appliance.add(&proxy.ks, &[]);
    let (target, general) = (format!("{GOTO}{id}"), format!("{GOTO}{id}?x=y"));
    for _ in 0..3 {
        for target in [&target, &general] {
            assert_redirects_once(Connection::open(&appliance.public), target);
            let mut connection = client.open(&appliance.public_tls);
            let received = connection.get(target, "").expect("an answer");
            assert!(received.status == 302 && received.is_last(), "{received:?}");
            connection.assert_says_goodbye();
        }
    }
    let mut http2 = Http2::open(&client, &appliance.public_tls);
    assert_eq!(http2.get(&target).status, 302);
    poll("ended", || http2.ask(http2::request("GET", &target), b"").is_err());
    let counted = appliance.link("get", &proxy.ks, &[("id", &id), ("withClicks", "1")]);
    assert_eq!(appliance.get_admin("/readyz").status, 200);
    finish(&mut proxy, download, &release);
    proxy.appliance.restart();
    let after = proxy
        .appliance
        .link("get", &proxy.ks, &[("id", &id), ("withClicks", "1")]);
    assert_eq!(
        (&counted["clicks"], &counted["previews"]),
        (&after["clicks"], &after["previews"]),
    );
}

#[test]
fn drain_begins_nothing_that_takes_long() {
    let authority = Authority::new();
    let (origin, release) = Origin::held();
    let (mut proxy, download) = draining(&authority, &origin);
    let appliance = &proxy.appliance;
    let id = proxy.link(&origin.url("/other"));
    let refused = appliance.get_public(&proxied(&id));
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, "5"),
        "{refused:?}"
    );
    let ks = encode(&proxy.ks);
    let export = format!("/api_v3/service/tinyd/action/export?format=1&ks={ks}");
    let refused = appliance.get_admin(&export);
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, "5"),
        "{refused:?}"
    );
    assert!(refused.text().contains("server restarting"), "{refused:?}");
    finish(&mut proxy, download, &release);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn silent_clients_of_a_drain_do_not_prolong_it() {
    let authority = Authority::new();
    let (origin, release) = Origin::held();
    let (mut proxy, download) = draining(&authority, &origin);
    let Appliance {
        public,
        admin,
        public_tls,
        ..
    } = &proxy.appliance;
    let mut streams: Vec<_> = [public, admin]
        .map(|base| connect(base.strip_prefix("http://").unwrap()))
        .into();
    streams.push(connect(public_tls));
    let mut begun = connect(public.strip_prefix("http://").unwrap());
    begun.write_all(b"GET /tiny/").unwrap();
    let mut greeting = connect(public_tls);
    greeting.write_all(&hello(&Client::new(&authority))).unwrap();
    let mut unread = connect(public.strip_prefix("http://").unwrap());
    unread
        .write_all(request("GET", "/tiny/zzzzzzzz", "").as_bytes())
        .unwrap();
    finish(&mut proxy, download, &release);
    streams.extend([begun, greeting, unread]);
    for mut stream in streams {
        let mut rest = Vec::new();
        // One that has sent nothing may not have been accepted, and hears of the end when it sends.
        let _ = stream.write_all(b"G");
        // Closed, or reset.
        let _ = stream.read_to_end(&mut rest);
    }
}
