//! How a link is written: one byte of version, a checksum (4 bytes), then bincode. The checksum is CRC32C over the
//! id, the version and what follows it. The only place that names bincode, so that it can be replaced; a record of
//! another version says so in its first byte.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Encode};

use crate::model::{LinkId, LinkRef, PartnerId, ShortLink, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::checksum::{SEAL_BYTES, checksum};

/// The version that is written.
const VERSION: u8 = 2;
/// What stores of format 1 have: no checksum, and no start.
const VERSION_1: u8 = 1;

/// More than the longest possible record (a destination of 8,192 bytes and four short texts). Without a limit a damaged
/// length makes the decoder ask for terabytes, which ends the process.
const RECORD_MAX_BYTES: usize = 64 * 1024;

const CONFIG: Configuration<LittleEndian, Varint, Limit<RECORD_MAX_BYTES>> =
    config::standard().with_limit::<RECORD_MAX_BYTES>();

const TABLE: &str = "links";

/// A record is this, the start of the link, and the rest. In format 1 there was no start.
#[derive(Encode, BorrowDecode)]
struct Head {
    partner_id: u32,
    status: u8,
    created_at: i64,
    updated_at: i64,
}

#[derive(Encode, BorrowDecode)]
struct Rest<'a> {
    expires_at: Option<i64>,
    user_id: Option<&'a str>,
    name: Option<&'a str>,
    system_name: &'a str,
    full_url: &'a str,
    unique_id: Option<&'a str>,
}

fn split(link: &ShortLink) -> (Head, Rest<'_>) {
    let head = Head {
        partner_id: link.partner_id.0,
        status: link.status.number(),
        created_at: link.created_at.as_unix(),
        updated_at: link.updated_at.as_unix(),
    };
    let rest = Rest {
        expires_at: link.expires_at.map(Timestamp::as_unix),
        user_id: link.user_id.as_deref(),
        name: link.name.as_deref(),
        system_name: &link.system_name,
        full_url: &link.full_url,
        unique_id: link.unique_id.as_deref(),
    };
    (head, rest)
}

fn join<'a>(id: LinkId, head: &Head, starts_at: Option<i64>, rest: &Rest<'a>) -> Result<LinkRef<'a>, StoreError> {
    Ok(LinkRef {
        id,
        created_at: Timestamp::from_unix(head.created_at),
        updated_at: Timestamp::from_unix(head.updated_at),
        starts_at: starts_at.map(Timestamp::from_unix),
        expires_at: rest.expires_at.map(Timestamp::from_unix),
        partner_id: PartnerId(head.partner_id),
        user_id: rest.user_id,
        name: rest.name,
        system_name: rest.system_name,
        full_url: rest.full_url,
        unique_id: rest.unique_id,
        status: Status::from_number(head.status.into()).ok_or_else(|| damaged(id, "unknown status"))?,
    })
}

pub fn encode(link: &ShortLink) -> Result<Vec<u8>, StoreError> {
    let (head, rest) = split(link);
    let record = (head, link.starts_at.map(Timestamp::as_unix), rest);
    let mut bytes = vec![VERSION; 1 + SEAL_BYTES];
    bincode::encode_into_std_write(record, &mut bytes, CONFIG).map_err(|error| StoreError::damaged(TABLE, error))?;
    if let Some((head, body)) = bytes.split_first_chunk_mut::<{ 1 + SEAL_BYTES }>() {
        let [version, sum @ ..] = head;
        *sum = checksum(&[link.id.as_bytes(), &[*version], body]);
    }
    Ok(bytes)
}

pub fn decode(id: LinkId, bytes: &[u8]) -> Result<ShortLink, StoreError> {
    Ok(read(id, bytes)?.into())
}

/// A record, read without copying, if it is what was written for this id.
pub fn read(id: LinkId, bytes: &[u8]) -> Result<LinkRef<'_>, StoreError> {
    let (version, rest) = split_version(id, bytes)?;
    if version != VERSION {
        return Err(damaged(id, format!("record version {version}, known is {VERSION}")));
    }
    let (sum, body) = rest.split_first_chunk().ok_or_else(|| damaged(id, "cut off"))?;
    if checksum(&[id.as_bytes(), &[version], body]) != *sum {
        return Err(damaged(id, "wrong checksum"));
    }
    let (head, starts_at, rest): (Head, _, Rest<'_>) = decode_body(id, body)?;
    join(id, &head, starts_at, &rest)
}

