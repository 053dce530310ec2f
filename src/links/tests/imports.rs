//! What imports do before and while they hold the writer.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use crate::links::Links;
use crate::links::file::Line;
use crate::links::file::{Conflict, ImportOptions, ImportReport, import};
use crate::links::tests::audit::import_log;
use crate::links::tests::block_on;
use crate::model::{Clock, PartnerId, ShortLink, Status, Timestamp};
use crate::store::TransactionEnd;

pub fn link(number: usize) -> ShortLink {
    ShortLink {
        id: format!("link{number}").parse().unwrap(),
        created_at: Timestamp::from_unix(1),
        updated_at: Timestamp::from_unix(1),
        starts_at: None,
        expires_at: None,
        partner_id: PartnerId(7),
        user_id: None,
        name: None,
        system_name: "name".into(),
        full_url: "https://e.example/".into(),
        unique_id: None,
        status: Status::Enabled,
    }
}

fn lines(links: Vec<Result<ShortLink, String>>) -> impl Iterator<Item = io::Result<Line>> + Send + 'static {
    (1..).zip(links).map(|(number, link)| {
        Ok(Line {
            number,
            link,
            is_dated: true,
            has_start: true,
        })
    })
}

fn wrong() -> Result<ShortLink, String> {
    Err("for this test".to_owned())
}

