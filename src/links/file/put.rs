//! Putting the link of one line into the store, or into a rehearsal.

use std::io;
use std::sync::Arc;

use crate::kaltura::session::Partners;
use crate::links::file::NEVER;
use crate::links::file::report::ImportReport;
use crate::model::{LinkId, PartnerId, ShortLink, Status, Timestamp};
use crate::store::{Prepared, Preparing, Rehearsal, Replacement, StoreError, Transaction};

/// Ids that a dry run shows: enough to see what a spreadsheet has made of them.
const FIRST_IDS_MAX: usize = 5;

/// What to do with a line whose id is taken by a different link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflict {
    #[default]
    Fail,
    Skip,
    /// Replace the stored link.
    Update,
}

impl Conflict {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "fail" => Some(Self::Fail),
            "skip" => Some(Self::Skip),
            "update" => Some(Self::Update),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    pub conflict: Conflict,
    /// Report what would happen; write nothing.
    pub dry_run: bool,
    /// Import valid lines even if others are invalid.
    pub keep_going: bool,
    /// Refuse links of other partners.
    pub partner: Option<PartnerId>,
    /// Refuse new destinations that these partners do not allow; `None`: any may come, from whoever may write the file
    /// of the store.
    pub obeyed: Option<Arc<Partners>>,
}

/// The store, or a rehearsal.
pub(super) trait Target {
    fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError>;
    fn holder_of_unique_id(&self, partner: PartnerId, unique_id: &str) -> Result<Option<LinkId>, StoreError>;
    fn put(&mut self, old: Option<&ShortLink>, new: ShortLink) -> Result<(), StoreError>;
    fn replace_damaged(&mut self, new: ShortLink) -> Result<Replacement, StoreError>;
    fn is_in_cluster(&self) -> bool;
}

impl Target for Transaction<'_> {
    fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        Transaction::get(self, id)
    }

    fn holder_of_unique_id(&self, partner: PartnerId, unique_id: &str) -> Result<Option<LinkId>, StoreError> {
        Transaction::holder_of_unique_id(self, partner, unique_id)
    }

    fn put(&mut self, old: Option<&ShortLink>, new: ShortLink) -> Result<(), StoreError> {
        Transaction::put(self, old, new)
    }

    fn replace_damaged(&mut self, new: ShortLink) -> Result<Replacement, StoreError> {
        Transaction::replace_damaged(self, new)
    }

    fn is_in_cluster(&self) -> bool {
        // There, an import is always rehearsed.
        false
    }
}

impl Target for Rehearsal<'_> {
    fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        Rehearsal::get(self, id)
    }

    fn holder_of_unique_id(&self, partner: PartnerId, unique_id: &str) -> Result<Option<LinkId>, StoreError> {
        Rehearsal::holder_of_unique_id(self, partner, unique_id)
    }

    fn put(&mut self, old: Option<&ShortLink>, new: ShortLink) -> Result<(), StoreError> {
        Rehearsal::put(self, old, &new)
    }

    fn replace_damaged(&mut self, new: ShortLink) -> Result<Replacement, StoreError> {
        Rehearsal::replace_damaged(self, &new)
    }

    fn is_in_cluster(&self) -> bool {
        Rehearsal::is_in_cluster(self)
    }
}

/// The links cannot be read, or cannot be put.
pub(super) enum PutError {
    File(io::Error),
    Store(StoreError),
}

/// Puts the lines, and then once more those that waited: the link that had their unique id may be deleted or retired by
/// a later line, as in an export after a renewal. A unique id never goes to another link in any other way.
pub(super) fn put_twice(
    target: &mut impl Target,
    (links, mut waiting): (impl Iterator<Item = io::Result<Prepared>>, Preparing),
    options: &ImportOptions,
    report: &mut ImportReport,
) -> Result<(), PutError> {
    put_all(target, links, options, report, Some(&mut waiting))?;
    let again = waiting.finish().map_err(PutError::File)?;
    put_all(target, again, options, report, None)?;
    report.problems.sort();
    Ok(())
}

/// Puts lines, and those aside that wait for a unique id.
pub(super) fn put_all(
    target: &mut impl Target,
    links: impl Iterator<Item = io::Result<Prepared>>,
    options: &ImportOptions,
    report: &mut ImportReport,
    mut aside: Option<&mut Preparing>,
) -> Result<(), PutError> {
    for prepared in links {
        let prepared = prepared.map_err(PutError::File)?;
        let (number, id) = (prepared.number, prepared.link.id);
        match put(target, prepared, options) {
            Ok(Outcome::Added) => report.added += 1,
            Ok(Outcome::Updated) => report.updated += 1,
            Ok(Outcome::Unchanged) => report.unchanged += 1,
            Ok(Outcome::Skipped) => report.skipped += 1,
            Ok(Outcome::Waiting(prepared, reason)) => {
                match aside.as_deref_mut() {
                    Some(aside) => aside.push(&prepared).map_err(PutError::File)?,
                    None => report.refuse(number, reason),
                }
                continue;
            }
            Ok(Outcome::Refused(reason)) => {
                report.refuse(number, reason);
                continue;
            }
            // Found while reading, before any change.
            Err(error @ StoreError::Damaged { .. }) => {
                report.refuse(number, error.to_string());
                continue;
            }
            Err(error) => return Err(PutError::Store(error)),
        }
        if options.dry_run && report.first_ids.len() < FIRST_IDS_MAX {
            report.first_ids.push(id.to_string());
        }
    }
    Ok(())
}

