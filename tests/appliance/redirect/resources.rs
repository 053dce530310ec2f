//! HTTP rules for every resource: HEAD is GET without the body, each response has a date, OPTIONS and 405 name the
//! allowed methods.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::fixture::Appliance;
use crate::support::http::encode;

const ACTION: &str = "/api_v3/service/shortlink_shortlink/action";
const READ: &str = "GET, HEAD, OPTIONS";
const CALL: &str = "POST, GET, HEAD, OPTIONS";

/// The head of a response as sent, and all bytes after it until the server closed.
fn ask(base: &str, method: &str, target: &str, more: &str) -> (String, Vec<u8>) {
    let host = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    let end = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    (head, received.split_off(end + 4))
}

fn status(head: &str) -> u16 {
    head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap()
}

/// The header lines by name, without the values that change each second; a date is required.
fn headers(head: &str) -> BTreeMap<String, String> {
    let lines = head.split("\r\n").skip(1);
    let mut headers: BTreeMap<_, _> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect();
    assert_eq!(
        head.split("\r\n").count() - 1,
        headers.len(),
        "a header comes twice: {head}"
    );
    let date = headers.insert("date".to_owned(), String::new());
    let date = date.unwrap_or_else(|| panic!("no date: {head}"));
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{head}");
    headers
}

#[test]
fn head_is_get_without_a_body() {
    let hopping = Appliance::start();
    let direct = Appliance::start_with("[public]\ntiny = \"direct\"\n");
    for appliance in [&hopping, &direct] {
        let ks = appliance.admin_ks();
        let ids = [
            appliance.add(&ks, &[]),
            appliance.add(&ks, &[("shortLink[status]", "1")]),
            appliance.add(&ks, &[("shortLink[status]", "3")]),
            appliance.add(&ks, &[("shortLink[expiresAt]", "1000")]),
            appliance.add(&ks, &[("shortLink[startsAt]", "4000000000")]),
            "zzzzzzzz".to_owned(),
            "not-an-id".to_owned(),
        ];
        let mut of_both: Vec<_> = ["/robots.txt", "/nothing", "/", "/healthz", "/readyz"]
            .map(str::to_owned)
            .to_vec();
        for id in &ids {
            of_both.push(format!("/tiny/{id}"));
            of_both.push(format!("{ACTION}/goto/id/{id}"));
            of_both.push(format!(
                "/api_v3/?service=shortlink_shortlink&action=goto&id={id}&format=1"
            ));
        }
        of_both.push(format!("{ACTION}/goto"));
        let of_api =
            ["1", "3", "9&callback=f"].map(|format| format!("{ACTION}/list?format={format}&ks={}", encode(&ks)));
        let exceptions = [
            format!("{ACTION}/list?format=1&ks=djJ8nonsense"),
            "/api_v3/?format=1".to_owned(),
            "/api_v3/?format=77".to_owned(),
        ];
        for (base, targets) in [
            (&appliance.public, [&of_both[..], &of_api].concat()),
            (&appliance.admin, [&of_both[..], &of_api, &exceptions].concat()),
        ] {
            for target in &targets {
                // The last header keeps the request off the fast path.
                for more in ["", "Accept: text/html\r\n", "Upgrade: other\r\n"] {
                    let (head, body) = ask(base, "GET", target, more);
                    let (head_of_head, nothing) = ask(base, "HEAD", target, more);
                    assert!(nothing.is_empty(), "{target}: {nothing:?}");
                    assert_eq!(status(&head), status(&head_of_head), "{target}");
                    let (headers, of_head) = (headers(&head), headers(&head_of_head));
                    assert_eq!(headers, of_head, "{base}{target} {more}");
                    assert_eq!(headers["content-length"], body.len().to_string(), "{target}");
                }
            }
        }
        // The numbers of the metrics change between requests, and so may the length.
        let (head, body) = ask(&appliance.admin, "HEAD", "/metrics", "");
        let names = |head: &str| headers(head).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&head), names(&ask(&appliance.admin, "GET", "/metrics", "").0));
        assert!(body.is_empty());
    }
}

#[test]
fn unsupported_method_is_answered_with_allow() {
    let appliance = Appliance::start();
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let goto = format!("{ACTION}/goto/id/{id}");
    let list = format!("{ACTION}/list");
    let tiny = format!("/tiny/{id}");
    let (public, admin) = (&appliance.public, &appliance.admin);
    let mut cases = vec![
        (admin, "/healthz", READ),
        (admin, "/readyz", READ),
        (admin, "/metrics", READ),
    ];
    for base in [public, admin] {
        let of_both = [
            (tiny.as_str(), READ),
            ("/tiny/zzzzzzzz", READ),
            ("/tiny/not-an-id", READ),
            ("/robots.txt", READ),
            (goto.as_str(), CALL),
            (list.as_str(), CALL),
            ("/api_v3/", CALL),
        ];
        cases.extend(of_both.map(|(target, allowed)| (base, target, allowed)));
    }
    for (base, target, allowed) in cases {
        let mut methods = vec!["PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"];
        if allowed == READ {
            methods.push("POST");
        }
        for method in methods {
            let (head, body) = ask(base, method, target, "");
            let headers = headers(&head);
            assert_eq!(
                (status(&head), headers["allow"].as_str()),
                (405, allowed),
                "{method} {base}{target}"
            );
            assert_eq!(headers["content-length"], body.len().to_string());
        }
        let (head, body) = ask(base, "OPTIONS", target, "");
        let headers = headers(&head);
        assert_eq!(
            (status(&head), headers["allow"].as_str()),
            (204, allowed),
            "OPTIONS {base}{target}"
        );
        // RFC 9110, section 8.6: a 204 has no Content-Length.
        assert!(body.is_empty() && !headers.contains_key("content-length"), "{head}");
    }
}

#[test]
fn options_work_for_the_server_and_unknown_paths() {
    let appliance = Appliance::start();
    for base in [&appliance.public, &appliance.admin] {
        let (head, _) = ask(base, "OPTIONS", "*", "");
        assert_eq!((status(&head), headers(&head)["allow"].as_str()), (204, CALL));
        let (head, _) = ask(base, "OPTIONS", "/nothing", "");
        assert_eq!(status(&head), 404);
        headers(&head);
    }
}

#[test]
fn rejected_malformed_request_gets_a_date() {
    let appliance = Appliance::start();
    for base in [&appliance.public, &appliance.admin] {
        let long = format!("/{}", "x".repeat(60_000));
        for (method, target, more, expected) in [
            ("GET", "/../x", "", 400),
            ("GET", "*", "", 400),
            ("GET", "/", "Host: b\r\n", 400),
            ("GET", "/", "Transfer-Encoding: gzip\r\n", 501),
            ("GET", "/", "Expect: wonders\r\n", 417),
            ("GET", long.as_str(), "", 414),
        ] {
            let (head, body) = ask(base, method, target, more);
            assert_eq!(status(&head), expected, "{head}");
            assert_eq!(headers(&head)["content-length"], body.len().to_string());
        }
    }
}
