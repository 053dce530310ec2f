//! How a link is written: one byte of version, then bincode. The only place that names bincode, so that it can be
//! replaced; a record of another version says so in its first byte.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Encode};

use crate::model::{LinkId, LinkRef, PartnerId, ShortLink, Status, Timestamp};
use crate::store::error::StoreError;

/// The version that is written.
const VERSION: u8 = 1;

/// More than the longest possible record (a destination of 8,192 bytes and four short texts). Without a limit a damaged
/// length makes the decoder ask for terabytes, which ends the process.
const RECORD_MAX_BYTES: usize = 64 * 1024;

const CONFIG: Configuration<LittleEndian, Varint, Limit<RECORD_MAX_BYTES>> =
    config::standard().with_limit::<RECORD_MAX_BYTES>();

const TABLE: &str = "links";

#[derive(Encode, BorrowDecode)]
struct RecordV1<'a> {
    partner_id: u32,
    status: u8,
    created_at: i64,
    updated_at: i64,
    expires_at: Option<i64>,
    user_id: Option<&'a str>,
    name: Option<&'a str>,
    system_name: &'a str,
    full_url: &'a str,
    unique_id: Option<&'a str>,
}

pub(super) fn encode(link: &ShortLink) -> Result<Vec<u8>, StoreError> {
    let record = RecordV1 {
        partner_id: link.partner_id.0,
        status: link.status.number(),
        created_at: link.created_at.as_unix(),
        updated_at: link.updated_at.as_unix(),
        expires_at: link.expires_at.map(Timestamp::as_unix),
        user_id: link.user_id.as_deref(),
        name: link.name.as_deref(),
        system_name: &link.system_name,
        full_url: &link.full_url,
        unique_id: link.unique_id.as_deref(),
    };
    let mut bytes = vec![VERSION];
    bincode::encode_into_std_write(&record, &mut bytes, CONFIG).map_err(|error| StoreError::damaged(TABLE, error))?;
    Ok(bytes)
}

pub(super) fn decode(id: LinkId, bytes: &[u8]) -> Result<ShortLink, StoreError> {
    Ok(read(id, bytes)?.into())
}

/// A record, read without copying.
pub(super) fn read(id: LinkId, bytes: &[u8]) -> Result<LinkRef<'_>, StoreError> {
    let damaged = |reason: &str| StoreError::damaged(TABLE, format!("{id}: {reason}"));
    let (&version, body) = bytes.split_first().ok_or_else(|| damaged("empty"))?;
    if version != VERSION {
        return Err(damaged(&format!("record version {version}, known is {VERSION}")));
    }
    let (record, consumed): (RecordV1<'_>, usize) =
        bincode::borrow_decode_from_slice(body, CONFIG).map_err(|error| damaged(&error.to_string()))?;
    if consumed != body.len() {
        return Err(damaged("bytes left over"));
    }
    Ok(LinkRef {
        id,
        created_at: Timestamp::from_unix(record.created_at),
        updated_at: Timestamp::from_unix(record.updated_at),
        expires_at: record.expires_at.map(Timestamp::from_unix),
        partner_id: PartnerId(record.partner_id),
        user_id: record.user_id,
        name: record.name,
        system_name: record.system_name,
        full_url: record.full_url,
        unique_id: record.unique_id,
        status: Status::from_number(record.status.into()).ok_or_else(|| damaged("unknown status"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::any_link;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(link in any_link()) {
            prop_assert_eq!(decode(link.id, &encode(&link).unwrap()).unwrap(), link);
        }

        #[test]
        fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300), link in any_link()) {
            let id = link.id;
            let _ = decode(id, &bytes);
            let mut damaged = encode(&link).unwrap();
            for byte in bytes {
                let index = usize::from(byte) % damaged.len();
                damaged[index] = damaged[index].wrapping_add(byte);
                let _ = decode(id, &damaged);
            }
        }

        #[test]
        fn a_cut_or_lengthened_record_is_refused(link in any_link(), cut in any::<prop::sample::Index>()) {
            let whole = encode(&link).unwrap();
            prop_assert!(decode(link.id, &whole[..cut.index(whole.len())]).is_err());
            prop_assert!(decode(link.id, &[whole.as_slice(), &[0]].concat()).is_err());
        }
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_without_being_allocated() {
        let huge = [
            VERSION, 1, 2, 0, 0, 0, 0, 0, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ];
        assert!(decode("abcd".parse().unwrap(), &huge).is_err());
    }
}
