//! How links have been used by day, in the store: the entries of the table `clicks_by_day`.
//!
//! Keys begin with the day, so that old days are at the beginning, and a flush changes neighbours.

use crate::model::{Day, LinkId, PartnerId};
use crate::store::error::StoreError;
use crate::store::format::checksum::{seal, unseal};

const TABLE: &str = "clicks_by_day";
const OF_LINK: u8 = b'L';
const OF_PARTNER: u8 = b'P';
const DAY_BYTES: usize = 4;
const VALUE_BYTES: usize = 20;

/// How a link, or all links of a partner, have been used on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visits {
    /// The partner of the link, so that adding to its day does not need its record.
    pub partner: PartnerId,
    pub clicks: u64,
    pub previews: u64,
}

impl Visits {
    pub const fn none_of(partner: PartnerId) -> Self {
        Self {
            partner,
            clicks: 0,
            previews: 0,
        }
    }

    #[must_use]
    pub const fn and(self, clicks: u64, previews: u64) -> Self {
        Self {
            partner: self.partner,
            clicks: self.clicks.saturating_add(clicks),
            previews: self.previews.saturating_add(previews),
        }
    }
}

pub fn key_of_link(day: Day, id: LinkId) -> Vec<u8> {
    [&day.0.to_be_bytes(), &[OF_LINK][..], id.as_bytes()].concat()
}

pub fn key_of_partner(day: Day, partner: PartnerId) -> Vec<u8> {
    [&day.0.to_be_bytes(), &[OF_PARTNER][..], &partner.0.to_be_bytes()].concat()
}

/// What all keys before this day are less than.
pub const fn first_key(day: Day) -> [u8; DAY_BYTES] {
    day.0.to_be_bytes()
}

/// The day of a key, whatever it is of.
pub fn day_of(key: &[u8]) -> Option<Day> {
    let (day, _) = key.split_first_chunk()?;
    Some(Day(u32::from_be_bytes(*day)))
}

/// The day of a key, and the link if it is of one.
pub fn split_key(key: &[u8]) -> Result<(Day, Option<LinkId>), StoreError> {
    let malformed = || StoreError::damaged(TABLE, format!("{}: malformed key", key.escape_ascii()));
    let (day, rest) = (
        day_of(key).ok_or_else(malformed)?,
        key.get(DAY_BYTES..).unwrap_or_default(),
    );
    match rest {
        [OF_LINK, id @ ..] => Ok((day, Some(LinkId::from_bytes(id).map_err(|_| malformed())?))),
        [OF_PARTNER, _, _, _, _] => Ok((day, None)),
        _ => Err(malformed()),
    }
}

pub fn encode(key: &[u8], visits: &Visits) -> Vec<u8> {
    let Visits {
        partner,
        clicks,
        previews,
    } = visits;
    let value = [
        &partner.0.to_be_bytes()[..],
        &clicks.to_be_bytes(),
        &previews.to_be_bytes(),
    ];
    seal(key, &value.concat())
}

pub fn decode(key: &[u8], sealed: &[u8]) -> Result<Visits, StoreError> {
    let value: [u8; VALUE_BYTES] = unseal(TABLE, key, sealed)?;
    let [p0, p1, p2, p3, numbers @ ..] = value;
    let number = u128::from_be_bytes(numbers);
    let (clicks, previews) = ((number >> 64) as u64, number as u64);
    Ok(Visits {
        partner: PartnerId(u32::from_be_bytes([p0, p1, p2, p3])),
        clicks,
        previews,
    })
}

/// What a damaged entry has counted is lost, which is no reason to lose what comes.
pub fn decode_or_none(key: &[u8], sealed: &[u8]) -> Option<Visits> {
    let decoded = decode(key, sealed);
    decoded
        .inspect_err(|error| tracing::error!(%error, "cannot read the clicks of a day; counting from zero"))
        .ok()
}
