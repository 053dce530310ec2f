//! A thousand slow clients: timeouts disconnect them, and other clients are not affected.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::connections::{address, connect_with_little_room, goto, refused};
use crate::support::fixture::Appliance;
use crate::support::scrape::Scrape;
use crate::support::slow::{CLIENTS, IMPATIENT, LONG_DESTINATION_BYTES, beside_redirects};

#[test]
fn thousand_trickling_heads_fail_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let target = address(&appliance.public);
    let slow = || {
        let connect = |_| {
            let mut stream = TcpStream::connect(target).unwrap();
            stream
                .write_all(b"GET /tiny/zzzzzzzz HTTP/1.1\r\nHost: a\r\nX: ")
                .unwrap();
            stream
        };
        (0..CLIENTS).map(connect).collect::<Vec<_>>()
    };
    // No message ever arrives: the timeout of the channel paces the clients.
    let (_sender, second) = mpsc::channel::<()>();
    let is_over = |clients: &mut Vec<TcpStream>| {
        let _ = second.recv_timeout(Duration::from_secs(1));
        // Writing to a closed connection fails.
        clients.retain_mut(|stream| stream.write(b"x").is_ok());
        clients.is_empty()
    };
    let refused = beside_redirects(&appliance, slow, is_over, &[("public", "head_timeout")]);
    assert_eq!(refused, [CLIENTS as f64]);
}

#[test]
fn thousand_clients_that_stop_reading_fail_no_redirect() {
    let appliance = Appliance::start_with(IMPATIENT);
    let long = format!("https://example.com/{}", "x".repeat(LONG_DESTINATION_BYTES));
    let id = appliance.add(&appliance.admin_ks(), &[("shortLink[fullUrl]", &long)]);
    let requests = goto(&id).repeat(200);
    let target = address(&appliance.public);
    let slow = || {
        let connect = |_| {
            let mut stream = connect_with_little_room(target);
            stream.write_all(requests.as_bytes()).unwrap();
            stream
        };
        (0..CLIENTS).map(connect).collect::<Vec<_>>()
    };
    let of_slow = |appliance: &Appliance| refused(&Scrape::of(appliance), "public", "write_timeout");
    let is_over = |_: &mut Vec<TcpStream>| of_slow(&appliance) >= CLIENTS as f64;
    let reasons = [("public", "write_timeout"), ("public", "idle_timeout")];
    assert_eq!(
        beside_redirects(&appliance, slow, is_over, &reasons),
        [CLIENTS as f64, 0.0]
    );
}
