//! Certificates that tinyd orders, from a double of an authority. tests/tools/acme.rs orders them from a real one.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::authority::{Double, Fault, TOKEN};
use crate::support::acme::{handshake, proof, served, store};
use crate::support::fixture::{Appliance, configuration, folder, poll, serve};
use crate::support::http::{exchange, request};
use crate::support::scrape::Scrape;

const NAME: &str = "go.example.org";

fn start(double: &Double, more: &str) -> Appliance {
    start_by(serve(), double, folder(&configuration(&double.settings(more))))
}

fn start_by(command: Command, double: &Double, folder: tempfile::TempDir) -> Appliance {
    let appliance = Appliance::spawn_by(command, folder);
    double.lead_to(&appliance);
    appliance
}

/// The status of plain HTTP for a host.
fn status_of(appliance: &Appliance, target: &str) -> u16 {
    let address = appliance.public.trim_start_matches("http://");
    let head = format!("GET {target} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    exchange(address, head.as_bytes()).status
}

fn orders(appliance: &Appliance) -> [f64; 2] {
    let scrape = Scrape::of(appliance);
    ["issued", "failed"].map(|result| scrape.get(&format!("tinyd_acme_orders_total{{result=\"{result}\"}}")))
}

/// With a certificate that is valid for long and for another name, so that another is ordered at once.
fn start_with_old_certificate(double: &Double) -> (Appliance, Vec<u8>) {
    let folder = folder(&configuration(&double.settings(&format!("domains = \"{NAME}\""))));
    let old = store(&folder, &double.directory(), "old.example.org", -1, 89);
    (start_by(serve(), double, folder), old)
}

#[test]
fn certificate_is_issued_by_both_challenges() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let double = Double::start(Fault::None);
        let appliance = start(&double, &format!("domains = \"{NAME}\"\nchallenge = \"{challenge}\""));
        appliance.wait_for_log("certificate issued");
        poll("a certificate", || handshake(&appliance.public_tls, NAME).is_ok());
        assert_eq!(orders(&appliance), [1.0, 0.0]);
        assert!(proof(&appliance.public_tls, NAME).is_err());
        let path = format!("/.well-known/acme-challenge/{TOKEN}");
        assert_eq!(appliance.get_public(&path).status, 404);
        let log = appliance.log();
        let is_told = |line: &str| !line.contains("TRACE") && line.contains(TOKEN);
        assert!(!log.lines().any(is_told) && !log.contains("PRIVATE KEY"), "{log}");
    }
}

