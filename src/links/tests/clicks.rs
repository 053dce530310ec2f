//! Counting clicks: that each is counted once, whatever the disk does, and that memory is bounded.

use futures_util::poll;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::links::clicks::{BYTES_FOR_EACH_LINK, LEAST_BYTES, NOTED_CLICKS, limits};
use crate::links::tests::audit::somebody;
use crate::links::tests::simulated::{now_of, open};
use crate::links::tests::{PARTNER, block_on, draft, everybody};
use crate::links::*;
use crate::model::{Usage, Visit};
use crate::store::testing::simulated::{Disk, Failure};
use crate::store::{Lane, Order, Page, Snapshot, TimeRange, TransactionEnd};

const EIO: i32 = 5;

fn now() -> Timestamp {
    now_of(7)
}

fn clicks(count: u64) -> Usage {
    Usage {
        clicks: count,
        previews: 0,
        last_used_at: (count > 0).then(now),
    }
}

fn with_links(disk: &Disk, count: usize) -> (Links, Vec<LinkId>) {
    let links = open(disk, &Clock::manual(now()), 1).unwrap();
    let add = || {
        block_on(links.add(draft("https://e.example/x"), somebody()))
            .unwrap()
            .id
    };
    let ids = (0..count).map(|_| add()).collect();
    (links, ids)
}

/// What a read returns; repeated while the file is being opened again.
fn told(links: &Links, id: LinkId) -> Usage {
    loop {
        match block_on(links.get_with_usage(id, everybody())) {
            Ok((link, usage)) => {
                assert_eq!(link.id, id);
                return usage;
            }
            Err(LinkError::Read(error)) if error.is_of_the_file() => std::thread::yield_now(),
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub fn all_enabled() -> Query {
    Query {
        partner: PARTNER,
        ids: None,
        users: None,
        system_names: None,
        unique_id: None,
        statuses: [Status::Enabled].into(),
        created: TimeRange::default(),
        updated: TimeRange::default(),
        expires: TimeRange::default(),
        order: Order::default(),
        page: Page { size: 100, index: 1 },
    }
}

fn stored(disk: &Disk, id: LinkId) -> Usage {
    let links = open(disk, &Clock::manual(now()), 2).unwrap();
    let snapshot = links.store.snapshot().unwrap();
    assert!(snapshot.verify(|| {}).unwrap().is_clean());
    snapshot.usage(id).unwrap()
}

#[test]
fn recorded_clicks_are_read_at_once_and_counted_once() {
    let disk = Disk::with_store();
    let (links, ids) = with_links(&disk, 25);
    let rounds = 40;
    for round in 1..=rounds {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let recorder = links.recorder();
                    for id in &ids {
                        recorder.record(*id, Visit::Click, now());
                        recorder.record(*id, Visit::Preview, now().plus(5));
                    }
                });
            }
        });
        let expected = Usage {
            previews: 3 * round,
            ..clicks(3 * round)
        };
        assert_eq!(told(&links, ids[0]), expected);
        if round % 10 == 0 {
            block_on(links.flush_clicks()).unwrap();
        }
        assert_eq!(told(&links, ids[24]), expected);
    }
    let ((listing, usages), _turn) = block_on(links.list_with_usage(all_enabled(), &ReadContext::patient())).unwrap();
    assert_eq!((listing.links.len(), usages.len()), (25, 25));
    assert!(usages.iter().all(|usage| usage.clicks == 3 * rounds));
    drop(links);
    assert_eq!(stored(&disk, ids[3]).clicks, 3 * rounds);
}

/// The loss and the excess: a write of unknown outcome is given up, or made again though it was made.
#[test]
fn each_click_is_counted_once_whichever_disk_operation_fails() {
    let mut failed = 0;
    for first in 1..60 {
        let disk = Disk::with_store();
        let (links, ids) = with_links(&disk, 25);
        let recorder = links.recorder();
        let mut expected = 0;
        let mut click = || {
            for id in &ids {
                recorder.record(*id, Visit::Click, now());
            }
            expected += 1;
            expected
        };
        let failure = Failure {
            first: disk.operations() + first,
            count: 1 + first % 3,
            errno: EIO,
            reads_too: false,
        };
        disk.fail(failure, StdRng::seed_from_u64(first));
        for _ in 0..3 {
            let expected = click();
            if block_on(links.flush_clicks()).is_err() {
                failed += 1;
            }
            for id in [ids[0], ids[12], ids[24]] {
                assert_eq!(told(&links, id), clicks(expected), "operation {first}");
            }
        }
        let last = click();
        while block_on(links.flush_clicks()).is_err() {
            std::thread::yield_now();
        }
        for id in &ids {
            assert_eq!(told(&links, *id), clicks(last), "operation {first}");
        }
        assert_eq!(links.dropped_clicks(), 0);
        drop(links);
        assert_eq!(stored(&disk, ids[20]), clicks(last), "operation {first}");
    }
    assert!(failed > 10, "{failed} flushes have failed");
}

