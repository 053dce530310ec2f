//! Fetches of private addresses, in a network in which each address is reachable.

use crate::support::name_server::at;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, SECRET, assert_fault};
use crate::support::stage::{PUBLIC, Stage};

/// Forbidden locations; `PORT` is an allowed port.
const INSIDE: [&str; 8] = [
    "http://169.254.169.254:PORT/latest/meta-data/",
    "http://10.0.0.1:PORT/",
    "http://[fd00:ec2::254]:PORT/",
    "http://2852039166:PORT/",
    "//169.254.169.254:PORT/",
    "http://user:password@127.0.0.1:PORT/",
    "http://127.0.0.1:22/",
    "https://127.0.0.1:6379/",
];

pub fn redirect_into_the_network_is_never_followed() {
    let origin = Origin::start(|conversation| {
        let port = conversation
            .request
            .header("host")
            .rsplit(':')
            .next()
            .unwrap()
            .to_owned();
        let number: usize = conversation.path()[1..].parse().unwrap();
        let location = INSIDE[number].replace("PORT", &port);
        conversation.send(format!(
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 13\r\n\r\ninternal-word"
        ));
    });
    let passing = Proxy::to(&[&origin]);
    let following = Proxy::with(&[&origin], "follow = 3\n");
    for (number, location) in INSIDE.iter().enumerate() {
        let url = origin.url(&format!("/{number}"));
        let fetched = passing.fetch(&url);
        assert_eq!((fetched.status, fetched.text().as_str()), (302, SECRET), "{location}");
        assert!(!fetched.header("location").is_empty(), "{location}");
        println!("{location}");
        assert_fault(&following.fetch(&url), 403, "DESTINATION_FORBIDDEN");
    }
    assert_eq!(origin.connections(), 2 * INSIDE.len());
}

pub fn one_private_address_refuses_the_whole_name() {
    let stage = Stage::set("");
    for (number, addresses) in [
        &[PUBLIC, "127.0.0.1"][..],
        &["127.0.0.1", PUBLIC],
        &[PUBLIC, PUBLIC, PUBLIC, "10.0.0.1"],
        &[PUBLIC, "127.0.0.3"],
        &[PUBLIC, "0.0.0.0"],
        &[PUBLIC, "169.254.169.254"],
        &[PUBLIC, "255.255.255.255"],
        &[PUBLIC, "::1"],
        &[PUBLIC, "::"],
        &[PUBLIC, "::ffff:127.0.0.1"],
        &[PUBLIC, "::ffff:127.0.0.2"],
        &[PUBLIC, "::127.0.0.2"],
        &[PUBLIC, "64:ff9b::7f00:2"],
        &[PUBLIC, "fd00::1"],
        &[PUBLIC, "fe80::1"],
        &["127.0.0.1"],
        &["::1"],
        &["::ffff:127.0.0.2"],
        &["fd00:ec2::254"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("n{number}.example");
        stage.names.says(&name, at(addresses));
        println!("{addresses:?}");
        stage.assert_forbidden(&name);
    }
    stage.names.says("good.example", at(&[PUBLIC]));
    stage.assert_fetched("good.example");
}