enum Outcome {
    Added,
    Updated,
    Unchanged,
    Skipped,
    Refused(String),
    /// Another link has its unique id, but a later line may take that from it.
    Waiting(Box<Prepared>, String),
}

fn put(transaction: &mut impl Target, mut prepared: Prepared, options: &ImportOptions) -> Result<Outcome, StoreError> {
    let Prepared {
        is_dated,
        has_start,
        ref mut link,
        ..
    } = prepared;
    let id = link.id;
    let of_another_partner = || Outcome::Refused(format!("a link of another partner has the id {id}"));
    let stored = match transaction.get(id) {
        Err(error @ StoreError::Damaged { .. }) if transaction.is_in_cluster() => {
            // The other boxes have the link: this one's must become theirs, not theirs this one's.
            return Ok(Outcome::Refused(format!(
                "{error}: give this box a new copy of the store"
            )));
        }
        Err(StoreError::Damaged { .. }) if options.conflict == Conflict::Update => {
            if let Some(holder) = holder(transaction, link)? {
                let reason = unique_id_taken(link, holder);
                return Ok(Outcome::Waiting(Box::new(prepared), reason));
            }
            // What it led to before is not known.
            if let Some(reason) = forbidden(link, None, options) {
                return Ok(Outcome::Refused(reason));
            }
            return Ok(match transaction.replace_damaged(prepared.link)? {
                Replacement::Done => Outcome::Updated,
                Replacement::OfAnotherPartner => of_another_partner(),
                Replacement::MayBeRetired => Outcome::Refused(format!(
                    "the record of the link {id} is damaged, and its id may be retired (a line with status 3 and \
                     startsAt {NEVER} retires it, in JSON {})",
                    Timestamp::NEVER
                )),
            });
        }
        stored => stored?,
    };
    if let Some(stored) = &stored
        && !has_start
    {
        link.starts_at = stored.starts_at;
    }
    match (&stored, options.conflict) {
        (None, _) => {}
        (Some(stored), _) if is_same(stored, link, is_dated) => return Ok(Outcome::Unchanged),
        (Some(stored), Conflict::Fail | Conflict::Update) if stored.is_retired() => {
            return Ok(Outcome::Refused(format!(
                "the id {id} is retired: a new one has taken its place"
            )));
        }
        (Some(_), Conflict::Skip) => return Ok(Outcome::Skipped),
        (Some(_), Conflict::Fail) => return Ok(Outcome::Refused(format!("another link has the id {id}"))),
        (Some(stored), Conflict::Update) if stored.partner_id != link.partner_id => {
            return Ok(of_another_partner());
        }
        (Some(_), Conflict::Update) => {}
    }
    if let Some(holder) = holder(transaction, link)? {
        let reason = unique_id_taken(link, holder);
        return Ok(match options.conflict {
            Conflict::Skip => Outcome::Skipped,
            Conflict::Fail => Outcome::Refused(reason),
            Conflict::Update => Outcome::Waiting(Box::new(prepared), reason),
        });
    }
    if let Some(reason) = forbidden(link, stored.as_ref(), options) {
        return Ok(Outcome::Refused(reason));
    }
    let outcome = stored.as_ref().map_or(Outcome::Added, |_| Outcome::Updated);
    if let Some(stored) = &stored
        && !is_dated
        && !link.is_retired()
    {
        link.created_at = stored.created_at;
    }
    transaction.put(stored.as_ref(), prepared.link)?;
    Ok(outcome)
}

/// Why the partner does not allow the destination of a line. A link keeps the one that it has.
fn forbidden(link: &ShortLink, stored: Option<&ShortLink>, options: &ImportOptions) -> Option<String> {
    if stored.is_some_and(|stored| stored.full_url == link.full_url) {
        return None;
    }
    let policy = &options.obeyed.as_ref()?.get(link.partner_id)?.policy;
    let why = policy.check_destination(&link.full_url).err()?;
    Some(format!("fullUrl: {why}"))
}

fn unique_id_taken(link: &ShortLink, holder: LinkId) -> String {
    let unique_id = link.unique_id.as_deref().unwrap_or_default();
    format!("the link {holder} has the unique id {unique_id:?}")
}

/// Whether two links agree in every field of the line. CSV cannot tell an empty name from none.
fn is_same(stored: &ShortLink, link: &ShortLink, is_dated: bool) -> bool {
    let of_name = |name: &Option<String>| name.clone().unwrap_or_default();
    let mut comparable = link.clone();
    comparable.name.clone_from(&stored.name);
    if !is_dated {
        (comparable.created_at, comparable.updated_at) = (stored.created_at, stored.updated_at);
    }
    of_name(&stored.name) == of_name(&link.name) && *stored == comparable
}

/// Another link that holds this link's unique id.
fn holder(transaction: &impl Target, link: &ShortLink) -> Result<Option<LinkId>, StoreError> {
    match &link.unique_id {
        Some(unique_id) if link.status != Status::Deleted => {
            let holder = transaction.holder_of_unique_id(link.partner_id, unique_id)?;
            Ok(holder.filter(|holder| *holder != link.id))
        }
        _ => Ok(None),
    }
}