/// The loss: the program drains in the middle of a flush, which is given up with what it was writing.
#[test]
fn abandoned_flush_loses_nothing_and_counts_nothing_twice() {
    for polls in 0..6 {
        let disk = Disk::with_store();
        let (links, ids) = with_links(&disk, 25);
        let recorder = links.recorder();
        for id in &ids {
            recorder.record(*id, Visit::Click, now());
        }
        block_on(async {
            let mut flush = Box::pin(links.flush_clicks());
            for _ in 0..polls {
                if poll!(&mut flush).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(told(&links, ids[0]), clicks(1));
        block_on(links.flush_all_clicks(Duration::from_secs(60)));
        assert_eq!(told(&links, ids[24]), clicks(1));
        drop(links);
        assert_eq!(stored(&disk, ids[9]), clicks(1));
    }
}

/// The excess: a batch is in the store, and its flush has not been polled since.
#[test]
fn written_batch_counts_once_before_it_is_acknowledged() {
    let disk = Disk::with_store();
    let (links, ids) = with_links(&disk, 5);
    let links = Arc::new(links);
    let recorder = links.recorder();
    ids.iter().for_each(|id| recorder.record(*id, Visit::Click, now()));
    block_on(async {
        // Else the writer could be done within the first poll.
        let release = block_writer(&links).await;
        let mut flush = Box::pin(links.flush_clicks());
        assert!(poll!(&mut flush).is_pending());
        drop(release);
        while links.store.snapshot().unwrap().usage(ids[4]).unwrap() != clicks(1) {
            std::thread::yield_now();
        }
        assert!(links.has_clicks_in_flight());
        for id in &ids {
            let (_, usage) = links.get_with_usage(*id, everybody()).await.unwrap();
            assert_eq!(usage, clicks(1));
        }
        flush.await.unwrap();
    });
    assert_eq!(told(&links, ids[0]), clicks(1));
}

/// Has the writer do nothing until what this returns is dropped.
async fn block_writer(links: &Arc<Links>) -> std::sync::mpsc::Sender<()> {
    let (release, released) = std::sync::mpsc::channel();
    let (blocking, blocked) = tokio::sync::oneshot::channel();
    let to_block = Arc::clone(links);
    tokio::spawn(async move {
        let job = move |_: &mut Transaction<'_>| {
            blocking.send(()).unwrap();
            // Ends when the other end is dropped.
            let _ = released.recv();
            Ok((TransactionEnd::Abort, ()))
        };
        to_block.store.write_alone_once(job).await
    });
    blocked.await.unwrap();
    release
}

/// The hang: a read of clicks waits for an import of millions of links, or for a slow sync, to end.
#[test]
fn reader_of_clicks_does_not_wait_for_the_writer() {
    let disk = Disk::with_store();
    let (links, ids) = with_links(&disk, 25);
    let links = Arc::new(links);
    let recorder = links.recorder();
    let click = || ids.iter().for_each(|id| recorder.record(*id, Visit::Click, now()));
    click();
    block_on(links.flush_clicks()).unwrap();
    block_on(async {
        let release = block_writer(&links).await;
        click();
        let mut flush = Box::pin(links.flush_clicks());
        assert!(poll!(&mut flush).is_pending());
        click();
        let patience = Duration::from_secs(60);
        for id in [ids[0], ids[12], ids[24]] {
            let read = links.get_with_usage(id, everybody());
            let (_, usage) = tokio::time::timeout(patience, read).await.unwrap().unwrap();
            assert_eq!(usage, clicks(3));
            assert!(poll!(&mut flush).is_pending());
        }
        let context = ReadContext::patient();
        let listed = links.list_with_usage(all_enabled(), &context);
        let ((_, usages), turn) = tokio::time::timeout(patience, listed).await.unwrap().unwrap();
        assert_eq!(usages, [clicks(3); 25]);
        drop((turn, release));
        flush.await.unwrap();
        let ((_, usages), _turn) = links.list_with_usage(all_enabled(), &context).await.unwrap();
        assert_eq!(usages, [clicks(3); 25]);
    });
    block_on(links.flush_clicks()).unwrap();
    drop(links);
    assert_eq!(stored(&disk, ids[24]), clicks(3));
}

/// The excess: a flush is written after a reader has taken its snapshot, or before, and counted in both.
#[test]
fn reader_during_flushes_never_counts_twice() {
    for flushed_before in [0, 1, 5] {
        let disk = Disk::with_store();
        let (links, ids) = with_links(&disk, 25);
        let links = Arc::new(links);
        let recorder = links.recorder();
        let click = || ids.iter().for_each(|id| recorder.record(*id, Visit::Click, now()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            for _ in 0..flushed_before {
                click();
                links.flush_clicks().await.unwrap();
            }
            click();
            let (taken, has_taken) = tokio::sync::oneshot::channel();
            let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
            let of_links = ids.clone();
            let reading = Arc::clone(&links);
            let read = tokio::spawn(async move {
                let read = move |_: &Snapshot| {
                    taken.send(()).unwrap();
                    let _ = goes_on.recv();
                    Ok(((), of_links))
                };
                reading.read_with_usage(Lane::Shared, read).await
            });
            has_taken.await.unwrap();
            for _ in 0..3 {
                links.flush_clicks().await.unwrap();
                click();
            }
            drop(go_on);
            let ((), usages) = read.await.unwrap().unwrap();
            // What its snapshot has, and what is pending; three flushes are in neither.
            assert_eq!(usages, [clicks(flushed_before + 1); 25]);
            let (_, usage) = links.get_with_usage(ids[0], everybody()).await.unwrap();
            assert_eq!(usage, clicks(flushed_before + 4));
        });
    }
}

/// The same where the moment of the snapshot cannot be chosen.
#[test]
fn totals_are_never_too_high_while_a_flush_is_written() {
    let disk = Disk::with_store();
    let (links, ids) = with_links(&disk, 25);
    let (is_over, context) = (AtomicBool::new(false), ReadContext::patient());
    let recorded = std::sync::atomic::AtomicU64::new(0);
    let recorder = links.recorder();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let listing = links.list_with_usage(all_enabled(), &context);
                let ((_, usages), _turn) = block_on(listing).unwrap();
                let most = usages.iter().map(|usage| usage.clicks).max().unwrap();
                // A round may be half recorded.
                assert!(most <= recorded.load(Ordering::SeqCst) + 1, "{most}");
            }
        });
        for round in 1..=200 {
            if reader.is_finished() {
                break;
            }
            ids.iter().for_each(|id| recorder.record(*id, Visit::Click, now()));
            recorded.store(round, Ordering::SeqCst);
            block_on(links.flush_clicks()).unwrap();
            assert_eq!(told(&links, ids[7]), clicks(round));
        }
        is_over.store(true, Ordering::SeqCst);
    });
}

