//! No spelling of a destination reaches the internal network.
//!
//! The tables hold our own list and the published ones: PayloadsAllTheThings, the cheat sheets of EdOverflow and
//! PortSwigger, advisories of other software. In the network of these tests, the canary listens on ports 80 and 443 of
//! every address, so that each entry is written as it was published.

mod addresses;
mod names;
mod texts;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::support::client::Fetched;
use crate::support::connections::address;
use crate::support::name_server::{NameServer, at};
use crate::support::origin::{Origin, Server};
use crate::support::proxy::{GOTO, Proxy, SECRET, assert_fault, proxied};
use addresses::{ADDRESSES, UNROUTABLE};
use names::{NAMES, NOWHERE};
use texts::{AUTHORITIES, NO_DESTINATIONS};

/// An address of the public internet.
const PUBLIC: &str = "11.0.0.1";

/// A listener on every allowed port, and some others, of every address.
struct Canary {
    /// The addresses that got a connection, except the public one.
    reached: Arc<Mutex<Vec<SocketAddr>>>,
    _servers: Vec<Server>,
}

impl Canary {
    fn set() -> Self {
        let reached = Arc::new(Mutex::new(Vec::new()));
        let server = |port: u16| {
            let reached = Arc::clone(&reached);
            Server::start(&format!("[::]:{port}"), move |stream| {
                let there = stream.local_addr().unwrap();
                if there.ip().to_canonical() == PUBLIC.parse::<IpAddr>().unwrap() && [80, 443].contains(&port) {
                    redirect(stream);
                } else {
                    reached.lock().push(there);
                    greet(stream);
                }
            })
        };
        let ports = [80, 443, 22, 25, 6379, 8080, 9200, 11211];
        Self {
            _servers: ports.map(server).into(),
            reached,
        }
    }
}

fn greet(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{SECRET}").as_bytes());
}

