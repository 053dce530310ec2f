//! What a search looks at of every link, in memory: texts in lower case, each kept once where many links share it.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use url::Url;

use crate::links::search::query::{SearchDate, SearchOrder, SearchQuery, SearchState};
use crate::model::{LinkId, LinkRef, PartnerId, Status, Timestamp};
use crate::store::{OrderField, Query, Rank};

/// The number of a text that many links share.
type TextId = u32;
/// Of links without an owner.
const NO_TEXT: TextId = 0;

/// What lists filter by, apart from the rest: a list reads this of every link, and memory limits how fast.
#[derive(Debug)]
struct Filtered {
    partner: PartnerId,
    status: Status,
    owner: TextId,
    exact_system_name: TextId,
    created: Timestamp,
    updated: Timestamp,
    expires: Timestamp,
}

#[derive(Debug)]
struct Row {
    id: LinkId,
    /// At most as many as fit.
    clicks: u32,
    /// In lower case.
    system_name: TextId,
    host: TextId,
    name_start: u32,
    name_length: u16,
    starts: Timestamp,
}

/// All of a link.
type Both<'r> = (&'r Filtered, &'r Row);

/// Links that a list keeps before it drops those that are beyond its page.
const KEPT_MIN: usize = if cfg!(test) { 2 } else { 1024 };

/// Texts by number and numbers by text. A text goes with the last link that has it.
#[derive(Debug)]
struct Texts {
    all: Vec<Counted>,
    /// Numbers without a text.
    free: Vec<TextId>,
    numbers: HashMap<Arc<str>, TextId, RandomState>,
    /// Of the texts themselves.
    bytes: usize,
}

#[derive(Debug)]
struct Counted {
    text: Arc<str>,
    links: u32,
}

impl Default for Texts {
    fn default() -> Self {
        let none: Arc<str> = "".into();
        let first = Counted {
            text: Arc::clone(&none),
            links: 1,
        };
        Self {
            all: vec![first],
            free: Vec::new(),
            numbers: std::iter::once((none, NO_TEXT)).collect(),
            bytes: 0,
        }
    }
}

impl Texts {
    /// What a text takes beside its characters: the counts of its `Arc`.
    const OVERHEAD_BYTES: usize = 2 * size_of::<usize>();

    /// The number of the text of one more link.
    fn take(&mut self, text: &str) -> TextId {
        if let Some(number) = self.numbers.get(text).copied() {
            if number != NO_TEXT
                && let Some(counted) = self.all.get_mut(number as usize)
            {
                counted.links += 1;
            }
            return number;
        }
        let Some(number) = self.free.pop().or_else(|| TextId::try_from(self.all.len()).ok()) else {
            return NO_TEXT;
        };
        let text: Arc<str> = text.into();
        self.bytes += text.len() + Self::OVERHEAD_BYTES;
        self.numbers.insert(Arc::clone(&text), number);
        let counted = Counted { text, links: 1 };
        match self.all.get_mut(number as usize) {
            Some(unused) => *unused = counted,
            None => self.all.push(counted),
        }
        number
    }

    /// One link less has the text.
    fn release(&mut self, number: TextId) {
        let Some(none) = self.all.first().map(|none| Arc::clone(&none.text)) else {
            return;
        };
        let Some(counted) = self.all.get_mut(number as usize).filter(|_| number != NO_TEXT) else {
            return;
        };
        counted.links = counted.links.saturating_sub(1);
        if counted.links == 0 {
            let text = std::mem::replace(&mut counted.text, none);
            self.bytes -= text.len() + Self::OVERHEAD_BYTES;
            self.numbers.remove(&text);
            self.free.push(number);
        }
    }

    fn text(&self, number: TextId) -> &str {
        self.all.get(number as usize).map_or("", |counted| &counted.text)
    }

    /// The positions of these texts in their order.
    fn ranks(&self, numbers: impl Iterator<Item = TextId>) -> HashMap<TextId, u64, RandomState> {
        let distinct: HashSet<TextId, RandomState> = numbers.collect();
        let mut sorted: Vec<_> = distinct.into_iter().collect();
        sorted.sort_unstable_by_key(|number| self.text(*number));
        sorted.into_iter().zip(0..).collect()
    }

    /// Which texts a search finds.
    fn containing(&self, part: &str) -> Vec<bool> {
        self.all
            .iter()
            .map(|Counted { text, .. }| !text.is_empty() && text.contains(part))
            .collect()
    }

