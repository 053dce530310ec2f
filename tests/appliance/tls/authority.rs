//! A double of a certificate authority, for what pebble does not have, or would not do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::support::acme;
use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, poll};
use crate::support::http::exchange;
use crate::support::origin::Server;

pub const TOKEN: &str = "a-token_of-the-double";

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It accepts connections and says nothing.
    Silent,
    /// Its directory never ends.
    Endless,
    /// Its directory is no JSON.
    NoDirectory,
    /// Its directory leads to plain HTTP.
    PlainHttp,
    /// Its directory has a URL that is none.
    NoUrl,
    /// It refuses orders with a long text full of control characters, and wants to be left alone for ever.
    Refuses,
    /// It sends a token that is a path.
    BadToken,
    /// It cites what it got in its refusal.
    Cites,
    /// It wants proof for another name.
    OtherAuthorization,
    GarbageChain,
    /// The certificate has a key of its own.
    OtherKey,
    /// The certificate is for another name.
    OtherName,
    Expired,
    /// The certificate never ends.
    EndlessChain,
}

struct State {
    base: String,
    fault: Fault,
    issuer: Authority,
    /// What was asked for, with the payload.
    asked: Vec<(String, Value)>,
    identifiers: Vec<Value>,
    proved: usize,
    chain: Option<String>,
    /// The window of renewal information.
    window: [String; 2],
    /// Where it validates: the public addresses without and with TLS.
    appliance: Option<[String; 2]>,
}

pub struct Double {
    /// Of its own HTTPS.
    authority: Authority,
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Double {
    pub fn start(fault: Fault) -> Self {
        let authority = Authority::new();
        let state = Arc::new(Mutex::new(State {
            base: String::new(),
            fault,
            issuer: Authority::new(),
            asked: Vec::new(),
            identifiers: Vec::new(),
            proved: 0,
            chain: None,
            window: ["2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z"].map(str::to_owned),
            appliance: None,
        }));
        let (config, of_server) = (authority.certify(&["127.0.0.1"]), Arc::clone(&state));
        let server = Server::start("127.0.0.1:0", move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            serve(StreamOwned::new(session, stream), &of_server);
        });
        state.lock().base = format!("https://{}", server.address);
        Self {
            authority,
            server,
            state,
        }
    }

    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.server.address)
    }

    pub fn settings(&self, more: &str) -> String {
        let (directory, ca) = (self.directory(), self.authority.setting());
        format!("[public.tls]\nlisten = \"127.0.0.1:0\"\n[acme]\ndirectory = \"{directory}\"\n{ca}{more}\n")
    }

    pub fn lead_to(&self, appliance: &Appliance) {
        let plain = appliance.public.clone();
        self.state.lock().appliance = Some([plain, appliance.public_tls.clone()]);
    }

    pub fn suggest(&self, start: &str, end: &str) {
        self.state.lock().window = [start.to_owned(), end.to_owned()];
    }

    /// The payloads of what was asked for at a path, in order.
    pub fn asked(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock();
        let asked = state.asked.iter().filter(|(asked, _)| asked.starts_with(path));
        asked.map(|(_, payload)| payload.clone()).collect()
    }

    /// The paths that begin so, in order.
    pub fn paths(&self, begin: &str) -> Vec<String> {
        let state = self.state.lock();
        let paths = state.asked.iter().map(|(path, _)| path.clone());
        paths.filter(|path| path.starts_with(begin)).collect()
    }
}

fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>, state: &Mutex<State>) {
    let Some((method, path, payload)) = read(&mut stream) else {
        return;
    };
    let fault = state.lock().fault;
    if fault == Fault::Silent {
        let _ = stream.read(&mut [0; 1]);
        return;
    }
    if fault == Fault::Endless || fault == Fault::EndlessChain && path == "/cert" {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let piece = [&b"10000\r\n"[..], &vec![b' '; 0x10000], b"\r\n"].concat();
        while stream.write_all(&piece).is_ok() {}
        return;
    }
    state.lock().asked.push((path.clone(), payload.clone()));
    if path.starts_with("/challenge/") {
        validate(state, &path);
    }
    let (status, headers, body) = answer(&mut state.lock(), &path, &payload);
    let length = if method == "HEAD" { 0 } else { body.len() };
    let head = format!("HTTP/1.1 {status} X\r\nReplay-Nonce: bm9uY2U\r\nContent-Length: {length}\r\n{headers}\r\n");
    let body = if method == "HEAD" { "" } else { &body };
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// The method, the path and the payload of a request.
fn read(stream: &mut impl Read) -> Option<(String, String, Value)> {
    let mut received = Vec::new();
    let (end, length) = loop {
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(count) => received.extend_from_slice(&part[..count]),
        }
        let text = String::from_utf8_lossy(&received).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end].split("content-length: ").nth(1);
            let length = length.map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
            if received.len() >= end + 4 + length {
                break (end, length);
            }
        }
    };
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let mut words = head.split(' ').map(str::to_owned);
    let signed: Option<Value> = serde_json::from_slice(&received[end + 4..][..length]).ok();
    let payload = signed.and_then(|signed| BASE64_URL_SAFE_NO_PAD.decode(signed["payload"].as_str()?).ok());
    let payload = payload.and_then(|payload| serde_json::from_slice(&payload).ok());
    Some((words.next()?, words.next()?, payload.unwrap_or_default()))
}

