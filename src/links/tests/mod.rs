//! The domain against a model of it, and the map against the store.

pub mod audit;
mod cascade;
pub mod clicks;
pub mod clock;
pub mod cluster;
pub mod crash;
pub mod damage;
mod days;
pub mod destinations;
mod fleet;
mod follower;
pub mod imports;
mod once;
mod policy;
pub mod renew;
mod round_trip;
mod salvage;
mod search;
pub mod simulated;
mod staged;
pub mod validity;

use crate::links::file::{ImportOptions, import};
use crate::links::tests::audit::{import_log, somebody};
use crate::model::Destination;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::store::Replacement;

pub const PARTNER: PartnerId = PartnerId(7);

#[derive(Debug, Clone)]
enum Operation {
    Add {
        user: Option<String>,
        unique_id: Option<String>,
        status: i64,
        validity: [Option<i64>; 2],
    },
    /// The numbers choose among the links made so far.
    SetUrl(usize, u32),
    SetStatus(usize, i64),
    SetUser(usize, Option<String>),
    SetStart(usize, Option<i64>),
    SetNothing(usize),
    Delete(usize),
    Restore(usize),
    DeleteUser(String),
    Reopen,
}

fn any_operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let user = || prop::option::of("[xy]");
    prop_oneof![
        6 => (user(), prop::option::weighted(0.3, "[pq]"), 1_i64..=3, any_validity())
            .prop_map(|(user, unique_id, status, validity)| Add { user, unique_id, status, validity }),
        3 => (any::<usize>(), any::<u32>()).prop_map(|(link, version)| SetUrl(link, version)),
        3 => (any::<usize>(), 1_i64..=3).prop_map(|(link, status)| SetStatus(link, status)),
        2 => (any::<usize>(), user()).prop_map(|(link, user)| SetUser(link, user)),
        2 => (any::<usize>(), prop::option::of(0_i64..2_000)).prop_map(|(link, start)| SetStart(link, start)),
        1 => any::<usize>().prop_map(SetNothing),
        3 => any::<usize>().prop_map(Delete),
        3 => any::<usize>().prop_map(Restore),
        1 => "[xy]".prop_map(DeleteUser),
        1 => Just(Reopen),
    ]
}

/// Start and expiry, which may come before it.
fn any_validity() -> impl Strategy<Value = [Option<i64>; 2]> {
    let time = || prop::option::of(0_i64..2_000);
    [time(), time()]
}

fn is_valid(starts_at: Option<Timestamp>, expires_at: Option<Timestamp>) -> bool {
    starts_at.is_none() || expires_at.is_none() || starts_at < expires_at
}

pub fn draft(url: &str) -> Draft {
    Draft {
        added_by: Kind::Admin,
        partner_id: PARTNER,
        user_id: None,
        name: None,
        system_name: "NAME".into(),
        full_url: Destination::parse(url).unwrap(),
        unique_id: None,
        status: Status::Enabled,
        starts_at: None,
        expires_at: None,
    }
}

pub fn everybody() -> Scope {
    Scope {
        partner: PARTNER,
        owner: None,
    }
}

