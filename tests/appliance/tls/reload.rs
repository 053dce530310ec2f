//! Certificates and settings that change while the appliance serves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, configuration, folder, poll};
use crate::support::tls::{Client, NAME, leaf, served_certificate, settings, start_with, write_pair};

type Pair = (String, String);

const TARGET: &str = "/robots.txt";

fn pair(authority: &Authority) -> Pair {
    authority.issue(&[NAME], |_| {})
}

/// Waits until new connections get this certificate, on both listeners.
fn wait_for(appliance: &Appliance, client: &Client, pair: &Pair) {
    for address in [&appliance.public_tls, &appliance.admin_tls] {
        poll("the new certificate", || {
            served_certificate(client, address) == leaf(pair)
        });
    }
}

/// Reloads, and waits until that is done.
fn reload(appliance: &Appliance, done: &str) {
    let count = |log: &str| log.matches(done).count();
    let before = count(&appliance.log());
    appliance.signal(Signal::HUP);
    poll(done, || count(&appliance.log()) > before);
}

/// Writes the files of a pair under other names.
fn write_as(folder: &Path, name: &str, (chain, key): &Pair) {
    fs::write(folder.join(format!("{name}-cert.pem")), chain).unwrap();
    fs::write(folder.join(format!("{name}-key.pem")), key).unwrap();
}

#[test]
fn written_files_apply_without_a_reload() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    let mut connection = client.open(&appliance.public_tls);
    assert_eq!(connection.get(TARGET, "").unwrap().status, 200);
    let next = pair(&authority);
    write_pair(appliance.folder.path(), &next);
    wait_for(&appliance, &client, &next);
    // An open connection goes on.
    assert_eq!(connection.get(TARGET, "").unwrap().status, 200);
    assert_eq!(connection.stream.conn.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn renamed_files_apply_without_a_reload() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    let next = pair(&authority);
    write_as(appliance.folder.path(), "next", &next);
    for name in ["cert.pem", "key.pem"] {
        let at = |name: &str| appliance.folder.path().join(name);
        fs::rename(at(&format!("next-{name}")), at(name)).unwrap();
    }
    wait_for(&appliance, &client, &next);
}

#[test]
fn links_changed_one_after_the_other_apply_together() {
    let authority = Authority::new();
    let client = Client::new(&authority);
    let (first, second) = (pair(&authority), pair(&authority));
    let folder = folder(&configuration(&settings("")));
    let path = folder.path().to_owned();
    // As certbot does.
    let link = |name: &str, generation: &str| {
        let path = path.join(name);
        let _ = fs::remove_file(&path);
        symlink(format!("{generation}-{name}"), path).unwrap();
    };
    for (generation, pair) in [("1", &first), ("2", &second)] {
        write_as(folder.path(), generation, pair);
    }
    for name in ["cert.pem", "key.pem"] {
        link(name, "1");
    }
    let appliance = Appliance::start_in(folder);
    assert!(served_certificate(&client, &appliance.public_tls) == leaf(&first));
    link("cert.pem", "2");
    // Half of the pair is no pair.
    appliance.wait_for_log("cannot use the certificates");
    assert!(served_certificate(&client, &appliance.public_tls) == leaf(&first));
    link("key.pem", "2");
    wait_for(&appliance, &client, &second);
}

