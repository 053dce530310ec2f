//! Clicks in a cluster: what waits in the outbox, and which messages of the stream count.

use std::path::Path;

use tempfile::TempDir;

use crate::model::{Day, LinkId, Usage};
use crate::store::format::outbox;
use crate::store::replication::clicks::ClickDelta;
use crate::store::replication::{Chain, ClickError, ClickMessage, ClickPosition, ClickSource, ContentDigest};
use crate::store::testing::log::SimulatedLog;
use crate::store::tests::copies::{at, file_in};
use crate::store::tests::journals::crashed;
use crate::store::tests::usage::{id, usage};
use crate::store::tests::{block_on, checksum, golden_link, open, put};
use crate::store::*;

fn source(node: &str) -> ClickSource {
    ClickSource {
        node: node.into(),
        process: [1; 16],
    }
}

/// A store in a cluster, with a link.
pub(super) fn in_cluster() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let position = Position {
        cluster: *b"cluster of tests",
        epoch: 1,
        sequence: 4,
        chain: Chain::default(),
        digest: ContentDigest::default(),
    };
    block_on(async {
        put(&store, golden_link()).await;
        store.enter_cluster(position).await.unwrap();
    });
    drop(store);
    let store = opened(&file_in(&folder));
    (folder, store)
}

fn opened(path: &Path) -> Store {
    Store::open_to_serve(path, None, Some(Arc::new(SimulatedLog::default()))).unwrap()
}

fn queue(store: &Store, clicks: u64) -> Option<u64> {
    let counted = vec![(golden_link().id, usage(clicks, 0, 5))];
    let job = move |t: &mut Transaction<'_>| t.queue_clicks(&source("own"), &counted, at(0), false);
    block_on(store.write_local(job)).unwrap()
}

fn message(store: &Store, counter: u64, after_entry: u64, of: LinkId) -> Vec<u8> {
    let position = Position {
        sequence: after_entry,
        ..store.snapshot().unwrap().position().unwrap()
    };
    let delta = ClickDelta {
        id: of,
        usage: usage(3, 1, 7),
        day: at(7).day(),
    };
    ClickMessage::encode(&position, &source("other"), counter, [delta].into_iter())
}

fn count(store: &Store, sequence: u64, message: Vec<u8>) -> Result<Vec<LinkId>, ClickError> {
    let node = ClickMessage::decode(&message).map_or_else(|_| "other".to_owned(), |message| message.node.to_owned());
    count_from(store, sequence, node, message)
}

fn count_from(store: &Store, sequence: u64, node: String, message: Vec<u8>) -> Result<Vec<LinkId>, ClickError> {
    let position = ClickPosition::after(9, sequence);
    let days = at(0).day()..=at(7).day();
    let job = move |t: &mut Transaction<'_>| t.count_message(position, &days, &node, &message);
    block_on(store.write_local(job)).unwrap().map(|counted| counted.used)
}

fn shown(store: &Store) -> (Usage, Usage) {
    let (snapshot, id) = (store.snapshot().unwrap(), golden_link().id);
    assert!(snapshot.verify(|| {}).unwrap().is_clean());
    (snapshot.usage(id).unwrap(), snapshot.usage_with_queued(id).unwrap())
}

