//! Requests to other servers: over verified TLS, each on a connection of its own, and bounded in time and size.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tokio_util::task::AbortOnDropHandle;

use crate::tls::{Authorities, client_config};

/// To look the name up, to connect to one address, and to shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a name; the first that answers is taken.
const ADDRESSES_MAX: usize = 8;
/// From the request to the end of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A chain of certificates has some 10 KB, and so have the keys of an OpenID provider.
const BODY_MAX_BYTES: usize = 1024 * 1024;
const HEAD_MAX_BYTES: usize = 64 * 1024;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tinyd/", env!("CARGO_PKG_VERSION")));

type AnyError = Box<dyn std::error::Error + Send + Sync>;
type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Sends requests, and follows no redirect.
#[derive(Clone)]
pub struct HttpsClient {
    connector: TlsConnector,
}

impl std::fmt::Debug for HttpsClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HttpsClient").finish_non_exhaustive()
    }
}

impl HttpsClient {
    /// Trusts the authorities of the system and these.
    pub fn new(authorities: &Authorities) -> Result<Self, String> {
        let config = client_config(authorities)?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The answer to a request, or what failed, with the host. Plain HTTP goes to this machine only.
    pub async fn send<B>(&self, mut request: Request<B>) -> Result<Response<Bytes>, String>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<AnyError>,
    {
        let uri = request.uri().clone();
        let host = uri.host().unwrap_or_default().to_owned();
        let stream = self.connect(&uri, &host).await;
        let stream = stream.map_err(|error| format!("cannot connect to {host}: {error}"))?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        *request.uri_mut() = Uri::try_from(target).map_err(|error| format!("{host} {error}"))?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let authority = HeaderValue::try_from(authority).map_err(|error| format!("{host} {error}"))?;
        request.headers_mut().insert(header::HOST, authority);
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let answered = timeout(ANSWER_TIMEOUT, answer(stream, request)).await;
        let answered = answered.map_err(|_| format!("{host} did not answer within {ANSWER_TIMEOUT:?}"))?;
        answered.map_err(|error| format!("{host} sent no valid answer: {error}"))
    }

    async fn connect(&self, uri: &Uri, host: &str) -> Result<Stream, String> {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        if !is_https && uri.scheme() != Some(&Scheme::HTTP) {
            return Err("expected an https URL".to_owned());
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let stream = connect(bare, port).await?;
        if !is_https {
            let is_local = stream.peer_addr().is_ok_and(|address| address.ip().is_loopback());
            let refused = || "expected an https URL: plain HTTP is for this machine only".to_owned();
            return is_local.then_some(Either::Left(stream)).ok_or_else(refused);
        }
        let name = match bare.parse::<IpAddr>() {
            Ok(address) => ServerName::IpAddress(address.into()),
            Err(_) => ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?,
        };
        let secured = timeout(CONNECT_TIMEOUT, self.connector.connect(name, stream)).await;
        let secured = secured.map_err(|_| too_long("the TLS handshake"))?;
        secured.map(Either::Right).map_err(|error| error.to_string())
    }
}

fn too_long(what: &str) -> String {
    format!("{what} took longer than {CONNECT_TIMEOUT:?}")
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let looked_up = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let looked_up = looked_up.map_err(|_| too_long("looking the name up"))?;
    let mut failure = "the name has no address".to_owned();
    for address in looked_up.map_err(|error| error.to_string())?.take(ADDRESSES_MAX) {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error.to_string(),
            Err(_) => failure = too_long("connecting"),
        }
    }
    Err(failure)
}

async fn answer<B>(stream: Stream, request: Request<B>) -> Result<Response<Bytes>, AnyError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<AnyError>,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "connection to another server ended");
        }
    }));
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, BODY_MAX_BYTES).collect().await?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
