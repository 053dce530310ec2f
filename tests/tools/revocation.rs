//! Requests to an authority by a client that is not tinyd: the revocation of a certificate.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::certificates::Authority;
use crate::support::tls::Client;

/// The serial number in hexadecimal digits.
pub fn serial(leaf: &[u8]) -> String {
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    leaf.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends one request to an authority, and returns the head and the body of its answer.
pub fn ask(authority: &Authority, address: &str, method: &str, target: &str, body: &str) -> (String, String) {
    let client = Client {
        name: "127.0.0.1".to_owned(),
        ..Client::new(authority)
    };
    let mut stream = client.connect(address);
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/jose+json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (format!("{head}\r\n"), body.to_owned())
}

/// Revokes a stored certificate by its own key, as its owner may (RFC 8555, section 7.6).
pub fn revoke(authority: &Authority, address: &str, stored: &Path) {
    let text = fs::read_to_string(stored).unwrap();
    let leaf = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let begin = text.find("-----BEGIN PRIVATE KEY-----").unwrap();
    let end = text.find("-----BEGIN CERTIFICATE-----").unwrap();
    let key = KeyPair::from_pem(&text[begin..end]).unwrap();
    let directory: Value = serde_json::from_str(&ask(authority, address, "GET", "/dir", "").1).unwrap();
    let path = |name: &str| {
        directory[name]
            .as_str()
            .unwrap()
            .split_once(address)
            .unwrap()
            .1
            .to_owned()
    };
    let (head, _) = ask(authority, address, "HEAD", &path("newNonce"), "");
    let nonce = head
        .split("Replay-Nonce: ")
        .nth(1)
        .unwrap()
        .split("\r\n")
        .next()
        .unwrap();
    let base64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = key.der_bytes()[1..].split_at(32);
    let protected = json!({
        "alg": "ES256",
        "jwk": { "kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y) },
        "nonce": nonce,
        "url": directory["revokeCert"],
    });
    let protected = base64(protected.to_string().as_bytes());
    let payload = base64(json!({ "certificate": base64(&leaf) }).to_string().as_bytes());
    let signature = base64(&fixed(&key.sign(format!("{protected}.{payload}").as_bytes()).unwrap()));
    let body = json!({ "protected": protected, "payload": payload, "signature": signature }).to_string();
    let (head, answer) = ask(authority, address, "POST", &path("revokeCert"), &body);
    assert!(head.split(' ').nth(1) == Some("200"), "{head} {answer}");
}

/// The two numbers of an ECDSA signature in 32 bytes each, from DER.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut fixed = Vec::new();
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = &number[number.len().saturating_sub(32)..];
        fixed.extend(vec![0; 32 - number.len()]);
        fixed.extend_from_slice(number);
        rest = after;
    }
    fixed
}
