//! A public and a private upstream on one port.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use super::client::Fetched;
use super::name_server::NameServer;
use super::origin::{Origin, Server};
use super::proxy::{Proxy, SECRET, assert_fault, ports};

/// The address that represents the public internet.
pub const PUBLIC: &str = "127.0.0.2";

/// A public and a private upstream on the same port, a resolver for their names, and an appliance that may fetch from
/// the public one only.
pub struct Stage {
    pub names: NameServer,
    pub public: Origin,
    /// Must never get a connection.
    private: Server,
    pub proxy: Proxy,
}

impl Stage {
    pub fn set(settings: &str) -> Self {
        let (public, private) = two_at_one_port();
        let names = NameServer::start();
        let settings = format!(
            "allow = [\"{PUBLIC}/32\"]\n{}{}{settings}",
            ports(&[&public]),
            names.setting()
        );
        Self {
            proxy: Proxy::start(&settings),
            names,
            public,
            private,
        }
    }

    pub fn fetch(&self, host: &str) -> Fetched {
        self.proxy.fetch(&self.public.url_by(host, "/"))
    }

    pub fn assert_fetched(&self, host: &str) {
        let before = self.public.connections();
        let fetched = self.fetch(host);
        assert_eq!((fetched.status, fetched.text().as_str()), (200, "public"), "{host}");
        assert_eq!(self.public.connections(), before + 1, "{host}");
    }

    /// The name is refused, and no upstream gets a connection.
    pub fn assert_forbidden(&self, host: &str) {
        let before = self.public.connections();
        assert_fault(&self.fetch(host), 403, "DESTINATION_FORBIDDEN");
        assert_eq!(self.public.connections(), before, "{host}");
        self.assert_private();
    }

    pub fn assert_private(&self) {
        assert_eq!(self.private.connections(), 0);
    }
}

fn two_at_one_port() -> (Origin, Server) {
    for _ in 0..100 {
        let public = Origin::at(&format!("{PUBLIC}:0"), |conversation| {
            let port = conversation
                .request
                .header("host")
                .rsplit(':')
                .next()
                .unwrap()
                .to_owned();
            match conversation.path().as_str() {
                "/to-rebinding" => conversation.send(format!(
                    "HTTP/1.1 302 Found\r\nLocation: http://rebinding.example:{port}/\r\nContent-Length: 0\r\n\r\n"
                )),
                _ => conversation.answer("Connection: close\r\n", "public"),
            };
        });
        // Tries again if another process has the port.
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", public.port())) {
            return (public, Server::of(listener, canary));
        }
    }
    panic!("no port is free on both addresses");
}

fn canary(mut stream: TcpStream) {
    let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{SECRET}").as_bytes());
}