    /// Which texts are among these.
    fn among(&self, wanted: &BTreeSet<String>) -> Vec<bool> {
        let mut among = vec![false; self.all.len()];
        for text in wanted {
            let number = self.numbers.get(text.as_str());
            if let Some(place) = number.and_then(|number| among.get_mut(*number as usize)) {
                *place = true;
            }
        }
        among
    }

    fn memory_bytes(&self) -> usize {
        // A hash table has a byte for each place beside its entry.
        let of_numbers = self.numbers.capacity() * (size_of::<(Arc<str>, TextId)>() + 1);
        let of_all = self.all.capacity() * size_of::<Counted>() + self.free.capacity() * size_of::<TextId>();
        of_all + of_numbers + self.bytes
    }
}

/// Every link, as searches see it.
#[derive(Debug, Default)]
pub struct Rows {
    filtered: Vec<Filtered>,
    /// Of the same links, at the same positions.
    rows: Vec<Row>,
    positions: HashTable<u32>,
    hasher: RandomState,
    /// Names, one after the other; those of changed links stay until they are half of it.
    names: Vec<u8>,
    unused_name_bytes: usize,
    /// Whether links are missing, because their records are damaged.
    pub lacks_links: bool,
    /// In lower case, and system names as they are too.
    texts: Texts,
    /// As they are: users are told apart by case.
    owners: Texts,
}

impl Rows {
    pub fn put(&mut self, link: &LinkRef<'_>) {
        let hash = self.hasher.hash_one(link.id);
        let (name_start, name_length) = self.push_name(link.name.unwrap_or_default());
        let host = Url::parse(link.full_url).ok();
        let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
        let filtered = Filtered {
            partner: link.partner_id,
            status: link.status,
            owner: self.owners.take(link.user_id.unwrap_or_default()),
            exact_system_name: self.texts.take(link.system_name),
            created: link.created_at,
            updated: link.updated_at,
            expires: link.expires_at.unwrap_or(Timestamp::MAX),
        };
        let mut row = Row {
            id: link.id,
            clicks: 0,
            system_name: self.texts.take(&link.system_name.to_lowercase()),
            host: self.texts.take(host),
            name_start,
            name_length,
            starts: link.starts_at.unwrap_or(Timestamp::MIN),
        };
        let position = self.position(hash, link.id);
        let old = position.and_then(|position| self.filtered.get_mut(position).zip(self.rows.get_mut(position)));
        if let Some((old_filtered, old)) = old {
            row.clicks = old.clicks;
            let old_filtered = std::mem::replace(old_filtered, filtered);
            let old = std::mem::replace(old, row);
            self.unused_name_bytes += usize::from(old.name_length);
            self.owners.release(old_filtered.owner);
            self.texts.release(old_filtered.exact_system_name);
            self.texts.release(old.system_name);
            self.texts.release(old.host);
            self.pack_names();
            return;
        }
        let Ok(position) = u32::try_from(self.rows.len()) else {
            return;
        };
        self.filtered.push(filtered);
        self.rows.push(row);
        let Self { rows, hasher, .. } = self;
        let hash_of = |position: &u32| rows.get(*position as usize).map_or(0, |row| hasher.hash_one(row.id));
        self.positions.insert_unique(hash, position, hash_of);
    }

    /// Notes the clicks of a link, which only grow.
    pub fn set_clicks(&mut self, id: LinkId, clicks: u64) {
        let clicks = u32::try_from(clicks).unwrap_or(u32::MAX);
        let hash = self.hasher.hash_one(id);
        if let Some(row) = self.position(hash, id).and_then(|position| self.rows.get_mut(position)) {
            row.clicks = row.clicks.max(clicks);
        }
    }

    fn position(&self, hash: u64, id: LinkId) -> Option<usize> {
        let is_it = |position: &u32| self.rows.get(*position as usize).is_some_and(|row| row.id == id);
        self.positions.find(hash, is_it).map(|position| *position as usize)
    }

    fn push_name(&mut self, name: &str) -> (u32, u16) {
        let name = name.to_lowercase();
        let place = u32::try_from(self.names.len()).ok().zip(u16::try_from(name.len()).ok());
        let (start, length) = place.unwrap_or_default();
        if length > 0 {
            self.names.extend_from_slice(name.as_bytes());
        }
        (start, length)
    }

    fn pack_names(&mut self) {
        if self.unused_name_bytes * 2 <= self.names.len() {
            return;
        }
        let mut packed = Vec::with_capacity(self.names.len() - self.unused_name_bytes.min(self.names.len()));
        for row in &mut self.rows {
            let name = name_of(&self.names, row);
            let start = u32::try_from(packed.len()).unwrap_or_default();
            packed.extend_from_slice(name);
            row.name_start = start;
        }
        self.names = packed;
        self.unused_name_bytes = 0;
    }