pub fn open(folder: &Path, clock: &Clock) -> Links {
    let links = Links::open(folder, clock.clone(), 4).unwrap();
    links.load().unwrap();
    links
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// The links as they should be, in the order in which they were made.
type Model = BTreeMap<LinkId, ShortLink>;

fn taken(model: &Model, unique_id: Option<&str>) -> bool {
    let holds = |link: &ShortLink| link.unique_id.as_deref() == unique_id && link.status != Status::Deleted;
    unique_id.is_some() && model.values().any(holds)
}

fn pick(model: &Model, number: usize) -> Option<ShortLink> {
    model.values().nth(number.checked_rem(model.len())?).cloned()
}

/// Runs an operation on both sides and compares the outcomes.
async fn run(links: &Links, model: &mut Model, operation: &Operation, now: Timestamp) {
    let edited = |stored: &ShortLink, edit: &dyn Fn(&mut ShortLink)| {
        let mut new = stored.clone();
        edit(&mut new);
        new
    };
    let update = async |links: &Links, model: &mut Model, number: usize, edit: &(dyn Fn(&mut ShortLink) + Sync)| {
        let Some(stored) = pick(model, number) else { return };
        let new = edited(&stored, edit);
        let done = {
            let new = new.clone();
            let replace = move |old: &ShortLink| {
                Ok::<_, ()>(ShortLink {
                    updated_at: old.updated_at,
                    ..new
                })
            };
            links.update(stored.id, everybody(), somebody(), replace).await
        };
        if stored.status == Status::Deleted {
            assert!(matches!(done, Err(UpdateError::Link(LinkError::NotFound))));
            return;
        }
        if !is_valid(new.starts_at, new.expires_at) {
            assert!(matches!(done, Err(UpdateError::Link(LinkError::Validity(_)))));
            return;
        }
        let expected = if new == stored {
            stored
        } else {
            ShortLink { updated_at: now, ..new }
        };
        assert_eq!(done.unwrap(), expected);
        model.insert(expected.id, expected);
    };
    match operation {
        Operation::Add {
            user,
            unique_id,
            status,
            validity,
        } => {
            let [starts_at, expires_at] = validity.map(|time| time.map(Timestamp::from_unix));
            let draft = Draft {
                user_id: user.clone(),
                unique_id: unique_id.clone(),
                status: Status::from_number(*status).unwrap(),
                starts_at,
                expires_at,
                ..draft("https://e.example/ü x")
            };
            let conflict = draft.status != Status::Deleted && taken(model, unique_id.as_deref());
            match links.add(draft, somebody()).await {
                Err(LinkError::Validity(_)) => assert!(!is_valid(starts_at, expires_at)),
                Ok(link) => {
                    assert!(!conflict && is_valid(starts_at, expires_at));
                    assert_eq!((link.starts_at, link.expires_at), (starts_at, expires_at));
                    assert_eq!((link.created_at, link.updated_at), (now, now));
                    assert_eq!(model.insert(link.id, link), None, "an id was given twice");
                }
                Err(error) => assert!(conflict && matches!(error, LinkError::UniqueIdTaken(_)), "{error}"),
            }
        }
        Operation::SetUrl(number, version) => {
            let url = format!("https://e.example/{version}");
            update(links, model, *number, &|link| link.full_url.clone_from(&url)).await;
        }
        Operation::SetStatus(number, status) => {
            let status = Status::from_number(*status).unwrap();
            update(links, model, *number, &|link| link.status = status).await;
        }
        Operation::SetUser(number, user) => update(links, model, *number, &|link| link.user_id.clone_from(user)).await,
        Operation::SetStart(number, start) => {
            let start = start.map(Timestamp::from_unix);
            update(links, model, *number, &|link| link.starts_at = start).await;
        }
        Operation::SetNothing(number) => update(links, model, *number, &|_| {}).await,
        Operation::Delete(number) => {
            let Some(stored) = pick(model, *number) else { return };
            let deleted = links.delete(stored.id, everybody(), somebody()).await;
            if stored.status == Status::Deleted {
                assert!(matches!(deleted, Err(LinkError::NotFound)));
            } else {
                let Deleted { link: deleted, was } = deleted.unwrap();
                assert_eq!(was, stored.status);
                assert_eq!((deleted.status, deleted.updated_at), (Status::Deleted, now));
                model.insert(deleted.id, deleted);
            }
        }
        Operation::Restore(number) => {
            let Some(stored) = pick(model, *number) else { return };
            match links.restore(stored.id, PARTNER, somebody()).await {
                Ok(restored) => {
                    assert_eq!(stored.status, Status::Deleted);
                    assert_eq!((restored.status, restored.updated_at), (Status::Enabled, now));
                    model.insert(restored.id, restored);
                }
                Err(LinkError::NotFound) => assert_ne!(stored.status, Status::Deleted),
                Err(error) => assert!(taken(model, stored.unique_id.as_deref()), "{error}"),
            }
        }
        Operation::DeleteUser(user) => {
            let owned = |link: &&mut ShortLink| link.user_id.as_ref() == Some(user) && link.status != Status::Deleted;
            let mut count = 0;
            for link in model.values_mut().filter(owned) {
                (link.status, link.updated_at) = (Status::Deleted, now);
                count += 1;
            }
            assert_eq!(
                links.delete_user(PARTNER, user.clone(), somebody()).await.unwrap(),
                count
            );
        }
        Operation::Reopen => {}
    }
}

fn assert_map_is_store(links: &Links, model: &Model) {
    let mut stored = Model::new();
    let count = links
        .store
        .snapshot()
        .unwrap()
        .for_each(|id, record| {
            stored.insert(id, record.unwrap());
        })
        .unwrap();
    assert_eq!(&stored, model);
    assert_eq!(links.index().links() as u64, count);
    for link in stored.values() {
        let entry = links.index().entry(link.id).unwrap();
        let validity = [link.starts_at, link.expires_at];
        assert_eq!(entry, (Destination::location_of(&link.full_url), link.status, validity));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_map_is_the_store_after_any_operations(operations in prop::collection::vec(any_operation(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_unix(1_000));
        let mut links = open(folder.path(), &clock);
        let mut model = Model::new();
        for (step, operation) in operations.iter().enumerate() {
            let now = Timestamp::from_unix(1_000 + i64::try_from(step).unwrap());
            clock.set(now);
            if matches!(operation, Operation::Reopen) {
                drop(links);
                links = open(folder.path(), &clock);
            }
            block_on(run(&links, &mut model, operation, now));
            assert_map_is_store(&links, &model);
            let counted = Status::ALL.map(|status| model.values().filter(|link| link.status == status).count() as u64);
            prop_assert_eq!(links.store.metrics().links(), counted);
            prop_assert_eq!(links.store.snapshot().unwrap().totals().unwrap(), counted);
        }
    }
}

#[test]
fn while_links_are_loaded_each_is_served_from_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_unix(1_000));
    let old = block_on(open(folder.path(), &clock).add(draft("https://e.example/old"), somebody())).unwrap();
    let links = Links::open(folder.path(), clock.clone(), 8).unwrap();
    let now = clock.now();
    assert_eq!(links.index().look_up(old.id, now), Verdict::Loading);
    let shown = |text: &str| Verdict::Redirect(text.parse().unwrap());
    assert_eq!(block_on(links.look_up(old.id)), shown("https://e.example/old"));
    assert_eq!(block_on(links.look_up("zzzz".parse().unwrap())), Verdict::Unknown);
    assert!(!links.index().is_loaded());
    // What is written meanwhile is newer than what is loaded.
    let replace = |stored: &ShortLink| {
        Ok::<_, ()>(ShortLink {
            full_url: "https://e.example/new".into(),
            ..stored.clone()
        })
    };
    block_on(links.update(old.id, everybody(), somebody(), replace)).unwrap();
    links.load().unwrap();
    assert_eq!(links.index().entry(old.id).unwrap().0, "https://e.example/new");
    assert_eq!(links.index().look_up("zzzz".parse().unwrap(), now), Verdict::Unknown);
}

/// The bug: what was deleted while the links were being loaded redirected until the next restart, because the loader,
/// with an older view of the store, came last.
#[test]
fn changes_published_during_loading_stay() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_unix(1_000));
    let owned = Draft {
        user_id: Some("me".into()),
        ..draft("https://e.example/x")
    };
    let old = block_on(open(folder.path(), &clock).add(owned, somebody())).unwrap();
    let links = Links::open(folder.path(), clock.clone(), 8).unwrap();
    assert_eq!(
        block_on(links.delete_user(PARTNER, "me".into(), somebody())).unwrap(),
        1
    );
    links.index().load(&(&old).into());
    links.load().unwrap();
    assert_eq!(links.index().look_up(old.id, clock.now()), Verdict::Deleted);
}

