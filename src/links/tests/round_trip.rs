//! Exports that come back in: one import makes a store what the other one is.

use crate::links::file::{
    Conflict, Defaults, FileFormat, ImportOptions, ImportReport, LinkWriter, export, import, read,
};
use crate::links::tests::audit::{import_log, somebody};
use crate::links::tests::{block_on, draft, everybody, open};
use crate::links::*;

const NOW: Timestamp = Timestamp::from_unix(1_700_000_000);
const FORMATS: [FileFormat; 2] = [FileFormat::JsonLines, FileFormat::Csv];

fn exported(links: &Links, format: FileFormat) -> Vec<u8> {
    let mut file = Vec::new();
    let writer = LinkWriter::new(format, &mut file).unwrap();
    assert_eq!(
        export(&links.store.snapshot().unwrap(), None, writer, || {}).unwrap(),
        0
    );
    file
}

fn imported(links: &Links, format: FileFormat, file: &[u8], options: ImportOptions) -> ImportReport {
    let defaults = Defaults {
        now: NOW,
        partner: None,
    };
    let lines = read(format, std::io::Cursor::new(file.to_vec()), defaults).unwrap();
    block_on(import(links.store(), lines, options, Arc::new(|_| {}), import_log())).unwrap()
}

/// The store before links got new ids, and after it.
fn renewed() -> (tempfile::TempDir, [Vec<Vec<u8>>; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::manual(NOW));
    let mut ids = Vec::new();
    for number in 0..20 {
        let unique = Draft {
            unique_id: Some(format!("key{number}")),
            ..draft("https://e.example/x")
        };
        ids.push(block_on(links.add(unique, somebody())).unwrap().id);
    }
    let before = FORMATS.map(|format| exported(&links, format)).to_vec();
    for (number, id) in ids.into_iter().enumerate() {
        let new = block_on(links.renew_id(id, everybody(), somebody())).unwrap();
        if number % 3 == 0 {
            block_on(links.renew_id(new.id, everybody(), somebody())).unwrap();
        }
    }
    let after = FORMATS.map(|format| exported(&links, format)).to_vec();
    (folder, [before, after])
}

#[test]
fn one_import_takes_renewals_over() {
    let (_folder, [before, after]) = renewed();
    for ((format, before), after) in FORMATS.into_iter().zip(before).zip(after) {
        for (stored, keep_going) in [
            (None, false),
            (None, true),
            (Some(&before), false),
            (Some(&before), true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let links = open(folder.path(), &Clock::manual(NOW));
            if let Some(stored) = stored {
                assert_eq!(imported(&links, format, stored, ImportOptions::default()).added, 20);
            }
            let options = ImportOptions {
                conflict: Conflict::Update,
                keep_going,
                ..ImportOptions::default()
            };
            let dry_run = ImportOptions {
                dry_run: true,
                ..options.clone()
            };
            let would = imported(&links, format, &after, dry_run);
            let done = imported(&links, format, &after, options);
            let updated = stored.map_or(0, |_| 20);
            assert_eq!(
                (done.added, done.updated, done.refused),
                (47 - updated, updated, 0),
                "{done:?}"
            );
            assert_eq!(
                (would.added, would.updated, would.refused),
                (done.added, done.updated, 0)
            );
            assert_eq!(exported(&links, format), after, "{format:?} {keep_going}");
            let found = links.store.snapshot().unwrap().verify(|| {}).unwrap();
            assert!(found.is_clean(), "{found:#?}");
        }
    }
}

/// Spreadsheets write a number of so many digits as `2.53402E+11`.
#[test]
fn retired_id_survives_a_spreadsheet() {
    let (_folder, [_, after]) = renewed();
    let csv = String::from_utf8(after[1].clone()).unwrap();
    assert_eq!(csv.matches(",never\n").count(), 27);
    assert!(!csv.contains(&Timestamp::NEVER.to_string()));
}

/// A line that waits for a unique id is refused in the end if nothing frees it, under its own number.
#[test]
fn line_whose_unique_id_stays_taken_is_refused() {
    let (_folder, [before, _]) = renewed();
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::manual(NOW));
    imported(&links, FileFormat::JsonLines, &before[0], ImportOptions::default());
    let line = |id: &str, unique_id: &str| {
        format!(
            "{{\"id\":\"{id}\",\"partnerId\":7,\"systemName\":\"name\",\"fullUrl\":\"https://e.example/\",\
            \"uniqueId\":\"{unique_id}\"}}\n"
        )
    };
    let file = [
        line("aaaa", "key1"),
        line("bbbb", "other"),
        "{}\n".to_owned(),
        line("cccc", "key2"),
    ]
    .concat();
    for (keep_going, dry_run) in [(false, false), (false, true), (true, true), (true, false)] {
        let options = ImportOptions {
            conflict: Conflict::Update,
            keep_going,
            dry_run,
            ..ImportOptions::default()
        };
        let report = imported(&links, FileFormat::JsonLines, file.as_bytes(), options);
        let lines: Vec<_> = report.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(
            (report.added, report.refused, lines),
            (1, 3, vec![1, 3, 4]),
            "{report:?}"
        );
        assert!(report.problems[0].reason.contains("has the unique id \"key1\""));
    }
}
