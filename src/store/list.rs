//! How a list is answered: the index with the least work drives, what it does not decide is checked on the
//! records, and never more than a page, or a bounded heap of sort keys, is held in memory.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use crate::model::{ID_MAX_BYTES, LinkId, ShortLink, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::keys::{self, Counter, Index};
use crate::store::query::{Listing, Order, OrderField, Query, TimeRange};
use crate::store::snapshot::Snapshot;

/// What reading a record costs, in index entries: a descent through the tree and the decoding, against one step of an
/// iterator.
const RECORD_COST: u64 = 8;

/// Sort keys that are held at most to bring a page into an order that no index has for the conditions. Pages that end
/// beyond it are read in the order of the partner's index instead.
const SORT_MAX_LINKS: u64 = 100_000;

/// Where a link stands in the result: keys in ascending order are links in output order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    never: bool,
    time: i64,
    tie: [u8; ID_MAX_BYTES],
}

impl Rank {
    fn new(order: Order, time: Option<Timestamp>, id: LinkId) -> Self {
        let (seconds, tie) = (time.map_or(0, Timestamp::as_unix), id.padded());
        Self {
            never: time.is_none(),
            // The complement turns an order round.
            time: if order.descending { !seconds } else { seconds },
            tie: if order.descending { tie.map(|byte| !byte) } else { tie },
        }
    }
}

/// Where the candidates come from.
#[derive(Debug)]
enum Driver<'q> {
    /// The ids that the query names.
    Ids(&'q BTreeSet<LinkId>),
    /// The entries of an index.
    Index(Span),
}

/// The part of an index that is read: some scopes, in each the statuses that the query names, within a time range.
#[derive(Debug)]
struct Span {
    index: Index,
    scopes: Vec<Vec<u8>>,
    range: TimeRange,
}

