//! The store against a naive model, and what it refuses.

mod audit;
pub mod copies;
mod days;
mod entries;
mod formats;
mod inspection;
mod journals;
mod outbox;
mod ownership;
mod usage;

use crate::model::{PartnerId, ShortLink, Status, Timestamp};
use crate::store::format::{checksum, clicks, record, tables, values};
use proptest::prelude::*;

prop_compose! {
    /// A link with any content; the ids, names and times repeat often enough to collide.
    pub(crate) fn any_link()(
        id in "[a-c]{4}|[0-9a-z]{4,20}",
        partner in 1_u32..3,
        created in 0_i64..50,
        updated in 0_i64..50,
        starts in prop::option::of(-5_i64..50),
        expires in prop::option::of(-5_i64..50),
        user in prop::option::of("[xyz]|[xyz]{2}"),
        name in prop::option::of("\\PC{0,8}"),
        system_name in "[ab]{3}",
        tail in "\\PC{0,20}",
        unique_id in prop::option::of("[pq]{1,3}"),
        status in 1_i64..=3,
    ) -> ShortLink {
        ShortLink {
            id: id.parse().unwrap(),
            created_at: Timestamp::from_unix(created),
            updated_at: Timestamp::from_unix(updated),
            starts_at: starts.map(Timestamp::from_unix),
            expires_at: expires.map(Timestamp::from_unix),
            partner_id: PartnerId(partner),
            user_id: user,
            name,
            system_name,
            full_url: format!("https://e.example/{tail}"),
            unique_id,
            status: Status::from_number(status).unwrap(),
        }
    }
}

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use redb::{Database, TableDefinition};

use super::*;
use crate::model::{LinkId, Usage};
use crate::store::format::keys::{Index, counters_of};
use crate::store::testing::gate;
use crate::store::testing::simulated::{Disk, Failure, open_on};

#[derive(Debug, Default)]
struct Witness {
    changes: Mutex<Vec<Change>>,
    commits: AtomicUsize,
    reopened: AtomicUsize,
}

impl CommitObserver for Witness {
    fn committed(&self, changes: Vec<Change>) {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.changes.lock().extend(changes);
    }

