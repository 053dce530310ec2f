//! Whether a store is whole: every record decodes, indexes and records fit together, counters are what counting gives.

use std::hash::{BuildHasher as _, RandomState};

use redb::{ReadableTable as _, ReadableTableMetadata as _};

use crate::model::PROBLEMS_LISTED_MAX;
use crate::store::error::StoreError;
use crate::store::format::audit;
use crate::store::format::clicks;
use crate::store::format::days;
use crate::store::format::keys::{self, Index, PerIndex};
use crate::store::format::staged;
use crate::store::format::values::{self, Counts, decode_counts};
use crate::store::read::snapshot::Snapshot;

/// What a look at everything has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Links in the store, by status in the order of `Status::ALL`; those whose records are damaged are not counted.
    pub links: Counts,
    pub index_entries: u64,
    pub counters: u64,
    /// The first problems, a sentence each.
    pub problems: Vec<String>,
    pub found: u64,
}

impl Verification {
    pub const fn is_clean(&self) -> bool {
        self.found == 0
    }

    pub fn problem(&mut self, text: impl FnOnce() -> String) {
        self.found += 1;
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(text());
        }
    }
}

/// What a set of keys comes to: equal sets have equal sums, and different ones hardly ever do. Comparing sums takes one
/// walk through records and indexes each; looking every key up takes ten times as long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    keys: u64,
    hashes: u128,
}

impl Sum {
    fn add(&mut self, hashers: &[RandomState; 2], key: &[u8]) {
        let [high, low] = hashers;
        self.keys += 1;
        let hash = (u128::from(high.hash_one(key)) << 64) | u128::from(low.hash_one(key));
        self.hashes = self.hashes.wrapping_add(hash);
    }
}

impl Snapshot {
    /// Looks at every record, index entry and counter. `progress` follows the records.
    pub fn verify(&self, mut progress: impl FnMut()) -> Result<Verification, StoreError> {
        let mut found = Verification::default();
        let hashers = [RandomState::new(), RandomState::new()];
        let expected = self.verify_records(&hashers, &mut found, &mut progress)?;
        for index in Index::ALL {
            let mut sum = Sum::default();
            for entry in self.index(index).iter()? {
                sum.add(&hashers, entry?.0.value());
            }
            found.index_entries += sum.keys;
            if sum != *expected.get(index) {
                self.tell_missing_entries(index, &mut found)?;
                self.tell_stray_entries(index, &mut found)?;
            }
        }
        found.counters = self.counters.len()?;
        let mut counted = 0;
        for index in Index::ALL.into_iter().filter(|index| index.counter_kind().is_some()) {
            counted += self.verify_counters(index, &mut found)?;
        }
        self.verify_unique_ids(&mut found)?;
        self.verify_clicks(&mut found)?;
        self.verify_days(&mut found)?;
        self.verify_audit(&mut found)?;
        self.verify_sessions(&mut found)?;
        self.verify_digest(&mut found)?;
        self.verify_staged(&mut found)?;
        self.verify_fleet_clicks(&mut found)?;
        if counted != found.counters {
            let (counted, counters) = (counted, found.counters);
            found.problem(|| format!("{counters} counters, but links in {counted} scopes"));
        }
        Ok(found)
    }

    /// In a cluster: whether the links are those that its log has led to.
    fn verify_digest(&self, found: &mut Verification) -> Result<(), StoreError> {
        let Some(position) = self.position() else { return Ok(()) };
        // A record that cannot be read has been reported.
        if let Ok(digest) = self.content_digest()
            && digest != position.digest
        {
            let sequence = position.sequence;
            found.problem(|| format!("the links are not those of the cluster after entry {sequence}: take a new copy"));
        }
        Ok(())
    }

    fn verify_staged(&self, found: &mut Verification) -> Result<(), StoreError> {
        let Some(table) = &self.staged else { return Ok(()) };
        for entry in table.iter()? {
            let (key, part) = entry?;
            if let Err(error) = staged::decode(key.value(), part.value()) {
                found.problem(|| error.to_string());
            }
        }
        Ok(())
    }