/// The cheapest driver so far.
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
    /// The whole partner in the order that the query asks for.
    fn in_order(query: &Query) -> Self {
        let (index, range) = match query.order.field {
            OrderField::CreatedAt => (Index::Created, query.created),
            OrderField::UpdatedAt => (Index::Updated, query.updated),
            OrderField::ExpiresAt => (Index::Expires, query.expires),
        };
        Self::of_partner(query, index, range)
    }

    fn of_partner(query: &Query, index: Index, range: TimeRange) -> Self {
        Self {
            index,
            scopes: vec![keys::partner_scope(query.partner)],
            range,
        }
    }

    fn of_texts<'t>(query: &Query, index: Index, texts: impl IntoIterator<Item = &'t String>) -> Self {
        Self {
            index,
            scopes: texts
                .into_iter()
                .map(|text| keys::text_scope(query.partner, text))
                .collect(),
            range: query.created,
        }
    }

    fn cost_per_entry(&self, query: &Query) -> u64 {
        if self.decides_all(query) && self.has_order(query.order) {
            1
        } else {
            RECORD_COST
        }
    }

    fn has_order(&self, order: Order) -> bool {
        let field = match self.index {
            Index::Updated => OrderField::UpdatedAt,
            Index::Expires => OrderField::ExpiresAt,
            Index::Created | Index::User | Index::SystemName | Index::UniqueId => OrderField::CreatedAt,
        };
        field == order.field
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

type Candidates = Box<dyn Iterator<Item = Result<(Rank, LinkId), StoreError>>>;

impl Snapshot {
    /// Answers a query. The total is exact.
    ///
    /// # Errors
    /// When the file cannot be read or a record cannot be decoded.
    pub fn list(&self, query: &Query) -> Result<Listing, StoreError> {
        if query.is_impossible() {
            return Ok(Listing::default());
        }
        let choice = self.choose(query)?;
        match choice.driver {
            Driver::Index(span) if span.has_order(query.order) => {
                if span.decides_all(query) {
                    return self.take_page(query, &span, choice.entries);
                }
                self.filter_in_order(query, &span)
            }
            _ if choice.entries.min(query.page.end() as u64) > SORT_MAX_LINKS => {
                self.filter_in_order(query, &Span::in_order(query))
            }
            Driver::Index(span) => self.filter_and_sort(query, self.candidates(query, &span)?.map(|one| Ok(one?.1))),
            Driver::Ids(ids) => self.filter_and_sort(query, ids.iter().copied().map(Ok)),
        }
    }

    /// The driver with the least work.
    fn choose<'q>(&self, query: &'q Query) -> Result<Choice<'q>, StoreError> {
        // Costs more than any other, so that it gives way to the first offer.
        let mut choice = Choice {
            driver: Driver::Index(Span::in_order(query)),
            entries: u64::MAX,
            cost: u64::MAX,
        };
        if let Some(ids) = &query.ids {
            choice.offer(Driver::Ids(ids), ids.len() as u64, RECORD_COST);
        }
        // Those that are quickly counted come first: they limit how far the others are counted.
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
        for (index, range) in [
            (Index::Created, query.created),
            (Index::Updated, query.updated),
            (Index::Expires, query.expires),
        ] {
            let span = Span::of_partner(query, index, range);
            if range.is_bounded() || span.has_order(query.order) {
                spans.push(span);
            }
        }
        for span in spans {
            let cost_per_entry = span.cost_per_entry(query);
            // With so many entries it is no longer worth being chosen.
            let limit = (choice.cost / cost_per_entry).saturating_add(1);
            let entries = self.count(query, &span, limit)?;
            choice.offer(Driver::Index(span), entries, cost_per_entry);
        }
        Ok(choice)
    }

    /// The entries of a span: from the counters where they know, else counted, up to `limit`.
    fn count(&self, query: &Query, span: &Span, limit: u64) -> Result<u64, StoreError> {
        let counter = match span.index {
            Index::Created | Index::Updated | Index::Expires => Some(Counter::Partner),
            Index::User => Some(Counter::User),
            Index::SystemName => Some(Counter::SystemName),
            Index::UniqueId => None,
        };
        let mut entries = 0;
        if let (Some(counter), false) = (counter, span.range.is_bounded()) {
            for scope in &span.scopes {
                for (status, count) in Status::ALL.iter().zip(self.counts(counter, scope)?) {
                    if query.statuses.contains(status) {
                        entries += count;
                    }
                }
            }
            return Ok(entries);
        }
        let table = self.index(span.index);
        for scope in &span.scopes {
            for &status in &query.statuses {
                let (first, last) = keys::bounds(scope, status, span.range.from, span.range.to);
                for entry in table.range(first.as_slice()..=last.as_slice())? {
                    entry?;
                    entries += 1;
                    if entries >= limit {
                        return Ok(entries);
                    }
                }
            }
        }
        Ok(entries)
    }

    /// The links of a span in the order that the query asks for, if the span's index has it; else in some order.
    fn candidates(&self, query: &Query, span: &Span) -> Result<Candidates, StoreError> {
        let order = query.order;
        let table = self.index(span.index);
        let mut runs: Vec<Candidates> = Vec::new();
        for scope in &span.scopes {
            for &status in &query.statuses {
                let all = keys::bounds(scope, status, span.range.from, span.range.to);
                // Going backwards, links that never expire would come first; they are read after the others.
                let spans = if span.index == Index::Expires && order.descending && !span.range.is_bounded() {
                    let expiring = keys::bounds(scope, status, Some(Timestamp::from_unix(i64::MIN)), None);
                    vec![expiring, keys::never_bounds(scope, status)]
                } else {
                    vec![all]
                };
                let (index, scope_bytes) = (span.index, scope.len());
                let mut run: Candidates = Box::new(std::iter::empty());
                for (first, last) in spans {
                    let range = table.range(first.as_slice()..=last.as_slice())?;
                    let ranked = move |entry: Result<(redb::AccessGuard<'_, &[u8]>, _), redb::StorageError>| {
                        let (time, id) = keys::decode_tail(index, scope_bytes, entry?.0.value())?;
                        Ok((Rank::new(order, time, id), id))
                    };
                    run = if order.descending {
                        Box::new(run.chain(range.rev().map(ranked)))
                    } else {
                        Box::new(run.chain(range.map(ranked)))
                    };
                }
                runs.push(run);
            }
        }
        Ok(merge(runs))
    }

    /// Every candidate fits and they come in order: skip, take, done.
    fn take_page(&self, query: &Query, span: &Span, total: u64) -> Result<Listing, StoreError> {
        let mut links = Vec::new();
        if (query.page.offset() as u64) < total {
            for candidate in self
                .candidates(query, span)?
                .skip(query.page.offset())
                .take(query.page.size)
            {
                links.push(self.existing(candidate?.1)?);
            }
        }
        Ok(Listing { links, total })
    }

    /// The candidates come in order, but each must be looked at.
    fn filter_in_order(&self, query: &Query, span: &Span) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let offset = query.page.offset() as u64;
        for candidate in self.candidates(query, span)? {
            let link = self.existing(candidate?.1)?;
            if query.matches(&link) {
                if listing.total >= offset && listing.links.len() < query.page.size {
                    listing.links.push(link);
                }
                listing.total += 1;
            }
        }
        Ok(listing)
    }

    /// The candidates come in no useful order: the first ranks, up to the end of the page, are kept in a heap.
    fn filter_and_sort(
        &self,
        query: &Query,
        candidates: impl Iterator<Item = Result<LinkId, StoreError>>,
    ) -> Result<Listing, StoreError> {
        let kept = query.page.end();
        let mut total = 0;
        let mut heap = BinaryHeap::new();
        for id in candidates {
            let id = id?;
            // The index says that the link exists; an id that the client names need not.
            let Some(link) = self.get(id)? else { continue };
            if query.matches(&link) {
                total += 1;
                let time = match query.order.field {
                    OrderField::CreatedAt => Some(link.created_at),
                    OrderField::UpdatedAt => Some(link.updated_at),
                    OrderField::ExpiresAt => link.expires_at,
                };
                heap.push((Rank::new(query.order, time, id), id));
                if heap.len() > kept {
                    heap.pop();
                }
            }
        }
        let page = heap.into_sorted_vec().into_iter().skip(query.page.offset());
        let links = page.map(|(_, id)| self.existing(id)).collect::<Result<_, _>>()?;
        Ok(Listing { links, total })
    }

    fn existing(&self, id: LinkId) -> Result<ShortLink, StoreError> {
        self.get(id)?
            .ok_or_else(|| StoreError::damaged("links", format!("{id} is in an index but has no record")))
    }
}

/// Merges runs that are each in order. An error comes at once.
fn merge(mut runs: Vec<Candidates>) -> Candidates {
    if runs.len() == 1
        && let Some(only) = runs.pop()
    {
        return only;
    }
    let mut heads = BinaryHeap::new();
    let mut failed = None;
    for (number, run) in runs.iter_mut().enumerate() {
        match run.next() {
            Some(Ok(head)) => heads.push(Reverse((head, number))),
            Some(Err(error)) => failed = Some(error),
            None => {}
        }
    }
    Box::new(std::iter::from_fn(move || {
        if let Some(error) = failed.take() {
            heads.clear();
            return Some(Err(error));
        }
        let Reverse((head, number)) = heads.pop()?;
        match runs.get_mut(number).and_then(Iterator::next) {
            Some(Ok(next)) => heads.push(Reverse((next, number))),
            Some(Err(error)) => failed = Some(error),
            None => {}
        }
        Some(Ok(head))
    }))
}
