//! Content of destinations, fetched for clients of HTTPS.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use crate::support::certificates::Authority;
use crate::support::client::{Download, request};
use crate::support::fixture::poll;
use crate::support::origin::{Conversation, Origin, pattern};
use crate::support::proxy::{Proxy, THIS_MACHINE, ports, proxied};
use crate::support::scrape::Scrape;
use crate::support::tls::{Client, Secured, settings, start_with};

/// More than all buffers between client and upstream hold.
const LONG_BYTES: usize = 16 * 1024 * 1024;

/// An appliance that serves HTTPS and fetches from this upstream, and a link to a path.
fn served(authority: &Authority, origin: &Origin, path: &str) -> (Proxy, String) {
    let fetch = format!(
        "[fetch]\nfirst_byte_timeout_seconds = 300\nidle_timeout_seconds = 300\ntotal_timeout_seconds = 600\n\
         max_fetches = 1\n{THIS_MACHINE}{}",
        ports(&[origin])
    );
    let appliance = start_with(authority, &(fetch + &settings("")));
    let proxy = Proxy::of(appliance);
    let id = proxy.link(&origin.url(path));
    (proxy, id)
}

fn ask(proxy: &Proxy, client: &Client, id: &str) -> Download<Secured> {
    let stream = client.connect(&proxy.appliance.public_tls);
    Download::ask(stream, &request("GET", &proxied(id), ""))
}

#[test]
fn fetched_content_arrives_whole_over_tls() {
    let body = pattern(LONG_BYTES);
    let origin = Origin::start({
        let body = body.clone();
        move |conversation: &mut Conversation| {
            conversation.answer("", &body);
        }
    });
    let authority = Authority::new();
    let (client, (proxy, id)) = (Client::new(&authority), served(&authority, &origin, "/"));
    let (fetched, kept) = ask(&proxy, &client, &id).finish_keeping();
    assert_eq!((fetched.status, fetched.header("x-kaltura")), (200, "dumpUrl"));
    assert!(fetched.is_whole && fetched.body == body, "{} bytes", fetched.body.len());
    // The connection stays usable.
    let next = kept.ask(&request("HEAD", &proxied(&id), "")).finish();
    assert_eq!(next.header("content-length"), LONG_BYTES.to_string());
}

#[test]
fn truncated_content_ends_without_close_notify() {
    let origin = Origin::start(|conversation| {
        let path = conversation.path();
        conversation.send(match path.as_str() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\nXX",
            _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        });
    });
    let authority = Authority::new();
    let client = Client::new(&authority);
    for (path, is_whole) in [("/length", false), ("/chunked", false), ("/whole", true)] {
        let (proxy, id) = served(&authority, &origin, path);
        let fetched = ask(&proxy, &client, &id).finish();
        assert_eq!((fetched.status, fetched.is_whole), (200, is_whole), "{path}");
        // Of HTTP/1.0, only the end of TLS says whether the body is whole.
        let mut stream = client.connect(&proxy.appliance.public_tls);
        let request = format!("GET {} HTTP/1.0\r\nHost: a\r\n\r\n", proxied(&id));
        stream.write_all(request.as_bytes()).unwrap();
        let mut received = Vec::new();
        let read = stream.read_to_end(&mut received);
        assert_eq!(read.is_ok(), is_whole, "{path}: {}", received.escape_ascii());
    }
}

#[test]
fn fetch_ends_when_its_secured_client_leaves() {
    // Sends a part, and then waits for its own client.
    let origin = Origin::start(|conversation: &mut Conversation| {
        if conversation.path() == "/begun" {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1");
        }
        conversation.wait_for_end();
    });
    let authority = Authority::new();
    for path in ["/begun", "/silent"] {
        let (proxy, id) = served(&authority, &origin, path);
        let fetches = || Scrape::of(&proxy.appliance).get("tinyd_fetches_open");
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = Client::with_versions(&authority, &[version]);
            for leave in [say_goodbye as Leave, say_goodbye_and_close, close, reset] {
                let before = origin.requests().len();
                let mut stream = client.connect(&proxy.appliance.public_tls);
                stream.write_all(request("GET", &proxied(&id), "").as_bytes()).unwrap();
                stream.flush().unwrap();
                poll("it is being fetched", || origin.requests().len() > before);
                if path == "/begun" {
                    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                }
                let kept = leave(stream);
                poll("it has ended", || fetches() == 0.0);
                drop(kept);
            }
        }
    }
}

type Leave = fn(Secured) -> Option<Secured>;

/// The connection stays open below TLS.
fn say_goodbye(mut stream: Secured) -> Option<Secured> {
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    Some(stream)
}

fn say_goodbye_and_close(stream: Secured) -> Option<Secured> {
    let stream = say_goodbye(stream);
    // The server may have closed already.
    let _ = stream.as_ref().unwrap().sock.shutdown(Shutdown::Write);
    stream
}

fn close(_: Secured) -> Option<Secured> {
    None
}

fn reset(stream: Secured) -> Option<Secured> {
    let linger = Some(std::time::Duration::ZERO);
    socket2::SockRef::from(&stream.sock).set_linger(linger).unwrap();
    None
}