#[test]
fn outbox_stays_with_its_store_and_not_with_copies() {
    let (folder, store) = in_cluster();
    assert_eq!((queue(&store, 4), queue(&store, 2)), (Some(1), Some(2)));
    let other = message(&store, 5, 4, golden_link().id);
    assert_eq!(count(&store, 8, other.clone()), Ok(vec![golden_link().id]));
    assert_eq!(shown(&store), (usage(3, 1, 7), usage(9, 1, 7)));
    let queued = store.snapshot().unwrap().queued_after(0, 10).unwrap();
    assert_eq!(queued.len(), 2);
    let (copied, restored) = (folder.path().join("copied"), folder.path().join("restored"));
    store.snapshot().unwrap().copy_to(&copied, &mut ()).unwrap();
    let mut dump = Vec::new();
    store.snapshot().unwrap().dump(&mut dump).unwrap();
    restore_dump(dump.as_slice(), &restored, &mut ()).unwrap();
    for path in [copied, restored] {
        let copy = opened(&path);
        let snapshot = copy.snapshot().unwrap();
        let position = ClickPosition::after(9, 8);
        assert_eq!(snapshot.click_position(), Some(position));
        assert_eq!(snapshot.queued_after(0, 10).unwrap(), []);
        assert_eq!(shown(&copy), (usage(3, 1, 7), usage(3, 1, 7)));
        // What it has counted it does not count again, and what its original has sent it does.
        assert_eq!(count(&copy, 8, other.clone()), Ok(vec![golden_link().id]));
        assert_eq!(count(&copy, 9, queued[0].1.clone()), Ok(vec![golden_link().id]));
        assert_eq!(shown(&copy), (usage(7, 1, 7), usage(7, 1, 7)));
    }
    drop(store);
    compact(&file_in(&folder), &mut ()).unwrap();
    let store = opened(&file_in(&folder));
    assert_eq!(store.snapshot().unwrap().queued_after(0, 10).unwrap(), queued);
    assert_eq!(queue(&store, 1), Some(3));
    assert_eq!(shown(&store), (usage(3, 1, 7), usage(10, 1, 7)));
}

#[test]
fn full_outbox_takes_more_at_the_end_only() {
    let (_folder, store) = in_cluster();
    let mut written = 0;
    while queue(&store, 1).is_some() {
        written += 1;
    }
    assert_eq!(written, replication::clicks::OUTBOX_MAX_MESSAGES);
    let counted = vec![(golden_link().id, usage(1, 0, 5))];
    let job = move |t: &mut Transaction<'_>| t.queue_clicks(&source("own"), &counted, at(0), true);
    assert_eq!(block_on(store.write_local(job)).unwrap(), Some(written + 1));
    block_on(store.write_local(|t| t.drop_queued_until(2))).unwrap();
    let queued = store.snapshot().unwrap().queued_after(0, 1).unwrap();
    assert_eq!(queued[0].0, 3);
}

#[test]
fn only_messages_that_can_be_counted_move_on() {
    let (_folder, store) = in_cluster();
    let link = golden_link().id;
    let early = count(&store, 1, message(&store, 1, 5, link));
    assert_eq!(early, Err(ClickError::Early { sequence: 5 }));
    let mut newer = message(&store, 1, 4, link);
    newer.truncate(newer.len() - 4);
    newer[2] = 9;
    newer.extend(checksum::checksum(&[&newer]));
    assert_eq!(count(&store, 1, newer), Err(ClickError::Newer(9)));
    assert_eq!(store.snapshot().unwrap().click_position(), None);
    // What is no message of this cluster is passed over, as on every other box.
    assert_eq!(count(&store, 1, b"TC".to_vec()), Ok(Vec::new()));
    let mut foreign = message(&store, 1, 4, link);
    foreign.truncate(foreign.len() - 4);
    foreign[3] ^= 1;
    foreign.extend(checksum::checksum(&[&foreign]));
    assert_eq!(count(&store, 2, foreign), Ok(Vec::new()));
    // Nor what another box has sent, after a restart too.
    let forged = count_from(&store, 2, "thief".to_owned(), message(&store, 1, 4, link));
    assert_eq!(forged, Ok(Vec::new()));
    assert_eq!(shown(&store).0, Usage::default());
    // A link that is in no store; and messages that are missing in between, which is logged.
    assert!(count(&store, 3, message(&store, 1, 4, id("none"))).is_ok());
    assert!(count(&store, 4, message(&store, 7, 4, link)).is_ok());
    assert!(count(&store, 5, message(&store, 6, 4, link)).is_ok());
    assert_eq!(shown(&store).0, usage(3, 1, 7));
    let position = ClickPosition::after(9, 5);
    assert_eq!(store.snapshot().unwrap().click_position(), Some(position));
}

