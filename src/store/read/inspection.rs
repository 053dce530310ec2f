//! A verification of a store in use: in small pieces, each on a snapshot of its own, so that neither writers wait nor
//! the file grows. What changes between two pieces is looked at as it is then.

use redb::{ReadOnlyTable, Value};

use crate::model::Timestamp;
use crate::store::Store;
use crate::store::error::{StoreError, unless_corrupt};
use crate::store::format::audit;
use crate::store::format::clicks;
use crate::store::format::keys::{self, Bytes, Index};
use crate::store::format::record;
use crate::store::format::values;
use crate::store::read::snapshot::{Snapshot, count_scope, id_of};

/// Entries of a piece: some milliseconds, unless a counter of many links is among them.
const PIECE_ENTRIES: usize = if cfg!(test) { 3 } else { 512 };
/// Problems that the log names in one inspection.
const PROBLEMS_LOGGED_MAX: u64 = 100;

/// What the inspections of a store have found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inspected {
    pub at: Option<Timestamp>,
    /// How many problems it has found, or the one that goes on, if that is more.
    pub problems: u64,
}

/// What an inspection looks at, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Links,
    Index(Index),
    Counters,
    Clicks,
    Days,
    Audit,
    Revocations,
    Actions,
}

fn part(number: usize) -> Option<Part> {
    let others = [
        Part::Counters,
        Part::Clicks,
        Part::Days,
        Part::Audit,
        Part::Revocations,
        Part::Actions,
    ];
    let parts = [Part::Links].into_iter().chain(Index::ALL.map(Part::Index));
    parts.chain(others).nth(number)
}

#[derive(Debug, Default)]
pub struct Inspection {
    part: usize,
    /// The last key that was looked at in this part.
    last: Option<Vec<u8>>,
    /// Entries that have been looked at.
    pub entries: u64,
    pub problems: u64,
}

/// What is wrong with an entry, if anything is.
type Checked = Result<Option<String>, StoreError>;
type Check = fn(&Snapshot, &[u8], &[u8]) -> Checked;

impl Inspection {
    /// Looks at the next piece; false if there is none.
    pub fn step(&mut self, store: &Store) -> Result<bool, StoreError> {
        let Some(part) = part(self.part) else {
            return Ok(false);
        };
        let mut found = Vec::new();
        let from = self.last.clone();
        let looked = unless_corrupt(|| look(&store.snapshot()?, part, from.as_deref(), &mut found))?;
        if looked.is_none() {
            found.push(format!("{part:?}: unreadable page"));
        }
        let (seen, last) = looked.unwrap_or_default();
        self.entries += seen as u64;
        self.last = last;
        if self.last.is_none() {
            self.part += 1;
        }
        for problem in found {
            self.problems += 1;
            if self.problems <= PROBLEMS_LOGGED_MAX {
                tracing::error!(problem, "verification found damage");
            }
        }
        Ok(true)
    }
}

/// Looks at a piece, and returns how many entries it had and its last key, if there may be more.
fn look(
    snapshot: &Snapshot,
    part: Part,
    from: Option<&[u8]>,
    found: &mut Vec<String>,
) -> Result<(usize, Option<Vec<u8>>), StoreError> {
    let (table, check): (&ReadOnlyTable<Bytes, Bytes>, Check) = match part {
        Part::Links => (&snapshot.links, check_record),
        Part::Index(index) => {
            let check = |key: &[u8], ()| check_index(snapshot, index, key);
            return walk(snapshot.index(index), from, found, check);
        }
        Part::Counters => (&snapshot.counters, check_counter),
        Part::Clicks => match &snapshot.clicks {
            Some(table) => (table, check_clicks),
            None => return Ok((0, None)),
        },
        Part::Days => match &snapshot.days {
            Some(table) => (table, Snapshot::check_day),
            None => return Ok((0, None)),
        },
        Part::Audit => match &snapshot.audit {
            Some(table) => (table, |_, key, entry| audit::decode(key, entry).map(|_| None)),
            None => return Ok((0, None)),
        },
        Part::Revocations => (&snapshot.revocations, |_, digest, until| {
            values::decode_until(digest, until).map(|_| None)
        }),
        Part::Actions => (&snapshot.actions, |_, digest, calls| {
            values::decode_calls(digest, calls).map(|_| None)
        }),
    };
    walk(table, from, found, |key, value| check(snapshot, key, value))
}