fn numbered(number: usize) -> LinkId {
    format!("{number:08}").parse().unwrap()
}

#[test]
fn pending_clicks_are_bounded_and_dropped_ones_counted() {
    let disk = Disk::with_store();
    let links = open(&disk, &Clock::manual(now()), 1).unwrap();
    let recorder = links.recorder();
    let (recorded, gathered) = limits(1, 0);
    for number in 0..recorded + 3 {
        recorder.record(numbered(number), Visit::Click, now());
    }
    // What has a place goes on being counted. As many as are noted before they are counted, and the last one.
    for _ in 0..=NOTED_CLICKS {
        recorder.record(numbered(0), Visit::Preview, now());
    }
    assert_eq!(links.dropped_clicks(), 3);
    let mut next = recorded;
    while next < gathered {
        links.gather_clicks();
        let most = recorded.min(gathered - next);
        for _ in 0..most {
            recorder.record(numbered(next), Visit::Click, now());
            next += 1;
        }
    }
    links.gather_clicks();
    assert_eq!(links.dropped_clicks(), 3);
    recorder.record(numbered(next), Visit::Click, now());
    links.gather_clicks();
    assert_eq!(links.dropped_clicks(), 4, "one more than is gathered");
}

/// The excess: each thread has a table of its own.
#[test]
fn memory_for_clicks_is_bounded_for_any_number_of_threads() {
    for recorders in [1, 4, 34, 258] {
        let disk = Disk::with_store();
        let links = open(&disk, &Clock::manual(now()), 1).unwrap();
        let recorders: Vec<_> = (0..recorders).map(|_| links.recorder()).collect();
        let (recorded, _) = limits(recorders.len(), 0);
        for round in 0..2 {
            for (place, recorder) in recorders.iter().enumerate() {
                for number in 0..recorded {
                    let number = (round * recorders.len() + place) * recorded + number;
                    recorder.record(numbered(number), Visit::Click, now());
                }
            }
            assert!(links.bytes_for_clicks() <= LEAST_BYTES);
            links.gather_clicks();
        }
        assert!(links.bytes_for_clicks() <= LEAST_BYTES);
    }
    // A place takes less than 64 bytes, of which seven in eight are taken, and half as many once more while a table
    // grows.
    for recorders in [1, 4, 34, 258] {
        for links in [0, 1_000_000, 4_194_305, 10_000_000, 1_000_000_000] {
            let (recorded, gathered) = limits(recorders, links);
            let bytes = ((recorders + 1) * recorded + gathered) * 64 * 8 / 7 * 3 / 2;
            assert!(recorded > 0 && gathered > recorded);
            assert!(
                bytes <= (LEAST_BYTES.max(links * BYTES_FOR_EACH_LINK)) * 9 / 8,
                "{recorders} {links}"
            );
        }
    }
}

