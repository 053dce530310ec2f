//! `public.plain = "redirect"`: from plain HTTP to HTTPS.

use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, configuration, folder, tinyd};
use crate::support::http::{Answer, exchange, request};
use crate::support::tls::{Client, NAME, settings, start_with, write_pair};

fn get(appliance: &Appliance, host: &str, target: &str) -> Answer {
    let address = appliance.public.strip_prefix("http://").unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    exchange(address, head.as_bytes())
}

#[test]
fn clients_are_sent_to_the_host_that_they_ask_for() {
    let authority = Authority::new();
    let appliance = start_with(
        &authority,
        &("[public]\nplain = \"redirect\"\n".to_owned() + &settings("")),
    );
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let target = format!("/tiny/{id}?a=%20b&c");
    let port = appliance.public_tls.rsplit(':').next().unwrap();
    for host in [NAME.to_owned(), format!("{NAME}:80"), NAME.to_uppercase()] {
        let answer = get(&appliance, &host, &target);
        let name = host.split(':').next().unwrap();
        assert_eq!(
            (answer.status, answer.header("location")),
            (308, &*format!("https://{name}:{port}{target}"))
        );
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    // Of another host there is no certificate.
    for host in ["other.example.org", "127.0.0.1", "evil.example/path"] {
        let answer = get(&appliance, host, &target);
        assert!(
            answer.header("location").starts_with("/api_v3/") || answer.status == 400,
            "{host} {answer:?}"
        );
    }
    assert_eq!(get(&appliance, NAME, "/.well-known/acme-challenge/x").status, 404);
    assert_eq!(request(&appliance.public, "POST", "/tiny/x", &[], b"body").status, 405);
    assert_eq!(Client::new(&authority).get(&appliance.public_tls, &target).status, 301);
    // The admin listener is another matter.
    assert_eq!(appliance.get_admin("/healthz").status, 200);
}

#[test]
fn clients_are_sent_to_the_host_of_the_url() {
    for (url, base) in [
        ("https://go.example.net", "https://go.example.net".to_owned()),
        ("https://go.example.net:8443", "https://go.example.net:8443".to_owned()),
        ("http://go.example.net:8080/", "https://go.example.net:PORT".to_owned()),
    ] {
        let plain = format!("[public]\nplain = \"redirect\"\nurl = {url:?}\n");
        let folder = folder(&configuration(&(plain + &settings(""))));
        write_pair(folder.path(), &Authority::new().issue(&["*.example.net"], |_| {}));
        let appliance = Appliance::start_in(folder);
        let port = appliance.public_tls.rsplit(':').next().unwrap();
        let answer = get(&appliance, "any.example.org", "/tiny/abcd1234");
        let base = base.replace("PORT", port);
        assert_eq!(answer.header("location"), format!("{base}/tiny/abcd1234"));
    }
}

#[test]
fn plain_http_serves_while_no_certificate_is_valid() {
    let authority = Authority::new();
    let plain = "[public]\nplain = \"redirect\"\nurl = \"https://go.example.org\"\n".to_owned();
    let folder = folder(&configuration(&(plain + &settings(""))));
    let expired = authority.issue(&[NAME], |params| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    write_pair(folder.path(), &expired);
    let appliance = Appliance::start_in(folder);
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let answer = get(&appliance, NAME, &format!("/tiny/{id}"));
    assert!(answer.header("location").starts_with("/api_v3/"), "{answer:?}");
}

#[test]
fn check_says_that_no_certificate_is_for_the_url() {
    for (name, is_warned) in [("go.example.org", false), ("go.example.net", true)] {
        let public = format!("[public]\nurl = \"https://{name}\"\n");
        let folder = folder(&configuration(&(public + &settings(""))));
        write_pair(folder.path(), &Authority::new().issue(&[NAME], |_| {}));
        let config = folder.path().join("tinyd.toml");
        let checked = tinyd().args(["check", "--config"]).arg(&config).output().unwrap();
        let said = String::from_utf8(checked.stdout).unwrap();
        let warning = format!("warning: public.url: no certificate is for {name}");
        assert_eq!(said.contains(&warning), is_warned, "{said}");
    }
}

#[test]
fn redirecting_to_no_https_ends_the_start() {
    let folder = folder(&configuration("[public]\nplain = \"redirect\"\n"));
    let config = folder.path().join("tinyd.toml");
    let checked = tinyd().args(["check", "--config"]).arg(&config).output().unwrap();
    let error = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{error}");
    assert!(
        error.contains("public.plain = \"redirect\": there is no HTTPS to redirect to"),
        "{error}"
    );
}