/// As an authority does: connects to the appliance, and looks at its proof.
fn validate(state: &Mutex<State>, path: &str) {
    poll("the appliance's address", || state.lock().appliance.is_some());
    let ([plain, secure], identifiers) = {
        let state = state.lock();
        (state.appliance.clone().unwrap(), state.identifiers.clone())
    };
    let number: usize = path.rsplit('/').next().unwrap().parse().unwrap();
    let name = identifiers[number]["value"].as_str().unwrap();
    if path.contains("/http-01/") {
        let head =
            format!("GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        let answer = exchange(plain.trim_start_matches("http://"), head.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.text().starts_with(&format!("{TOKEN}.")), "{answer:?}");
    } else {
        let proof = acme::proof(&secure, name).unwrap();
        assert_eq!(acme::names(&proof), [format!("DNSName({name})")]);
        // id-pe-acmeIdentifier, critical.
        let identifier = [
            0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f, 0x01, 0x01, 0xff,
        ];
        assert!(proof.windows(identifier.len()).any(|part| part == identifier));
        // For no other name, and for no client.
        assert!(acme::proof(&secure, "other.example.org").is_err());
        assert!(acme::handshake(&secure, name).map_or(true, |served| served != proof));
    }
    state.lock().proved += 1;
}

fn answer(state: &mut State, path: &str, payload: &Value) -> (u16, String, String) {
    let (base, fault) = (state.base.clone(), state.fault);
    let url = |path: &str| format!("{base}{path}");
    let part = path.split('/').nth(1).unwrap();
    let body = match part {
        "dir" if fault == Fault::NoDirectory => "<html>".into(),
        "dir" => {
            let nonce = match fault {
                Fault::PlainHttp => "http://127.0.0.1/nonce".to_owned(),
                Fault::NoUrl => "not a \u{1b} URL".to_owned(),
                _ => url("/nonce"),
            };
            json!({
                "newNonce": nonce, "newAccount": url("/account"), "newOrder": url("/new"),
                "revokeCert": url("/revoke"), "keyChange": url("/key"), "renewalInfo": url("/renewal"),
                "meta": { "profiles": { "classic": "x", "shortlived": "x" } },
            })
        }
        "nonce" => Value::Null,
        "account" => {
            return (
                201,
                format!("Location: {}\r\n", url("/account/1")),
                json!({"status": "valid"}).to_string(),
            );
        }
        "new" if fault == Fault::Refuses => {
            let detail = format!("no\n\u{1b}[31m\u{202e}{}", "x".repeat(100_000));
            let problem = json!({"type": "urn:ietf:params:acme:error:rateLimited", "detail": detail});
            return (
                429,
                "Retry-After: 18446744073709551615\r\n".to_owned(),
                problem.to_string(),
            );
        }
        "new" => {
            state.identifiers = payload["identifiers"].as_array().unwrap().clone();
            (state.proved, state.chain) = (0, None);
            return (
                201,
                format!("Location: {}\r\n", url("/order")),
                order(state, payload).to_string(),
            );
        }
        "authz" => {
            let number: usize = path.rsplit('/').next().unwrap().parse().unwrap();
            let identifier = match fault {
                Fault::OtherAuthorization => json!({"type": "dns", "value": "other.example.org"}),
                _ => state.identifiers[number].clone(),
            };
            let token = if fault == Fault::BadToken {
                "../../etc/passwd"
            } else {
                TOKEN
            };
            let challenge = |kind: &str| {
                let url = url(&format!("/challenge/{kind}/{number}"));
                json!({"type": kind, "url": url, "token": token, "status": "pending"})
            };
            let challenges = ["dns-01", "http-01", "tls-alpn-01"].map(challenge);
            json!({"status": "pending", "identifier": identifier, "challenges": challenges})
        }
        "challenge" if fault == Fault::Cites => {
            let problem = json!({
                "type": "urn:ietf:params:acme:error:unauthorized",
                "detail": format!("got 404 from /.well-known/acme-challenge/{TOKEN}"),
            });
            json!({"type": "http-01", "url": "x", "token": TOKEN, "status": "invalid", "error": problem})
        }
        "challenge" => json!({"type": "http-01", "url": "x", "token": TOKEN, "status": "processing"}),
        "order" => order(state, payload),
        "finalize" => {
            state.chain = Some(issue(state, payload["csr"].as_str().unwrap()));
            order(state, payload)
        }
        "cert" => return (200, String::new(), state.chain.clone().unwrap()),
        "renewal" => {
            let [start, end] = &state.window;
            json!({"suggestedWindow": {"start": start, "end": end}})
        }
        _ => return (404, String::new(), json!({"type": "about:blank"}).to_string()),
    };
    let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    (200, String::new(), text)
}

fn order(state: &State, payload: &Value) -> Value {
    let url = |path: &str| format!("{}{path}", state.base);
    let count = state.identifiers.len();
    let status = match &state.chain {
        Some(_) => "valid",
        None if state.proved >= count => "ready",
        None => "pending",
    };
    let authorizations: Vec<_> = (0..count).map(|number| url(&format!("/authz/{number}"))).collect();
    let mut order = json!({
        "status": status, "authorizations": authorizations, "finalize": url("/finalize"), "certificate": url("/cert"),
    });
    for name in ["replaces", "profile"] {
        if payload.get(name).is_some() {
            order[name] = payload[name].clone();
        }
    }
    order
}

fn issue(state: &State, request: &str) -> String {
    let request = BASE64_URL_SAFE_NO_PAD.decode(request).unwrap();
    let request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = request.params.subject_alt_names;
    params.use_authority_key_identifier_extension = true;
    let day = |days: i64| {
        let at = jiff::Timestamp::now().as_second() + days * 86_400;
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from(at).unwrap())
    };
    (params.not_before, params.not_after) = (day(-1), day(89));
    match state.fault {
        Fault::GarbageChain => return "certificate".to_owned(),
        Fault::OtherName => {
            params.subject_alt_names = CertificateParams::new(vec!["other.example.org".to_owned()])
                .unwrap()
                .subject_alt_names;
        }
        Fault::Expired => (params.not_before, params.not_after) = (day(-9), day(-1)),
        _ => {}
    }
    if state.fault == Fault::OtherKey {
        return state.issuer.sign(params, &KeyPair::generate().unwrap());
    }
    state.issuer.sign(params, &request.public_key)
}
