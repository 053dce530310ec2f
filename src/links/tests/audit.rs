//! The audit log: every change is recorded with its actor, in its transaction, and kept for a bounded time.

use crate::links::file::{FileFormat, ImportLog, ImportOptions, Line, import};
use crate::links::tests::imports::link;
use crate::links::tests::simulated::open;
use crate::links::tests::{PARTNER, block_on, draft, everybody};
use crate::links::*;
use crate::model::{ActorKind, AuditEntry, Way};
use crate::store::AuditQuery;
use crate::store::testing::simulated::Disk;

pub fn somebody() -> Actor {
    Actor {
        partner: Some(PARTNER),
        user: Some("me".into()),
        kind: ActorKind::Admin,
        way: Way::Api,
    }
}

pub fn import_log() -> ImportLog {
    ImportLog {
        log: AuditLog::new(somebody(), u64::MAX),
        format: FileFormat::JsonLines,
        now: Timestamp::from_unix(1),
    }
}

fn now() -> Timestamp {
    Timestamp::from_unix(1_000)
}

fn links_on(disk: &Disk) -> Links {
    open(disk, &Clock::manual(now()), 1).unwrap().auditing(100)
}

fn all() -> AuditQuery {
    AuditQuery {
        limit: usize::MAX,
        ..AuditQuery::default()
    }
}

/// All that is wanted, page by page.
fn noted(links: &Links, query: AuditQuery) -> Vec<AuditEntry> {
    let (mut query, mut entries) = (query, Vec::new());
    loop {
        let page = block_on(links.audit(query.clone())).unwrap();
        entries.extend(page.entries);
        match page.next {
            Some(next) => query.before = Some(next),
            None => return entries,
        }
    }
}

/// The newest entry, in short: action, link, and each change.
fn newest(links: &Links) -> (AuditAction, Option<LinkId>, Vec<String>) {
    let entry = noted(links, all()).remove(0);
    assert_eq!((entry.at, &entry.by), (now(), &somebody()));
    let changes = entry.changes.iter().map(|(name, change)| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{name}: {} > {}", text(&change.old), text(&change.new))
    });
    (entry.action, entry.id, changes.collect())
}

fn count(links: &Links) -> usize {
    noted(links, all()).len()
}

#[test]
fn each_change_of_a_link_is_noted() {
    let disk = Disk::with_store();
    let links = links_on(&disk);
    let long = format!("https://e.example/{}", "x".repeat(400));
    let owned = Draft {
        user_id: Some("me".into()),
        ..draft(&long)
    };
    let id = block_on(links.add(owned, somebody())).unwrap().id;
    let cut = format!("fullUrl:  > {}…", &long[..300]);
    let added = [&cut, "status:  > enabled", "systemName:  > NAME", "userId:  > me"].map(str::to_owned);
    assert_eq!(newest(&links), (AuditAction::Add, Some(id), added.to_vec()));
    let update = |edit: fn(&mut ShortLink)| {
        let edit = move |link: &ShortLink| {
            let mut new = link.clone();
            edit(&mut new);
            Ok::<_, ()>(new)
        };
        block_on(links.update(id, everybody(), somebody(), edit)).unwrap()
    };
    update(|link| (link.name, link.user_id) = (Some("N".into()), None));
    let changed = ["name:  > N", "userId: me > "].map(str::to_owned);
    assert_eq!(newest(&links), (AuditAction::Update, Some(id), changed.to_vec()));
    update(|_| {});
    assert_eq!(count(&links), 2, "nothing has changed");
    update(|link| link.status = Status::Disabled);
    assert_eq!(newest(&links).2, ["status: enabled > disabled"]);
    block_on(links.delete(id, everybody(), somebody())).unwrap();
    let deleted = vec!["status: disabled > deleted".to_owned()];
    assert_eq!(newest(&links), (AuditAction::Delete, Some(id), deleted));
    block_on(links.restore_all(vec![id], PARTNER, true, somebody())).unwrap();
    assert_eq!(count(&links), 4, "a dry run");
    block_on(links.restore_all(vec![id], PARTNER, false, somebody())).unwrap();
    let restored = vec!["status: deleted > enabled".to_owned()];
    assert_eq!(newest(&links), (AuditAction::Restore, Some(id), restored));
    assert!(block_on(links.restore(id, PARTNER, somebody())).is_err());
    assert!(block_on(links.delete("none".parse().unwrap(), everybody(), somebody())).is_err());
    assert_eq!(count(&links), 5);
    // It is there after a restart, and as much.
    let before = noted(&links, all());
    drop(links);
    assert_eq!(noted(&links_on(&disk), all()), before);
}