    /// The links that fit: how many, and those of the page, in order.
    pub fn search(&self, query: &SearchQuery, now: Timestamp) -> (u64, Vec<LinkId>) {
        let mut found = self.with_keys(self.matching(query, now), query);
        let order = |one: &(u64, Both<'_>), other: &(u64, Both<'_>)| {
            let by_title = || match query.order {
                SearchOrder::Title => self.title(one.1.1).cmp(self.title(other.1.1)),
                _ => Ordering::Equal,
            };
            let by_key = one.0.cmp(&other.0).then_with(by_title);
            let order = by_key.then_with(|| one.1.1.id.cmp(&other.1.1.id));
            if query.is_descending { order.reverse() } else { order }
        };
        let total = found.len() as u64;
        (total, page_of(&mut found, query.offset, query.limit, order))
    }

    /// How many links a list of the API has, and those of its page, in order; none if the store must tell.
    pub fn list(&self, query: &Query) -> Option<(u64, Vec<LinkId>)> {
        let is_by_id = query.ids.is_some() || query.unique_id.is_some();
        // Links without a user have the number of this text.
        let is_by_no_user = query.users.as_ref().is_some_and(|users| users.contains(""));
        if self.lacks_links || is_by_id || is_by_no_user || query.is_beyond_sorting() {
            return None;
        }
        let statuses = Status::ALL.map(|status| query.statuses.contains(&status));
        let users = query.users.as_ref().map(|users| self.owners.among(users));
        let system_names = query.system_names.as_ref().map(|names| self.texts.among(names));
        let is_in = |texts: &Option<Vec<bool>>, number: TextId| {
            let texts = texts.as_ref();
            texts.is_none_or(|texts| texts.get(number as usize).copied().unwrap_or_default())
        };
        let fits = |(link, _): &Both<'_>| {
            let status = usize::from(link.status.number()).wrapping_sub(1);
            link.partner == query.partner
                && statuses.get(status).copied().unwrap_or_default()
                && query.created.contains(Some(link.created))
                && query.updated.contains(Some(link.updated))
                && query.expires.contains(expiry(link))
                && is_in(&users, link.owner)
                && is_in(&system_names, link.exact_system_name)
        };
        let time_of = |link: &Filtered, field| match field {
            OrderField::Created => Some(link.created),
            OrderField::Updated => Some(link.updated),
            OrderField::Expires => expiry(link),
        };
        // The position, as far as it fits into a number.
        let [first, ..] = query.order.times;
        let key = |(link, row): Both<'_>| {
            let turned = |key: u64, is_descending| if is_descending { !key } else { key };
            match first {
                Some(by) => time_of(link, by.field).map_or(u64::MAX, |time| turned(seconds(time), by.descending)),
                None => turned(beginning(row.id.as_bytes()), query.order.ids_descend),
            }
        };
        let rank = |(link, row): Both<'_>| Rank::new(query.order, |field| time_of(link, field), row.id);
        let order = |one: &(u64, Both<'_>), other: &(u64, Both<'_>)| {
            let by_key = one.0.cmp(&other.0);
            by_key.then_with(|| rank(one.1).cmp(&rank(other.1)))
        };
        // Twice the page's end at most: a million would take longer to keep than to look at.
        let end = query.page.end();
        let room = end.saturating_mul(2).max(KEPT_MIN);
        let (mut total, mut last, mut found) = (0, u64::MAX, Vec::new());
        for link in self.iter().filter(fits) {
            total += 1;
            let key = key(link);
            if key > last {
                continue;
            }
            found.push((key, link));
            if found.len() >= room {
                last = found.select_nth_unstable_by(end, order).1.0;
                found.truncate(end);
            }
        }
        Some((total, page_of(&mut found, query.page.offset(), query.page.size, order)))
    }

    /// The ids of all links that fit, in no order.
    pub fn search_all(&self, query: &SearchQuery, now: Timestamp) -> Vec<LinkId> {
        self.matching(query, now).into_iter().map(|(_, row)| row.id).collect()
    }

    /// Numbers in the order of what the links are sorted by; of equal ones, only titles may still differ.
    fn with_keys<'r>(&self, found: Vec<Both<'r>>, query: &SearchQuery) -> Vec<(u64, Both<'r>)> {
        let ranks = match query.order {
            SearchOrder::Host => self.texts.ranks(found.iter().map(|(_, row)| row.host)),
            SearchOrder::Owner => self.owners.ranks(found.iter().map(|(link, _)| link.owner)),
            _ => HashMap::default(),
        };
        let rank = |text: TextId| ranks.get(&text).copied().unwrap_or_default();
        let key = |(link, row): Both<'_>| match query.order {
            SearchOrder::Created => seconds(link.created),
            SearchOrder::Updated => seconds(link.updated),
            SearchOrder::Expires if link.expires == Timestamp::MAX && query.is_descending => 0,
            SearchOrder::Expires if link.expires == Timestamp::MAX => u64::MAX,
            SearchOrder::Expires => seconds(link.expires),
            SearchOrder::Title => beginning(self.title(row)),
            SearchOrder::Host => rank(row.host),
            SearchOrder::Owner => rank(link.owner),
            SearchOrder::Clicks => row.clicks.into(),
        };
        found.into_iter().map(|link| (key(link), link)).collect()
    }

    /// What people call a link, in lower case.
    fn title<'s>(&'s self, row: &Row) -> &'s [u8] {
        let name = name_of(&self.names, row);
        if name.trim_ascii().is_empty() {
            self.texts.text(row.system_name).as_bytes()
        } else {
            name
        }
    }

    fn iter(&self) -> impl Iterator<Item = Both<'_>> {
        self.filtered.iter().zip(&self.rows)
    }

    fn matching(&self, query: &SearchQuery, now: Timestamp) -> Vec<Both<'_>> {
        let text = query.text.to_lowercase();
        let in_texts = if text.is_empty() {
            Vec::new()
        } else {
            self.texts.containing(&text)
        };
        let finder = memchr::memmem::Finder::new(text.as_bytes());
        let is_in = |number: TextId| in_texts.get(number as usize).copied().unwrap_or_default();
        let fits_text = |row: &Row| {
            text.is_empty()
                || query.id == Some(row.id)
                || is_in(row.system_name)
                || is_in(row.host)
                || finder.find(name_of(&self.names, row)).is_some()
        };
        // A text that nobody has fits no link.
        let number = |texts: &Texts, text: &str| texts.numbers.get(text).copied().unwrap_or(TextId::MAX);
        let owner = query.owner.as_deref().map(|owner| number(&self.owners, owner));
        let left_out = query.without_system_name.as_deref();
        let left_out = left_out.map(|name| number(&self.texts, &name.to_lowercase()));
        let date = |link: &Filtered, row: &Row| match query.date {
            SearchDate::Created => Some(link.created),
            SearchDate::Updated => Some(link.updated),
            SearchDate::Starts => Some(row.starts).filter(|time| *time != Timestamp::MIN),
            SearchDate::Expires => expiry(link),
        };
        let fits = |(link, row): &Both<'_>| {
            link.partner == query.partner
                && owner.is_none_or(|owner| link.owner == owner)
                && is_of_state(link, row.starts, query.state, now)
                && query.range.contains(date(link, row))
                && (!query.only_unused || row.clicks == 0)
                && left_out.is_none_or(|name| row.system_name != name)
                && fits_text(row)
        };
        self.iter().filter(fits).collect()
    }

    pub fn memory_bytes(&self) -> usize {
        let of_texts = self.texts.memory_bytes() + self.owners.memory_bytes();
        let of_links = self.filtered.capacity() * size_of::<Filtered>() + self.rows.capacity() * size_of::<Row>();
        of_links + self.positions.allocation_size() + self.names.capacity() + of_texts
    }
}

