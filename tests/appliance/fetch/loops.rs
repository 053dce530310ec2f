//! Fetches from tinyd itself, directly or through others, are refused.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};

use crate::support::connections::address;
use crate::support::http::exchange;
use crate::support::origin::{Origin, Server};
use crate::support::proxy::{Proxy, THIS_MACHINE, assert_fault, proxied};

#[test]
fn request_that_tinyd_fetched_is_508() {
    let origin = Origin::sending("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::to(&[&origin]);
    let id = proxy.link(&origin.url("/"));
    for (headers, is_loop) in [
        ("X-Kaltura-Proxy: dumpUrl\r\n", true),
        ("x-kaltura-proxy: anything\r\n", true),
        ("X-Kaltura-Proxy:\r\n", true),
        ("Via: 1.1 tinyd\r\n", true),
        ("Via: 1.0 tinyd\r\n", true),
        ("Via: HTTP/1.1 tinyd\r\n", true),
        ("via: 1.1 TinyD\r\n", true),
        ("Via: 1.1 tinyd (a comment)\r\n", true),
        ("Via: 1.1 vegur, 1.0 tinyd\r\n", true),
        ("Via: 1.1 vegur,1.1 tinyd , 1.1 other\r\n", true),
        ("Via: 1.1 vegur\r\nVia: 2 tinyd\r\n", true),
        ("Via: 1.1\ttinyd\r\n", true),
        // Even if Connection names the header.
        ("X-Kaltura-Proxy: dumpUrl\r\nConnection: X-Kaltura-Proxy\r\n", true),
        ("Via: 1.1 tinyd\r\nConnection: via\r\n", true),
        ("Via: 1.1 vegur\r\n", false),
        ("Via: 1.1 tinydog, 1.1 nottinyd\r\n", false),
        ("Via: 1.1 vegur (tinyd)\r\n", false),
        ("X-Kaltura-Proxied: x\r\n", false),
        ("X-Kaltura: dumpUrl\r\n", false),
    ] {
        let before = origin.connections();
        let fetched = proxy.ask(&id, "GET", headers).finish();
        if is_loop {
            assert_fault(&fetched, 508, "PROXY_LOOP");
            assert_eq!(origin.connections(), before, "{headers}");
        } else {
            assert_eq!((fetched.status, origin.connections()), (200, before + 1), "{headers}");
        }
        // Plain redirects still work.
        let request = format!(
            "GET {}{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n",
            crate::support::proxy::GOTO
        );
        assert_eq!(
            exchange(&address(&proxy.appliance.public).to_string(), request.as_bytes()).status,
            302
        );
    }
}

#[test]
fn admin_listener_is_never_fetched() {
    let proxy = Proxy::start("");
    let status = |target: &str, headers: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
        exchange(&address(&proxy.appliance.admin).to_string(), request.as_bytes()).status
    };
    for target in ["/metrics", "/status", "/healthz", "/api_v3/service/system/action/ping"] {
        assert_eq!(status(target, ""), 200, "{target}");
        // Whatever way a fetch arrives here.
        for headers in ["X-Kaltura-Proxy: dumpUrl\r\n", "Via: 1.1 vegur, 1.1 tinyd\r\n"] {
            assert_eq!(status(target, headers), 508, "{target}");
        }
    }
}

/// Forwards bytes to an address that is set later.
struct Relay {
    server: Server,
    to: Arc<OnceLock<SocketAddr>>,
}

impl Relay {
    fn start() -> Self {
        let to = Arc::new(OnceLock::new());
        let target: Arc<OnceLock<SocketAddr>> = Arc::clone(&to);
        let server = Server::start("127.0.0.1:0", move |client| {
            let server = TcpStream::connect(target.get().unwrap()).unwrap();
            let both = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let back = std::thread::spawn(move || pass_on(both.1, both.0));
            pass_on(client, server);
            let _ = back.join();
        });
        Self { server, to }
    }

    fn url(&self, id: &str) -> String {
        format!("http://{}{}", self.server.address, proxied(id))
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn fetch_loop_of_two_instances_stops_at_once() {
    let relays = [Relay::start(), Relay::start()];
    let [first_port, second_port] = [0, 1].map(|number: usize| relays[number].server.address.port());
    let settings = format!("{THIS_MACHINE}ports = [{first_port}, {second_port}]\n");
    let proxies = [Proxy::start(&settings), Proxy::start(&settings)];
    for (relay, proxy) in relays.iter().zip(&proxies) {
        relay.to.set(address(&proxy.appliance.public)).unwrap();
    }
    // Each link needs the ID of the other.
    let second = proxies[1].link("https://example.com/video");
    let first = proxies[0].link(&relays[1].url(&second));
    let ks = proxies[1].appliance.admin_ks();
    let back = relays[0].url(&first);
    let updated = [("id", second.as_str()), ("shortLink[fullUrl]", back.as_str())];
    assert_eq!(
        proxies[1].appliance.link("update", &ks, &updated)["fullUrl"],
        back.as_str()
    );
    for (proxy, id) in proxies.iter().zip([&first, &second]) {
        let fetched = proxy.ask(id, "GET", "").finish();
        assert_eq!(
            (fetched.status, fetched.header("x-kaltura")),
            (508, "dumpUrl"),
            "{fetched:?}"
        );
        assert!(fetched.text().contains("PROXY_LOOP"), "{fetched:?}");
        proxy.assert_redirects();
    }
    let connections = relays.each_ref().map(|relay| relay.server.connections());
    assert_eq!(connections, [1, 1]);
    // To itself through another server.
    let own = proxies[0].link("https://example.com/video");
    let ks = proxies[0].appliance.admin_ks();
    let to_itself = relays[0].url(&own);
    proxies[0]
        .appliance
        .link("update", &ks, &[("id", &own), ("shortLink[fullUrl]", &to_itself)]);
    let fetched = proxies[0].ask(&own, "GET", "").finish();
    assert_eq!(fetched.status, 508, "{fetched:?}");
    assert_eq!(relays[0].server.connections(), 2);
}