    fn catch_up(&self, _: &Snapshot) -> Result<(), StoreError> {
        self.reopened.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub fn open(folder: &Path) -> Store {
    try_open(folder).unwrap()
}

pub fn try_open(folder: &Path) -> Result<Store, OpenError> {
    Store::open(&folder.join(FILE_NAME), Some(Arc::new(Witness::default())))
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

pub async fn put(store: &Store, link: ShortLink) {
    let job = move |transaction: &mut Transaction<'_>| {
        let old = transaction.get(link.id)?;
        transaction.put(old.as_ref(), link)
    };
    store.write(job).await.unwrap();
}

fn assert_consistent(snapshot: &Snapshot) {
    let found = snapshot.verify(|| {}).unwrap();
    // Who may hold a unique id is decided above the store.
    let mut problems = found
        .problems
        .iter()
        .filter(|problem| !problem.starts_with("unique id"));
    assert_eq!(problems.next(), None);
}

/// What a list gives if one looks at every link.
pub fn naive_list(links: &BTreeMap<LinkId, ShortLink>, query: &Query) -> Listing {
    let mut fitting: Vec<_> = links
        .values()
        .filter(|link| query.matches(&(*link).into()))
        .cloned()
        .collect();
    fitting.sort_by(|a, b| {
        let directed = |ordering: std::cmp::Ordering, descends| if descends { ordering.reverse() } else { ordering };
        let by_time = query.order.times.iter().flatten().map(|by| {
            let time = |link: &ShortLink| match by.field {
                OrderField::Created => Some(link.created_at),
                OrderField::Updated => Some(link.updated_at),
                OrderField::Expires => link.expires_at,
            };
            let never_last = time(a).is_none().cmp(&time(b).is_none());
            never_last.then(directed(time(a).cmp(&time(b)), by.descending))
        });
        let by_id = directed(a.id.cmp(&b.id), query.order.ids_descend);
        by_time
            .fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
            .then(by_id)
    });
    let total = fitting.len() as u64;
    let page = fitting
        .into_iter()
        .skip((query.page.index - 1).saturating_mul(query.page.size));
    let links = page.take(query.page.size).collect();
    Listing { links, total }
}

fn any_range() -> impl Strategy<Value = TimeRange> {
    let bound = || {
        prop::option::weighted(
            0.5,
            prop_oneof![20 => -5_i64..55, 1 => Just(i64::MIN), 1 => Just(i64::MAX)].prop_map(Timestamp::from_unix),
        )
    };
    let some = (bound(), bound()).prop_map(|(from, to)| TimeRange { from, to });
    prop_oneof![3 => Just(TimeRange::default()), 1 => some]
}

fn any_texts(pattern: &'static str) -> impl Strategy<Value = Option<BTreeSet<String>>> {
    prop::option::weighted(0.3, prop::collection::btree_set(pattern, 0..4))
}

fn any_order() -> impl Strategy<Value = Order> {
    let fields = || Just(vec![OrderField::Created, OrderField::Updated, OrderField::Expires]).prop_shuffle();
    let one = (fields(), any::<bool>()).prop_map(|(fields, descending)| Order::new(fields[0], descending));
    let several = (
        fields(),
        0..=OrderField::COUNT,
        any::<[bool; OrderField::COUNT]>(),
        any::<bool>(),
    );
    let several = several.prop_map(|(fields, count, descending, ids_descend)| {
        let time = |n| TimeOrder {
            field: fields[n],
            descending: descending[n],
        };
        let times = std::array::from_fn(|n| (n < count).then(|| time(n)));
        Order { times, ids_descend }
    });
    prop_oneof![one, several]
}

prop_compose! {
    pub fn any_query()(
        partner in 1_u32..3,
        ids in prop::option::weighted(0.2, prop::collection::btree_set("[a-c]{4}", 0..30)),
        users in any_texts("[xyz]|[xyz]{2}"),
        system_names in any_texts("[ab]{3}"),
        unique_id in prop::option::weighted(0.2, "[pq]{1,3}"),
        statuses in prop::collection::btree_set(1_i64..=3, 0..4),
        (created, updated, expires) in (any_range(), any_range(), any_range()),
        order in any_order(),
        size in 0_usize..12,
        index in prop_oneof![8 => 1_usize..6, 1 => 100_000_usize..10_000_000],
    ) -> Query {
        Query {
            partner: PartnerId(partner),
            ids: ids.map(|ids| ids.iter().map(|id| id.parse().unwrap()).collect()),
            users, system_names, unique_id,
            statuses: statuses.into_iter().filter_map(Status::from_number).collect(),
            created, updated, expires,
            order,
            page: Page { size, index },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_list_is_what_looking_at_every_link_gives(
        links in prop::collection::vec(any_link(), 0..120),
        queries in prop::collection::vec(any_query(), 60),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let model: BTreeMap<_, _> = links.iter().map(|link| (link.id, link.clone())).collect();
        block_on(async {
            let writes = links.into_iter().map(|link| put(&store, link));
            futures_util::future::join_all(writes).await;
            for query in queries {
                let expected = naive_list(&model, &query);
                let listed = store.read({ let query = query.clone(); move |snapshot| snapshot.list(&query,
                    &ReadLimit::default()) }).await.unwrap();
                assert_eq!(listed, expected, "{query:#?}");
                assert_stops_in_time(&store.snapshot().unwrap(), &query);
            }
            store.read(|snapshot| { assert_consistent(snapshot); Ok(()) }).await.unwrap();
        });
    }
}

/// Whatever way a list goes: with fewer steps than it takes, it stops, and has not taken many more.
fn assert_stops_in_time(snapshot: &Snapshot, query: &Query) {
    let limit = ReadLimit::default();
    snapshot.list(query, &limit).unwrap();
    let (taken, most) = (limit.taken(), limit.taken() / 2);
    // The clock is looked at only so often.
    if taken < 200 {
        return;
    }
    let limit = ReadLimit::steps(most);
    let stopped = snapshot.list(query, &limit);
    assert!(
        matches!(stopped, Err(StoreError::Stopped(Stopped::Steps))),
        "{query:#?}"
    );
    assert!(limit.taken() < most + 200, "{} of {most}", limit.taken());
}

/// A write that keeps the writer waiting, and what ends that once those joined with it have been polled.
fn held_up(store: &Store) -> (impl Future<Output = Result<bool, WriteError>>, impl Future<Output = ()>) {
    let (open_gate, gate) = gate();
    let opening = async move {
        tokio::task::yield_now().await;
        open_gate.send(()).unwrap();
    };
    (store.write(move |_| Ok(gate.lock().recv().is_ok())), opening)
}

#[test]
fn waiting_writes_are_committed_together_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let witness = Arc::new(Witness::default());
    let store = Store::open(
        &folder.path().join(FILE_NAME),
        Some(Arc::clone(&witness) as Arc<dyn CommitObserver>),
    )
    .unwrap();
    let written = block_on(async {
        // The first one holds the writer up until all the others are in the queue.
        let (first, opening) = held_up(&store);
        let others = (0..100_u32).map(|number| {
            store.write(move |transaction| {
                let digest = [u8::try_from(number).unwrap(); 20];
                transaction.revoke(digest, Timestamp::from_unix(number.into()))?;
                Ok(number)
            })
        });
        let (first, others, ()) = futures_util::join!(first, futures_util::future::join_all(others), opening);
        assert_eq!(first, Ok(true));
        others.into_iter().collect::<Result<Vec<_>, _>>().unwrap()
    });
    assert_eq!(written, (0..100).collect::<Vec<_>>());
    let order: Vec<_> = witness
        .changes
        .lock()
        .iter()
        .map(|change| match change {
            Change::Revoked(_, until) => until.as_unix(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    assert!(
        witness.commits.load(Ordering::SeqCst) <= 2,
        "a commit each would be 100"
    );
}

#[test]
fn observer_sees_a_commit_before_its_sender() {
    let folder = tempfile::tempdir().unwrap();
    let witness = Arc::new(Witness::default());
    let store = Store::open(
        &folder.path().join(FILE_NAME),
        Some(Arc::clone(&witness) as Arc<dyn CommitObserver>),
    )
    .unwrap();
    block_on(async {
        for number in 1..50 {
            store
                .write(move |transaction| transaction.revoke([number; 20], Timestamp::MAX))
                .await
                .unwrap();
            assert_eq!(witness.changes.lock().len(), usize::from(number));
        }
    });
}

/// A client that goes away while its write is in the queue changes nothing about it.
#[test]
fn write_is_made_after_its_sender_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        let (open_gate, gate) = gate();
        let blocking = store.write(move |_| Ok(gate.lock().recv().is_ok()));
        let mut abandoned = Box::pin(store.write(|transaction| transaction.revoke([1; 20], Timestamp::MAX)));
        let mut blocking = Box::pin(blocking);
        // Polled once, so that both are in the queue.
        assert!(futures_util::poll!(&mut blocking).is_pending());
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        drop(abandoned);
        open_gate.send(()).unwrap();
        blocking.await.unwrap();
        store.write(|_| Ok(())).await.unwrap();
    });
    assert_eq!(store.snapshot().unwrap().revocations().unwrap().len(), 1);
}

/// A job that gives up takes the whole transaction with it: nothing of it is written, and the next one finds a store
/// that works.
#[test]
fn abandoned_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        let failing = store.write(|transaction| {
            transaction.revoke([1; 20], Timestamp::MAX)?;
            Err::<(), _>(StoreError::damaged("links", "for this test"))
        });
        assert_eq!(failing.await, Err(WriteError::Unavailable));
        store.write(|t| t.revoke([2; 20], Timestamp::MAX)).await.unwrap();
    });
    assert_eq!(store.health(), Health::Accepting);
    let revoked = store.snapshot().unwrap().revocations().unwrap();
    assert_eq!(revoked, [([2; 20], Timestamp::MAX)]);
}