#[test]
fn reload_takes_a_new_pair_at_once() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    let mut connection = client.open(&appliance.public_tls);
    for _ in 0..3 {
        let next = pair(&authority);
        write_pair(appliance.folder.path(), &next);
        reload(&appliance, "configuration reloaded");
        for address in [&appliance.public_tls, &appliance.admin_tls] {
            assert!(served_certificate(&client, address) == leaf(&next));
        }
        assert_eq!(connection.get(TARGET, "").unwrap().status, 200);
    }
    // A session of the first certificate is resumed beside the last.
    let mut again = client.open(&appliance.public_tls);
    assert_eq!(again.get(TARGET, "").unwrap().status, 200);
    assert_eq!(again.stream.conn.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn broken_pair_keeps_the_old_one_and_is_logged_once() {
    let authority = Authority::new();
    let first = pair(&authority);
    let folder = folder(&configuration(&settings("")));
    write_pair(folder.path(), &first);
    let appliance = Appliance::start_in(folder);
    let client = Client::new(&authority);
    let file = |name: &str| appliance.folder.path().join(name);
    let other = pair(&authority);
    for (broken, reason) in [
        ((first.0.clone(), other.1.clone()), "is not that of the certificate"),
        (("not PEM".to_owned(), first.1.clone()), "holds no certificate"),
        ((first.0.clone(), String::new()), "holds no key"),
    ] {
        let before = appliance.log().len();
        write_pair(appliance.folder.path(), &broken);
        reload(&appliance, "configuration reloaded");
        reload(&appliance, "configuration reloaded");
        let log = appliance.log();
        let errors: Vec<_> = log[before..].lines().filter(|line| line.contains(" ERROR ")).collect();
        // One for each listener.
        assert_eq!(errors.len(), 2, "{errors:?}");
        for error in errors {
            let expected = "cannot use the certificates; serving those of before: ";
            assert!(error.contains(expected) && error.contains(reason), "{error}");
        }
        assert!(served_certificate(&client, &appliance.public_tls) == leaf(&first));
    }
    fs::remove_file(file("key.pem")).unwrap();
    reload(&appliance, "configuration reloaded");
    assert!(served_certificate(&client, &appliance.public_tls) == leaf(&first));
    write_pair(appliance.folder.path(), &other);
    reload(&appliance, "configuration reloaded");
    assert!(served_certificate(&client, &appliance.public_tls) == leaf(&other));
}

#[test]
fn reloaded_settings_apply_to_new_connections() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let [old, new] = [&TLS12, &TLS13].map(|version| Client::with_versions(&authority, &[version]));
    let mut before = old.open(&appliance.public_tls);
    assert_eq!(before.get(TARGET, "").unwrap().status, 200);
    let is_refused = |client: &Client| {
        let mut connection = client.connect(&appliance.public_tls);
        connection.conn.complete_io(&mut connection.sock).is_err()
    };
    for (setting, refuses_old) in [("min_version = \"1.3\"", true), ("min_version = \"1.2\"", false)] {
        fs::write(appliance.config(), configuration(&settings(setting))).unwrap();
        reload(&appliance, "configuration reloaded");
        assert_eq!((is_refused(&old), is_refused(&new)), (refuses_old, false), "{setting}");
        assert_eq!(before.get(TARGET, "").unwrap().status, 200);
    }
    // Another file, and more certificates.
    let (first, second) = (pair(&authority), authority.issue(&["second.example"], |_| {}));
    write_as(appliance.folder.path(), "a", &first);
    write_as(appliance.folder.path(), "b", &second);
    let pairs = ["a", "b"].map(|name| format!("{{ cert = \"{name}-cert.pem\", key = \"{name}-key.pem\" }}"));
    let text = settings("").replacen("{ cert = \"cert.pem\", key = \"key.pem\" }", &pairs.join(", "), 1);
    fs::write(appliance.config(), configuration(&text)).unwrap();
    reload(&appliance, "configuration reloaded");
    let named = Client {
        name: "second.example".to_owned(),
        ..new.clone()
    };
    assert!(served_certificate(&new, &appliance.public_tls) == leaf(&first));
    assert!(served_certificate(&named, &appliance.public_tls) == leaf(&second));
    assert_eq!(before.get(TARGET, "").unwrap().status, 200);
}

#[test]
fn reloaded_client_ca_applies_to_resumed_sessions_too() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    for version in [&TLS12, &TLS13] {
        let client = Client::with_versions(&authority, &[version]);
        assert_eq!(client.get(&appliance.admin_tls, "/healthz").status, 200);
        for is_required in [true, false] {
            let client_ca = if is_required {
                format!("client_ca = {:?}\n", authority.file())
            } else {
                String::new()
            };
            fs::write(appliance.config(), configuration(&(settings("") + &client_ca))).unwrap();
            reload(&appliance, "configuration reloaded");
            // It has a ticket of before.
            assert_eq!(
                client.is_served(&appliance.admin_tls, "/healthz"),
                !is_required,
                "{version:?}"
            );
        }
    }
}

#[test]
fn settings_that_cannot_be_used_change_nothing() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    let before = served_certificate(&client, &appliance.public_tls);
    for (text, reason) in [
        (settings("min_version = \"1.1\""), "min_version"),
        (settings("handshake_timeout_seconds = 0"), "handshake_timeout_seconds"),
        (
            "[public.tls]\nlisten = \"127.0.0.1:0\"\n".to_owned(),
            "HTTPS needs a certificate",
        ),
    ] {
        fs::write(appliance.config(), configuration(&text)).unwrap();
        reload(&appliance, "cannot reload the configuration");
        assert!(appliance.log().contains(reason), "{reason}");
        assert!(served_certificate(&client, &appliance.public_tls) == before);
    }
    // TLS of a listener begins and ends with a restart only.
    fs::write(appliance.config(), configuration("")).unwrap();
    reload(&appliance, "configuration reloaded");
    assert!(served_certificate(&client, &appliance.public_tls) == before);
}