#[test]
fn ids_grow_where_their_space_is_used_up() {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::system());
    // No id has this length, so none of it can be free.
    let ids = IdSource::unguessable(3);
    let drawn = block_on(links.store.write(move |transaction| ids.draw(transaction)));
    assert_eq!(drawn.unwrap().as_str().len(), 4);
}

/// One damaged record, and what it must not touch: other links of the same user, other writes, the start.
#[test]
fn damaged_record_affects_only_its_link() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let links = open(folder.path(), &clock);
    let owned = || Draft {
        user_id: Some("me".into()),
        ..draft("https://e.example/x")
    };
    let mut ids: Vec<_> = (0..5)
        .map(|_| block_on(links.add(owned(), somebody())).unwrap().id)
        .collect();
    ids.sort();
    // In the middle, so that some are read before it and some would be after it.
    let damaged = ids.remove(2);
    block_on(links.store.write(move |transaction| transaction.damage(damaged))).unwrap();

    assert!(matches!(
        block_on(links.delete_user(PARTNER, "me".into(), somebody())),
        Err(LinkError::Write(_))
    ));
    assert_eq!(links.health(), Health::Accepting);
    for &id in &ids {
        assert_eq!(block_on(links.get(id, &everybody())).unwrap().status, Status::Enabled);
    }
    assert!(matches!(
        block_on(links.get(damaged, &everybody())),
        Err(LinkError::Read(_))
    ));

    drop(links);
    let links = open(folder.path(), &clock);
    assert_eq!((links.index().links(), links.index().damaged()), (4, 1));
    assert_eq!(links.index().look_up(damaged, clock.now()), Verdict::Damaged);
    // What a backup brings back of it is counted once.
    let whole = block_on(links.get(ids[0], &everybody())).unwrap();
    let repair = ShortLink { id: damaged, ..whole };
    let repaired = block_on(
        links
            .store
            .write(move |transaction| transaction.replace_damaged(repair)),
    );
    assert_eq!(repaired.unwrap(), Replacement::Done);
    assert_eq!(links.store.metrics().links(), [0, 5, 0]);
    assert!(matches!(
        links.index().look_up(ids[0], clock.now()),
        Verdict::Redirect(_)
    ));
}