    /// Looks at every record, and returns what the entries that it must have come to, for each index.
    fn verify_records(
        &self,
        hashers: &[RandomState; 2],
        found: &mut Verification,
        progress: &mut impl FnMut(),
    ) -> Result<PerIndex<Sum>, StoreError> {
        let mut expected = PerIndex::make(|_| Ok::<_, StoreError>(Sum::default()))?;
        for entry in self.iter()? {
            progress();
            let link = match entry {
                Ok((_, Ok(link))) => link,
                Err(error) if error.is_of_the_file() => return Err(error),
                Ok((_, Err(error))) | Err(error) => {
                    found.problem(|| error.to_string());
                    continue;
                }
            };
            if let Some(count) = found.links.get_mut(usize::from(link.status.number() - 1)) {
                *count += 1;
            }
            for (index, sum) in expected.iter_mut() {
                if let Some(key) = index.key_of(&link) {
                    sum.add(hashers, &key);
                }
            }
        }
        Ok(expected)
    }

    /// Names the records that have no entry in an index.
    fn tell_missing_entries(&self, index: Index, found: &mut Verification) -> Result<(), StoreError> {
        for entry in self.iter()? {
            // Damage has been reported.
            let Ok((id, Ok(link))) = entry else { continue };
            let Some(key) = index.key_of(&link) else { continue };
            if self.index(index).get(key.as_slice())?.is_none() {
                found.problem(|| format!("{id} has no entry in {}", index.name()));
            }
        }
        Ok(())
    }

