//! Programs that speak HTTP/2 over TLS: Chromium, h2load and nghttp.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::certificates::Authority;
use crate::support::fixture::{self, Appliance};
use crate::support::tls::{settings, start_with};

/// An appliance, and a URL of a link over HTTPS that leads to its own robots.txt.
fn start() -> (Appliance, String) {
    let appliance = start_with(&Authority::new(), &settings(""));
    // A port of its own that serves something: the link may not lead to the public listener.
    let destination = format!("{}/healthz", appliance.admin);
    let id = appliance.add(&appliance.admin_ks(), &[("shortLink[fullUrl]", &destination)]);
    let url = format!("https://{}/tiny/{id}", appliance.public_tls);
    (appliance, url)
}

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = [stdout, stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    assert!(status.success(), "{text}");
    text
}

/// A browser with its data in this folder.
fn chromium(folder: &Path) -> Command {
    let mut command = Command::new(std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned()));
    command.arg(format!("--user-data-dir={}", folder.display())).args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    ]);
    command
}

pub fn chromium_shows_a_page_and_requests_nothing_else() {
    let logo = "<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"/tiny/logo\"/></svg>";
    let section = "[log]\naccess = \"all\"\n[console]\nname = \"Example\"\nlogo = \"logo.svg\"\n";
    let folder = fixture::folder(&fixture::configuration(section));
    fs::write(folder.path().join("logo.svg"), logo).unwrap();
    let mut appliance = Appliance::start_in(folder);
    let data = tempfile::tempdir().unwrap();
    let url = format!("{}/tiny/zzzzzzzz", appliance.public);
    let page = run(chromium(data.path()).args(["--accept-lang=he-IL,he", "--dump-dom", &url]));
    assert!(page.contains("<html lang=\"he\" dir=\"rtl\">"), "{page}");
    assert!(appliance.terminate().success());
    // The hop, and the page. No icon, and no image.
    let log = appliance.log();
    let requests = log.lines().filter(|line| line.contains("listener=\"public\""));
    assert_eq!(requests.count(), 2, "{log}");
}

pub fn chromium_is_redirected_over_http2() {
    let (appliance, url) = start();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("net-log.json");
    let page = run(chromium(folder.path())
        .arg("--ignore-certificate-errors")
        .arg(format!("--log-net-log={}", log.display()))
        .args(["--net-log-capture-mode=Everything", "--dump-dom", &url]));
    assert!(page.contains("ok"), "{page}");
    let log = fs::read_to_string(log).unwrap();
    let path = url.rsplit_once("/tiny/").unwrap().1;
    assert!(
        log.contains(&format!(":path: /tiny/{path}")),
        "no request over HTTP/2 in {} bytes",
        log.len()
    );
    assert!(log.contains(":status: 301"), "no redirect over HTTP/2");
    drop(appliance);
}

pub fn h2load_gets_every_redirect() {
    let (_appliance, url) = start();
    let said = run(Command::new("h2load").args(["-n", "5000", "-c", "20", "-m", "20", &url]));
    assert!(
        said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{said}"
    );
    assert!(said.contains("5000 3xx"), "{said}");
    assert!(said.contains("Application protocol: h2"), "{said}");
}

pub fn nghttp_is_redirected() {
    let (_appliance, url) = start();
    let said = run(Command::new("nghttp").args(["--verbose", "--null-out", "--no-verify-peer", &url]));
    assert!(said.contains(":status: 301"), "{said}");
    assert!(
        said.contains("location: /api_v3/service/shortlink_shortlink/action/goto/id/"),
        "{said}"
    );
}
