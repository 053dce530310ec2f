//! Heads of requests: what is taken for whole, a lenient parser takes for the same, and nothing that follows changes
//! it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinyd::internals::{Head, HeadLimits};

const LIMITS: HeadLimits = HeadLimits {
    head_bytes: 16 * 1024,
    target_bytes: 8 * 1024,
    headers: 64,
};

fuzz_target!(|data: &[u8]| {
    let read = Head::read(data, &LIMITS);
    let followed = Head::read(&[data, b"GET / HTTP/1.1\r\n\r\n"].concat(), &LIMITS);
    if read != Ok(Head::Partial) {
        assert_eq!(followed, read);
    }
    let Ok(Head::Whole { length, .. }) = read else { return };
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    // A target may have bytes that are no UTF-8: tinyd encodes them before hyper parses the head.
    let encoded: Vec<_> = data
        .iter()
        .map(|byte| if byte.is_ascii() { *byte } else { b'~' })
        .collect();
    let parsed = request.parse(&encoded);
    assert_eq!(parsed, Ok(httparse::Status::Complete(length)));
    let hosts = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("host"));
    let is_old = request.version == Some(0);
    assert!(hosts.count() == 1 || is_old);
});
