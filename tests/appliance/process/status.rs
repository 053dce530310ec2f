//! `tinyd status` and `/status`: health, problems, traffic.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use crate::support::fixture::{
    ADMIN_SECRET, Appliance, PARTNER, configuration_with_operator, folder, poll, serve, tinyd,
};
use crate::support::http::request;
use crate::support::status::{line, shown, status};

#[test]
fn status_of_a_healthy_server_fits_one_screen() {
    let mut appliance = Appliance::start_with_operator();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    appliance.add(&ks, &[("shortLink[status]", "1")]);
    for _ in 0..20 {
        appliance.goto(&id);
    }
    appliance.goto("zzzzzzzz");
    appliance.link("get", "djJ8nonsense", &[("id", &id)]);

    let said = status(&appliance);
    assert_eq!(
        (&said["healthy"], &said["problems"]),
        (&true.into(), &Value::Array(vec![]))
    );
    assert_eq!(said["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(said["redirects"]["outcomes"]["found"], 20);
    assert!(said["redirects"]["perSecond"]["start"].as_f64().unwrap() > 0.0);
    // The uptime is shorter than the interval.
    assert_eq!(
        said["redirects"]["perSecond"]["minute"],
        said["redirects"]["perSecond"]["start"]
    );
    assert_eq!(
        (&said["links"]["enabled"], &said["links"]["disabled"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        (
            &said["store"]["commitDurations"]["count"],
            &said["store"]["acceptingWrites"]
        ),
        (&2.into(), &true.into())
    );
    assert_eq!(said["api"]["refused"]["start"], 1);
    assert_eq!(said["store"]["lastBackup"], Value::Null);

    let output = appliance.tinyd(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let healthy = format!(
        "healthy: tinyd {} at {}, up ",
        env!("CARGO_PKG_VERSION"),
        appliance.admin
    );
    assert!(shown(&output).starts_with(&healthy), "{}", shown(&output));
    assert!(shown(&output).contains("found 20, unknown 1"), "{}", shown(&output));
    assert!(line(&output, "hint").contains("no backup has been taken"));
    assert!(line(&output, "links").starts_with("1 enabled, 1 disabled, 0 deleted; 2 in memory"));
    assert_eq!(line(&output, "last backup"), "never");
    assert!(
        shown(&output).lines().count() <= 24,
        "more than a screen:\n{}",
        shown(&output)
    );
    assert!(
        shown(&output).lines().all(|line| line.chars().count() <= 100),
        "{}",
        shown(&output)
    );

    let copy = appliance.folder.path().join("backup.redb");
    assert!(appliance.tinyd(&["backup", copy.to_str().unwrap()]).status.success());
    // The server may notice the end of the download after the client.
    poll("a backup", || status(&appliance)["store"]["lastBackup"].is_i64());
    let at = status(&appliance)["store"]["lastBackup"].clone();
    assert!(appliance.terminate().success());
    appliance.restart();
    assert_eq!(status(&appliance)["store"]["lastBackup"], at);
    let output = appliance.tinyd(&["status"]);
    assert!(!shown(&output).contains("hint") && line(&output, "last backup").starts_with("20"));
}

#[test]
fn aborted_backup_download_does_not_count() {
    let appliance = Appliance::start_with_operator();
    let ks = appliance.admin_ks();
    // More than the socket buffers hold.
    let url = format!("https://example.com/{}", "x".repeat(8_000));
    for _ in 0..700 {
        appliance.add(&ks, &[("shortLink[fullUrl]", &url)]);
    }
    let host = appliance.admin.strip_prefix("http://").unwrap();
    let target = format!("/api_v3/service/tinyd/action/backup?ks={ks}");
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 1_000]).unwrap();
    drop(stream);
    appliance.wait_for_log("client did not take a stream");
    assert_eq!(status(&appliance)["store"]["lastBackup"], Value::Null);
}

#[test]
fn status_shows_fetches_and_their_limit_once_used() {
    let destination = TcpListener::bind("127.0.0.1:0").unwrap();
    destination.set_nonblocking(true).unwrap();
    let port = destination.local_addr().unwrap().port();
    let appliance = Appliance::start_with(&format!(
        "[fetch]\nallow = \"127.0.0.1\"\nports = {port}\nmax_fetches = 1\n"
    ));
    let url = format!("http://127.0.0.1:{port}/");
    let id = appliance.add(&appliance.admin_ks(), &[("shortLink[fullUrl]", &url)]);
    let screen = |appliance: &Appliance| shown(&appliance.tinyd(&["status"])).to_owned();
    assert!(!screen(&appliance).contains("fetches"));

    let target = format!("/api_v3/service/shortlink_shortlink/action/goto/id/{id}/proxy/true");
    thread::scope(|scope| {
        let client = scope.spawn(|| appliance.get_public(&target));
        let mut asked = None;
        poll("a fetch", || {
            asked = destination.accept().ok();
            asked.is_some()
        });
        let (mut asked, _) = asked.unwrap();
        // The upstream has the request and does not respond yet.
        assert_eq!(status(&appliance)["fetches"]["open"], 1);
        assert_eq!(appliance.get_public(&target).status, 503);
        asked.read(&mut [0; 1_000]).map(drop).unwrap();
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\nConnection: close\r\n\r\ncontent";
        asked.write_all(answer).unwrap();
        assert_eq!(client.join().unwrap().text(), "content");
    });
    poll("the end of the fetch", || status(&appliance)["fetches"]["open"] == 0);
    let fetches = &status(&appliance)["fetches"];
    assert_eq!(
        (
            &fetches["outcomes"]["complete"],
            &fetches["outcomes"]["busy"],
            &fetches["bytes"]
        ),
        (&1.into(), &1.into(), &7.into())
    );
    assert_eq!(fetches["busy"]["minutes"], 1);
    let output = appliance.tinyd(&["status"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        line(&output, "hint").starts_with("1 fetches were refused"),
        "{}",
        shown(&output)
    );
    assert!(line(&output, "fetches").starts_with("0 open, ended "));
    assert!(shown(&output).contains("busy 1, complete 1; 7 bytes passed on"));
    assert!(shown(&output).lines().count() <= 24, "{}", shown(&output));
    assert!(
        shown(&output).lines().all(|line| line.chars().count() <= 100),
        "{}",
        shown(&output)
    );
    let scrape = crate::support::scrape::Scrape::of(&appliance);
    assert_eq!(
        (
            scrape.get("tinyd_fetches_total{outcome=\"complete\"}"),
            scrape.get("tinyd_fetches_total{outcome=\"busy\"}"),
            scrape.get("tinyd_fetched_bytes_total")
        ),
        (1.0, 1.0, 7.0)
    );
}

#[test]
fn status_json_needs_no_configuration() {
    let appliance = Appliance::start();
    let mut command = tinyd();
    command
        .args(["status", "--json", "--url", &appliance.admin])
        .current_dir(&appliance.folder);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["healthy"], true);
    for word in [ADMIN_SECRET, PARTNER, "127.0.0.1"] {
        assert!(!shown(&output).contains(word), "{word}: {}", shown(&output));
    }
}

#[test]
fn read_only_server_is_healthy() {
    let mut appliance = Appliance::start();
    appliance.add(&appliance.admin_ks(), &[]);
    assert!(appliance.terminate().success());
    let folder = folder(&configuration_with_operator());
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::copy(appliance.store(), folder.path().join("data/links.redb")).unwrap();
    let mut command = serve();
    command.arg("--read-only");
    let reading = Appliance::start_by(command, folder);
    let said = status(&reading);
    assert_eq!(
        (&said["healthy"], &said["store"]["readOnly"]),
        (&true.into(), &true.into())
    );
    assert_eq!(said["links"]["enabled"], 1);
    let scrape = crate::support::scrape::Scrape::of(&reading);
    assert_eq!(
        (
            scrape.get("tinyd_store_accepting_writes"),
            scrape.get("tinyd_store_read_only")
        ),
        (0.0, 1.0)
    );
    let output = reading.tinyd(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(line(&output, "store").starts_with("read-only"));
}

#[test]
fn status_is_served_on_the_admin_listener_only() {
    let mut appliance = Appliance::start();
    assert_eq!(request(&appliance.admin, "HEAD", "/status", &[], b"").status, 200);
    let refused = request(&appliance.admin, "POST", "/status", &[], b"");
    assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD, OPTIONS"));
    assert_eq!(appliance.get_public("/status").status, 404);
    let wrong = appliance.tinyd(&["status", "--url", &appliance.public]);
    assert_eq!(wrong.status.code(), Some(6));
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("is it the admin listener?"),
        "{wrong:?}"
    );
    assert!(appliance.terminate().success());
    let gone = appliance.tinyd(&["status"]);
    assert_eq!((gone.status.code(), shown(&gone)), (Some(6), ""));
    assert!(
        String::from_utf8_lossy(&gone.stderr).contains("cannot reach tinyd at"),
        "{gone:?}"
    );
}