/// The loss: a flush waits for the disk, and recorders become full meanwhile.
#[test]
fn recorders_are_gathered_while_a_flush_waits_for_the_writer() {
    let disk = Disk::with_store();
    let (links, ids) = with_links(&disk, 1);
    let links = Arc::new(links);
    let recorder = links.recorder();
    block_on(async {
        let release = block_writer(&links).await;
        recorder.record(ids[0], Visit::Click, now());
        let mut flushing = Box::pin(links.keep_flushing_clicks());
        while !links.has_clicks_in_flight() {
            assert!(poll!(&mut flushing).is_pending());
            tokio::task::yield_now().await;
        }
        let (recorded, _) = limits(1, 1);
        for number in 0..2 * recorded {
            recorder.record(numbered(number), Visit::Click, now());
            if number % (recorded / 8) == 0 {
                assert!(poll!(&mut flushing).is_pending());
            }
        }
        drop(release);
    });
    assert_eq!(links.dropped_clicks(), 0);
}

/// The loss: the last flush is given up while the store takes writes and is only slow.
#[test]
fn the_last_flush_waits_for_a_store_that_is_slow() {
    let disk = Disk::with_store();
    let (links, ids) = with_links(&disk, 25);
    let links = Arc::new(links);
    let recorder = links.recorder();
    let click = || ids.iter().for_each(|id| recorder.record(*id, Visit::Click, now()));
    click();
    block_on(async {
        let release = block_writer(&links).await;
        let mut flush = Box::pin(links.flush_all_clicks(Duration::from_millis(1)));
        let waited = tokio::time::timeout(Duration::from_millis(100), &mut flush).await;
        assert!(waited.is_err(), "given up");
        drop(release);
        flush.await;
    });
    drop(links);
    assert_eq!(stored(&disk, ids[24]), clicks(1));
}

#[test]
fn nothing_is_counted_read_only_or_when_disabled() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(now());
    let links = Links::open(folder.path(), clock.clone(), 8)
        .unwrap()
        .counting_clicks(false);
    let id = block_on(links.add(draft("https://e.example/x"), somebody()))
        .unwrap()
        .id;
    links.recorder().record(id, Visit::Click, now());
    block_on(links.flush_clicks()).unwrap();
    assert_eq!(told(&links, id), clicks(0));
    drop(links);
    let links = Links::open_read_only(&folder.path().join(FILE_NAME), clock).unwrap();
    assert!(!links.recorder().is_counting());
    assert_eq!(told(&links, id), clicks(0));
}
