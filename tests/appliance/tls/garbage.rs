//! Bytes that are no handshake, handshakes that never end, and bytes after a handshake's beginning.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::certificates::Authority;
use crate::support::connections::open_connections;
use crate::support::fixture::{Appliance, poll};
use crate::support::http::connect;
use crate::support::scrape::refusals;
use crate::support::tls::{Client, hello, settings, start_with};

/// The length of the log, once the start has logged all that it does.
fn quiet(appliance: &Appliance) -> usize {
    appliance.wait_for_log("nothing to verify");
    appliance.log().len()
}

/// The lines since a position of the log that are not of the level trace.
fn said_since(appliance: &Appliance, position: usize) -> Vec<String> {
    let log = appliance.log();
    let lines = log[position..].lines().filter(|line| !line.contains(" TRACE "));
    lines.map(str::to_owned).collect()
}

/// Sends bytes, and reads until the server closes.
fn send(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    // The kernel may have reset the connection.
    let _ = stream.read_to_end(&mut received);
    received
}

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 1][..], &length, payload].concat()
}

/// Records of a handshake message of this type that claims to be so long.
fn handshake(kind: u8, claimed: usize, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(claimed).unwrap().to_be_bytes();
    let message = [&[kind], &length[1..], payload].concat();
    message.chunks(16_384).flat_map(|part| record(22, part)).collect()
}

#[test]
fn garbage_is_refused_counted_and_not_logged() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    let hello = hello(&client);
    let mut truncated = hello.clone();
    truncated.truncate(hello.len() / 2);
    truncated.extend(record(23, b"data in the middle of a hello"));
    let garbage = [
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80".to_vec(),
        b"\0\0\0\0\0\0\0\0".to_vec(),
        b"\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"get / http/1.1\r\n\r\n".to_vec(),
        b"SSH-2.0-x".map(|byte| byte.to_ascii_lowercase()).to_vec(),
        record(21, &[2, 40]),
        record(21, &[1, 0]),
        record(23, b"application data"),
        record(20, &[1]),
        record(22, &[]),
        // Longer than a record may be.
        [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat(),
        handshake(1, 65_535, &[0x5a; 65_535]),
        handshake(1, 0x00ff_ffff, &[0x5a; 1_000]),
        // A server's hello, and the end of a handshake.
        handshake(2, 100, &[3; 100]),
        handshake(20, 12, &[7; 12]),
        truncated,
        [&hello[..], &hello[..]].concat(),
        [&hello[..], &record(22, &[1, 2, 3, 4, 5, 6, 7])].concat(),
    ];
    let before = quiet(&appliance);
    for (listener, address) in [("public", &appliance.public_tls), ("admin", &appliance.admin_tls)] {
        for (number, bytes) in garbage.iter().enumerate() {
            let answer = send(address, bytes);
            // Nothing but records of TLS.
            assert!(
                answer.is_empty() || [21, 22].contains(&answer[0]),
                "{number}: {}",
                answer.escape_ascii()
            );
            let times = number as u64 + 1;
            poll("it is counted", || {
                refusals(&appliance, listener, "tls_handshake") >= times
            });
            assert_eq!(refusals(&appliance, listener, "tls_handshake"), times, "{number}");
        }
        assert_eq!(client.get(address, "/robots.txt").status, 200, "{listener}");
    }
    assert_eq!(said_since(&appliance, before), [""; 0]);
}

#[test]
fn clients_that_leave_a_handshake_are_forgotten() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings("handshake_timeout_seconds = 3600"));
    let hello = hello(&Client::new(&authority));
    let before = quiet(&appliance);
    let close = |stream: TcpStream| stream.shutdown(Shutdown::Write).unwrap();
    let reset = |stream: TcpStream| {
        socket2::SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    };
    for bytes in [&[][..], &hello[..1], &hello[..5], &hello[..100], &hello] {
        for leave in [&close as &dyn Fn(TcpStream), &reset] {
            let mut stream = connect(&appliance.public_tls);
            stream.write_all(bytes).unwrap();
            leave(stream);
        }
    }
    poll("none is left", || open_connections(&appliance) == 0.0);
    assert_eq!(said_since(&appliance, before), [""; 0]);
    assert_eq!(refusals(&appliance, "public", "tls_timeout"), 0);
}

#[test]
fn hello_in_pieces_and_a_long_one_are_understood() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let mut client = Client::new(&authority);
    let short = hello(&client).len();
    for is_long in [false, true] {
        if is_long {
            // Just below the 64 KiB that a hello may have.
            let names = (0..240).map(|number: u8| vec![number; 255]);
            client.config.alpn_protocols = names.chain([b"http/1.1".to_vec()]).collect();
        }
        let mut connection = client.open(&appliance.public_tls);
        let mut bytes = Vec::new();
        connection.stream.conn.write_tls(&mut bytes).unwrap();
        while connection.stream.conn.wants_write() {
            connection.stream.conn.write_tls(&mut bytes).unwrap();
        }
        assert!(if is_long {
            bytes.len() > 60_000
        } else {
            bytes.len() == short
        });
        connection.stream.sock.set_nodelay(true).unwrap();
        for piece in bytes.chunks(if is_long { 1_000 } else { 1 }) {
            connection.stream.sock.write_all(piece).unwrap();
        }
        assert_eq!(connection.get("/robots.txt", "").unwrap().status, 200);
    }
}

/// A client's messages, changed in places, and bytes after them.
fn sent() -> impl Strategy<Value = (Vec<(usize, u8)>, Vec<u8>)> {
    let change = (any::<usize>(), any::<u8>());
    (
        proptest::collection::vec(change, 0..3),
        proptest::collection::vec(any::<u8>(), 0..2_000),
    )
}

#[test]
fn no_bytes_after_a_hello_make_it_panic() {
    let authority = Authority::new();
    let appliance = start_with(&authority, &settings(""));
    let client = Client::new(&authority);
    let hello = hello(&client);
    let before = quiet(&appliance);
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let run = runner.run(&sent(), |(changes, rest)| {
        let mut bytes = hello.clone();
        for (place, byte) in changes {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        let mut stream = connect(&appliance.public_tls);
        let _ = stream.write_all(&[bytes, rest].concat());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        Ok(())
    });
    run.unwrap();
    // The same below a connection that is secured.
    let mut runner = TestRunner::new(Config {
        cases: 100,
        failure_persistence: None,
        ..Config::default()
    });
    let run = runner.run(&proptest::collection::vec(any::<u8>(), 1..2_000), |bytes| {
        for is_record in [false, true] {
            let mut connection = client.open(&appliance.public_tls);
            prop_assert_eq!(connection.get("/robots.txt", "").unwrap().status, 200);
            let below = if is_record { record(23, &bytes) } else { bytes.clone() };
            let _ = connection.stream.sock.write_all(&below);
            let _ = connection.stream.sock.shutdown(Shutdown::Write);
            prop_assert!(connection.stream.read(&mut [0]).is_err());
        }
        Ok(())
    });
    run.unwrap();
    assert_eq!(client.get(&appliance.public_tls, "/robots.txt").status, 200);
    // A panic would be an error in the log.
    assert_eq!(said_since(&appliance, before), [""; 0]);
}