/// What a link shows in the race below after its writer has made a step: a redirect to the version, expired, disabled,
/// deleted, and restored, which is a redirect to the version set last.
fn shown_after(step: u64) -> Verdict {
    let redirect = |version: u64| Verdict::Redirect(format!("https://e.example/{version}").parse().unwrap());
    match step % 5 {
        0 => redirect(step),
        1 => Verdict::Expired,
        2 => Verdict::Disabled,
        3 => Verdict::Deleted,
        _ => redirect(step - 2),
    }
}

async fn make_step(links: &Links, id: LinkId, step: u64) {
    let edit = move |stored: &ShortLink| {
        Ok::<_, ()>(ShortLink {
            full_url: format!("https://e.example/{step}"),
            expires_at: (step % 5 == 1).then_some(Timestamp::from_unix(10)),
            status: if step % 5 == 2 {
                Status::Disabled
            } else {
                Status::Enabled
            },
            ..stored.clone()
        })
    };
    match step % 5 {
        3 => drop(links.delete(id, everybody(), somebody()).await.unwrap()),
        4 => drop(links.restore(id, PARTNER, somebody()).await.unwrap()),
        _ => drop(links.update(id, everybody(), somebody(), edit).await.unwrap()),
    }
}

/// The loss: a redirect shows a state that was never current, or one that had already been replaced when it started.
/// One writer a link makes steps, so that a reader can tell which states are possible: not older than the last step
/// acknowledged before it looked, not newer than the last one begun after it looked.
#[test]
fn redirect_shows_a_state_current_while_it_ran() {
    const LINKS: usize = 4;
    const STEPS: u64 = 150;
    const READERS: usize = 3;

    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::system());
    let ids: Vec<_> = (0..LINKS)
        .map(|_| {
            block_on(links.add(draft("https://e.example/0"), somebody()))
                .unwrap()
                .id
        })
        .collect();
    let begun: Vec<_> = (0..LINKS).map(|_| AtomicU64::new(0)).collect();
    let acknowledged: Vec<_> = (0..LINKS).map(|_| AtomicU64::new(0)).collect();
    let (done, looked) = (AtomicBool::new(false), AtomicU64::new(0));

    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                // The oldest step that each link can still show: what has been seen never comes back.
                let mut seen = [0; LINKS];
                while !done.load(Ordering::SeqCst) {
                    for (number, &id) in ids.iter().enumerate() {
                        let oldest = acknowledged[number].load(Ordering::SeqCst).max(seen[number]);
                        let verdict = links.index().look_up(id, Timestamp::from_unix(1_000));
                        let youngest = begun[number].load(Ordering::SeqCst);
                        let fitting = (oldest..=youngest).find(|&step| shown_after(step) == verdict);
                        seen[number] = fitting.unwrap_or_else(|| panic!("{verdict:?} is not in {oldest}..={youngest}"));
                        looked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let writers: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(number, &id)| {
                let (links, begun, acknowledged) = (&links, &begun, &acknowledged);
                scope.spawn(move || {
                    block_on(async {
                        for step in 1..=STEPS {
                            begun[number].store(step, Ordering::SeqCst);
                            make_step(links, id, step).await;
                            acknowledged[number].store(step, Ordering::SeqCst);
                        }
                    });
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(
        looked.load(Ordering::Relaxed) > STEPS,
        "the readers never ran beside the writers"
    );
}

/// What a get has shown, no later look at the map contradicts.
#[test]
fn the_map_is_never_behind_a_read_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::system());
    let id = block_on(links.add(draft("https://e.example/0"), somebody()))
        .unwrap()
        .id;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            block_on(async {
                for version in 1..=200_u64 {
                    let edit = move |stored: &ShortLink| {
                        Ok::<_, ()>(ShortLink {
                            full_url: format!("https://e.example/{version}"),
                            ..stored.clone()
                        })
                    };
                    links.update(id, everybody(), somebody(), edit).await.unwrap();
                }
            })
        });
        let version_of = |url: &str| url.rsplit('/').next().unwrap().parse::<u64>().unwrap();
        block_on(async {
            while !writer.is_finished() {
                let read = version_of(&links.get(id, &everybody()).await.unwrap().full_url);
                let shown = version_of(&links.index().entry(id).unwrap().0);
                assert!(shown >= read, "the store showed {read}, the map then {shown}");
            }
        });
    });
}