fn walk<V: Value + 'static>(
    table: &ReadOnlyTable<Bytes, V>,
    from: Option<&[u8]>,
    found: &mut Vec<String>,
    mut check: impl FnMut(&[u8], V::SelfType<'_>) -> Checked,
) -> Result<(usize, Option<Vec<u8>>), StoreError> {
    let mut seen = 0;
    for entry in table.range(from.unwrap_or_default()..)? {
        let (key, value) = entry?;
        if from == Some(key.value()) {
            continue;
        }
        match check(key.value(), value.value()) {
            Ok(problem) => found.extend(problem),
            Err(error @ StoreError::Damaged { .. }) => found.push(error.to_string()),
            Err(error) => return Err(error),
        }
        seen += 1;
        if seen == PIECE_ENTRIES {
            return Ok((seen, Some(key.value().to_vec())));
        }
    }
    Ok((seen, None))
}

fn check_clicks(snapshot: &Snapshot, id: &[u8], usage: &[u8]) -> Checked {
    clicks::decode(id, usage)?;
    let is_lost = snapshot.links.get(id)?.is_none();
    Ok(is_lost.then(|| format!("there are clicks of {}, which has no record", id.escape_ascii())))
}

fn check_record(snapshot: &Snapshot, key: &[u8], value: &[u8]) -> Checked {
    let id = id_of(key)?;
    let link = record::decode(id, value)?;
    for index in Index::ALL {
        if let Some(key) = index.key_of(&link)
            && snapshot.index(index).get(key.as_slice())?.is_none()
        {
            return Ok(Some(format!("{id} has no entry in {}", index.name())));
        }
    }
    Ok(None)
}

fn check_index(snapshot: &Snapshot, index: Index, key: &[u8]) -> Checked {
    let name = index.name();
    let Some(id) = keys::id_of(index, key) else {
        return Ok(Some(format!("{name} has a malformed entry: {}", key.escape_ascii())));
    };
    let reason = match snapshot.get(id) {
        Ok(Some(link)) if index.key_of(&link).as_deref() == Some(key) => return check_scope(snapshot, index, key),
        Ok(Some(_)) => "that does not fit its record",
        Ok(None) => "which has no record",
        // The record is reported.
        Err(StoreError::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(format!("{name} has an entry for {id}, {reason}")))
}

/// Whether there is a counter for the scope of an entry. What it says is compared where the counters are looked at.
fn check_scope(snapshot: &Snapshot, index: Index, key: &[u8]) -> Checked {
    let Some((scope, _)) = keys::split_scope(index, key) else {
        return Ok(None);
    };
    let Some(counter) = index.counter_key(scope) else {
        return Ok(None);
    };
    let is_there = snapshot.counters.get(counter.as_slice())?.is_some();
    let scope = scope.escape_ascii();
    Ok((!is_there).then(|| format!("{} has links in {scope}, which has no counter", index.name())))
}

fn check_counter(snapshot: &Snapshot, key: &[u8], value: &[u8]) -> Checked {
    let stored = values::decode_counts(key, value)?;
    let Some((index, scope)) = Index::of_counter(key) else {
        return Ok(Some(format!("{} counts nothing", key.escape_ascii())));
    };
    let counted = count_scope(snapshot.index(index), index, scope)?;
    Ok((counted != stored).then(|| {
        let scope = scope.escape_ascii();
        format!("{} {scope} has {counted:?} links, counted are {stored:?}", index.name())
    }))
}
