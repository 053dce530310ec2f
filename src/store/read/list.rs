//! How a list is answered: the index with the least work drives, what it does not decide is checked on the
//! records, and never more than a page, or a bounded heap of sort keys, is held in memory.

use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Bound;

use crate::model;
use crate::model::{LinkId, LinkRef, ShortLink, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::keys::{self, Index};
use crate::store::format::record;
use crate::store::format::values::Counts;
use crate::store::read::limit::{Meter, ReadLimit};
use crate::store::read::query::{Listing, Order, OrderField, Query, SORT_MAX_LINKS, TimeRange};
use crate::store::read::rank::{Candidates, Rank, merge};
use crate::store::read::scan::{RECORD_STEPS, Visitor};
use crate::store::read::snapshot::Snapshot;

/// What reading a record costs, in steps through an index: a descent through the tree and the decoding.
const RECORD_COST: u64 = 32;
/// Threads that read the whole store for one list, at most: redirects are served meanwhile.
const SCAN_THREADS_MAX: usize = 4;

/// Ids that are brought into the order of the table before their records are read.
const READ_TOGETHER_MAX: usize = 100_000;

enum Driver<'q> {
    /// The ids that the query names.
    Ids(&'q BTreeSet<LinkId>),
    Index(Span),
    /// The entries of the partner's index in the wanted order, until the page is full.
    Walk(Span, Walk),
    /// Every record of the store, of all partners.
    Scan,
}

/// The part of an index that is read: some scopes, in each the statuses that the query names, within a time range.
struct Span {
    index: Index,
    /// Scope and status of each run, which is in the order of the index; none that is known to be empty.
    runs: Vec<(Vec<u8>, Status)>,
    range: TimeRange,
}

/// A walk through an index that is worth it only where those that fit are spread evenly.
#[derive(Clone, Copy)]
struct Walk {
    /// How many links fit the query.
    total: u64,
    /// How many records may be read until it is given up.
    patience: u64,
}

struct Choice<'q> {
    driver: Driver<'q>,
    entries: u64,
    cost: u64,
}

impl<'q> Choice<'q> {
    /// Takes another driver in its place if that has less work.
    fn offer(&mut self, driver: Driver<'q>, entries: u64, cost_per_entry: u64) {
        let cost = entries.saturating_mul(cost_per_entry);
        if cost < self.cost {
            *self = Self { driver, entries, cost };
        }
    }
}

impl Span {
    /// The whole partner in the order that the query asks for, or in that of its first time.
    fn in_order(query: &Query) -> Self {
        let index = match query.order.first().field {
            OrderField::Created => Index::Created,
            OrderField::Updated => Index::Updated,
            OrderField::Expires => Index::Expires,
        };
        Self::of_partner(query, index)
    }

    fn of_partner(query: &Query, index: Index) -> Self {
        Self::new(query, index, [keys::partner_scope(query.partner)])
    }

    fn of_texts<'t>(query: &Query, index: Index, texts: impl IntoIterator<Item = &'t String>) -> Self {
        let scopes = texts.into_iter().map(|text| keys::text_scope(query.partner, text));
        Self::new(query, index, scopes)
    }

    fn new(query: &Query, index: Index, scopes: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let range = match index {
            Index::Updated => query.updated,
            Index::Expires => query.expires,
            Index::Created | Index::User | Index::SystemName | Index::UniqueId => query.created,
        };
        let runs = scopes
            .into_iter()
            .flat_map(|scope| query.statuses.iter().map(move |&status| (scope.clone(), status)));
        let runs = runs.collect();
        Self { index, runs, range }
    }

    fn has_order(&self, order: Order) -> bool {
        let field = match self.index {
            Index::Updated => OrderField::Updated,
            Index::Expires => OrderField::Expires,
            Index::Created | Index::User | Index::SystemName | Index::UniqueId => OrderField::Created,
        };
        order.of_index() == Some(field)
    }

    /// Whether every link in the span fits the query.
    fn decides_all(&self, query: &Query) -> bool {
        let by = |index| self.index == index;
        query.ids.is_none()
            && (query.users.is_none() || by(Index::User))
            && (query.system_names.is_none() || by(Index::SystemName))
            && (query.unique_id.is_none() || by(Index::UniqueId))
            && (!query.created.is_bounded() || !(by(Index::Updated) || by(Index::Expires)))
            && (!query.updated.is_bounded() || by(Index::Updated))
            && (!query.expires.is_bounded() || by(Index::Expires))
    }
}