/// Those of a page, in order. Only the page itself is sorted.
fn page_of(
    found: &mut [(u64, Both<'_>)],
    offset: usize,
    limit: usize,
    order: impl Fn(&(u64, Both<'_>), &(u64, Both<'_>)) -> Ordering,
) -> Vec<LinkId> {
    let (begin, end) = (offset.min(found.len()), offset.saturating_add(limit).min(found.len()));
    if end < found.len() {
        found.select_nth_unstable_by(end, &order);
    }
    let found = found.get_mut(..end).unwrap_or_default();
    if 0 < begin && begin < found.len() {
        found.select_nth_unstable_by(begin, &order);
    }
    let page = found.get_mut(begin..).unwrap_or_default();
    page.sort_unstable_by(order);
    page.iter().map(|(_, (_, row))| row.id).collect()
}

/// A time as a number that is ordered as times are.
fn seconds(time: Timestamp) -> u64 {
    time.as_unix().cast_unsigned() ^ (1 << 63)
}

/// The first bytes of a text, as a number that is ordered as they are.
fn beginning(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (byte, of_text) in bytes.iter_mut().zip(text) {
        *byte = *of_text;
    }
    u64::from_be_bytes(bytes)
}

fn name_of<'n>(names: &'n [u8], row: &Row) -> &'n [u8] {
    let start = row.name_start as usize;
    names
        .get(start..start + usize::from(row.name_length))
        .unwrap_or_default()
}

