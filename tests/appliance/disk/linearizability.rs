//! Concurrent calls on a link are linearizable.

use crate::support::fixture::Appliance;
use crate::support::linearizability::{Call, Event, Return, assert_linearizable, is_linearizable};

#[test]
fn concurrent_calls_are_linearizable() {
    assert_eq!(assert_linearizable(&Appliance::start()), 0);
}

/// Negative control: the check must be able to fail.
#[test]
fn impossible_history_is_detected() {
    let id = || "abcd".to_owned();
    let added = || vec![Event::Call(0, Call::Add(1)), Event::Return(0, Return::Added(id()))];
    let stale = [
        Event::Call(0, Call::Update(id(), 2)),
        Event::Return(0, Return::Done),
        Event::Call(1, Call::Goto(id())),
        Event::Return(1, Return::Version(1)),
    ];
    assert!(!is_linearizable(&added().into_iter().chain(stale).collect::<Vec<_>>()));
    let lost = [Event::Call(1, Call::Get(id())), Event::Return(1, Return::NotFound)];
    assert!(!is_linearizable(&added().into_iter().chain(lost).collect::<Vec<_>>()));
    let twice = [
        Event::Call(1, Call::Add(2)),
        Event::Return(1, Return::Added("efgh".to_owned())),
    ];
    assert!(!is_linearizable(&added().into_iter().chain(twice).collect::<Vec<_>>()));
    // An update of unknown outcome may be visible.
    let maybe = [
        Event::Call(0, Call::Update(id(), 2)),
        Event::Call(1, Call::Goto(id())),
        Event::Return(1, Return::Version(2)),
    ];
    assert!(is_linearizable(&added().into_iter().chain(maybe).collect::<Vec<_>>()));
}
