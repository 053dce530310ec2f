//! What partners allow new links.

use std::collections::HashMap;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::kaltura::session::{Partner, Secret};
use crate::links::file::{Conflict, ImportOptions, import};
use crate::links::tests::audit::{import_log, somebody};
use crate::links::tests::imports::link;
use crate::links::tests::{PARTNER, block_on, draft, everybody, lines_of, open};
use crate::links::*;
use crate::model::LinkPolicy;

fn partners(hosts: &[&str], links_per_user_and_day: u32) -> Arc<Partners> {
    let partner = Partner {
        admin_secrets: vec![Secret::new("secret".into())],
        user_secrets: Vec::new(),
        is_operator: false,
        policy: LinkPolicy {
            destination_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            links_per_user_and_day,
        },
    };
    Arc::new(Partners(HashMap::from([(PARTNER, partner)])))
}

fn of_user(user: &str) -> Draft {
    Draft {
        added_by: Kind::User,
        user_id: Some(user.to_owned()),
        ..draft("https://e.example/x")
    }
}

/// How many of so many concurrent adds are allowed.
fn allowed(links: &Links, draft: &Draft, adds: usize) -> usize {
    let added = block_on(join_all((0..adds).map(|_| links.add(draft.clone(), somebody()))));
    let allowed = added.iter().filter(|added| added.is_ok()).count();
    for added in added {
        assert!(matches!(added, Ok(_) | Err(LinkError::TooManyToday { limit: 3, .. })));
    }
    allowed
}

#[test]
fn a_user_adds_so_many_links_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let noon = Timestamp::from_unix(1_700_006_400);
    let clock = Clock::manual(noon);
    let (_sender, receiver) = watch::channel(partners(&[], 3));
    let mut links = open(folder.path(), &clock);
    links.follow(receiver.clone());

    assert_eq!(allowed(&links, &of_user("me"), 10), 3);
    assert_eq!(allowed(&links, &of_user("you"), 2), 2);
    // A link that is deleted, or that an administrator has added, counts too; neither has a limit itself.
    let by_admin = Draft {
        added_by: Kind::Admin,
        ..of_user("you")
    };
    assert_eq!(allowed(&links, &by_admin, 1), 1);
    block_on(links.delete_user(PARTNER, "you".to_owned(), somebody())).unwrap();
    assert_eq!(allowed(&links, &of_user("you"), 1), 0);
    assert_eq!(allowed(&links, &by_admin, 5), 5);
    let nobody = Draft {
        user_id: None,
        ..of_user("")
    };
    assert!(matches!(
        block_on(links.add(nobody, somebody())),
        Err(LinkError::NoUser)
    ));

    drop(links);
    links = open(folder.path(), &clock);
    links.follow(receiver);
    assert_eq!(allowed(&links, &of_user("me"), 1), 0);
    clock.set(noon.day().end());
    assert_eq!(allowed(&links, &of_user("me"), 1), 0);
    clock.set(noon.day().end().plus(1));
    assert_eq!(allowed(&links, &of_user("me"), 5), 3);
}

#[test]
fn new_destinations_have_allowed_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::manual(Timestamp::from_unix(1_000)));
    let (sender, receiver) = watch::channel(partners(&["e.example"], 0));
    links.follow(receiver);
    let refused = block_on(links.add(draft("https://evil.example/"), somebody()));
    assert!(matches!(refused, Err(LinkError::Host(ForbiddenHost { host, .. })) if host == "evil.example"));
    let id = block_on(links.add(draft("https://e.example/"), somebody())).unwrap().id;
    let set = |url: &'static str, name: &'static str| {
        let edit = move |old: &ShortLink| {
            Ok::<_, ()>(ShortLink {
                full_url: url.to_owned(),
                name: Some(name.to_owned()),
                ..old.clone()
            })
        };
        block_on(links.update(id, everybody(), somebody(), edit))
    };
    assert!(set("https://e.example/new", "one").is_ok());
    let refused = set("https://evil.example/", "two");
    assert!(matches!(refused, Err(UpdateError::Link(LinkError::Host(_)))));
    // A link keeps the destination that it has.
    sender.send_replace(partners(&["*.example.org"], 0));
    assert!(set("https://e.example/new", "three").is_ok());
    assert!(set("https://e.example/newer", "four").is_err());
    assert!(set("https://www.example.org/", "five").is_ok());
    block_on(links.delete(id, everybody(), somebody())).unwrap();
    block_on(links.restore(id, PARTNER, somebody())).unwrap();
}

#[test]
fn imported_destinations_have_allowed_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::manual(Timestamp::from_unix(1_000)));
    let to = |number, full_url: &str| ShortLink {
        full_url: full_url.to_owned(),
        ..link(number)
    };
    let run = |lines: Vec<ShortLink>, obeyed: Option<Arc<Partners>>, dry_run| {
        let options = ImportOptions {
            conflict: Conflict::Update,
            keep_going: true,
            dry_run,
            obeyed,
            ..ImportOptions::default()
        };
        let lines = lines_of(lines);
        let report = block_on(import(links.store(), lines, options, Arc::new(|_| {}), import_log())).unwrap();
        let refused: Vec<_> = report.problems.iter().map(|problem| problem.line).collect();
        let reasons = report.problems.iter().map(|problem| problem.reason.as_str());
        assert!(
            reasons
                .into_iter()
                .all(|reason| reason.contains("not allowed (expected one of e.example)"))
        );
        (report.added, report.updated, refused)
    };
    // Whoever may write the file of the store.
    let old = || vec![to(1, "https://old.example/"), to(2, "https://old.example/")];
    assert_eq!(run(old(), None, false), (2, 0, vec![]));
    let damaged = link(2).id;
    block_on(links.store.write(move |transaction| transaction.damage(damaged))).unwrap();
    let policy = partners(&["e.example"], 0);
    let renamed = ShortLink {
        name: Some("new".into()),
        ..to(1, "https://old.example/")
    };
    let file = vec![
        renamed,
        to(1, "https://evil.example/"),
        to(2, "https://old.example/"),
        to(3, "https://evil.example/"),
        to(4, "https://e.example/"),
    ];
    for dry_run in [true, false] {
        let outcome = run(file.clone(), Some(Arc::clone(&policy)), dry_run);
        assert_eq!(outcome, (1, 1, vec![2, 3, 4]), "{dry_run}");
    }
}

#[test]
fn refused_adds_do_not_take_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::manual(Timestamp::from_unix(1_700_006_400)));
    let (_sender, receiver) = watch::channel(partners(&[], 3));
    links.follow(receiver);
    let id = block_on(links.add(of_user("me"), somebody())).unwrap().id;
    assert_eq!(allowed(&links, &of_user("me"), 2), 2);
    let own = Scope {
        owner: Some("me".into()),
        ..everybody()
    };
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (started, is_started) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let holding = links.store.write_alone_once(move |_| {
            started.send(()).unwrap();
            released.recv().unwrap();
            Ok((crate::store::TransactionEnd::Abort, ()))
        });
        let refused = async {
            is_started.await.unwrap();
            let added = links.add(of_user("me"), somebody()).await;
            assert!(matches!(added, Err(LinkError::TooManyToday { .. })), "{added:?}");
            let renewed = links.renew_id(id, own, somebody()).await;
            assert!(matches!(renewed, Err(LinkError::TooManyToday { .. })), "{renewed:?}");
            release.send(()).unwrap();
        };
        let (held, ()) = tokio::join!(holding, refused);
        held.unwrap();
    });
}