/// A message of other processes of another box, with clicks on days.
fn message_of(store: &Store, process: u64, counter: u64, days: &[u32]) -> Vec<u8> {
    let (position, mut source) = (store.snapshot().unwrap().position().unwrap(), source("other"));
    source.process[..8].copy_from_slice(&process.to_be_bytes());
    let deltas = days.iter().map(|day| ClickDelta {
        id: golden_link().id,
        usage: usage(1, 0, 7),
        day: Day(*day),
    });
    ClickMessage::encode(&position, &source, counter, deltas)
}

#[test]
fn days_that_are_not_kept_count_in_total_only() {
    let (folder, store) = in_cluster();
    let days = [0, 0, 1, 2, 77_777, u32::MAX];
    assert!(count(&store, 1, message_of(&store, 1, 1, &days)).is_ok());
    let counted = |path: &Path| {
        let store = Store::open_read_only(path).unwrap();
        let on = |day| {
            let days = store
                .snapshot()
                .unwrap()
                .usage_by_day(golden_link().id, day..=day)
                .unwrap();
            days.iter().map(|day| day.clicks).sum::<u64>()
        };
        let days = days.map(|day| on(Day(day)));
        assert_eq!((shown(&store).0, days), (usage(6, 0, 7), [2, 2, 0, 0, 0, 0]));
    };
    // The journal counts what was counted.
    counted(&file_in(&crashed(&folder)));
    drop(store);
    counted(&file_in(&folder));
}

#[test]
fn sources_of_a_box_are_its_last_ones() {
    let (_folder, store) = in_cluster();
    let ours = message(&store, 1, 4, golden_link().id);
    assert!(count_from(&store, 1, "other".to_owned(), ours.clone()).is_ok());
    let most = u64::try_from(outbox::SOURCES_MAX).unwrap();
    for process in 0..2 * most {
        assert!(count(&store, 1, message_of(&store, process, 3, &[0])).is_ok());
    }
    let again = |process| {
        let before = shown(&store).0.clicks;
        assert!(count(&store, 1, message_of(&store, process, 3, &[0])).is_ok());
        shown(&store).0.clicks - before
    };
    assert_eq!([2 * most - 1, most, most - 1].map(again), [0, 0, 1]);
}

#[test]
fn message_of_too_many_links_is_malformed() {
    let (_folder, store) = in_cluster();
    let most = replication::CLICK_MESSAGE_MAX_LINKS;
    assert!(ClickMessage::decode(&message_of(&store, 1, 1, &vec![0; most])).is_ok());
    let more = message_of(&store, 1, 1, &vec![0; most + 1]);
    assert_eq!(ClickMessage::decode(&more), Err(ClickError::Malformed));
}

#[test]
fn box_that_leaves_keeps_what_it_has_counted() {
    let (folder, store) = in_cluster();
    queue(&store, 4);
    assert!(count(&store, 1, message(&store, 1, 4, golden_link().id)).is_ok());
    drop(store);
    assert!(leave_cluster(&file_in(&folder)).unwrap());
    let store = open(folder.path());
    assert_eq!(shown(&store), (usage(7, 1, 7), usage(7, 1, 7)));
    let snapshot = store.snapshot().unwrap();
    assert_eq!((snapshot.click_position(), snapshot.queued_counter()), (None, 0));
}

#[test]
fn copy_that_takes_the_place_of_a_store_gets_its_outbox() {
    let (folder, store) = in_cluster();
    queue(&store, 4);
    queue(&store, 2);
    let queued = store.snapshot().unwrap().queued_after(0, 10).unwrap();
    let path = folder.path().join("copied");
    store.snapshot().unwrap().copy_to(&path, &mut ()).unwrap();
    // Where the copy was made, the first message has been counted.
    let copy = opened(&path);
    assert!(count(&copy, 1, queued[0].1.clone()).is_ok());
    drop(copy);
    block_on(store.replace(path)).unwrap();
    assert_eq!(store.snapshot().unwrap().queued_after(0, 10).unwrap(), queued[1..]);
    assert_eq!(shown(&store), (usage(4, 0, 5), usage(6, 0, 5)));
    assert_eq!(queue(&store, 1), Some(3));
}