#[test]
fn damaged_record_fails_only_its_own_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        let (first, opening) = held_up(&store);
        let meeting = store.write(|_| Err::<(), _>(StoreError::damaged("links", "for this test")));
        let beside = store.write(|transaction| transaction.revoke([1; 20], Timestamp::MAX));
        let (first, meeting, beside, ()) = futures_util::join!(first, meeting, beside, opening);
        assert_eq!(
            (first, meeting, beside),
            (Ok(true), Err(WriteError::Unavailable), Ok(()))
        );
    });
    assert_eq!(store.health(), Health::Accepting);
    assert_eq!(store.snapshot().unwrap().revocations().unwrap().len(), 1);
}

/// A write that panics must not tell anybody that nothing was written: it could have been after the commit. The next
/// one finds a store that works.
#[test]
fn lost_answer_is_an_unknown_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(async {
        put(&store, golden_link()).await;
        let panicking = store.write(|transaction| -> Result<(), _> {
            transaction.revoke([1; 20], Timestamp::MAX)?;
            panic!("for this test")
        });
        assert_eq!(panicking.await, Err(WriteError::OutcomeUnknown));
        while store.write(|_| Ok(())).await == Err(WriteError::Unavailable) {
            tokio::task::yield_now().await;
        }
        store
            .write(|transaction| transaction.revoke([2; 20], Timestamp::MAX))
            .await
            .unwrap();
    });
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.revocations().unwrap(), [([2; 20], Timestamp::MAX)]);
    assert_consistent(&snapshot);
}

