//! A double of an OpenID provider, which can do everything wrong that a real one does not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use url::Url;

use super::origin::Server;

/// The colon is sent encoded.
pub const CLIENT_ID: &str = "tinyd:console";
pub const CLIENT_SECRET: &str = "client-secret-0123456789abcdef";
pub const ACCESS_TOKEN: &str = "access-token-0123456789abcdef";

/// With what an ID token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedBy {
    Provider,
    /// A key of a stranger under the name of the provider's.
    Stranger,
    /// `alg` is `none`.
    Nobody,
    /// HS256 with the secret of the client.
    ClientSecret,
}

struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    fn new(number: usize) -> Self {
        Self {
            id: format!("key-{number}"),
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    fn public(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": x, "y": y})
    }
}

struct State {
    key: SigningKey,
    signed_by: SignedBy,
    /// Over the claims of the ID token; null leaves one out.
    claims: Value,
    userinfo: Value,
    /// What its discovery document calls it, if that is wrong.
    issuer: Option<String>,
    nonce: String,
    challenge: String,
    hangs: bool,
    key_requests: usize,
    token_requests: usize,
    waiting: usize,
}

pub struct OpenIdProvider {
    server: Server,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl OpenIdProvider {
    pub fn start() -> Self {
        let state = State {
            key: SigningKey::new(0),
            signed_by: SignedBy::Provider,
            claims: json!({}),
            userinfo: json!({}),
            issuer: None,
            nonce: String::new(),
            challenge: String::new(),
            hangs: false,
            key_requests: 0,
            token_requests: 0,
            waiting: 0,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let of_server = Arc::clone(&shared);
        let server = Server::start("127.0.0.1:0", move |stream| serve(stream, &of_server));
        Self { server, shared }
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The section of the settings that names it.
    pub fn settings(&self, more: &str) -> String {
        format!(
            "[console]\nurl = \"http://127.0.0.1:1/console\"\n[console.oidc]\nissuer = \"{}\"\n\
             client_id = \"{CLIENT_ID}\"\nclient_secret_file = \"client.secret\"\npartner = 1234567\n{more}",
            self.issuer()
        )
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock());
        self.shared.1.notify_all();
    }

    /// What the next ID tokens say, and who signs them.
    pub fn sign(&self, claims: Value, signed_by: SignedBy) {
        self.set(|state| (state.claims, state.signed_by) = (claims, signed_by));
    }

    pub fn set_userinfo(&self, claims: Value) {
        self.set(|state| state.userinfo = claims);
    }

    pub fn call_itself(&self, issuer: &str) {
        self.set(|state| state.issuer = Some(issuer.to_owned()));
    }

    /// Signs with a new key from now on, and no longer publishes the old one.
    pub fn rotate(&self, number: usize) {
        self.set(|state| state.key = SigningKey::new(number));
    }

    /// Whether it takes requests and answers none.
    pub fn hang(&self, hangs: bool) {
        self.set(|state| state.hangs = hangs);
    }

    pub fn waiting(&self) -> usize {
        self.shared.0.lock().waiting
    }

    pub fn key_requests(&self) -> usize {
        self.shared.0.lock().key_requests
    }

    pub fn token_requests(&self) -> usize {
        self.shared.0.lock().token_requests
    }

    /// Somebody comes with this URL; returns the `state` with which they go back.
    pub fn authorize(&self, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        assert!(
            url.as_str().starts_with(&format!("{}/authorize?", self.issuer())),
            "{url}"
        );
        let text = |name: &str| {
            let values: Vec<_> = url.query_pairs().filter(|(other, _)| other == name).collect();
            assert_eq!(values.len(), 1, "{name} in {url}");
            values[0].1.clone().into_owned()
        };
        assert_eq!(text("response_type"), "code");
        assert_eq!(text("client_id"), CLIENT_ID);
        assert_eq!(text("redirect_uri"), "http://127.0.0.1:1/console/sign-in/callback");
        assert_eq!(text("code_challenge_method"), "S256");
        assert!(text("scope").split(' ').any(|scope| scope == "openid"));
        self.set(|state| (state.nonce, state.challenge) = (text("nonce"), text("code_challenge")));
        text("state")
    }
}

impl Drop for OpenIdProvider {
    fn drop(&mut self) {
        self.hang(false);
    }
}

impl State {
    fn id_token(&self, issuer: &str) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "iss": issuer, "sub": "anna", "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": self.nonce,
        });
        for (name, value) in self.claims.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let algorithm = match self.signed_by {
            SignedBy::Provider | SignedBy::Stranger => "ES256",
            SignedBy::Nobody => "none",
            SignedBy::ClientSecret => "HS256",
        };
        let header = json!({"alg": algorithm, "typ": "JWT", "kid": self.key.id});
        let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let sign = |pair: &EcdsaKeyPair| {
            let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            signature.as_ref().to_vec()
        };
        let signature = match self.signed_by {
            SignedBy::Provider => sign(&self.key.pair),
            SignedBy::Stranger => sign(&SigningKey::new(0).pair),
            SignedBy::Nobody => Vec::new(),
            SignedBy::ClientSecret => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, CLIENT_SECRET.as_bytes());
                hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
            }
        };
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn answer(&mut self, issuer: &str, path: &str, head: &str, body: &str) -> (u16, Value) {
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let mut values = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name));
            values.next().map_or("", |(_, value)| value).to_owned()
        };
        match path {
            "/.well-known/openid-configuration" => (
                200,
                json!({
                    "issuer": self.issuer.as_deref().unwrap_or(issuer),
                    "authorization_endpoint": format!("{issuer}/authorize"),
                    "token_endpoint": format!("{issuer}/token"),
                    "userinfo_endpoint": format!("{issuer}/userinfo"),
                    "end_session_endpoint": format!("{issuer}/end"),
                    "jwks_uri": format!("{issuer}/keys"),
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
                }),
            ),
            "/keys" => {
                self.key_requests += 1;
                (200, json!({"keys": [self.key.public()]}))
            }
            "/token" => {
                self.token_requests += 1;
                let form: std::collections::BTreeMap<_, _> = url::form_urlencoded::parse(body.as_bytes()).collect();
                let verifier = digest(&SHA256, form["code_verifier"].as_bytes());
                let credentials = BASE64_STANDARD.encode(format!("tinyd%3Aconsole:{CLIENT_SECRET}"));
                let is_client = header("authorization") == format!("Basic {credentials}");
                let is_right = form["grant_type"] == "authorization_code"
                    && form["code"] == "the-code"
                    && BASE64_URL_SAFE_NO_PAD.encode(verifier) == self.challenge
                    && is_client;
                if !is_right {
                    return (
                        400,
                        json!({"error": "invalid_grant", "error_description": "no such <code>"}),
                    );
                }
                let token = self.id_token(issuer);
                (
                    200,
                    json!({"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 60, "id_token": token}),
                )
            }
            "/userinfo" if header("authorization") == format!("Bearer {ACCESS_TOKEN}") => (200, self.userinfo.clone()),
            _ => (404, json!({})),
        }
    }
}

fn serve(stream: TcpStream, (state, changed): &(Mutex<State>, Condvar)) {
    let issuer = format!("http://{}", stream.local_addr().unwrap());
    let mut reader = BufReader::new(stream);
    let (mut line, mut head) = (String::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        head += &std::mem::take(&mut line);
    }
    let Some(path) = head.split(' ').nth(1).map(str::to_owned) else {
        return;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let mut state = state.lock();
    state.waiting += 1;
    while state.hangs {
        changed.wait(&mut state);
    }
    state.waiting -= 1;
    let (status, answer) = state.answer(&issuer, &path, &head, std::str::from_utf8(&body).unwrap());
    drop(state);
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} Word\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    // The client may have given up.
    let _ = reader.get_mut().write_all(&[head, answer].concat().into_bytes());
}
