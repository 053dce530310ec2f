//! Memory during a download of a gigabyte.

use std::fs;

use crate::support::client::Part;
use crate::support::origin::pattern;
use crate::support::origin::{Conversation, Origin};
use crate::support::proxy::{Proxy, THIS_MACHINE, ports};

const BODY: u64 = 1024 * 1024 * 1024;
/// A prime number, so that no two pieces of the body are aligned alike.
const PERIOD: usize = 1_000_003;

/// Sends bytes that encode their position.
fn send(conversation: &mut Conversation) {
    let path = conversation.path();
    let length: u64 = path[1..].parse().unwrap();
    let part = pattern(PERIOD);
    let mut left = length;
    conversation.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
    while left > 0 {
        let length = part.len().min(usize::try_from(left).unwrap());
        if !conversation.send(&part[..length]) {
            return;
        }
        left -= length as u64;
    }
}

/// The memory of the appliance as the system reports it, in KiB.
fn memory(proxy: &Proxy, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.appliance.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn download(proxy: &Proxy, origin: &Origin, length: u64) {
    let id = proxy.link(&origin.url(&format!("/{length}")));
    let mut download = proxy.ask(&id, "GET", "");
    let expected = pattern(PERIOD);
    let mut buffer = vec![0; 256 * 1024];
    let mut place = 0;
    let mut received = 0;
    loop {
        match download.read(&mut buffer) {
            Part::Bytes(read) => {
                let mut part = &buffer[..read];
                while !part.is_empty() {
                    let same = part.len().min(PERIOD - place);
                    assert!(part[..same] == expected[place..place + same], "after {received} bytes");
                    place = (place + same) % PERIOD;
                    part = &part[same..];
                }
                received += read as u64;
            }
            Part::End => break,
            Part::CutOff => panic!("after {received} bytes"),
        }
    }
    assert_eq!(received, length);
}

#[test]
fn gigabyte_needs_no_more_memory_than_a_page() {
    /// A fetch has buffers of some hundred kilobytes; everything else grows by half a megabyte.
    const MOST_KIB: u64 = 8 * 1024;
    let origin = Origin::start(send);
    let settings = format!("{THIS_MACHINE}{}max_bytes = {BODY}\n", ports(&[&origin]));
    let proxy = Proxy::start(&settings);
    // Allocations that happen once happen now.
    download(&proxy, &origin, 1_000_000);
    let before = memory(&proxy, "VmHWM");
    download(&proxy, &origin, BODY);
    let (most, now) = (memory(&proxy, "VmHWM"), memory(&proxy, "VmRSS"));
    println!("KiB: {before} before, at most {most}, {now} in the end");
    assert!(most < before + MOST_KIB, "{before} KiB became {most}");
}