/// Redirects to the URL in the query; without one, sends content.
fn redirect(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut part = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(length @ 1..) => head.extend_from_slice(&part[..length]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let answer = match target.split_once('?') {
        None => b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npublic".to_vec(),
        Some((_, to)) => {
            let to: Vec<u8> = percent_encoding::percent_decode_str(to).collect();
            [
                b"HTTP/1.1 302 Found\r\nLocation: ",
                &to[..],
                b"\r\nContent-Length: 0\r\n\r\n",
            ]
            .concat()
        }
    };
    let _ = stream.write_all(&answer);
}

/// A resolver with the names of the table.
fn name_server() -> NameServer {
    let names = NameServer::start();
    for (host, addresses) in NAMES {
        let url = url::Url::parse(&format!("http://{host}/")).unwrap();
        let name = url.host_str().unwrap().trim_end_matches('.').to_owned();
        names.says(&name, at(addresses));
    }
    names.says("public.example", at(&[PUBLIC]));
    names
}

/// With the scheme that the port implies.
fn urls(authorities: &[&'static str]) -> Vec<String> {
    let url = |authority: &&str| {
        let scheme = if authority.contains(":443") { "https" } else { "http" };
        format!("{scheme}://{authority}/x")
    };
    authorities.iter().map(url).collect()
}

fn named() -> Vec<String> {
    urls(&NAMES.iter().map(|(host, _)| *host).collect::<Vec<_>>())
}

/// All valid destinations that must not be fetched.
fn forbidden() -> Vec<String> {
    [urls(ADDRESSES), urls(UNROUTABLE), named(), urls(AUTHORITIES)].concat()
}

/// Fetches of an appliance with these settings. The violations are reported together at the end.
struct Trial {
    canary: Canary,
    names: NameServer,
    proxy: Proxy,
    mistakes: Vec<String>,
}

const FORBIDDEN: (u16, &str) = (403, "DESTINATION_FORBIDDEN");
const UNREACHABLE: (u16, &str) = (502, "DESTINATION_UNREACHABLE");

impl Trial {
    fn of(settings: &str) -> Self {
        let (canary, names) = (Canary::set(), name_server());
        Self {
            proxy: Proxy::start(&format!("{}{settings}", names.setting())),
            canary,
            names,
            mistakes: Vec::new(),
        }
    }

    /// Tries to fetch, and expects this error.
    fn expect(&mut self, url: &str, expected: (u16, &str)) {
        if let Some(fetched) = self.fetch(url) {
            let code = format!("error-{}", expected.1);
            if (fetched.status, fetched.header("x-kaltura")) == (expected.0, code.as_str()) {
                assert_fault(&fetched, expected.0, expected.1);
            } else {
                self.mistakes.push(format!("{url:?}: {}", fetched.status));
            }
        }
        self.expect_nobody_came(url);
    }

    fn fetch(&mut self, url: &str) -> Option<Fetched> {
        match self.proxy.any_link(url) {
            Ok(id) => Some(self.proxy.ask(&id, "GET", "").finish()),
            Err(error) => {
                self.mistakes.push(format!("{url:?} is no destination: {error}"));
                None
            }
        }
    }

    /// Expects that the canary got no connection.
    fn expect_nobody_came(&mut self, by: &str) {
        for there in std::mem::take(&mut *self.canary.reached.lock()) {
            self.mistakes.push(format!("{by:?} came to {there}"));
        }
    }

    fn end(mut self) {
        self.expect_nobody_came("something");
        self.proxy.assert_redirects();
        assert!(self.mistakes.is_empty(), "\n{}\n", self.mistakes.join("\n"));
    }
}

pub fn no_spelling_of_a_private_address_is_fetched() {
    let mut trial = Trial::of("");
    let all = forbidden();
    for url in &all {
        trial.expect(url, FORBIDDEN);
    }
    for url in urls(NOWHERE) {
        trial.expect(&url, UNREACHABLE);
    }
    for url in NO_DESTINATIONS {
        if trial.proxy.try_link(url).is_ok() {
            trial.mistakes.push(format!("{url:?} became a link"));
        }
        trial.expect_nobody_came(url);
    }
    trial.end();
    let all = all.iter().map(String::as_str).chain(NO_DESTINATIONS.iter().copied());
    let distinct: BTreeSet<_> = all.clone().collect();
    assert_eq!(distinct.len(), all.count(), "some are there twice");
    assert!(distinct.len() >= 500, "{}", distinct.len());
}

pub fn refused_addresses_are_reachable_when_allowed() {
    let mut trial = Trial::of("allow = [\"0.0.0.0/0\", \"::/0\"]\n");
    for url in [urls(ADDRESSES), named()].concat() {
        let Some(fetched) = trial.fetch(&url) else { continue };
        // Some names also resolve to the public address.
        let is_there = !trial.canary.reached.lock().is_empty() || fetched.text() == "public";
        if !is_there {
            trial
                .mistakes
                .push(format!("{url:?} was not reached: {}", fetched.status));
        }
        trial.canary.reached.lock().clear();
    }
    // Destinations refused for other reasons stay refused.
    for url in urls(AUTHORITIES) {
        trial.expect(&url, FORBIDDEN);
    }
    trial.end();
}

pub fn no_redirect_reaches_a_private_address() {
    let mut trial = Trial::of("follow = 3\n");
    let redirect_to = |url: &str| format!("http://public.example/?{}", crate::support::http::encode(url));
    for url in forbidden() {
        let before = trial.mistakes.len();
        trial.expect(&redirect_to(&url), FORBIDDEN);
        if trial.mistakes.len() > before {
            trial.mistakes.push(format!("^ that is {url:?}"));
        }
    }
    // An invalid destination is repaired as browsers do, or not followed; either way it reaches nothing.
    for url in NO_DESTINATIONS {
        if let Some(fetched) = trial.fetch(&redirect_to(url))
            && (fetched.everything().contains(SECRET) || ![200, 302, 403, 502].contains(&fetched.status))
        {
            trial.mistakes.push(format!("{url:?}: {fetched:?}"));
        }
        trial.expect_nobody_came(url);
    }
    for (steps, expected) in [(1, 403), (2, 403), (3, 403), (4, 302)] {
        let url = (0..steps).fold("http://169.254.169.254/".to_owned(), |url, _| redirect_to(&url));
        assert_eq!(trial.proxy.fetch(&url).status, expected, "{steps}");
    }
    trial.end();
}

/// Addresses just beside the refused ranges, or between them.
const OUTSIDE: &[&str] = &[
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "[2000::1]",
    "[2001:200::1]",
    "[2001:db7:ffff::1]",
    "[2001:db9::1]",
    "[2003::1]",
    "[2606:4700::1111]",
    "[2a00::1]",
    "[3ffe::1]",
    "[3fff:1000::1]",
];

pub fn public_addresses_are_fetched() {
    let mut trial = Trial::of("");
    for host in [
        "public.example",
        "PUBLIC.example.",
        "11.0.0.1",
        "0xb000001",
        "013.1",
        "@public.example:80",
    ] {
        let fetched = trial.proxy.fetch(&format!("http://{host}/"));
        assert_eq!((fetched.status, fetched.text().as_str()), (200, "public"), "{host}");
    }
    trial.expect_nobody_came("what is outside");
    for host in OUTSIDE {
        let fetched = trial.proxy.fetch(&format!("http://{host}/"));
        assert_eq!(
            (fetched.status, fetched.text().as_str()),
            (200, SECRET),
            "{host}: {fetched:?}"
        );
        let reached = std::mem::take(&mut *trial.canary.reached.lock());
        let there: Vec<_> = reached
            .iter()
            .map(|there| there.ip().to_canonical().to_string())
            .collect();
        assert_eq!(there, [host.trim_matches(['[', ']'])]);
    }
    trial.end();
}

pub fn own_public_address_is_refused() {
    let mut trial = Trial::of("");
    let own = ["12.34.56.78", "2606:4700::99"];
    trial.names.says("own.example", at(&own));
    let urls = ["http://12.34.56.78/x", "http://[2606:4700::99]/x"];
    for url in urls {
        assert_eq!(trial.proxy.fetch(url).text(), SECRET, "{url}");
    }
    trial.canary.reached.lock().clear();
    // The addresses belong to this machine from here on.
    for address in own {
        let add = ["addr", "add", address, "dev", "lo"];
        assert!(Command::new("ip").args(add).status().unwrap().success());
    }
    for url in urls.into_iter().chain(["http://own.example/x"]) {
        trial.expect(url, FORBIDDEN);
    }
    trial.end();
}

pub fn own_listeners_are_refused_even_when_allowed() {
    // Few enough ports that all can be allowed.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20999").unwrap();
    let ports: Vec<_> = (20_000..21_000).collect();
    let mut trial = Trial::of(&format!("allow = [\"0.0.0.0/0\", \"::/0\"]\nports = {ports:?}\n"));
    let id = trial.proxy.link("https://example.com/video");
    let listeners = [&trial.proxy.appliance.public, &trial.proxy.appliance.admin];
    for port in listeners.map(|base| address(base).port()) {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "localhost",
            "sub.localhost",
            "127.0.0.1.nip.io",
            "0.0.0.0",
            "0",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:0.0.0.0]",
            "mapped.example",
            "unspecified.example",
            "unspecified6.example",
        ] {
            for path in [format!("{GOTO}{id}"), proxied(&id), "/status".to_owned()] {
                trial.expect(&format!("http://{host}:{port}{path}"), FORBIDDEN);
            }
        }
    }
    // Other servers on such ports are fetched.
    let other = Origin::sending("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(trial.proxy.fetch(&other.url("/")).status, 200);
    trial.end();
}

pub fn system_resolvers_are_used_without_search_domains() {
    let _canary = Canary::set();
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    let say = |server: &str| {
        let text = format!("search corp.example example\noptions ndots:5\nnameserver {server}\n");
        std::fs::write(&resolv_conf, text).unwrap();
    };
    say("127.0.0.1");
    let bind = ["--bind", resolv_conf.to_str().unwrap(), "/etc/resolv.conf"];
    assert!(Command::new("mount").args(bind).status().unwrap().success());
    let (first, second) = (NameServer::at("127.0.0.1:53"), NameServer::at("127.0.0.2:53"));
    for server in [&first, &second] {
        server.says("public.example", at(&[PUBLIC]));
        server.says("internal.example", at(&["10.0.0.1"]));
        server.says("public.corp.example", at(&[PUBLIC]));
    }
    let proxy = Proxy::start("");
    assert_eq!(proxy.fetch("http://public.example/").text(), "public");
    assert_fault(&proxy.fetch("http://internal.example/"), FORBIDDEN.0, FORBIDDEN.1);
    for host in ["public", "internal", "public."] {
        assert_fault(&proxy.fetch(&format!("http://{host}/")), UNREACHABLE.0, UNREACHABLE.1);
    }
    let asked = first.take_questions();
    let expected = ["internal", "internal.example", "public", "public.example"];
    let names: BTreeSet<_> = asked.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
    // The machine changes its resolver.
    assert_eq!(second.take_questions(), []);
    say("127.0.0.2");
    assert_eq!(proxy.fetch("http://public.example/").text(), "public");
    assert_eq!(first.take_questions(), []);
    assert_eq!(second.take_questions().len(), 2);
}