/// The spans that a query may be read from. Those that are quickly counted come first: they limit how far the others
/// are counted.
fn spans(query: &Query) -> Vec<Span> {
    let mut spans = Vec::new();
    if let Some(unique_id) = &query.unique_id {
        spans.push(Span::of_texts(query, Index::UniqueId, [unique_id]));
    }
    if let Some(users) = &query.users {
        spans.push(Span::of_texts(query, Index::User, users));
    }
    if let Some(system_names) = &query.system_names {
        spans.push(Span::of_texts(query, Index::SystemName, system_names));
    }
    let in_order = Span::in_order(query).index;
    for index in [Index::Created, Index::Updated, Index::Expires] {
        let span = Span::of_partner(query, index);
        if span.range.is_bounded() || index == in_order {
            spans.push(span);
        }
    }
    spans
}

impl Snapshot {
    /// Answers a query. The total is exact.
    pub fn list(&self, query: &Query, limit: &ReadLimit) -> Result<Listing, StoreError> {
        let meter = Meter::new(limit);
        if query.is_impossible() {
            return Ok(Listing::default());
        }
        let snapshot = self;
        Lister { snapshot, query, meter }.list()
    }
}

struct Lister<'a> {
    snapshot: &'a Snapshot,
    query: &'a Query,
    meter: Meter<'a>,
}

impl<'a> Lister<'a> {
    fn list(&self) -> Result<Listing, StoreError> {
        let (mut may_walk, mut may_scan) = (true, true);
        loop {
            let choice = self.choose(may_walk, may_scan)?;
            // Both read records of other partners; where one of those is damaged, the indexes help.
            let listing = match choice.driver {
                Driver::Walk(span, walk) => {
                    may_walk = false;
                    self.filter_in_order(&span, Some(walk))?
                }
                Driver::Scan => {
                    may_scan = false;
                    self.scan_and_sort()?
                }
                Driver::Ids(ids) => Some(self.filter_and_sort(ids.iter().copied().map(Ok))?),
                Driver::Index(span) => self.list_by(&span, choice.entries)?,
            };
            if let Some(listing) = listing {
                return Ok(listing);
            }
        }
    }

    fn list_by(&self, span: &Span, entries: u64) -> Result<Option<Listing>, StoreError> {
        if span.has_order(self.query.order) {
            if span.decides_all(self.query) {
                return self.take_page(span, entries).map(Some);
            }
            return self.filter_in_order(span, None);
        }
        if entries.min(self.query.page.end() as u64) > SORT_MAX_LINKS {
            return self.filter_in_order(&Span::in_order(self.query), None);
        }
        let ids = self.candidates(span)?.map(|one| Ok(one?.1));
        self.filter_and_sort(ids).map(Some)
    }

