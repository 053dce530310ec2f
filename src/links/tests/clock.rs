//! Clocks that are wrong for a while.

use crate::links::tests::audit::somebody;
use crate::links::tests::block_on;
use crate::links::*;
use crate::model::Destination;

const DAY: i64 = 24 * 60 * 60;
const ENDED: Digest = [1; 20];
const COUNTED: Digest = [2; 20];

fn open(folder: &Path, now: i64) -> Links {
    let links = Links::open(folder, Clock::manual(Timestamp::from_unix(now)), 8).unwrap();
    links.load().unwrap();
    block_on(links.drop_expired_sessions()).unwrap();
    links
}

fn is_counted(links: &Links, expiry: Timestamp) -> bool {
    let job = move |transaction: &mut Transaction<'_>| transaction.count_action(COUNTED, 1, expiry);
    !block_on(links.store.write(job)).unwrap()
}

#[test]
fn clock_far_ahead_brings_no_session_back() {
    let folder = tempfile::tempdir().unwrap();
    let began = 1_778_429_631;
    let expiry = Timestamp::from_unix(began + DAY / 2);
    let links = open(folder.path(), began);
    let draft = || Draft {
        added_by: Kind::Admin,
        partner_id: PartnerId(1),
        user_id: None,
        name: None,
        system_name: "NAME".into(),
        full_url: Destination::parse("https://e.example/").unwrap(),
        unique_id: None,
        status: Status::Enabled,
        starts_at: None,
        expires_at: None,
    };
    block_on(links.add(draft(), somebody())).unwrap();
    block_on(links.store.write(move |transaction| transaction.revoke(ENDED, expiry))).unwrap();
    assert!(!is_counted(&links, expiry));
    drop(links);
    for now in [began + 40 * DAY, began + 10] {
        let links = open(folder.path(), now);
        assert!(links.sessions.is_revoked(&ENDED), "{now}");
        assert!(is_counted(&links, expiry), "{now}");
    }
    // A clock that a newer link bears out is right.
    let links = open(folder.path(), began + DAY);
    block_on(links.add(draft(), somebody())).unwrap();
    assert!(links.sessions.is_revoked(&ENDED));
    drop(links);
    let links = open(folder.path(), began + DAY);
    assert!(!links.sessions.is_revoked(&ENDED));
    assert!(!is_counted(&links, expiry));
}