#[test]
fn a_store_of_a_newer_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let path = folder.path().join(FILE_NAME);
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(tables::META)
        .unwrap()
        .insert("format", tables::FORMAT + 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let before = std::fs::read(&path).unwrap();
    let error = try_open(folder.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("store format 3, and this program knows formats up to 2"),
        "{error}"
    );
    assert!(error.to_string().contains("links.redb"), "{error}");
    assert!(std::fs::read(&path).unwrap() == before, "the file was changed");
}

#[test]
fn foreign_and_damaged_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let other: TableDefinition<'_, u64, u64> = TableDefinition::new("other");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(other).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for content in [
        std::fs::read(&path).unwrap(),
        b"not a database at all".to_vec(),
        Vec::new(),
    ] {
        std::fs::write(&path, &content).unwrap();
        let error = try_open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("links.redb"), "{error}");
        assert!(
            std::fs::read(&path).unwrap() == content,
            "the file was changed: {error}"
        );
    }
}

#[test]
fn second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path());
    let error = try_open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("already in use"), "{error}");
}

#[test]
fn expired_sessions_are_forgotten_and_others_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let at = Timestamp::from_unix;
    block_on(async {
        store.write(move |t| t.revoke([1; 20], at(100))).await.unwrap();
        store.write(move |t| t.revoke([2; 20], at(101))).await.unwrap();
        assert!(store.write(move |t| t.count_action([3; 20], 1, at(100))).await.unwrap());
        assert!(!store.write(move |t| t.count_action([3; 20], 1, at(100))).await.unwrap());
        store.write(move |t| t.drop_expired_sessions(at(100))).await.unwrap();
        assert_eq!(store.snapshot().unwrap().revocations().unwrap(), [([2; 20], at(101))]);
        // Its count is gone with it; that it has expired is found out elsewhere.
        assert!(store.write(move |t| t.count_action([3; 20], 1, at(100))).await.unwrap());
    });
}

