//! Settings of TLS: those that end the start, what `tinyd check` says, and where keys come from.

use std::fs;
use std::path::Path;
use std::process::Output;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;

use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, configuration, folder, serve, tinyd};
use crate::support::http::exchange_over;
use crate::support::tls::{Client, NAME, leaf, served_certificate, settings, write_pair};

/// Runs `tinyd check` on the configuration in a folder, or `tinyd serve`, which must fail.
fn run(command: &str, folder: &Path) -> Output {
    let mut process = tinyd();
    process.arg(command).arg("--config").arg(folder.join("tinyd.toml"));
    if command == "serve" {
        process.args(["--public", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        process.arg("--data").arg(folder.join("data"));
    }
    process.output().unwrap()
}

fn error_of(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Lines of a PEM file that say nothing by themselves.
fn secret_lines(key: &str) -> Vec<&str> {
    key.lines().filter(|line| !line.starts_with("-----")).collect()
}

#[test]
fn wrong_settings_end_the_start_with_their_reason() {
    let authority = Authority::new();
    let (pair, other) = (authority.issue(&[NAME], |_| {}), authority.issue(&[NAME], |_| {}));
    let one_line = pair.1.replace('\n', " ");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let listen = "listen = \"127.0.0.1:0\"\n";
    let with = |pair: &str| format!("[public.tls]\n{listen}certificates = [{{ {pair} }}]\n");
    let usual = with("cert = \"cert.pem\", key = \"key.pem\"");
    let admin = settings("");
    let same = "[public.tls]\nlisten = [\"127.0.0.1:4443\", \"127.0.0.1:4443\"]\n\
                certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]\n";
    let both = same.replacen("[\"127.0.0.1:4443\", \"127.0.0.1:4443\"]", "\"127.0.0.1:4443\"", 1);
    let both = format!("{both}{}", both.replace("public", "admin"));
    let cases: Vec<(String, &[&str])> = vec![
        (
            usual.replace(listen, ""),
            &["public.tls.listen", "(missing)", "the addresses that serve HTTPS"],
        ),
        (
            format!("[public.tls]\n{listen}"),
            &["public.tls.certificates", "(missing)", "HTTPS needs a certificate"],
        ),
        (
            format!("[admin.tls]\n{listen}client_ca = \"ca.pem\"\n"),
            &["admin.tls.certificates", "(missing)", "HTTPS needs a certificate"],
        ),
        (
            "[admin.tls]\nclient_ca = \"ca.pem\"\n".to_owned(),
            &["admin.tls.client_ca", "ca.pem", "without listen there is no HTTPS"],
        ),
        (
            with("cert = \"cert.pem\", key = \"key.pem\" }, { cert = \"cert.pem\", key = \"key.pem\""),
            &["public.tls.certificates", "cert.pem", "named twice"],
        ),
        (
            with("cert = \"none.pem\", key = \"key.pem\""),
            &["tls: cannot read ", "/none.pem: No such file"],
        ),
        (
            with("cert = \"cert.pem\", key = \"none.pem\""),
            &["tls: cannot read ", "/none.pem: No such file"],
        ),
        (
            with("cert = \"cert.pem\", key = \"other.pem\""),
            &[
                "the key in ",
                "other.pem is not that of the certificate in ",
                "cert.pem",
            ],
        ),
        (
            with("cert = \"cert.pem\", key = \"encrypted.pem\""),
            &["encrypted.pem: the key is encrypted", "without one"],
        ),
        (with("cert = \"cert.pem\", key = \"line.pem\""), &["line.pem: not PEM"]),
        (with("cert = \"line.pem\", key = \"key.pem\""), &["line.pem: not PEM"]),
        (
            with("cert = \"key.pem\", key = \"key.pem\""),
            &["key.pem: holds no certificate"],
        ),
        (with("cert = \"cert.pem\""), &["public.tls.certificates", "key"]),
        (
            with("cert = \"cert.pem\", key = \"key.pem\", colour = \"red\""),
            &["public.tls.certificates", "colour"],
        ),
        (
            with("cert = \"cert.pem\", key = \"key.pem\", key_credential = \"key\""),
            &["public.tls.certificates", "key"],
        ),
        (
            with("cert = \"cert.pem\", key_credential = \"key\""),
            &["public.tls.certificates", "key", "CREDENTIALS_DIRECTORY"],
        ),
        (
            format!("{usual}min_version = \"1.1\"\n"),
            &["public.tls.min_version", "1.1", "1.2", "1.3"],
        ),
        (
            format!("{usual}handshake_timeout_seconds = 0\n"),
            &["public.tls.handshake_timeout_seconds", "0"],
        ),
        (
            format!("{usual}client_ca = \"ca.pem\"\n"),
            &["public.tls.client_ca", "unknown key"],
        ),
        (
            usual.replace("127.0.0.1:0", "127.0.0.1"),
            &["public.tls.listen", "127.0.0.1"],
        ),
        (same.to_owned(), &["listen", "127.0.0.1:4443", "named twice"]),
        (both, &["listen", "127.0.0.1:4443", "named twice"]),
        (
            format!("{admin}client_ca = \"none.pem\"\n"),
            &["tls: cannot read ", "/none.pem: No such file"],
        ),
        (
            format!("{admin}client_ca = \"key.pem\"\n"),
            &["key.pem: holds no certificate"],
        ),
        (format!("{admin}client_ca = \"line.pem\"\n"), &["line.pem: not PEM"]),
    ];
    for (text, parts) in cases {
        let folder = folder(&configuration(&text));
        write_pair(folder.path(), &pair);
        for (name, content) in [
            ("other.pem", &*other.1),
            ("encrypted.pem", encrypted),
            ("line.pem", &*one_line),
        ] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        for command in ["serve", "check"] {
            let output = run(command, folder.path());
            let error = error_of(&output);
            for part in parts {
                assert!(error.contains(part), "{command} {part}: {error}");
            }
            assert_eq!(output.status.code(), Some(2), "{command}: {error}");
            for key in [&pair.1, &other.1] {
                let first = secret_lines(key)[0];
                assert!(!error.contains(first) && !error.contains("45, 45, 45"), "{error}");
            }
        }
    }
}

/// Unlike its authority.
fn called_leaf(params: &mut CertificateParams) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
}

#[test]
fn check_says_what_clients_will_object_to() {
    let authority = Authority::new();
    let until = |from, to| {
        authority.issue(&[NAME, "*.example.net", "192.0.2.7"], |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
            called_leaf(params);
        })
    };
    let valid = until(2020, 3000);
    let other = fs::read_to_string(Authority::new().file()).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let alone = |chain: &str| chain.split_inclusive(end).next().unwrap().to_owned();
    let named = "valid until 3000-01-01 00:00:00 UTC, for go.example.org, *.example.net, 192.0.2.7";
    for ((chain, key), said) in [
        (valid.clone(), None),
        (until(2019, 2020), Some("expired at 2020-01-01 00:00:00 UTC")),
        (until(2900, 3000), Some("not valid before 2900-01-01 00:00:00 UTC")),
        (authority.issue(&[], |_| {}), Some("has no name: ")),
        (
            {
                let mut pair = authority.issue(&[NAME], called_leaf);
                pair.0 = alone(&pair.0);
                pair
            },
            Some("the file holds no intermediate certificate"),
        ),
        (
            (alone(&valid.0) + &alone(&valid.0) + &other, valid.1.clone()),
            Some("certificate 2 of the file did not issue certificate 1"),
        ),
    ] {
        let folder = folder(&configuration(&settings("")));
        write_pair(folder.path(), &(chain, key));
        let output = run("check", folder.path());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for section in ["public.tls", "admin.tls"] {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("certificate of {section}: ")));
            assert!(line.unwrap().contains("cert.pem, valid until "), "{text}");
        }
        assert!(
            text.contains("redirects: https://127.0.0.1:0, this machine only"),
            "{text}"
        );
        let warnings: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("warning: ") && line.contains("cert.pem: "))
            .collect();
        match said {
            None => assert!(warnings.is_empty() && text.contains(named), "{text}"),
            Some(said) => assert!(warnings.iter().any(|line| line.contains(said)), "{said}: {text}"),
        }
    }
}

