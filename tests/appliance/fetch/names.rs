//! Name resolution: each address is checked, the checked address is connected to, and each name is resolved once.

use hickory_proto::rr::RecordType;

use crate::support::fixture::poll;
use crate::support::name_server::{Says, at, at_for, parse};
use crate::support::proxy::assert_fault;
use crate::support::stage::{PUBLIC, Stage};

fn questions(name: &str) -> Vec<(String, RecordType)> {
    [RecordType::A, RecordType::AAAA]
        .map(|kind| (name.to_owned(), kind))
        .to_vec()
}

#[test]
fn name_rebound_to_a_private_address_is_refused() {
    let stage = Stage::set("");
    stage.names.says("rebinding.example", at(&[PUBLIC]));
    stage.assert_fetched("rebinding.example");
    stage.names.says("rebinding.example", at(&["127.0.0.1"]));
    stage.assert_forbidden("rebinding.example");
    stage.names.says("rebinding.example", at(&[PUBLIC]));
    stage.assert_fetched("rebinding.example");
}

#[test]
fn fetch_connects_to_the_checked_address() {
    let stage = Stage::set("");
    stage.names.take_questions();
    // A second query within a fetch would get another address.
    for number in 0..20 {
        let name = format!("flip{number}.example");
        stage.names.says(&name, at(&[PUBLIC]));
        stage.names.says_after(2, &name, at(&["127.0.0.1"]));
        stage.assert_fetched(&name);
        assert_eq!(stage.names.take_questions(), questions(&name));
    }
    stage.assert_private();
}

#[test]
fn name_rebound_between_redirects_is_refused() {
    let stage = Stage::set("follow = 3\n");
    stage.names.says("rebinding.example", at(&[PUBLIC]));
    stage.names.says_after(2, "rebinding.example", at(&["127.0.0.1"]));
    let url = stage.public.url_by("rebinding.example", "/to-rebinding");
    assert_fault(&stage.proxy.fetch(&url), 403, "DESTINATION_FORBIDDEN");
    assert_eq!(stage.public.connections(), 1);
    stage.assert_private();
}

#[test]
fn private_address_among_many_is_refused() {
    let stage = Stage::set("");
    let mut addresses = vec![PUBLIC; 60];
    addresses.push("127.0.0.1");
    stage.names.says("many.example", at(&addresses));
    stage.assert_forbidden("many.example");
    // Too long for a datagram.
    stage.names.says("long.example", Says::LongAddresses(parse(&addresses)));
    stage.assert_forbidden("long.example");
    stage.names.says("long.example", Says::LongAddresses(parse(&[PUBLIC])));
    stage.assert_fetched("long.example");
}

#[test]
fn aliases_are_resolved_to_their_addresses() {
    let stage = Stage::set("");
    stage.names.says("good.example", at(&[PUBLIC]));
    stage.names.says("internal.example", at(&["127.0.0.1"]));
    stage
        .names
        .says("to-good.example", Says::Alias("good.example".to_owned()));
    stage
        .names
        .says("to-internal.example", Says::Alias("internal.example".to_owned()));
    stage
        .names
        .says("twice.example", Says::Alias("to-internal.example".to_owned()));
    stage
        .names
        .says("to-localhost.example", Says::Alias("localhost".to_owned()));
    stage.names.says("localhost", at(&["127.0.0.1"]));
    stage.assert_fetched("to-good.example");
    for name in ["to-internal.example", "twice.example", "to-localhost.example"] {
        stage.assert_forbidden(name);
    }
    stage.names.says("loop.example", Says::Alias("loop.example".to_owned()));
    let fetched = stage.fetch("loop.example");
    match fetched.status {
        504 => assert_fault(&fetched, 504, "DESTINATION_TIMEOUT"),
        _ => assert_fault(&fetched, 502, "DESTINATION_UNREACHABLE"),
    }
    stage.assert_private();
}

#[test]
fn fetch_resolves_once_and_caches_for_the_ttl() {
    let stage = Stage::set("");
    stage.names.says("kept.example", at_for(&[PUBLIC], 60));
    stage.names.says("forgotten.example", at(&[PUBLIC]));
    stage.names.take_questions();
    stage.assert_fetched("kept.example");
    assert_eq!(stage.names.take_questions(), questions("kept.example"));
    for _ in 0..3 {
        stage.assert_fetched("kept.example");
    }
    assert_eq!(stage.names.take_questions(), []);
    for _ in 0..3 {
        stage.assert_fetched("forgotten.example");
        assert_eq!(stage.names.take_questions(), questions("forgotten.example"));
    }
    // Cached addresses are checked too.
    stage.names.says("bad.example", at_for(&[PUBLIC, "127.0.0.1"], 60));
    for _ in 0..3 {
        stage.assert_forbidden("bad.example");
    }
    assert_eq!(stage.names.take_questions(), questions("bad.example"));
}

#[test]
fn unresolvable_name_is_502() {
    let stage = Stage::set("");
    stage.names.says("nothing.example", Says::Nothing);
    stage.names.says("failing.example", Says::Failure);
    stage.names.says("empty.example", at(&[]));
    for name in ["nothing.example", "failing.example", "empty.example", "unknown.example"] {
        assert_fault(&stage.fetch(name), 502, "DESTINATION_UNREACHABLE");
        stage.proxy.assert_redirects();
    }
    // They are fetched once they resolve.
    stage.names.says("failing.example", at(&[PUBLIC]));
    stage.assert_fetched("failing.example");
}

#[test]
fn silent_resolver_times_out() {
    let stage = Stage::set("connect_timeout_seconds = 1\n");
    stage.names.says("silent.example", Says::Silence);
    assert_fault(&stage.fetch("silent.example"), 504, "DESTINATION_TIMEOUT");
    stage.proxy.assert_redirects();
    stage.names.says("silent.example", at(&[PUBLIC]));
    // A TTL of one second is short on a busy machine.
    poll("it is heard", || stage.fetch("silent.example").status == 200);
}

#[test]
fn names_are_resolved_without_search_domains() {
    let stage = Stage::set("");
    stage.names.take_questions();
    for (host, asked) in [
        ("intranet", "intranet"),
        ("a.b", "a.b"),
        ("intranet.", "intranet"),
        ("INTRANET", "intranet"),
        ("under_score.example", "under_score.example"),
    ] {
        stage.names.says(asked, at(&[PUBLIC]));
        stage.assert_fetched(host);
        assert_eq!(stage.names.take_questions(), questions(asked), "{host}");
        stage.names.says(asked, Says::Nothing);
        assert_fault(&stage.fetch(host), 502, "DESTINATION_UNREACHABLE");
        // No search domain is appended.
        let mut asked_for = stage.names.take_questions();
        asked_for.dedup();
        assert_eq!(asked_for, questions(asked), "{host}");
        let name = asked.to_owned() + "-2";
        stage.names.says(&name, at(&["127.0.0.1"]));
        stage.assert_forbidden(&name);
        stage.names.take_questions();
    }
}