fn expiry(link: &Filtered) -> Option<Timestamp> {
    Some(link.expires).filter(|time| *time != Timestamp::MAX)
}

fn is_of_state(link: &Filtered, starts: Timestamp, state: SearchState, now: Timestamp) -> bool {
    let &Filtered { status, expires, .. } = link;
    let is_enabled = status == Status::Enabled;
    match state {
        SearchState::Present => status != Status::Deleted,
        SearchState::Works => is_enabled && starts <= now && now <= expires,
        SearchState::Waits => is_enabled && now < starts && starts <= expires,
        SearchState::Expired => is_enabled && (expires < now || expires < starts),
        SearchState::Off => status == Status::Disabled,
        SearchState::Deleted => status == Status::Deleted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::links::tests::imports::link;
    use crate::model::ShortLink;
    use crate::store::tests::{any_link, any_query, naive_list};

    proptest! {
        #[test]
        fn list_is_what_looking_at_every_link_gives(
            links in proptest::collection::vec(any_link(), 0..120),
            queries in proptest::collection::vec(any_query(), 30),
        ) {
            let mut rows = Rows::default();
            links.iter().for_each(|link| rows.put(&link.into()));
            let model: BTreeMap<_, _> = links.into_iter().map(|link| (link.id, link)).collect();
            for query in queries {
                let is_for_the_store = query.ids.is_some() || query.unique_id.is_some() || query.is_beyond_sorting();
                let expected = naive_list(&model, &query);
                let expected = (expected.total, expected.links.iter().map(|link| link.id).collect());
                prop_assert_eq!(rows.list(&query), (!is_for_the_store).then_some(expected), "{:#?}", query);
            }
        }
    }

    #[test]
    fn list_of_links_that_are_not_all_there_is_for_the_store() {
        let query = crate::links::tests::clicks::all_enabled();
        let mut rows = Rows::default();
        assert_eq!(rows.list(&query), Some((0, Vec::new())));
        rows.lacks_links = true;
        assert_eq!(rows.list(&query), None);
        let of_nobody = Query {
            users: Some([String::new()].into()),
            ..query
        };
        assert_eq!(Rows::default().list(&of_nobody), None);
    }

    #[test]
    fn texts_go_with_their_last_link() {
        let mut rows = Rows::default();
        let named = |number: usize, text: &str| ShortLink {
            user_id: Some(format!("owner{text}")),
            system_name: format!("NAME{text}"),
            full_url: format!("https://host{text}.example/"),
            name: Some(format!("name {text}")),
            ..link(number)
        };
        let mut put = |link: ShortLink| rows.put(&(&link).into());
        put(named(0, "same"));
        put(named(1, "same"));
        for change in 0..1_000 {
            put(named(0, &change.to_string()));
        }
        let texts = |texts: &Texts| {
            let mut texts: Vec<_> = texts.numbers.keys().map(|text| text.to_string()).collect();
            texts.sort();
            texts
        };
        assert_eq!(texts(&rows.owners), ["", "owner999", "ownersame"]);
        let hosts = ["host999.example", "hostsame.example"];
        let names = ["NAME999", "NAMEsame", "name999", "namesame"];
        let expected = ["", names[0], names[1], hosts[0], hosts[1], names[2], names[3]];
        assert_eq!(texts(&rows.texts), expected);
        assert!(
            rows.texts.all.len() <= 10 && rows.texts.free.len() <= 3,
            "{:?}",
            rows.texts
        );
        assert!(rows.memory_bytes() < 4_096, "{}", rows.memory_bytes());
        let bytes: usize = expected.iter().map(|text| text.len()).sum();
        assert_eq!(rows.texts.bytes, bytes + 6 * Texts::OVERHEAD_BYTES);
        // Each number still is that of its text.
        let query = |text: &str, owner: &str| SearchQuery {
            text: text.into(),
            owner: Some(owner.into()),
            ..SearchQuery::of(PartnerId(7))
        };
        let found = |text, owner| rows.search(&query(text, owner), Timestamp::from_unix(0)).0;
        assert_eq!((found("name999", "owner999"), found("host999", "owner999")), (1, 1));
        assert_eq!((found("namesame", "ownersame"), found("namesame", "owner999")), (1, 0));
        assert_eq!(found("host998", "owner999"), 0);
    }
}