#[test]
fn pairs_come_from_credentials_of_the_service_manager() {
    let authority = Authority::new();
    let pair = authority.issue(&[NAME], |_| {});
    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("chain"), &pair.0).unwrap();
    fs::write(credentials.path().join("secret"), &pair.1).unwrap();
    let text = "[public.tls]\nlisten = \"127.0.0.1:0\"\n\
                certificates = [{ cert_credential = \"chain\", key_credential = \"secret\" }]\n";
    let mut command = serve();
    command.env("CREDENTIALS_DIRECTORY", credentials.path());
    let appliance = Appliance::start_by(command, folder(&configuration(text)));
    let client = Client::new(&authority);
    assert!(served_certificate(&client, &appliance.public_tls) == leaf(&pair));
    // Another file in its place is read too.
    let next = authority.issue(&[NAME], |_| {});
    fs::write(credentials.path().join("chain"), &next.0).unwrap();
    fs::write(credentials.path().join("secret"), &next.1).unwrap();
    appliance.signal(Signal::HUP);
    appliance.wait_for_log("configuration reloaded");
    assert!(served_certificate(&client, &appliance.public_tls) == leaf(&next));
    let missing = text.replace("chain", "other");
    fs::write(appliance.config(), configuration(&missing)).unwrap();
    appliance.signal(Signal::HUP);
    appliance.wait_for_log("ERROR");
    assert!(served_certificate(&client, &appliance.public_tls) == leaf(&next));
}

