//! Clients of HTTP/2: one that behaves, and raw frames.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::Request;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::http::Answer;
use super::tls::{Client, NAME, Secured};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A connection on which requests can be made.
pub struct Connection {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
}

impl Connection {
    pub fn open(client: &Client, address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut config = client.config.clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = client.name.clone().try_into().unwrap();
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let secured = connector.connect(name, stream).await.unwrap();
            assert_eq!(secured.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (sender, connection) = h2::client::handshake(secured).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// Sends a request and reads the response; the reason where the server refuses the stream or the connection.
    pub fn ask(&mut self, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
        let body = Bytes::copy_from_slice(body);
        let mut sender = self.sender.clone();
        self.runtime.block_on(async {
            sender = sender.ready().await?;
            let (response, mut stream) = sender.send_request(request, body.is_empty())?;
            if !body.is_empty() {
                stream.send_data(body, true)?;
            }
            let (head, mut received) = response.await?.into_parts();
            let mut body = Vec::new();
            while let Some(data) = received.data().await {
                let data = data?;
                received.flow_control().release_capacity(data.len())?;
                body.extend_from_slice(&data);
            }
            let mut headers = BTreeMap::new();
            for (name, value) in &head.headers {
                let before = headers.insert(name.to_string(), value.to_str().unwrap().to_owned());
                assert_eq!(before, None, "{name} came twice");
            }
            Ok(Answer {
                status: head.status.as_u16(),
                headers,
                body,
            })
        })
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.ask(request("GET", target), b"").unwrap()
    }
}

pub fn request(method: &str, target: &str) -> Request<()> {
    let uri = format!("https://{NAME}{target}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

/// A connection with the preface and no settings sent, for frames as they are.
pub fn raw(client: &Client, address: &str) -> Secured {
    let mut client = client.clone();
    client.config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = client.connect(address);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, b"")).unwrap();
    stream
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block of these fields, without compression.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The header block of a GET.
pub fn get_block(target: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", target),
    ])
}

/// Sends bytes until the server closes or there are no more, and reads to the end.
pub fn flood(stream: &mut Secured, bytes: &[u8]) -> Vec<u8> {
    for part in bytes.chunks(16 * 1024) {
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let _ = stream.flush();
    read_until_end(stream)
}

/// What arrives until the server closes, whether it says so or not.
pub fn read_until_end(stream: &mut Secured) -> Vec<u8> {
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    received
}

/// The kinds of whole frames in what was received.
pub fn kinds(mut received: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((header, rest)) = received.split_at_checked(9) {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        kinds.push(header[3]);
        received = rest.get(length..).unwrap_or_default();
    }
    kinds
}
