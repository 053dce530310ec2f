//! Upstreams: servers that send exact bytes and record their requests.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A listener with a thread per connection; dropping it stops the listener.
pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Server {
    /// Serves at an address; port 0 selects a free one.
    pub fn start(address: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        Self::of(listener, serve)
    }

    pub fn of(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let server = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            is_over: Arc::default(),
        };
        let (connections, is_over) = (Arc::clone(&server.connections), Arc::clone(&server.is_over));
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        server
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread.
        let ip = match self.address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => "127.0.0.1".parse().unwrap(),
            IpAddr::V6(_) => "::1".parse().unwrap(),
        };
        let _ = TcpStream::connect_timeout(&(ip, self.address.port()).into(), Duration::from_secs(1));
    }
}

/// A request to an upstream.
#[derive(Debug, Clone)]
pub struct Request {
    /// As sent, up to and with the empty line.
    pub head: String,
}

impl Request {
    fn word(&self, position: usize) -> &str {
        let line = self.head.split("\r\n").next().unwrap();
        line.split(' ').nth(position).unwrap()
    }

    pub fn method(&self) -> &str {
        self.word(0)
    }

    pub fn target(&self) -> &str {
        self.word(1)
    }

    /// Names in lower case, and values.
    pub fn headers(&self) -> Vec<(String, String)> {
        let lines = self.head.trim_end().split("\r\n").skip(1);
        let pair = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        lines.map(pair).collect()
    }

    /// The value of a header that comes at most once; empty without it.
    pub fn header(&self, name: &str) -> String {
        let values: Vec<_> = self.headers().into_iter().filter(|(other, _)| other == name).collect();
        assert!(values.len() <= 1, "{name} came twice: {}", self.head);
        values.into_iter().next().map(|(_, value)| value).unwrap_or_default()
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// A request and its connection.
pub struct Conversation {
    pub request: Request,
    stream: Stream,
    /// Whether TLS ends without close_notify.
    pub is_torn: bool,
}

impl Conversation {
    /// Reads a request; nothing if the connection ends before it.
    fn begin(mut stream: Stream) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut part = [0; 4096];
            let read = match &mut stream {
                Stream::Plain(stream) => stream.read(&mut part),
                Stream::Tls(stream) => stream.read(&mut part),
            };
            match read {
                Ok(0) | Err(_) => return None,
                Ok(length) => head.extend_from_slice(&part[..length]),
            }
        }
        Some(Self {
            request: Request {
                head: String::from_utf8(head).ok()?,
            },
            stream,
            is_torn: false,
        })
    }

    /// The path without the query.
    pub fn path(&self) -> String {
        self.request.target().split('?').next().unwrap().to_owned()
    }

    /// Sends bytes; returns whether the peer took them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes).is_ok(),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()).is_ok(),
        }
    }

    /// Sends a body with a head of these lines.
    pub fn answer(&mut self, head: &str, body: impl AsRef<[u8]>) -> bool {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{head}\r\n", body.len());
        self.send([head.as_bytes(), body].concat())
    }

    /// Waits until the peer disconnects.
    pub fn wait_for_end(&mut self) {
        let mut part = [0; 4096];
        loop {
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut part),
                Stream::Tls(stream) => stream.read(&mut part),
            };
            match read {
                Ok(0) => return,
                Err(error) if error.kind() != ErrorKind::Interrupted => return,
                _ => {}
            }
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if let Stream::Tls(stream) = &mut self.stream
            && !self.is_torn
        {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

/// A web server.
pub struct Origin {
    server: Server,
    scheme: &'static str,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Origin {
    /// Of two bytes, the second one waits until a message is sent.
    pub fn held() -> (Self, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let origin = Self::start(move |conversation: &mut Conversation| {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1");
            let _ = released.lock().recv();
            conversation.send("2");
        });
        (origin, release)
    }

    /// Plain HTTP.
    pub fn start(answer: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", answer)
    }

    /// Plain HTTP at another address.
    pub fn at(address: &str, answer: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        Self::serve(address, None, answer)
    }

    /// HTTPS.
    pub fn over_tls(config: Arc<ServerConfig>, answer: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        Self::serve("127.0.0.1:0", Some(config), answer)
    }

    /// Sends the same bytes to each client and disconnects.
    pub fn sending(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |conversation| {
            conversation.send(&bytes);
        })
    }

    fn serve(
        address: &str,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&mut Conversation) + Send + Sync + 'static,
    ) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let asked = Arc::clone(&requests);
        let server = Server::start(address, move |stream| {
            let stream = match &tls {
                None => Stream::Plain(stream),
                Some(config) => {
                    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                    Stream::Tls(Box::new(StreamOwned::new(connection, stream)))
                }
            };
            if let Some(mut conversation) = Conversation::begin(stream) {
                asked.lock().push(conversation.request.clone());
                answer(&mut conversation);
            }
        });
        Self {
            server,
            scheme,
            requests,
        }
    }

    pub fn port(&self) -> u16 {
        self.server.address.port()
    }

    /// A URL with the host as an IP address.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.server.address)
    }

    /// A URL with a host name.
    pub fn url_by(&self, host: &str, path: &str) -> String {
        format!("{}://{host}:{}{path}", self.scheme, self.port())
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// The only request since the last call.
    pub fn take_request(&self) -> Request {
        let mut requests = self.requests.lock();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.pop().unwrap()
    }

    pub fn connections(&self) -> usize {
        self.server.connections()
    }
}

/// Bytes that differ from position to position.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|place| (place % 251) as u8 ^ (place / 65_536) as u8)
        .collect()
}
