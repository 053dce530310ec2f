//! Entrance for the fuzzer, which reaches public items only: what browsers and strangers send to the console.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use hyper::Request;
use hyper::header::{COOKIE, HOST, HeaderMap, HeaderValue, ORIGIN};
use url::Url;

use crate::access::Grant;
use crate::console::cookie::{CookieKey, SignInMethod, SignedIn};
use crate::console::links::fuzz_filter;
use crate::console::playback::{Player, parse_time, show_time};
use crate::console::request::{ConsoleRequest, Fields};
use crate::console::view::{input_date, input_value, parse_date, parse_input, plain, time_of_link};
use crate::kaltura::session::Kind;
use crate::model::{PartnerId, Timestamp};

static KEY: LazyLock<CookieKey> = LazyLock::new(CookieKey::temporary);

/// Feeds the parser that the first byte chooses.
pub fn fuzz_console(data: &[u8]) {
    let Some((&parser, data)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(data);
    match parser % 4 {
        0 => fuzz_filter(&Fields::parse(data), &signed_in("anna")),
        1 => cookies(data, &text),
        2 => request(&text),
        _ => texts(&text),
    }
}

fn signed_in(user: &str) -> SignedIn {
    let grant = Grant {
        partner: PartnerId(7),
        user: user.to_owned(),
        kind: Kind::Admin,
    };
    SignedIn::begin(grant, SignInMethod::Local, Timestamp::from_unix(1_800_000_000))
}

/// Nobody makes a cookie without the key; one that the key has made says what it was made of.
fn cookies(data: &[u8], text: &str) {
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let headers = HeaderMap::from_iter([(COOKIE, value)]);
        assert!(
            [true, false]
                .iter()
                .all(|is_secure| KEY.find(&headers, *is_secure).is_none())
        );
    }
    let before = signed_in(text);
    for is_secure in [true, false] {
        let Some(cookie) = KEY.set_cookie(&before, is_secure) else {
            continue;
        };
        let found = KEY.find(&HeaderMap::from_iter([(COOKIE, cookie)]), is_secure);
        let is_same = |found: &SignedIn| found.user == before.user && found.session.digest == before.session.digest;
        assert!(found.is_some_and(|found| is_same(&found)), "{text:?}");
    }
    assert!(!KEY.is_form_token(&before, text));
}

/// Host, origin and target, one a line.
fn request(text: &str) {
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (host, origin, target) = (line(), line(), line());
    let built = Request::builder()
        .uri(target)
        .header(HOST, host)
        .header(ORIGIN, origin)
        .body(());
    let Ok(built) = built else { return };
    let own = Url::parse("https://links.example.com/console").ok();
    let path = built.uri().path();
    let request = ConsoleRequest::new(&built, path, IpAddr::V4(Ipv4Addr::LOCALHOST), own.as_ref());
    assert!(request.path_parts().iter().all(|part| !part.is_empty()));
    // What leads nowhere but here is an address, or a name of this machine.
    if request.check_host(None).is_ok() {
        let of_host = Url::parse(&format!("http://{}/", request.host));
        let domain = of_host.as_ref().ok().and_then(Url::domain);
        assert!(
            domain.is_none_or(|name| name == "localhost" || name.ends_with(".localhost")),
            "{host:?}"
        );
    }
    // Nobody writes from elsewhere.
    if request.check_origin(own.as_ref()).is_ok() {
        let host_of = |url: &str| Url::parse(url).ok()?.host_str().map(str::to_owned);
        let from = host_of(origin);
        let is_own = from.is_some() && from == host_of(&format!("http://{}/", request.host));
        assert!(
            is_own || from.as_deref() == Some("links.example.com"),
            "{origin:?} at {host:?}"
        );
    }
}

/// What is read can be shown and read again.
fn texts(text: &str) {
    if let Some(time) = parse_input(text).and_then(time_of_link) {
        let shown = input_value(Some(time));
        let again = parse_input(&shown);
        // Without the seconds, which the input does not show.
        let minute = time.as_unix() / 60 * 60;
        assert_eq!(again, Some(Timestamp::from_unix(minute)), "{text:?}, {shown}");
    }
    if let Some(day) = parse_date(text) {
        let shown = input_date(Some(day));
        assert_eq!(parse_date(&shown), Some(day), "{text:?}, {shown}");
    }
    if let Some(seconds) = parse_time(text).filter(|seconds| *seconds < 1_000_000) {
        assert_eq!(parse_time(&show_time(seconds)), Some(seconds), "{text:?}");
    }
    if let Some(player) = Player::of(text) {
        let with_times = player.with_times(text, 90, Some(165));
        assert_eq!(with_times.as_deref().and_then(Player::of), Some(player), "{text:?}");
    }
    assert_eq!(plain(&plain(text)), plain(text));
}
