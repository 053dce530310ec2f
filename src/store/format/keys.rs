//! Keys of the indexes and counters, which docs/store-format.md describes. Within one scope and status, an index is in
//! the order of its time, ties by id.

use redb::TableDefinition;

use crate::model::{LinkId, PartnerId, ShortLink, Status, Timestamp};
use crate::store::error::StoreError;

/// The type of keys and records in redb.
pub type Bytes = &'static [u8];

/// The time that stands for "never expires": after every other.
const NEVER: u64 = u64::MAX;
/// Turns two's complement into an order of bytes.
const SIGN: u64 = 1 << 63;

/// In place of an id: after all of them, which are ASCII.
const AFTER_IDS: &[u8] = &[u8::MAX];

/// How the keys of the counters of partners begin.
pub const OF_PARTNERS: u8 = b'P';

const STATUS_BYTES: usize = 1;
const TIME_BYTES: usize = 8;

/// The indexes, each a table of keys without values. Those by a text are in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Index {
    Created,
    Updated,
    Expires,
    User,
    SystemName,
    UniqueId,
}

impl Index {
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Updated,
        Self::Expires,
        Self::User,
        Self::SystemName,
        Self::UniqueId,
    ];

    pub const fn table(self) -> TableDefinition<'static, Bytes, ()> {
        TableDefinition::new(self.name())
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "by_created",
            Self::Updated => "by_updated",
            Self::Expires => "by_expires",
            Self::User => "by_user",
            Self::SystemName => "by_system_name",
            Self::UniqueId => "by_unique_id",
        }
    }

    /// The key of a link in this index; `None` if the link has none there.
    pub fn key_of(self, link: &ShortLink) -> Option<Vec<u8>> {
        let partner = link.partner_id;
        let (scope, time) = match self {
            Self::Created => (partner_scope(partner), Some(link.created_at)),
            Self::Updated => (partner_scope(partner), Some(link.updated_at)),
            Self::Expires => (partner_scope(partner), link.expires_at),
            Self::User => (text_scope(partner, link.user_id.as_deref()?), Some(link.created_at)),
            Self::SystemName => (text_scope(partner, &link.system_name), Some(link.created_at)),
            Self::UniqueId => (text_scope(partner, link.unique_id.as_deref()?), Some(link.created_at)),
        };
        Some(key(&scope, link.status, encode_time(time), link.id.as_bytes()))
    }

    /// How the keys of the counters of its scopes begin, if these are counted.
    pub const fn counter_kind(self) -> Option<u8> {
        match self {
            Self::Created => Some(OF_PARTNERS),
            Self::User => Some(b'U'),
            Self::SystemName => Some(b'S'),
            Self::Updated | Self::Expires | Self::UniqueId => None,
        }
    }

    pub fn counter_key(self, scope: &[u8]) -> Option<Vec<u8>> {
        Some([&[self.counter_kind()?], scope].concat())
    }

    /// The index whose entries the counter with this key counts, and its scope.
    pub fn of_counter(key: &[u8]) -> Option<(Self, &[u8])> {
        let (kind, scope) = key.split_first()?;
        let index = Self::ALL
            .into_iter()
            .find(|index| index.counter_kind() == Some(*kind))?;
        Some((index, scope))
    }
}

fn key(scope: &[u8], status: Status, time: u64, id: &[u8]) -> Vec<u8> {
    [scope, &[status.number()], &time.to_be_bytes(), id].concat()
}

/// Something for each index, such as its table.
#[derive(Debug)]
pub struct PerIndex<T>([T; Index::ALL.len()]);

impl<T> PerIndex<T> {
    pub fn make<E>(make: impl FnMut(Index) -> Result<T, E>) -> Result<Self, E> {
        let [created, updated, expires, user, system_name, unique_id] = Index::ALL.map(make);
        Ok(Self([created?, updated?, expires?, user?, system_name?, unique_id?]))
    }

    pub const fn get(&self, index: Index) -> &T {
        let [created, updated, expires, user, system_name, unique_id] = &self.0;
        match index {
            Index::Created => created,
            Index::Updated => updated,
            Index::Expires => expires,
            Index::User => user,
            Index::SystemName => system_name,
            Index::UniqueId => unique_id,
        }
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Index, &mut T)> {
        Index::ALL.into_iter().zip(&mut self.0)
    }
}