#[test]
fn cascade_and_session_end_are_noted_once() {
    let disk = Disk::with_store();
    let links = links_on(&disk);
    let owned = || Draft {
        user_id: Some("x".into()),
        ..draft("https://e.example/")
    };
    for _ in 0..3 {
        block_on(links.add(owned(), somebody())).unwrap();
    }
    block_on(links.delete_user(PARTNER, "y".into(), somebody())).unwrap();
    assert_eq!(count(&links), 3, "nobody's links");
    block_on(links.delete_user(PARTNER, "x".into(), somebody())).unwrap();
    let changes = ["links:  > 3", "userId: x > "].map(str::to_owned);
    assert_eq!(newest(&links), (AuditAction::DeleteUser, None, changes.to_vec()));
    let session = Session {
        partner: PARTNER,
        user: Some("me".into()),
        kind: Kind::Admin,
        expiry: now().plus(100),
        privileges: Default::default(),
        digest: [7; 20],
    };
    block_on(links.revoke(&session, Actor::of(&session, Way::Api))).unwrap();
    assert_eq!(newest(&links), (AuditAction::EndSession, None, vec![]));
    assert_eq!(count(&links), 5);
}

#[test]
fn import_is_noted_in_one_entry() {
    let disk = Disk::with_store();
    let links = links_on(&disk);
    let lines = |numbers: std::ops::Range<usize>| {
        (1..).zip(numbers).map(|(number, of)| {
            Ok(Line {
                number,
                link: Ok(link(of)),
                is_dated: true,
                has_start: true,
            })
        })
    };
    let log = || ImportLog {
        now: now(),
        format: FileFormat::Csv,
        ..import_log()
    };
    let run = |numbers, options| {
        let imported = import(links.store(), lines(numbers), options, Arc::new(|_| {}), log());
        block_on(imported).unwrap();
    };
    run(0..2, ImportOptions::default());
    let changes = ["added:  > 2", "fileFormat:  > csv"].map(str::to_owned);
    assert_eq!(newest(&links), (AuditAction::Import, None, changes.to_vec()));
    run(0..2, ImportOptions::default());
    let dry_run = ImportOptions {
        dry_run: true,
        ..ImportOptions::default()
    };
    run(2..9, dry_run);
    assert_eq!(count(&links), 1, "nothing has changed");
    // Three transactions.
    let keep_going = ImportOptions {
        keep_going: true,
        ..ImportOptions::default()
    };
    run(0..4_500, keep_going);
    let changes = ["added:  > 4498", "fileFormat:  > csv", "unchanged:  > 2"].map(str::to_owned);
    assert_eq!(newest(&links).2, changes);
    assert_eq!(count(&links), 2);
}

#[test]
fn oldest_entries_go_and_none_are_noted_at_zero() {
    let disk = Disk::with_store();
    let links = links_on(&disk).auditing(10);
    let add = |links: &Links| block_on(links.add(draft("https://e.example/"), somebody())).unwrap();
    for _ in 0..50 {
        add(&links);
    }
    let sequences: Vec<_> = noted(&links, all()).iter().map(|entry| entry.sequence).collect();
    // The oldest are dropped once in four entries.
    assert_eq!(sequences, (39..=50).rev().collect::<Vec<_>>());
    let links = links.auditing(0);
    add(&links);
    assert_eq!(count(&links), 12);
    drop(links);
    let links = links_on(&disk);
    add(&links);
    assert_eq!(noted(&links, all())[0].sequence, 51);
}

#[test]
fn entries_are_found_by_what_they_tell() {
    let disk = Disk::with_store();
    let clock = Clock::manual(now());
    let links = open(&disk, &clock, 1).unwrap().auditing(1_000);
    let by = |user: &str| Actor {
        user: Some(user.into()),
        ..somebody()
    };
    let mut ids = Vec::new();
    for number in 0..60 {
        clock.set(now().plus(number));
        let user = if number % 2 == 0 { "even" } else { "odd" };
        ids.push(block_on(links.add(draft("https://e.example/"), by(user))).unwrap().id);
    }
    block_on(links.delete(ids[5], everybody(), by("odd"))).unwrap();
    let sequences = |query: AuditQuery| {
        let found = noted(&links, query);
        found.iter().map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    assert_eq!(sequences(all()), (1..=61).rev().collect::<Vec<_>>());
    let even = sequences(AuditQuery {
        user: Some("even".into()),
        ..all()
    });
    assert_eq!(even, (1..=59).rev().step_by(2).collect::<Vec<_>>());
    let of_link = sequences(AuditQuery {
        id: Some(ids[5]),
        ..all()
    });
    assert_eq!(of_link, [61, 6]);
    let deletions = sequences(AuditQuery {
        action: Some(AuditAction::Delete),
        ..all()
    });
    assert_eq!(deletions, [61]);
    let between = sequences(AuditQuery {
        since: Some(now().plus(10)),
        until: Some(now().plus(12)),
        ..all()
    });
    assert_eq!(between, [13, 12, 11]);
    let of_others = sequences(AuditQuery {
        partner: Some(PartnerId(8)),
        ..all()
    });
    assert!(of_others.is_empty());
    // A page ends at its limit, and at a number of entries that it looks at.
    let page = |query| block_on(links.audit(query)).unwrap();
    let first = page(AuditQuery { limit: 3, ..all() });
    assert_eq!((first.entries.len(), first.next), (3, Some(59)));
    let none = page(AuditQuery {
        partner: Some(PartnerId(8)),
        ..all()
    });
    assert_eq!((none.entries.len(), none.next), (0, Some(42)));
}
