//! Requests that come twice.

use futures_util::future::join_all;

use crate::links::tests::audit::somebody;
use crate::links::tests::{block_on, draft, everybody, open};
use crate::links::*;

const SEED: OnceSeed = [7; 32];

#[test]
fn a_link_is_added_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_unix(1_000));
    let links = open(folder.path(), &clock);
    let draft = draft("https://e.example/x");
    let made = block_on(join_all(
        (0..5).map(|_| links.add_once(draft.clone(), SEED, somebody())),
    ));
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    assert!(made.iter().all(|link| *link == made[0]), "{made:?}");
    // The end of a preset is counted from the moment of the request.
    let later = Draft {
        expires_at: Some(Timestamp::MAX),
        ..draft.clone()
    };
    assert_eq!(block_on(links.add_once(later, SEED, somebody())).unwrap(), made[0]);
    assert_eq!(links.store.metrics().links().iter().sum::<u64>(), 1);
    // Neither another link, nor one that is deleted, passes for it.
    let another = Draft {
        name: Some("another".to_owned()),
        ..draft.clone()
    };
    let another = block_on(links.add_once(another, SEED, somebody())).unwrap();
    assert_ne!(another.id, made[0].id);
    assert_ne!(
        block_on(links.add_once(draft.clone(), [8; 32], somebody())).unwrap().id,
        made[0].id
    );
    block_on(links.delete(made[0].id, everybody(), somebody())).unwrap();
    let again = block_on(links.add_once(draft, SEED, somebody())).unwrap();
    assert_ne!(again.id, made[0].id);
}

#[test]
fn an_id_is_renewed_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_unix(1_000));
    let links = open(folder.path(), &clock);
    let old = Draft {
        user_id: Some("me".to_owned()),
        ..draft("https://e.example/x")
    };
    let old = block_on(links.add(old, somebody())).unwrap();
    let renew = |seed, scope| links.renew_id_once(old.id, seed, scope, somebody());
    let renewed = block_on(join_all((0..5).map(|_| renew(SEED, everybody()))));
    let renewed: Vec<_> = renewed.into_iter().map(Result::unwrap).collect();
    assert!(renewed.iter().all(|link| *link == renewed[0]), "{renewed:?}");
    assert_eq!(
        links.store.metrics().links().iter().sum::<u64>(),
        2,
        "it and the retired one"
    );
    let other = block_on(renew([8; 32], everybody()));
    assert!(matches!(other, Err(LinkError::Retired)), "{other:?}");
    let of_other = Scope {
        owner: Some("other".to_owned()),
        ..everybody()
    };
    let other = block_on(renew(SEED, of_other));
    assert!(matches!(other, Err(LinkError::NotFound)), "{other:?}");
}