/// The keys of the counters that a link is counted in.
pub fn counters_of(link: &ShortLink) -> impl Iterator<Item = Vec<u8>> {
    let partner = link.partner_id;
    let user = link.user_id.as_deref().map(|user| text_scope(partner, user));
    let counters = [
        Index::Created.counter_key(&partner_scope(partner)),
        user.and_then(|scope| Index::User.counter_key(&scope)),
        Index::SystemName.counter_key(&text_scope(partner, &link.system_name)),
    ];
    counters.into_iter().flatten()
}

pub fn partner_scope(partner: PartnerId) -> Vec<u8> {
    partner.0.to_be_bytes().to_vec()
}

/// The length before a text keeps one text from being the beginning of another's entries.
pub fn text_scope(partner: PartnerId, text: &str) -> Vec<u8> {
    // Every indexed text is far shorter; a longer one would only share its scope with others of its kind.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&partner.0.to_be_bytes()[..], &length.to_be_bytes(), text.as_bytes()].concat()
}

/// The first and last possible key of a scope and status between two times; both ends belong to it. No time at an end
/// means no bound there; with a bound on either side, links that never expire are outside.
pub fn bounds(scope: &[u8], status: Status, from: Option<Timestamp>, to: Option<Timestamp>) -> (Vec<u8>, Vec<u8>) {
    // The last second of all would be encoded as never.
    let bounded = |time| encode_time(Some(time)).min(NEVER - 1);
    let last = match (from, to) {
        (None, None) => NEVER,
        (_, to) => to.map_or(NEVER - 1, bounded),
    };
    let first = from.map_or(0, bounded);
    (key(scope, status, first, &[0]), key(scope, status, last, AFTER_IDS))
}

/// The bounds of a scope, whatever the status.
pub fn scope_bounds(scope: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (scope.to_vec(), [scope, &[u8::MAX]].concat())
}

/// The bounds of the links that never expire.
pub fn never_bounds(scope: &[u8], status: Status) -> (Vec<u8>, Vec<u8>) {
    (key(scope, status, NEVER, &[0]), key(scope, status, NEVER, AFTER_IDS))
}

/// What the end of a key says: the time (`None` = never) and the id.
pub fn decode_tail(index: Index, scope_bytes: usize, key: &[u8]) -> Result<(Option<Timestamp>, LinkId), StoreError> {
    let damaged = || StoreError::damaged(index.name(), "malformed key");
    let tail = key.get(scope_bytes + STATUS_BYTES..).ok_or_else(damaged)?;
    let (time, id) = tail.split_first_chunk::<TIME_BYTES>().ok_or_else(damaged)?;
    let id = LinkId::from_bytes(id).map_err(|_| damaged())?;
    Ok((decode_time(u64::from_be_bytes(*time)), id))
}

/// The scope and the status of a key.
pub fn split_scope(index: Index, key: &[u8]) -> Option<(&[u8], u8)> {
    const PARTNER_BYTES: usize = 4;
    const LENGTH_BYTES: usize = 2;
    let scope_bytes = match index {
        Index::Created | Index::Updated | Index::Expires => PARTNER_BYTES,
        Index::User | Index::SystemName | Index::UniqueId => {
            let length = key.get(PARTNER_BYTES..)?.first_chunk::<LENGTH_BYTES>()?;
            PARTNER_BYTES + LENGTH_BYTES + usize::from(u16::from_be_bytes(*length))
        }
    };
    let (scope, rest) = key.split_at_checked(scope_bytes)?;
    Some((scope, *rest.first()?))
}

pub fn id_of(index: Index, key: &[u8]) -> Option<LinkId> {
    let (scope, _) = split_scope(index, key)?;
    Some(decode_tail(index, scope.len(), key).ok()?.1)
}

fn encode_time(time: Option<Timestamp>) -> u64 {
    time.map_or(NEVER, |time| time.as_unix().cast_unsigned() ^ SIGN)
}

fn decode_time(encoded: u64) -> Option<Timestamp> {
    (encoded != NEVER).then(|| Timestamp::from_unix((encoded ^ SIGN).cast_signed()))
}