    /// The driver with the least work.
    fn choose(&self, may_walk: bool, may_scan: bool) -> Result<Choice<'a>, StoreError> {
        let query = self.query;
        // Costs more than any other, so that it gives way to the first offer.
        let mut choice = Choice {
            driver: Driver::Index(Span::in_order(query)),
            entries: u64::MAX,
            cost: u64::MAX,
        };
        if let Some(ids) = &query.ids {
            choice.offer(Driver::Ids(ids), ids.len() as u64, RECORD_COST);
        }
        if may_scan && query.page.end() as u64 <= SORT_MAX_LINKS {
            let stored = self.snapshot.totals()?.iter().sum();
            choice.offer(Driver::Scan, stored, RECORD_STEPS);
        }
        let mut total = None;
        for mut span in spans(query) {
            let (decides_all, has_order) = (span.decides_all(query), span.has_order(query.order));
            let cost_per_entry = if decides_all && has_order { 1 } else { RECORD_COST };
            let limit = if decides_all {
                // It also tells the total, which is worth being counted to the end.
                choice.cost
            } else {
                // With so many entries it is no longer worth being chosen.
                (choice.cost / cost_per_entry).saturating_add(1)
            };
            let entries = self.count(&mut span, limit)?;
            choice.offer(Driver::Index(span), entries, cost_per_entry);
            if decides_all && entries < limit {
                if has_order {
                    // Only the page itself is read.
                    return Ok(choice);
                }
                total = Some(entries);
            }
        }
        if let Some(total) = total
            && may_walk
            && query.order.of_index().is_some()
        {
            let mut span = Span::in_order(query);
            let entries = self.count(&mut span, u64::MAX)?;
            // If those that fit are spread evenly.
            let until_full = (query.page.end() as u64).saturating_mul(entries) / total.max(1);
            let until_full = until_full.clamp(1, entries.max(1));
            // What another way would have cost is lost at most.
            let patience = choice.cost / RECORD_COST;
            choice.offer(Driver::Walk(span, Walk { total, patience }), until_full, RECORD_COST);
        }
        Ok(choice)
    }

    /// The entries of a span: from the counters where they know, else counted, up to `limit`.
    fn count(&self, span: &mut Span, limit: u64) -> Result<u64, StoreError> {
        let counted_in = match span.index {
            Index::Updated | Index::Expires => Index::Created,
            index => index,
        };
        let mut entries = 0;
        let mut counted: Option<(Vec<u8>, Counts)> = None;
        for (scope, status) in std::mem::take(&mut span.runs) {
            if let Some(counter) = counted_in.counter_key(&scope)
                && counted.as_ref().is_none_or(|(of, _)| *of != scope)
            {
                self.meter.step(RECORD_COST)?;
                counted = Some((scope.clone(), self.snapshot.counts(&counter)?));
            }
            let known = counted
                .as_ref()
                .and_then(|(_, counts)| counts.get(usize::from(status.number() - 1)).copied());
            let of_run = match known {
                Some(count) if count == 0 || !span.range.is_bounded() => count,
                _ if entries >= limit => 1,
                _ => {
                    self.meter.step(RECORD_COST)?;
                    self.count_run(span, &scope, status, known, limit - entries)?
                }
            };
            if of_run > 0 {
                entries += of_run;
                span.runs.push((scope, status));
            }
        }
        Ok(entries)
    }

    /// The entries of a run, up to `limit`. Where it is known how many there are at all times, those outside the time
    /// range are counted alongside, and whichever come to their end first decide.
    fn count_run(
        &self,
        span: &Span,
        scope: &[u8],
        status: Status,
        known: Option<u64>,
        limit: u64,
    ) -> Result<u64, StoreError> {
        let table = self.snapshot.index(span.index);
        let (first, last) = keys::bounds(scope, status, span.range.from, span.range.to);
        let (start, end) = keys::bounds(scope, status, None, None);
        let mut inside = table.range(first.as_slice()..=last.as_slice())?;
        let before = table.range(start.as_slice()..first.as_slice())?;
        let after = table.range::<&[u8]>((Bound::Excluded(last.as_slice()), Bound::Included(end.as_slice())))?;
        let mut outside = before.chain(after);
        let (mut within, mut without) = (0, 0);
        while within < limit {
            self.meter.step(1)?;
            match inside.next() {
                Some(entry) => drop(entry?),
                None => break,
            }
            within += 1;
            if let Some(known) = known {
                match outside.next() {
                    Some(entry) => drop(entry?),
                    None => return Ok(known.saturating_sub(without)),
                }
                without += 1;
            }
        }
        Ok(within)
    }

    /// The links of a span in the order that the query asks for, if the span's index has it; else in some order.
    fn candidates(&self, span: &Span) -> Result<Candidates, StoreError> {
        let (order, is_descending) = (self.query.order, self.query.order.first().descending);
        let table = self.snapshot.index(span.index);
        let mut runs: Vec<Candidates> = Vec::new();
        for &(ref scope, status) in &span.runs {
            // Going backwards, links that never expire would come first; they are read after the others.
            let spans = if span.index == Index::Expires && is_descending && !span.range.is_bounded() {
                let expiring = keys::bounds(scope, status, Some(Timestamp::from_unix(i64::MIN)), None);
                vec![expiring, keys::never_bounds(scope, status)]
            } else {
                vec![keys::bounds(scope, status, span.range.from, span.range.to)]
            };
            let (index, scope_bytes) = (span.index, scope.len());
            let mut run: Candidates = Box::new(std::iter::empty());
            for (first, last) in spans {
                let range = table.range(first.as_slice()..=last.as_slice())?;
                let ranked = move |entry: Result<(redb::AccessGuard<'_, &[u8]>, _), redb::StorageError>| {
                    let (time, id) = keys::decode_tail(index, scope_bytes, entry?.0.value())?;
                    Ok((Rank::new(order, |_| time, id), id))
                };
                run = if is_descending {
                    Box::new(run.chain(range.rev().map(ranked)))
                } else {
                    Box::new(run.chain(range.map(ranked)))
                };
            }
            runs.push(run);
        }
        Ok(merge(runs))
    }

    /// Every candidate fits and they come in order: skip, take, done.
    fn take_page(&self, span: &Span, total: u64) -> Result<Listing, StoreError> {
        let mut links = Vec::new();
        let page = self.query.page;
        if (page.offset() as u64) < total {
            for (number, candidate) in self.candidates(span)?.take(page.end()).enumerate() {
                self.meter.step(1)?;
                let (_, id) = candidate?;
                if number >= page.offset() {
                    self.meter.step(RECORD_COST)?;
                    links.push(self.existing(id)?);
                }
            }
        }
        Ok(Listing { links, total })
    }

    /// The candidates come in order, but each must be looked at. A walk ends once the page is full; `None` if that
    /// takes too long, or if a record on the way cannot be read.
    fn filter_in_order(&self, span: &Span, walk: Option<Walk>) -> Result<Option<Listing>, StoreError> {
        let mut listing = Listing::default();
        let (page, mut read) = (self.query.page, 0);
        for candidate in self.candidates(span)? {
            let is_full = listing.links.len() >= page.size;
            if let Some(Walk { total, patience }) = walk {
                if is_full || listing.total.max(page.offset() as u64) >= total {
                    break;
                }
                if read >= patience {
                    return Ok(None);
                }
                read += 1;
            }
            self.meter.step(RECORD_COST)?;
            let link = match self.existing(candidate?.1) {
                Err(StoreError::Damaged { .. }) if walk.is_some() => return Ok(None),
                link => link?,
            };
            if self.query.matches(&(&link).into()) {
                if listing.total >= page.offset() as u64 && !is_full {
                    listing.links.push(link);
                }
                listing.total += 1;
            }
        }
        if let Some(walk) = walk {
            listing.total = walk.total;
        }
        Ok(Some(listing))
    }

    /// The candidates come in no useful order.
    fn filter_and_sort(
        &self,
        mut ids: impl Iterator<Item = Result<LinkId, StoreError>>,
    ) -> Result<Listing, StoreError> {
        let mut picker = Picker::new(self.query);
        loop {
            let mut some = Vec::new();
            for id in ids.by_ref().take(READ_TOGETHER_MAX) {
                self.meter.step(1)?;
                some.push(id?);
            }
            if some.is_empty() {
                return self.page_of(picker);
            }
            // Neighbours in the table are on the same page of the file.
            some.sort_unstable();
            for id in some {
                self.meter.step(RECORD_COST)?;
                // The index says that the link exists; an id that the client names need not.
                if let Some(bytes) = self.snapshot.links.get(id.as_bytes())? {
                    picker.look_at(&record::read(id, bytes.value())?);
                }
            }
        }
    }

    /// Looks at every record; `None` if one cannot be read.
    fn scan_and_sort(&self) -> Result<Option<Listing>, StoreError> {
        let (threads, query) = (model::cores().min(SCAN_THREADS_MAX), self.query);
        let scanned = self.snapshot.scan(threads, self.meter.limit, || Picker::new(query))?;
        let mut all = Picker::new(query);
        scanned.visitors.into_iter().for_each(|picker| all.merge(picker));
        if all.met_damage || scanned.unread > 0 {
            return Ok(None);
        }
        self.page_of(all).map(Some)
    }

    fn page_of(&self, picker: Picker<'_>) -> Result<Listing, StoreError> {
        let page = picker
            .first
            .into_sorted_vec()
            .into_iter()
            .skip(self.query.page.offset());
        let read = |(_, id)| {
            self.meter.step(RECORD_COST)?;
            self.existing(id)
        };
        let links = page.map(read).collect::<Result<_, _>>()?;
        Ok(Listing {
            links,
            total: picker.total,
        })
    }

    fn existing(&self, id: LinkId) -> Result<ShortLink, StoreError> {
        self.snapshot
            .get(id)?
            .ok_or_else(|| StoreError::damaged("links", format!("{id} is in an index but has no record")))
    }
}