/// Imports while another job holds the writer. Lets the writer go when so many lines have been read, or with `None`
/// not before the import has ended.
fn import_beside_a_writer(
    links: &Links,
    file: Vec<Result<ShortLink, String>>,
    options: ImportOptions,
    until: Option<u64>,
) -> ImportReport {
    let read = Arc::new(AtomicU64::new(0));
    let (counted, total) = (Arc::clone(&read), file.len() as u64);
    let (release, released) = mpsc::channel::<()>();
    let at_end = release.clone();
    let counting = lines(file).inspect(move |_| {
        if Some(counted.fetch_add(1, Ordering::SeqCst) + 1) == until {
            release.send(()).unwrap();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (started, is_started) = tokio::sync::oneshot::channel();
        let holding = links.store().write_alone_once(move |_| {
            started.send(()).unwrap();
            released.recv().unwrap();
            Ok((TransactionEnd::Abort, ()))
        });
        let importing = async {
            is_started.await.unwrap();
            let report = import(links.store(), counting, options, Arc::new(|_| {}), import_log())
                .await
                .unwrap();
            at_end.send(()).ok();
            report
        };
        let (held, report) = tokio::join!(holding, importing);
        held.unwrap();
        assert_eq!(read.load(Ordering::SeqCst), total);
        report
    })
}

fn opened() -> (tempfile::TempDir, Links) {
    let folder = tempfile::tempdir().unwrap();
    let links = Links::open(folder.path(), Clock::system(), 8).unwrap();
    (folder, links)
}

const KEEP_GOING: ImportOptions = ImportOptions {
    conflict: Conflict::Fail,
    dry_run: false,
    keep_going: true,
    partner: None,
    obeyed: None,
};

#[test]
fn a_whole_file_is_read_before_the_writer_is_taken() {
    let (_folder, links) = opened();
    let file: Vec<_> = (0..3_000).map(|number| Ok(link(number))).collect();
    let report = import_beside_a_writer(&links, file, ImportOptions::default(), Some(3_000));
    assert_eq!((report.added, report.applied), (3_000, true));
}

#[test]
fn wrong_lines_do_not_take_the_writer() {
    let (_folder, links) = opened();
    let file = vec![wrong(); 10_000];
    let report = import_beside_a_writer(&links, file, KEEP_GOING, None);
    assert_eq!((report.refused, report.applied), (10_000, true));
    let foreign = ImportOptions {
        partner: Some(PartnerId(8)),
        ..KEEP_GOING
    };
    let report = import_beside_a_writer(&links, vec![Ok(link(1)); 10_000], foreign, None);
    assert_eq!((report.refused, report.problems.len()), (10_000, 100));
}

#[test]
fn a_file_with_a_wrong_line_does_not_take_the_writer() {
    let (_folder, links) = opened();
    let file = vec![Ok(link(1)), Ok(link(1)), wrong(), Ok(link(2))];
    let report = import_beside_a_writer(&links, file, ImportOptions::default(), None);
    let counts = [report.added, report.unchanged, report.refused];
    assert_eq!((counts, report.applied), ([2, 1, 1], false));
}

/// What an import in each way says, and afterwards, what its dry run says before.
#[test]
fn a_dry_run_does_not_take_the_writer_and_says_the_same() {
    let unique = |number, unique_id: &str| ShortLink {
        unique_id: Some(unique_id.to_owned()),
        ..link(number)
    };
    let changed = |number| ShortLink {
        full_url: "https://e.example/other".into(),
        ..link(number)
    };
    let gone = |number, unique_id: &str| ShortLink {
        status: Status::Deleted,
        ..unique(number, unique_id)
    };
    let files = [
        vec![link(1), link(2), changed(1), link(2), unique(3, "a"), unique(4, "a")],
        vec![unique(1, "a"), unique(1, "b"), unique(2, "a"), link(2), unique(3, "b")],
        vec![unique(1, "x"), gone(1, "x"), unique(2, "x"), unique(5, "x")],
        vec![link(1), link(1), changed(1), link(1)],
    ];
    let before = [link(1), unique(5, "x"), unique(6, "b")];
    for file in files {
        for conflict in [Conflict::Fail, Conflict::Skip, Conflict::Update] {
            for keep_going in [false, true] {
                let (_folder, links) = opened();
                let stored = before.iter().cloned().map(Ok).collect();
                import_beside_a_writer(&links, stored, ImportOptions::default(), Some(3));
                let options = ImportOptions {
                    conflict,
                    keep_going,
                    ..ImportOptions::default()
                };
                let dry_run = ImportOptions {
                    dry_run: true,
                    ..options.clone()
                };
                let file: Vec<_> = file.iter().cloned().map(Ok).collect();
                let would = import_beside_a_writer(&links, file.clone(), dry_run, None);
                assert!(!would.applied);
                let until = Some(file.len() as u64);
                let done = import_beside_a_writer(&links, file, options.clone(), until);
                let would = ImportReport {
                    applied: done.applied,
                    first_ids: Vec::new(),
                    ..would
                };
                assert_eq!(would, done, "{options:?}");
            }
        }
    }
}

#[test]
fn a_repeated_line_is_put_once() {
    let (_folder, links) = opened();
    let before = links.store().metrics().batch_sizes.read().count();
    let file = vec![Ok(link(1)); 10_000];
    let report = import_beside_a_writer(&links, file, ImportOptions::default(), Some(10_000));
    assert_eq!((report.added, report.unchanged), (1, 9_999));
    assert_eq!(links.store().metrics().batch_sizes.read().count() - before, 1);
}

#[test]
fn links_are_kept_in_commits_of_bounded_size() {
    let (_folder, links) = opened();
    let before = links.store().metrics().batch_sizes.read().count();
    let file = (0..5_000).map(|number| Ok(link(number))).collect();
    let report = import_beside_a_writer(&links, file, KEEP_GOING, Some(1));
    assert_eq!((report.added, report.applied), (5_000, true));
    assert_eq!(links.store().metrics().batch_sizes.read().count() - before, 3);
}

#[test]
fn a_line_keeps_sets_or_clears_the_start_of_a_stored_link() {
    let folder = tempfile::tempdir().unwrap();
    let links = Links::open(folder.path(), Clock::system(), 8).unwrap();
    let run = |line: &[(Option<i64>, bool, Option<i64>)]| {
        let lines: Vec<_> = line
            .iter()
            .map(|&(starts_at, has_start, expires_at)| {
                Ok(Line {
                    number: 1,
                    link: Ok(ShortLink {
                        starts_at: starts_at.map(Timestamp::from_unix),
                        expires_at: expires_at.map(Timestamp::from_unix),
                        ..link(1)
                    }),
                    is_dated: true,
                    has_start,
                })
            })
            .collect();
        let options = ImportOptions {
            conflict: Conflict::Update,
            ..ImportOptions::default()
        };
        let report = block_on(import(
            links.store(),
            lines.into_iter(),
            options,
            Arc::new(|_| {}),
            import_log(),
        ))
        .unwrap();
        let stored = links.store().snapshot().unwrap().get(link(1).id).unwrap().unwrap();
        (report, stored.starts_at.map(Timestamp::as_unix))
    };
    let (report, start) = run(&[(Some(100), true, None)]);
    assert_eq!((report.added, start), (1, Some(100)));
    let (report, start) = run(&[(None, false, None)]);
    assert_eq!((report.unchanged, start), (1, Some(100)));
    let (report, start) = run(&[(None, false, Some(200))]);
    assert_eq!((report.updated, start), (1, Some(100)));
    // Whoever wrote the file may not know the start that it keeps.
    let (report, start) = run(&[(None, false, Some(50))]);
    assert_eq!((report.updated, start), (1, Some(100)));
    // The second line says more than the first.
    let (report, start) = run(&[(None, false, None), (None, true, None)]);
    assert_eq!((report.updated, start), (2, None));
}