#[test]
fn window_in_the_past_renews_at_once() {
    let double = Double::start(Fault::None);
    let mut appliance = start(&double, &format!("domains = \"{NAME}\""));
    appliance.wait_for_log("certificate issued");
    poll("renewal information", || !double.paths("/renewal/").is_empty());
    let first = served(&appliance.public_tls, NAME);
    assert_eq!(orders(&appliance), [1.0, 0.0]);
    appliance.terminate();
    // As for a certificate that was revoked.
    double.suggest("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    appliance.restart();
    double.lead_to(&appliance);
    poll("another certificate", || served(&appliance.public_tls, NAME) != first);
    let asked = double.asked("/new");
    let replaces = asked.last().unwrap()["replaces"].as_str().unwrap().to_owned();
    assert_eq!(double.paths("/renewal/")[0], format!("/renewal/{replaces}"));
    assert!(asked.first().unwrap().get("replaces").is_none());
}

#[test]
fn renewal_information_without_sense_is_ignored() {
    for [start_at, end] in [
        ["2020-01-02T00:00:00Z", "2020-01-01T00:00:00Z"],
        ["1000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"],
        ["yesterday", "tomorrow"],
    ] {
        let double = Double::start(Fault::None);
        double.suggest(start_at, end);
        let appliance = start(&double, &format!("domains = \"{NAME}\""));
        appliance.wait_for_log("certificate issued");
        poll("renewal information", || !double.paths("/renewal/").is_empty());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(orders(&appliance), [1.0, 0.0]);
        assert_eq!(double.paths("/renewal/").len(), 1);
    }
}

#[test]
fn profile_and_addresses_are_ordered() {
    let double = Double::start(Fault::None);
    let settings = format!("domains = [\"{NAME}\", \"127.0.0.1\"]\nprofile = \"shortlived\"");
    let appliance = start(&double, &settings);
    appliance.wait_for_log("certificate issued");
    let order = double.asked("/new").remove(0);
    assert_eq!(order["profile"], "shortlived");
    assert_eq!(
        order["identifiers"][1],
        serde_json::json!({"type": "ip", "value": "127.0.0.1"})
    );
    let appliance = start(&double, &format!("domains = \"{NAME}\"\nprofile = \"tlsserver\""));
    appliance.wait_for_log("order failed");
    let log = appliance.log();
    assert!(
        log.contains("the authority has no profile tlsserver; its profiles: "),
        "{log}"
    );
}

#[test]
fn faults_of_an_authority_leave_the_old_certificate() {
    for (fault, reason) in [
        (Fault::NoDirectory, "answered what is no JSON object"),
        (Fault::PlainHttp, "has a directory whose newNonce is no https URL"),
        (Fault::NoUrl, "has a directory whose newNonce is no https URL"),
        (Fault::Endless, "length limit exceeded"),
        (Fault::Refuses, "the authority refuses the order: no  [31m xxx"),
        (Fault::BadToken, "sent a token that is none"),
        (
            Fault::Cites,
            "got 404 from /.well-known/acme-challenge/… (unauthorized)",
        ),
        (
            Fault::OtherAuthorization,
            "wants proof for other.example.org, which was not ordered",
        ),
        (Fault::GarbageChain, "holds no certificate"),
        (Fault::OtherKey, "is not that of the certificate"),
        (Fault::OtherName, "is not for go.example.org"),
        (Fault::Expired, "which is not now"),
        (Fault::EndlessChain, "length limit exceeded"),
    ] {
        let double = Double::start(fault);
        let (appliance, old) = start_with_old_certificate(&double);
        appliance.wait_for_log("order failed");
        let log = appliance.log();
        let line = log.lines().find(|line| line.contains("order failed")).unwrap();
        assert!(line.contains(reason) && line.len() < 1_000, "{fault:?}: {line}");
        assert!(
            line.chars().all(|c| !c.is_control() && c != '\u{202e}'),
            "{fault:?}: {line}"
        );
        assert_eq!(served(&appliance.public_tls, NAME), old, "{fault:?}");
        assert_eq!(orders(&appliance), [0.0, 1.0], "{fault:?}");
        assert_eq!(appliance.get_public("/robots.txt").status, 200);
    }
}

#[test]
fn silent_authority_costs_no_redirect() {
    let double = Double::start(Fault::Silent);
    let (mut appliance, old) = start_with_old_certificate(&double);
    appliance.wait_for_log("ordering a certificate");
    let link = appliance.add(&appliance.admin_ks(), &[]);
    let began = Instant::now();
    while !appliance.log().contains("did not answer within 30s") {
        assert_eq!(appliance.goto(&link).status, 302);
        assert!(began.elapsed() < Duration::from_secs(90), "{}", appliance.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(served(&appliance.public_tls, NAME), old);
    assert!(appliance.terminate().success());
}

#[test]
fn without_a_certificate_http_serves_and_tls_is_refused() {
    let double = Double::start(Fault::NoDirectory);
    let appliance = start(&double, &format!("domains = \"{NAME}\""));
    appliance.wait_for_log("order failed");
    assert!(handshake(&appliance.public_tls, NAME).is_err());
    appliance.wait_for_log("refusing TLS handshakes: there is no certificate yet");
    assert_eq!(appliance.get_public("/robots.txt").status, 200);
    assert_eq!(orders(&appliance), [0.0, 1.0]);
    let status = String::from_utf8_lossy(&appliance.tinyd(&["status"]).stdout).into_owned();
    assert!(status.contains("the last order of a certificate failed: "), "{status}");
    let checked = String::from_utf8_lossy(&appliance.tinyd(&["check"]).stdout).into_owned();
    for said in [
        format!(
            "ACME: a certificate for {NAME} from {}, by http-01\n",
            double.directory()
        ),
        "ACME: no certificate yet; tinyd serve orders one\n".to_owned(),
    ] {
        assert!(checked.contains(&said), "{checked}");
    }
}

#[test]
fn restarts_do_not_exceed_the_limit_of_failures() {
    let double = Double::start(Fault::Refuses);
    let mut appliance = start(&double, &format!("domains = \"{NAME}\""));
    for count in 1..=4 {
        poll("an order", || double.paths("/new").len() == count);
        if count.is_multiple_of(2) {
            poll("its failure", || orders(&appliance) == [0.0, 1.0]);
        }
        // Also while an order runs: it counts at the authority.
        appliance.kill();
        appliance.restart();
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((double.paths("/new").len(), orders(&appliance)), (4, [0.0, 0.0]));
}

#[test]
fn changed_domains_apply_at_a_reload_while_plain_redirects() {
    let double = Double::start(Fault::None);
    let settings = |domains: &str| {
        let settings = double.settings(&format!("domains = {domains}"));
        configuration(&format!("[public]\nplain = \"redirect\"\n{settings}"))
    };
    let appliance = start_by(serve(), &double, folder(&settings(&format!("\"{NAME}\""))));
    appliance.wait_for_log("certificate issued");
    let first = served(&appliance.public_tls, NAME);
    let plain = || status_of(&appliance, "/robots.txt");
    assert_eq!(plain(), 308);
    fs::write(
        appliance.config(),
        settings(&format!("[\"{NAME}\", \"two.example.org\"]")),
    )
    .unwrap();
    appliance.signal(Signal::HUP);
    poll("another certificate", || served(&appliance.public_tls, NAME) != first);
    assert_eq!((orders(&appliance), plain()), ([2.0, 0.0], 308));
}

#[test]
fn read_only_server_orders_nothing() {
    let double = Double::start(Fault::None);
    let (mut appliance, old) = start_with_old_certificate(&double);
    poll("an order", || orders(&appliance) == [1.0, 0.0]);
    appliance.terminate();
    let folder = std::mem::replace(&mut appliance.folder, tempfile::tempdir().unwrap());
    fs::write(appliance.folder.path().join("log"), "").unwrap();
    // As if it had changed once more.
    let text = fs::read_to_string(folder.path().join("tinyd.toml")).unwrap();
    fs::write(
        folder.path().join("tinyd.toml"),
        text.replace(NAME, "third.example.org"),
    )
    .unwrap();
    let mut command = serve();
    command.arg("--read-only");
    let appliance = start_by(command, &double, folder);
    assert_ne!(served(&appliance.public_tls, NAME), old);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((orders(&appliance), double.paths("/new").len()), ([0.0, 0.0], 1));
}

#[test]
fn challenges_of_other_clients_are_served_from_the_webroot() {
    let root = tempfile::tempdir().unwrap();
    let challenges = root.path().join(".well-known/acme-challenge");
    fs::create_dir_all(&challenges).unwrap();
    fs::write(challenges.join("a-token"), "a-token.thumb").unwrap();
    let appliance = Appliance::start_with(&format!("[public]\nacme_webroot = {:?}\n", root.path()));
    let get = |path: &str| appliance.get_public(&format!("/.well-known/acme-challenge/{path}"));
    let answer = get("a-token");
    assert_eq!((answer.status, answer.text()), (200, "a-token.thumb"));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("cache-control"), "no-store");
    let head = request(
        &appliance.public,
        "HEAD",
        "/.well-known/acme-challenge/a-token",
        &[],
        b"",
    );
    assert_eq!((head.status, head.header("content-length")), (200, "13"));
    for other in [
        "none",
        "",
        "..",
        "..%2fa-token",
        "a-token/",
        "%61-token",
        "../acme-challenge/a-token",
    ] {
        assert!([400, 404].contains(&get(other).status), "{other}");
    }
    // The admin listener has no challenges.
    assert_eq!(appliance.get_admin("/.well-known/acme-challenge/a-token").status, 404);
    let settings = configuration("[public]\n");
    fs::write(appliance.config(), settings).unwrap();
    appliance.signal(Signal::HUP);
    poll("no webroot", || get("a-token").status == 404);
}