/// Counts the links that fit a query, and keeps those that come first, up to the end of the page.
struct Picker<'q> {
    query: &'q Query,
    first: BinaryHeap<(Rank, LinkId)>,
    total: u64,
    met_damage: bool,
}

impl<'q> Picker<'q> {
    const fn new(query: &'q Query) -> Self {
        Self {
            query,
            first: BinaryHeap::new(),
            total: 0,
            met_damage: false,
        }
    }

    fn look_at(&mut self, link: &LinkRef<'_>) {
        if !self.query.matches(link) {
            return;
        }
        self.total += 1;
        let time_of = |field| match field {
            OrderField::Created => Some(link.created_at),
            OrderField::Updated => Some(link.updated_at),
            OrderField::Expires => link.expires_at,
        };
        self.keep((Rank::new(self.query.order, time_of, link.id), link.id));
    }

    fn keep(&mut self, one: (Rank, LinkId)) {
        if self.first.len() < self.query.page.end() {
            self.first.push(one);
        } else if let Some(mut last) = self.first.peek_mut()
            && one < *last
        {
            *last = one;
        }
    }

    fn merge(&mut self, other: Self) {
        self.total += other.total;
        self.met_damage |= other.met_damage;
        other.first.into_iter().for_each(|one| self.keep(one));
    }
}

impl Visitor for Picker<'_> {
    fn visit(&mut self, _: LinkId, link: Result<LinkRef<'_>, StoreError>) {
        match link {
            Ok(link) => self.look_at(&link),
            Err(_) => self.met_damage = true,
        }
    }
}