#[test]
fn no_part_of_a_key_is_logged() {
    let authority = Authority::new();
    let pair = authority.issue(&[NAME], |_| {});
    let folder = folder(&configuration(&settings("")));
    write_pair(folder.path(), &pair);
    let appliance = Appliance::start_in(folder);
    let at = |name: &str| appliance.folder.path().join(name);
    let der = KeyPair::from_pem(&pair.1).unwrap().serialize_der();
    let body: Vec<_> = secret_lines(&pair.1);
    let reloaded = |count: usize| {
        appliance.signal(Signal::HUP);
        crate::support::fixture::poll("reloaded", || {
            appliance.log().matches("configuration reloaded").count() > count
        });
    };
    // The key in every wrong place, whole and damaged.
    let damaged = [
        pair.1.clone(),
        pair.1.replace('\n', " "),
        pair.1.replace("-----END", "----END"),
        pair.1
            .replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----"),
        pair.1.replacen(body[0], &format!("{}\u{fc}", body[0]), 1),
        pair.1.replace("PRIVATE KEY", "CERTIFICATE"),
        body.concat(),
    ];
    let mut count = 0;
    for text in &damaged {
        for name in ["cert.pem", "key.pem"] {
            write_pair(appliance.folder.path(), &pair);
            fs::write(at(name), text).unwrap();
            reloaded(count);
            count += 1;
        }
    }
    let client = Client::new(&authority);
    let answer = exchange_over(
        client.connect(&appliance.public_tls),
        b"GET /robots.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(answer.status, 200);
    let log = appliance.log();
    assert!(
        log.matches("cannot use the certificates").count() > damaged.len(),
        "{log}"
    );
    // In PEM, in hexadecimal and as a list of numbers; any eight bytes would do.
    for line in &body {
        for part in line.as_bytes().chunks_exact(12) {
            let part = std::str::from_utf8(part).unwrap();
            assert!(!log.contains(part), "{part}: {log}");
            let numbers: Vec<_> = part.bytes().map(|byte| byte.to_string()).collect();
            assert!(!log.contains(&numbers.join(", ")), "{part}: {log}");
        }
    }
    for part in der.chunks_exact(8) {
        let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers: Vec<_> = part.iter().map(u8::to_string).collect();
        assert!(
            !log.contains(&hex) && !log.contains(&numbers.join(", ")),
            "{hex}: {log}"
        );
    }
}