pub fn lines_of(
    links: impl IntoIterator<Item = ShortLink>,
) -> impl Iterator<Item = std::io::Result<crate::links::file::Line>> + Send {
    let links: Vec<_> = links.into_iter().collect();
    (1..).zip(links).map(|(number, link)| {
        Ok(crate::links::file::Line {
            number,
            link: Ok(link),
            is_dated: true,
            has_start: true,
        })
    })
}

/// More changes than are told one by one: the map is made equal to the store instead.
#[test]
fn large_import_reaches_the_map() {
    let folder = tempfile::tempdir().unwrap();
    let links = open(folder.path(), &Clock::system());
    let template = block_on(links.add(draft("https://e.example/0"), somebody())).unwrap();
    let many = (0..500).map(move |number| ShortLink {
        id: format!("many{number}").parse().unwrap(),
        ..template.clone()
    });
    let imported = import(
        links.store(),
        lines_of(many),
        ImportOptions::default(),
        Arc::new(|_| {}),
        import_log(),
    );
    assert_eq!(block_on(imported).unwrap().added, 500);
    let mut model = Model::new();
    let snapshot = links.store.snapshot().unwrap();
    snapshot
        .for_each(|id, link| drop(model.insert(id, link.unwrap())))
        .unwrap();
    assert_eq!(model.len(), 501);
    assert_map_is_store(&links, &model);
}