/// A record as stores of format 1 and their journals have it, or as they are now.
pub fn decode_of_format_1(id: LinkId, bytes: &[u8]) -> Result<ShortLink, StoreError> {
    let (version, body) = split_version(id, bytes)?;
    if version != VERSION_1 {
        return decode(id, bytes);
    }
    let (head, rest) = decode_body(id, body)?;
    Ok(join(id, &head, None, &rest)?.into())
}

fn split_version(id: LinkId, bytes: &[u8]) -> Result<(u8, &[u8]), StoreError> {
    let (version, rest) = bytes.split_first().ok_or_else(|| damaged(id, "empty"))?;
    Ok((*version, rest))
}

fn decode_body<'b, R: BorrowDecode<'b, ()>>(id: LinkId, body: &'b [u8]) -> Result<R, StoreError> {
    let (record, consumed) = bincode::borrow_decode_from_slice(body, CONFIG).map_err(|error| damaged(id, error))?;
    if consumed != body.len() {
        return Err(damaged(id, "bytes left over"));
    }
    Ok(record)
}

fn damaged(id: LinkId, reason: impl std::fmt::Display) -> StoreError {
    StoreError::damaged(TABLE, format!("{id}: {reason}"))
}

/// A link as a program of format 1 wrote it, without a start.
#[cfg(test)]
pub fn encode_of_format_1(link: &ShortLink) -> Vec<u8> {
    let mut bytes = vec![VERSION_1];
    bincode::encode_into_std_write(split(link), &mut bytes, CONFIG).unwrap();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::any_link;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn written_values_are_read_back(link in any_link()) {
            prop_assert_eq!(decode(link.id, &encode(&link).unwrap()).unwrap(), link);
        }

        #[test]
        fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300), link in any_link()) {
            let id = link.id;
            let _ = (decode(id, &bytes), decode_of_format_1(id, &bytes));
            let mut damaged = encode_of_format_1(&link);
            for byte in bytes {
                let index = usize::from(byte) % damaged.len();
                damaged[index] = damaged[index].wrapping_add(byte);
                let _ = (decode(id, &damaged), decode_of_format_1(id, &damaged));
            }
        }

        #[test]
        fn every_flipped_bit_of_a_record_is_found(link in any_link(), other in any_link()) {
            let whole = encode(&link).unwrap();
            for bit in 0..8 * whole.len() {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(decode(link.id, &flipped).is_err(), "bit {bit}");
            }
            prop_assert!(other.id == link.id || decode(other.id, &whole).is_err(), "the record of another link");
        }

        #[test]
        fn records_of_format_1_are_read_where_they_may_be(link in any_link()) {
            let link = ShortLink { starts_at: None, ..link };
            let old = encode_of_format_1(&link);
            prop_assert!(decode(link.id, &old).is_err());
            prop_assert_eq!(decode_of_format_1(link.id, &old).unwrap(), link.clone());
            prop_assert_eq!(decode_of_format_1(link.id, &encode(&link).unwrap()).unwrap(), link);
        }

        #[test]
        fn a_cut_or_lengthened_record_is_refused(link in any_link(), cut in any::<prop::sample::Index>()) {
            let whole = encode(&link).unwrap();
            prop_assert!(decode(link.id, &whole[..cut.index(whole.len())]).is_err());
            prop_assert!(decode(link.id, &[whole.as_slice(), &[0]].concat()).is_err());
        }
    }

    /// Where the format has had room for it from the beginning.
    #[test]
    fn start_takes_its_place_in_the_record() {
        let without = crate::store::tests::golden_link();
        let with = ShortLink {
            starts_at: Some(Timestamp::from_unix(1_778_429_633)),
            ..without.clone()
        };
        let [without, with] = [without, with].map(|link| encode(&link).unwrap().split_off(1 + SEAL_BYTES));
        // Partner, status and two times of five bytes; the option is one byte, or six.
        let (head, rest) = without.split_at(16);
        assert_eq!(with, [head, &[1, 0xfc, 0x82, 0x5d, 0x01, 0xd4], &rest[1..]].concat());
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_without_being_allocated() {
        let id: LinkId = "abcd".parse().unwrap();
        let huge = [
            1, 2, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ];
        assert!(decode_of_format_1(id, &[[VERSION_1].as_slice(), &huge].concat()).is_err());
        let sum = checksum(&[id.as_bytes(), &[VERSION], &huge]);
        assert!(decode(id, &[[VERSION].as_slice(), &sum, &huge].concat()).is_err());
    }
}
