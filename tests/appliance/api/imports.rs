//! Imports over HTTP: authentication and concurrent uploads.

use crate::support::fixture::{Appliance, poll};
use crate::support::http::request;
use crate::support::wire::Connection;

const TARGET: &str = "/api_v3/service/tinyd/action/import?format=1";
const HEADER: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=x");

fn part(name: &str, value: &str) -> String {
    format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

/// Starts an import with these fields and leaves the last one unfinished.
fn begin(appliance: &Appliance, fields: &[(&str, &str)]) -> Connection {
    let mut connection = Connection::open(&appliance.admin);
    let parts: String = fields.iter().map(|(name, value)| part(name, value)).collect();
    let head = format!(
        "POST {TARGET} HTTP/1.1\r\nHost: tinyd\r\n{}: {}\r\nContent-Length: 100000\r\n\r\n{parts}",
        HEADER.0, HEADER.1
    );
    connection.send(head.as_bytes());
    connection
}

/// Imports an empty file.
fn import(appliance: &Appliance, ks: &str) -> (u16, String) {
    let body = format!("{}{}--x--\r\n", part("ks", ks), part("file", ""));
    let answer = request(&appliance.admin, "POST", TARGET, &[HEADER], body.as_bytes());
    (answer.status, answer.text().to_owned())
}

#[test]
fn import_without_a_session_blocks_no_other_import() {
    let appliance = Appliance::start();
    let fields: &[&[(&str, &str)]] = &[&[], &[("ks", "nonsense")], &[("dryRun", "1")]];
    let _open: Vec<_> = (0..30).map(|number| begin(&appliance, fields[number % 3])).collect();
    let (status, text) = import(&appliance, &appliance.admin_ks());
    assert_eq!(status, 200);
    assert!(text.contains("\"applied\":true"), "{text}");
}

#[test]
fn slow_imports_of_one_partner_block_no_other_partner() {
    let mut appliance = Appliance::start_with_operator();
    let (own, other) = (appliance.admin_ks(), appliance.other_partners_ks());
    let mut slow = Vec::new();
    // Starts one more each time: an earlier import may hold the slot.
    poll("the partner has no place left", || {
        slow.push(begin(&appliance, &[("ks", &own), ("file", "not all of it")]));
        import(&appliance, &own).0 == 503
    });
    let (status, text) = import(&appliance, &other);
    assert!(status == 200 && text.contains("\"applied\":true"), "{status} {text}");
    drop(slow);
    poll("the places are free again", || import(&appliance, &own).0 == 200);
    assert!(appliance.terminate().success());
}