pub fn golden_link() -> ShortLink {
    ShortLink {
        id: "67mk41xj".parse().unwrap(),
        created_at: Timestamp::from_unix(1_778_429_631),
        updated_at: Timestamp::from_unix(1_778_429_632),
        starts_at: None,
        expires_at: None,
        partner_id: PartnerId(1_234_567),
        user_id: Some("me".into()),
        name: Some("ü".into()),
        system_name: "NAME".into(),
        full_url: "https://e.example/".into(),
        unique_id: Some("key".into()),
        status: Status::Enabled,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Formats 1 and 2, to the byte: a change of the newest needs another format number, because files written with this
/// one are out there.
#[test]
fn formats_stay_what_they_are() {
    let link = golden_link();
    assert_eq!(
        hex(&record::encode_of_format_1(&link)),
        include_str!("../testdata/record_1.hex").trim()
    );
    assert_eq!(
        hex(&record::encode(&link).unwrap()),
        include_str!("../testdata/record_2.hex").trim()
    );
    let keys: Vec<_> = Index::ALL
        .iter()
        .map(|index| hex(&index.key_of(&link).unwrap()))
        .collect();
    let (created, id) = ("80000000 6a00aebf", "36376d6b3431786a");
    let (partner, status) = ("0012d687", "02");
    let expected = [
        format!("{partner}{status}{created}{id}"),
        format!("{partner}{status}80000000 6a00aec0{id}"),
        format!("{partner}{status}ffffffffffffffff{id}"),
        format!("{partner}00026d65{status}{created}{id}"),
        format!("{partner}00044e414d45{status}{created}{id}"),
        format!("{partner}00036b6579{status}{created}{id}"),
    ];
    assert_eq!(keys, expected.map(|key| key.replace(' ', "")));
    let counters: Vec<_> = counters_of(&link).map(|key| hex(&key)).collect();
    let usage = Usage {
        clicks: 12,
        previews: 3,
        last_used_at: Some(link.created_at),
    };
    assert_eq!(
        hex(&clicks::encode(&usage)),
        "000000000000000c0000000000000003000000006a00aebf"
    );
    assert_eq!(clicks::encode(&Usage::default()), [0; 24]);
    // The well-known check value of CRC32C.
    assert_eq!(checksum::checksum(&[b"12345", b"6789"]), 0xe306_9283_u32.to_be_bytes());
    let digest = [1; 20];
    assert_eq!(
        hex(&values::encode_until(&digest, link.created_at)),
        "000000006a00aebf890488f9"
    );
    assert_eq!(
        hex(&values::encode_calls(&digest, 3, link.created_at)),
        "0000000000000003000000006a00aebf64ddc1a0"
    );
    assert_eq!(
        hex(&values::encode_counts(b"P\0\x12\xd6\x87", [0, 1, 0])),
        "000000000000000000000000000000010000000000000000e5b2d68e"
    );
    assert_eq!(counters, ["500012d687", "550012d68700026d65", "530012d68700044e414d45"]);
}

/// The loss: a commit fails after it may have reached the disk, and its sender is told "not written".
#[test]
fn failed_commit_has_an_unknown_outcome_and_ends_writes() {
    const EIO: i32 = 5;
    let disk = Disk::with_store();
    let witness = Arc::new(Witness::default());
    let store = open_on(&disk, Arc::clone(&witness) as Arc<dyn CommitObserver>).unwrap();
    block_on(async {
        put(&store, golden_link()).await;
        let forever = Failure {
            first: disk.operations() + 1,
            count: u64::MAX / 2,
            errno: EIO,
            reads_too: false,
        };
        disk.fail(forever, StdRng::seed_from_u64(0));
        let write = |number| store.write(move |transaction| transaction.revoke([number; 20], Timestamp::MAX));
        assert_eq!(write(1).await, Err(WriteError::OutcomeUnknown));
        assert_eq!(write(2).await, Err(WriteError::Unavailable));
        assert!(matches!(store.health(), Health::Refusing(reason) if reason.contains("Input/output error")));
        assert_eq!(witness.changes.lock().len(), 1, "what may not be on disk was published");

        // Reads go on as soon as the file has been opened for them.
        let id = golden_link().id;
        let read = || store.read(move |snapshot| snapshot.get(id));
        let mut seen = read().await;
        while matches!(seen, Err(StoreError::Closed)) {
            seen = read().await;
        }
        assert_eq!(seen.unwrap(), Some(golden_link()));

        disk.fail(Failure { count: 0, ..forever }, StdRng::seed_from_u64(0));
        while store.health() != Health::Accepting {
            tokio::task::yield_now().await;
        }
        write(3).await.unwrap();
    });
    assert_eq!(witness.reopened.load(Ordering::SeqCst), 1);
}