    /// Names the entries of an index that no record wants.
    fn tell_stray_entries(&self, index: Index, found: &mut Verification) -> Result<(), StoreError> {
        for entry in self.index(index).iter()? {
            let (key, _) = entry?;
            let key = key.value();
            let name = index.name();
            let Some(id) = keys::id_of(index, key) else {
                found.problem(|| format!("{name} has a malformed entry"));
                continue;
            };
            match self.get(id) {
                Ok(Some(link)) if index.key_of(&link).as_deref() == Some(key) => {}
                Ok(Some(_)) => found.problem(|| format!("{name} has an entry for {id} that does not fit its record")),
                Ok(None) => found.problem(|| format!("{name} has an entry for {id}, which has no record")),
                Err(StoreError::Damaged { .. }) => {
                    found.problem(|| format!("{name} has an entry for {id}, whose record is damaged"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Compares the counters of a kind with what its index holds, and returns how many scopes that has.
    fn verify_counters(&self, index: Index, found: &mut Verification) -> Result<u64, StoreError> {
        let mut scopes = 0;
        self.for_each_scope(index, |scope, counts| {
            let Some(key) = index.counter_key(scope) else {
                return Ok(());
            };
            scopes += 1;
            let stored = self.counters.get(key.as_slice())?;
            let stored = stored.and_then(|bytes| decode_counts(&key, bytes.value()).ok());
            if stored != Some(counts) {
                let scope = shown(scope);
                found.problem(|| format!("{} {scope} has {counts:?} links, counted are {stored:?}", index.name()));
            }
            Ok(())
        })?;
        Ok(scopes)
    }

    fn verify_unique_ids(&self, found: &mut Verification) -> Result<(), StoreError> {
        self.for_each_scope(Index::UniqueId, |scope, [disabled, enabled, _]| {
            if disabled + enabled > 1 {
                let scope = shown(scope);
                found.problem(|| format!("unique id {scope} is held by {} links", disabled + enabled));
            }
            Ok(())
        })
    }

    fn verify_sessions(&self, found: &mut Verification) -> Result<(), StoreError> {
        type Decode = fn(&[u8], &[u8]) -> Result<(), StoreError>;
        let until: Decode = |digest, until| values::decode_until(digest, until).map(drop);
        let calls: Decode = |digest, calls| values::decode_calls(digest, calls).map(drop);
        for (table, decode) in [(&self.revocations, until), (&self.actions, calls)] {
            for entry in table.iter()? {
                let (digest, value) = entry?;
                if let Err(error) = decode(digest.value(), value.value()) {
                    found.problem(|| error.to_string());
                }
            }
        }
        Ok(())
    }

    /// Both tables are in the order of the ids, so one walk through each is enough.
    fn verify_clicks(&self, found: &mut Verification) -> Result<(), StoreError> {
        let Some(clicks) = &self.clicks else { return Ok(()) };
        let (mut links, mut present) = (self.links.iter()?, None);
        for entry in clicks.iter()? {
            let (key, usage) = entry?;
            let id = key.value();
            let shown = String::from_utf8_lossy(id);
            if clicks::decode(id, usage.value()).is_err() {
                found.problem(|| format!("the clicks of {shown} are damaged"));
            }
            while present.as_deref().is_none_or(|link: &[u8]| link < id) {
                match links.next() {
                    Some(link) => present = Some(link?.0.value().to_vec()),
                    None => break,
                }
            }
            if present.as_deref() != Some(id) {
                found.problem(|| format!("there are clicks of {shown}, which has no record"));
            }
        }
        Ok(())
    }

    fn verify_audit(&self, found: &mut Verification) -> Result<(), StoreError> {
        let Some(table) = &self.audit else { return Ok(()) };
        for entry in table.iter()? {
            let (key, entry) = entry?;
            if let Err(error) = audit::decode(key.value(), entry.value()) {
                found.problem(|| error.to_string());
            }
        }
        Ok(())
    }

    fn verify_days(&self, found: &mut Verification) -> Result<(), StoreError> {
        let Some(table) = &self.days else { return Ok(()) };
        for entry in table.iter()? {
            let (key, visits) = entry?;
            match self.check_day(key.value(), visits.value()) {
                Ok(None) => {}
                Ok(Some(problem)) => found.problem(|| problem),
                Err(error @ StoreError::Damaged { .. }) => found.problem(|| error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is wrong with an entry of the table of days, if anything is.
    pub fn check_day(&self, key: &[u8], visits: &[u8]) -> Result<Option<String>, StoreError> {
        days::decode(key, visits)?;
        let (day, id) = days::split_key(key)?;
        let Some(id) = id else { return Ok(None) };
        let is_lost = self.links.get(id.as_bytes())?.is_none();
        Ok(is_lost.then(|| format!("there are clicks of {id} on day {}, which has no record", day.0)))
    }

    /// Calls `visit` with every scope of an index and how many entries it has of each status.
    fn for_each_scope(
        &self,
        index: Index,
        mut visit: impl FnMut(&[u8], Counts) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut present: Option<(Vec<u8>, Counts)> = None;
        for entry in self.index(index).iter()? {
            let (key, _) = entry?;
            // Malformed entries have been reported.
            let Some((scope, status)) = keys::split_scope(index, key.value()) else {
                continue;
            };
            if present.as_ref().is_none_or(|(before, _)| before != scope)
                && let Some((before, counts)) = present.replace((scope.to_vec(), Counts::default()))
            {
                visit(&before, counts)?;
            }
            if let Some((_, counts)) = &mut present
                && let Some(count) = counts.get_mut(usize::from(status).wrapping_sub(1))
            {
                *count += 1;
            }
        }
        present.map_or(Ok(()), |(scope, counts)| visit(&scope, counts))
    }
}

/// A scope for people: the partner, and the text if there is one.
fn shown(scope: &[u8]) -> String {
    let (partner, rest) = scope
        .split_first_chunk()
        .map_or((0, scope), |(partner, rest)| (u32::from_be_bytes(*partner), rest));
    match rest.get(2..) {
        Some(text) => format!("{partner}/{}", String::from_utf8_lossy(text)),
        None => partner.to_string(),
    }
}
