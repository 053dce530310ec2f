//! Steps of the domain on a simulated disk, for tests, and the world as it should be after each.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::links::file::{ImportError, ImportLog, ImportOptions, ImportReport, Line, import};
use crate::links::tests::audit::{import_log, somebody};
use crate::links::tests::{PARTNER, draft, everybody};
use crate::links::*;
use crate::model::{Day, Destination, Usage};
use crate::store::replication::ReplicationLog;
use crate::store::testing::simulated::{Disk, open_with_log};
use crate::store::{AuditQuery, Snapshot};

/// What is stored: links, revocations, and counted calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    pub links: BTreeMap<LinkId, ShortLink>,
    pub revoked: BTreeMap<Digest, Timestamp>,
    pub calls: BTreeMap<Digest, u64>,
    pub usages: BTreeMap<LinkId, Usage>,
    /// Clicks and previews by the keys of the table of days (docs/store-format.md#clicks-by-day).
    pub days: BTreeMap<Vec<u8>, (u64, u64)>,
    /// What was done to which link, by the numbers of the entries.
    pub audit: BTreeMap<u64, (AuditAction, Option<LinkId>)>,
}

/// A domain operation; the numbers choose among the links there are.
#[derive(Debug, Clone)]
pub enum Step {
    Add(Option<&'static str>, Option<&'static str>),
    SetUrl(usize),
    SetUser(usize, Option<&'static str>),
    SetStatus(usize, Status),
    Restore(usize),
    RestoreAll,
    RenewId(usize),
    DeleteUser(&'static str),
    Revoke,
    CountCall,
    /// Every link has been used once.
    CountClicks,
    /// Some of what is older is dropped.
    SweepDays(Day),
    /// Two lines, and a third one that is wrong: then none is imported.
    Import(bool),
}

/// Entries of the audit log that are kept, and how often the oldest are dropped.
const AUDIT_ENTRIES: u64 = 6;
const DROP_INTERVAL: u64 = 4;

/// Entries of days that a step drops.
const SWEPT_MAX: usize = 3;

/// Calls that a session may make.
pub const CALLS: u64 = 3;

pub fn any_step(rng: &mut StdRng) -> Step {
    let number = rng.random_range(0..1_000);
    let user = [None, Some("x"), Some("y")][rng.random_range(0..3)];
    match rng.random_range(0..32) {
        0..8 => Step::Add(user, [None, None, Some("p"), Some("q")][rng.random_range(0..4)]),
        8..11 => Step::SetUrl(number),
        11..13 => Step::SetUser(number, user),
        13..16 => Step::SetStatus(number, Status::ALL[rng.random_range(0..3)]),
        16..18 => Step::Restore(number),
        18 => Step::DeleteUser("x"),
        19 => Step::RestoreAll,
        20..23 => Step::Import(rng.random_bool(0.3)),
        23 => Step::CountCall,
        24..26 => Step::CountClicks,
        26 => Step::SweepDays(Day(rng.random_range(0..12))),
        27..30 => Step::RenewId(number),
        _ => Step::Revoke,
    }
}

/// Where the links of step `number` lead.
pub fn url_of(number: usize) -> String {
    format!("https://e.example/{number}/{}", "x".repeat(number % 7 * 100))
}

pub fn now_of(number: usize) -> Timestamp {
    Timestamp::from_unix(1_000 + i64::try_from(number).unwrap())
}

pub fn digest_of(number: usize) -> Digest {
    [u8::try_from(number % 256).unwrap(); 20]
}

impl World {
    pub fn of(links: &Links) -> Self {
        read(links, |snapshot| {
            let mut world = Self::default();
            snapshot.for_each(|id, record| {
                world.links.insert(id, record.unwrap());
            })?;
            for id in world.links.keys() {
                let usage = snapshot.usage(*id)?;
                if usage.visits() > 0 {
                    world.usages.insert(*id, usage);
                }
            }
            world.days = snapshot.days()?;
            let mut query = AuditQuery {
                limit: usize::MAX,
                ..AuditQuery::default()
            };
            loop {
                let page = snapshot.audit(&query)?;
                let entries = page.entries.iter();
                world
                    .audit
                    .extend(entries.map(|entry| (entry.sequence, (entry.action, entry.id))));
                query.before = page.next;
                if query.before.is_none() {
                    break;
                }
            }
            world.revoked = snapshot.revocations()?.into_iter().collect();
            world.calls = snapshot.counted_calls()?.into_iter().collect();
            Ok(world)
        })
    }

    pub fn pick(&self, number: usize) -> Option<&ShortLink> {
        self.links.values().nth(number.checked_rem(self.links.len())?)
    }

    /// What step `number` counts, a day after the step before.
    fn used(&self, number: usize) -> Vec<(LinkId, Usage)> {
        let day = Day(u32::try_from(number).unwrap());
        let usage = Usage {
            clicks: 1,
            previews: number as u64,
            last_used_at: Some(day.start()),
        };
        self.links.keys().map(|id| (*id, usage)).collect()
    }

    fn is_taken(&self, unique_id: Option<&str>) -> bool {
        let holds = |link: &ShortLink| link.unique_id.as_deref() == unique_id && link.status != Status::Deleted;
        unique_id.is_some() && self.links.values().any(holds)
    }

    fn note(&mut self, action: AuditAction, id: Option<LinkId>) {
        let sequence = self.audit.keys().last().unwrap_or(&0) + 1;
        self.audit.insert(sequence, (action, id));
        if sequence.is_multiple_of(DROP_INTERVAL) {
            self.audit.retain(|other, _| other + AUDIT_ENTRIES > sequence);
        }
    }

    fn edited(&self, link: &ShortLink, edit: impl FnOnce(&mut ShortLink), now: Timestamp) -> Self {
        let mut new = link.clone();
        edit(&mut new);
        let mut world = self.clone();
        if new != *link {
            new.updated_at = now;
            let action = match (link.status, new.status) {
                (Status::Deleted, _) => AuditAction::Restore,
                (_, Status::Deleted) => AuditAction::Delete,
                _ => AuditAction::Update,
            };
            world.note(action, Some(new.id));
            world.links.insert(new.id, new);
        }
        world
    }

    /// What a step that is carried out makes of the world. `added` is the link that an add has made, or
    /// that has a new id.
    pub fn after(&self, step: &Step, number: usize, added: Option<&ShortLink>) -> Self {
        let now = now_of(number);
        let visible = |link: &&ShortLink| link.status != Status::Deleted;
        let changed = match step {
            Step::Add(..) => added.map(|added| {
                let mut world = self.clone();
                world.links.insert(added.id, added.clone());
                world.note(AuditAction::Add, Some(added.id));
                world
            }),
            Step::SetUrl(link) => self
                .pick(*link)
                .filter(visible)
                .map(|link| self.edited(link, |link| link.full_url = url_of(number), now)),
            Step::SetUser(link, user) => self
                .pick(*link)
                .filter(visible)
                .map(|link| self.edited(link, |link| link.user_id = user.map(str::to_owned), now)),
            Step::SetStatus(link, status) => self
                .pick(*link)
                .filter(visible)
                .map(|link| self.edited(link, |link| link.status = *status, now)),
            Step::RenewId(link) => self
                .pick(*link)
                .filter(visible)
                .zip(added)
                .map(|(old, added)| self.after_renewing(old, added.id, now)),
            Step::Restore(link) => self.pick(*link).map(|link| self.after_restoring(link.id, now)),
            Step::DeleteUser(user) => {
                let mut world = self.clone();
                let owned = |link: &&mut ShortLink| link.user_id.as_deref() == Some(user);
                let mut is_changed = false;
                for link in world.links.values_mut().filter(owned) {
                    if link.status != Status::Deleted {
                        (link.status, link.updated_at) = (Status::Deleted, now);
                        is_changed = true;
                    }
                }
                if is_changed {
                    world.note(AuditAction::DeleteUser, None);
                }
                Some(world)
            }
            Step::Revoke => {
                let mut world = self.clone();
                world.revoked.insert(digest_of(number), Timestamp::MAX);
                Some(world)
            }
            Step::CountCall => {
                let mut world = self.clone();
                let calls = world.calls.entry(digest_of(0)).or_default();
                *calls = CALLS.min(*calls + 1);
                Some(world)
            }
            Step::CountClicks => {
                let mut world = self.clone();
                for (id, usage) in self.used(number) {
                    world.usages.entry(id).or_default().add(&usage);
                    let day = u32::try_from(number).unwrap().to_be_bytes();
                    let of_link = [&day, &b"L"[..], id.as_bytes()].concat();
                    let of_partner = [&day, &b"P"[..], &PARTNER.0.to_be_bytes()].concat();
                    for key in [of_link, of_partner] {
                        let (clicks, previews) = world.days.entry(key).or_default();
                        *clicks += usage.clicks;
                        *previews += usage.previews;
                    }
                }
                Some(world)
            }
            Step::SweepDays(day) => {
                let mut world = self.clone();
                for _ in 0..SWEPT_MAX {
                    let first = world.days.first_entry();
                    let is_old = |entry: &OccupiedEntry<'_, Vec<u8>, _>| *entry.key() < day.0.to_be_bytes().to_vec();
                    first.filter(is_old).map(OccupiedEntry::remove);
                }
                Some(world)
            }
            Step::Import(is_wrong) => (!is_wrong).then(|| {
                let mut world = self.clone();
                world.links.extend(imported(number).map(|link| (link.id, link)));
                world.note(AuditAction::Import, None);
                world
            }),
            Step::RestoreAll => {
                let mut world = self.clone();
                for id in self.links.keys() {
                    world = world.after_restoring(*id, now);
                }
                Some(world)
            }
        };
        changed.unwrap_or_else(|| self.clone())
    }

    fn after_renewing(&self, old: &ShortLink, id: LinkId, now: Timestamp) -> Self {
        let mut world = self.clone();
        let new = ShortLink {
            id,
            updated_at: now,
            ..old.clone()
        };
        world.links.insert(id, new);
        world.links.insert(old.id, renew::retired(old, now));
        if let Some(usage) = world.usages.remove(&old.id) {
            world.usages.insert(id, usage);
        }
        let of = |day: &[u8], id: LinkId| [day, b"L", id.as_bytes()].concat();
        for (key, visits) in &self.days {
            if *key == of(&key[..4], old.id) {
                world.days.remove(key);
                world.days.insert(of(&key[..4], id), *visits);
            }
        }
        for id in [old.id, id] {
            world.note(AuditAction::RenewId, Some(id));
        }
        world
    }

    fn after_restoring(&self, id: LinkId, now: Timestamp) -> Self {
        let link = &self.links[&id];
        if link.status != Status::Deleted || link.is_retired() || self.is_taken(link.unique_id.as_deref()) {
            return self.clone();
        }
        self.edited(link, |link| link.status = Status::Enabled, now)
    }

    /// Whether the world after a step of unknown outcome is one that the step can have made.
    pub fn can_become(&self, after: &Self, step: &Step, number: usize) -> bool {
        let added = after.links.values().find(|link| !self.links.contains_key(&link.id));
        let is_whole = !matches!(step, Step::Add(..))
            || added.is_none_or(|added| added.full_url == url_of(number) && added.created_at == now_of(number));
        after == self || (is_whole && *after == self.after(step, number, added))
    }
}

/// The links that step `number` imports.
pub fn imported(number: usize) -> impl Iterator<Item = ShortLink> {
    ["a", "b"].into_iter().map(move |name| ShortLink {
        id: format!("import{number}{name}").parse().unwrap(),
        created_at: now_of(number),
        updated_at: now_of(number),
        starts_at: None,
        expires_at: None,
        partner_id: PARTNER,
        user_id: Some("x".into()),
        name: None,
        system_name: "NAME".into(),
        full_url: url_of(number),
        unique_id: None,
        status: Status::Enabled,
    })
}

/// Runs a step; an add returns its link, and a new id its.
pub async fn run(links: &Links, world: &World, step: &Step, number: usize) -> Result<Option<ShortLink>, LinkError> {
    let edit = async |link: usize, edit: Arc<dyn Fn(&mut ShortLink) + Send + Sync>| match world.pick(link) {
        None => Ok(None),
        Some(link) => {
            let replace = move |stored: &ShortLink| {
                let mut new = stored.clone();
                edit(&mut new);
                Ok::<_, ()>(new)
            };
            match links.update(link.id, everybody(), somebody(), replace).await {
                Ok(_) | Err(UpdateError::Refused(())) => Ok(None),
                Err(UpdateError::Link(error)) => Err(error),
            }
        }
    };
    let done = match step.clone() {
        Step::Add(user, unique_id) => {
            let draft = Draft {
                user_id: user.map(str::to_owned),
                unique_id: unique_id.map(str::to_owned),
                ..draft(&url_of(number))
            };
            links.add(draft, somebody()).await.map(Some)
        }
        Step::SetUrl(link) => edit(link, Arc::new(move |link| link.full_url = url_of(number))).await,
        Step::SetUser(link, user) => edit(link, Arc::new(move |link| link.user_id = user.map(str::to_owned))).await,
        Step::SetStatus(link, status) => edit(link, Arc::new(move |link| link.status = status)).await,
        Step::Restore(link) => match world.pick(link) {
            None => Ok(None),
            Some(link) => links.restore(link.id, PARTNER, somebody()).await.map(|_| None),
        },
        Step::RenewId(link) => match world.pick(link) {
            None => Ok(None),
            Some(link) => links.renew_id(link.id, everybody(), somebody()).await.map(Some),
        },
        Step::RestoreAll => {
            let ids = world.links.keys().copied().collect();
            links.restore_all(ids, PARTNER, false, somebody()).await.map(|_| None)
        }
        Step::DeleteUser(user) => links
            .delete_user(PARTNER, user.to_owned(), somebody())
            .await
            .map(|_| None),
        Step::CountCall => {
            let job =
                move |transaction: &mut Transaction<'_>| transaction.count_action(digest_of(0), CALLS, Timestamp::MAX);
            links.store.write(job).await.map(|_| None).map_err(Into::into)
        }
        Step::CountClicks => {
            let counted = world.used(number);
            let job = move |transaction: &mut Transaction<'_>| transaction.add_usage(&counted, Timestamp::MIN);
            links.store.write_local(job).await.map(|_| None).map_err(Into::into)
        }
        Step::SweepDays(day) => {
            let job = move |transaction: &mut Transaction<'_>| transaction.drop_days_before(day, SWEPT_MAX);
            links.store.write_local(job).await.map(|_| None).map_err(Into::into)
        }
        Step::Import(is_wrong) => {
            let wrong = is_wrong.then(|| Err("for this test".to_owned()));
            let lines = imported(number).map(Ok).chain(wrong).collect();
            let report = import_lines(links, lines, ImportOptions::default()).await;
            report.map(|report| {
                assert_eq!(report.applied, !is_wrong);
                None
            })
        }
        Step::Revoke => {
            let job = move |transaction: &mut Transaction<'_>| transaction.revoke(digest_of(number), Timestamp::MAX);
            links.store.write(job).await.map(|()| None).map_err(Into::into)
        }
    };
    match done {
        Err(LinkError::NotFound | LinkError::Retired | LinkError::UniqueIdTaken(_)) => Ok(None),
        done => done,
    }
}

pub async fn import_lines(
    links: &Links,
    lines: Vec<Result<ShortLink, String>>,
    options: ImportOptions,
) -> Result<ImportReport, LinkError> {
    let lines = (1..).zip(lines).map(|(number, link)| {
        Ok(Line {
            number,
            link,
            is_dated: true,
            has_start: true,
        })
    });
    let log = ImportLog {
        log: AuditLog::new(somebody(), AUDIT_ENTRIES),
        ..import_log()
    };
    match import(&links.store, lines, options, Arc::new(|_| {}), log).await {
        Err(ImportError::Write(error)) => Err(error.into()),
        imported => Ok(imported.unwrap()),
    }
}

pub fn open(disk: &Disk, clock: &Clock, seed: u64) -> Result<Links, String> {
    let links = open_unloaded(disk, clock, seed)?;
    links.load().map_err(|error| format!("{error:?}"))?;
    Ok(links)
}

pub fn open_unloaded(disk: &Disk, clock: &Clock, seed: u64) -> Result<Links, String> {
    open_with(disk, clock, seed, None)
}

pub fn open_with(disk: &Disk, clock: &Clock, seed: u64, log: Option<Arc<dyn ReplicationLog>>) -> Result<Links, String> {
    let publisher = Publisher::default();
    let store = open_with_log(disk, Arc::new(publisher.clone()), log).map_err(|error| format!("{error:?}"))?;
    let ids = IdSource::repeatable(4, seed);
    let links = Links::from_store(store, publisher, clock.clone(), ids).map_err(|error| format!("{error:?}"))?;
    Ok(links.auditing(AUDIT_ENTRIES))
}

/// Reads the store, again if that is the moment in which a failure of the disk is found out: a commit that readers
/// want, or a checkpoint, can be what finds it.
fn read<R>(links: &Links, look: impl Fn(&Snapshot) -> Result<R, StoreError>) -> R {
    loop {
        match links.store.snapshot().and_then(|snapshot| look(&snapshot)) {
            Err(error) if error.is_of_the_file() => std::thread::yield_now(),
            found => return found.unwrap(),
        }
    }
}

/// Whether the store is whole and the map shows what it holds.
pub fn check_whole(links: &Links, world: &World) -> Result<(), String> {
    let found = read(links, |snapshot| snapshot.verify(|| {}));
    if !found.is_clean() {
        return Err(format!("{:?}", found.problems));
    }
    let counted = links.store.metrics().links();
    if found.links != counted {
        return Err(format!(
            "{counted:?} links were counted, and {:?} are there",
            found.links
        ));
    }
    if links.index().links() != world.links.len() {
        return Err("the map has more links than the store".to_owned());
    }
    for link in world.links.values() {
        let shown = links.index().entry(link.id);
        let validity = [link.starts_at, link.expires_at];
        let stored = (Destination::location_of(&link.full_url), link.status, validity);
        if shown.as_ref() != Some(&stored) {
            return Err(format!("the map shows {shown:?} for {stored:?}"));
        }
    }
    Ok(())
}
