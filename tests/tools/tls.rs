//! Programs that speak TLS against the appliance: curl, OpenSSL, Java and testssl.sh.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, configuration, folder};
use crate::support::tls::NAME;

const DESTINATION: &str = "https://example.com/video";
const REQUEST: &str = "GET /robots.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

struct Served {
    authority: Authority,
    appliance: Appliance,
    /// The port of the public listener.
    port: u16,
    /// The target of a redirect to [`DESTINATION`].
    goto: String,
}

/// An appliance with an ECDSA certificate and one of RSA, of an authority that the client trusts.
fn served() -> Served {
    served_with("")
}

/// The same, with more settings.
fn served_with(more: &str) -> Served {
    let authority = Authority::new();
    let listen = "[public.tls]\nlisten = \"127.0.0.1:0\"\n";
    let pairs = ["ecdsa", "rsa"].map(|name| format!("{{ cert = \"{name}.pem\", key = \"{name}.key\" }}"));
    let settings = format!("{more}{listen}certificates = [{}]\n", pairs.join(", "));
    let folder = folder(&configuration(&settings));
    for (name, algorithm) in [
        ("ecdsa", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("rsa", &rcgen::PKCS_RSA_SHA256),
    ] {
        let (chain, key) = authority.issue_by(algorithm, &[NAME, "127.0.0.1"], |params| {
            // Unlike its authority; and testssl.sh knows dates up to 2038 only.
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, NAME);
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2037, 1, 1);
        });
        fs::write(folder.path().join(format!("{name}.pem")), chain).unwrap();
        fs::write(folder.path().join(format!("{name}.key")), key).unwrap();
    }
    let appliance = Appliance::start_in(folder);
    let id = appliance.add(&appliance.admin_ks(), &[]);
    Served {
        authority,
        port: appliance.public_tls.rsplit(':').next().unwrap().parse().unwrap(),
        goto: format!("/api_v3/service/shortlink_shortlink/action/goto/id/{id}"),
        appliance,
    }
}

/// Both streams of a command that is given these bytes, and then the end of its input.
fn run(command: &mut Command, input: &str) -> (Output, String) {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output, text.concat())
}

pub fn curl_is_redirected_over_tls() {
    let served = served();
    let url = format!("https://{NAME}:{}{}", served.port, served.goto);
    for (least, most) in [("--tlsv1.2", "1.2"), ("--tlsv1.3", "1.3")] {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--http1.1", least, "--tls-max", most])
            .args(["--output", "/dev/null", "--max-time", "60", "--cacert"])
            .arg(served.authority.file())
            .args(["--connect-to", &format!("::127.0.0.1:{}", served.port)])
            .args([
                "--write-out",
                "%{http_code} %{http_version} %{redirect_url} %{num_connects}\n",
            ])
            .args([&url, &url]);
        let (output, text) = run(&mut command, "");
        assert!(output.status.success(), "{text}");
        // The second request comes on the connection of the first.
        assert_eq!(
            text,
            format!("302 1.1 {DESTINATION} 1\n302 1.1 {DESTINATION} 0\n"),
            "{most}"
        );
    }
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--tls-max", "1.1", "--insecure", &url])
        .args(["--connect-to", &format!("::127.0.0.1:{}", served.port)]);
    let (output, text) = run(&mut command, "");
    assert!(!output.status.success(), "{text}");
}

/// The command of OpenSSL's client, which must trust the certificate.
fn s_client(served: &Served, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &served.appliance.public_tls,
            "-servername",
            NAME,
        ])
        .args(["-verify_return_error", "-verify_hostname", NAME, "-CAfile"])
        .arg(served.authority.file())
        .args(args);
    command
}

pub fn openssl_resumes_sessions() {
    let served = served();
    let session = served.appliance.folder.path().join("session");
    let session = session.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3", "-no_tls1_3"] {
        for (option, kind) in [("-sess_out", "New, "), ("-sess_in", "Reused, ")] {
            let (_, text) = run(&mut s_client(&served, &[version, option, session, "-ign_eof"]), REQUEST);
            assert!(text.contains(&format!("\n{kind}TLSv1.")), "{version}: {text}");
            assert!(text.contains("HTTP/1.1 200 OK"), "{version}: {text}");
            assert!(!text.contains("Early data was accepted"), "{version}: {text}");
        }
        fs::remove_file(session).unwrap();
    }
}

pub fn openssl_may_not_renegotiate() {
    // Nothing else ends the connection.
    let served = served_with("[public]\nhead_timeout_seconds = 3600\nidle_timeout_seconds = 3600\n");
    let client = s_client(&served, &["-tls1_2"]);
    let mut command = Command::new("timeout");
    command.arg("60").arg(client.get_program()).args(client.get_args());
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Its input stays open: it ends because it is refused.
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"R\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.contains("RENEGOTIATING") && text.contains("no renegotiation"),
        "{text}"
    );
}

pub fn client_of_rsa_only_is_served() {
    let served = served();
    let old = [
        "-tls1_2",
        "-cipher",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "-curves",
        "P-256",
        "-sigalgs",
        "RSA+SHA256",
    ];
    let (_, text) = run(&mut s_client(&served, &[&old[..], &["-ign_eof"]].concat()), REQUEST);
    for part in [
        "Peer signature type: RSA\n",
        "Cipher is ECDHE-RSA-AES128-GCM-SHA256\n",
        "HTTP/1.1 200 OK",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (output, text) = run(&mut s_client(&served, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]), "");
    assert!(!output.status.success() && text.contains("Cipher is (NONE)"), "{text}");
}

pub fn java_is_redirected_over_tls() {
    let served = served();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/tls/Client.java");
    let url = format!("https://127.0.0.1:{}{}", served.port, served.goto);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let mut command = Command::new("java");
        command
            .arg(program)
            .arg(served.authority.file())
            .args([&url, DESTINATION, version]);
        let (output, text) = run(&mut command, "");
        assert!(output.status.success() && text == "done\n", "{version}: {text}");
    }
}

pub fn testssl_finds_no_weakness() {
    let served = served();
    let found = served.appliance.folder.path().join("found.json");
    let mut command = Command::new("testssl");
    command
        // Or it warns that its own OpenSSL has no GOST ciphers.
        .env("NO_ENGINE", "true")
        .args([
            "--quiet",
            "--color",
            "0",
            "--warnings",
            "off",
            "--nodns",
            "none",
            "--ip",
            "127.0.0.1",
        ])
        .arg("--add-ca")
        .arg(served.authority.file())
        .arg("--jsonfile")
        .arg(&found)
        // Protocols, ciphers, forward secrecy and known weaknesses. Most of the rest concerns the certificate.
        .args(["-p", "-s", "-f", "-P", "-U"])
        .arg(format!("{NAME}:{}", served.port));
    let (_, text) = run(&mut command, "");
    let findings: Vec<Value> = serde_json::from_slice(&fs::read(&found).expect(&text)).expect(&text);
    let of = |id: &str| {
        let finding = findings.iter().find(|finding| finding["id"] == id);
        finding.unwrap_or_else(|| panic!("{id}: {text}"))["finding"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (id, expected) in [
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered with final"),
    ] {
        assert_eq!(of(id), expected, "{id}");
    }
    assert!(of("secure_client_renego").starts_with("not vulnerable"), "{text}");
    let faults: Vec<_> = findings
        .iter()
        .filter(|finding| !["OK", "INFO"].contains(&finding["severity"].as_str().unwrap()))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}\n{text}");
}
