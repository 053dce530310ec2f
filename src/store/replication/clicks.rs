//! Messages of the stream of clicks, as bytes. docs/store-format.md describes them.
//!
//! A box counts the redirects that it has answered, and says so in messages with a counter that grows by one. Whoever
//! adds them up keeps the last counter of each source, so that a message that comes twice counts once. A message names
//! the box, and counts only if it came under the name that the servers grant to that box alone.

use std::sync::Arc;

use crate::model::{Day, ID_MAX_BYTES, LinkId, Timestamp, Usage};
use crate::store::format::checksum::{self, SEAL_BYTES};
use crate::store::replication::entry::{ClusterId, Parts, Position};

const MAGIC: &[u8; 2] = b"TC";
const VERSION: u8 = 2;
/// An id padded with zeros, clicks, previews, the last click, the day.
const DELTA_BYTES: usize = ID_MAX_BYTES + 8 + 8 + 8 + 4;
/// Links of one message: less than 256 KiB. One with more is malformed.
pub const CLICK_MESSAGE_MAX_LINKS: usize = if cfg!(test) { 12 } else { 5_000 };
/// Messages that wait in a store until no more are written, except at its end.
pub const OUTBOX_MAX_MESSAGES: u64 = if cfg!(test) { 6 } else { 1_024 };

/// What counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickSource {
    /// The name of the box.
    pub node: Arc<str>,
    /// Drawn anew by each process, so that no two share it, whatever was copied or set back.
    pub process: [u8; 16],
}

/// How a link was used that a box has answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClickDelta {
    pub id: LinkId,
    pub usage: Usage,
    pub day: Day,
}

/// Why a message cannot be counted, now or at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClickError {
    #[error("malformed")]
    Malformed,
    #[error("of box {0}, and not sent by it")]
    Forged(String),
    #[error("version {0}: use a newer tinyd")]
    Newer(u8),
    #[error("of another cluster")]
    Foreign,
    /// It may be about links that this store does not have yet.
    #[error("counted after entry {sequence} of the log, which this box does not have yet")]
    Early { sequence: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClickMessage<'a> {
    pub cluster: ClusterId,
    /// Up to where the sender had applied the log: it knew no links of later entries.
    pub epoch: u32,
    pub sequence: u64,
    pub process: [u8; 16],
    pub counter: u64,
    pub node: &'a str,
    deltas: &'a [u8],
}

impl<'a> ClickMessage<'a> {
    /// The deltas are in the order of their ids.
    pub fn encode(
        at: &Position,
        source: &ClickSource,
        counter: u64,
        deltas: impl Iterator<Item = ClickDelta>,
    ) -> Vec<u8> {
        // A name has 32 characters at most.
        let node_bytes = u8::try_from(source.node.len()).unwrap_or(u8::MAX);
        let header: [&[u8]; 9] = [
            MAGIC,
            &[VERSION],
            &at.cluster,
            &at.epoch.to_be_bytes(),
            &at.sequence.to_be_bytes(),
            &source.process,
            &counter.to_be_bytes(),
            &[node_bytes],
            source.node.as_bytes(),
        ];
        let mut bytes = header.concat();
        for ClickDelta { id, usage, day } in deltas {
            let last = usage.last_used_at.map_or(0, Timestamp::as_unix).cast_unsigned();
            bytes.extend_from_slice(&id.padded());
            bytes.extend_from_slice(
                [usage.clicks, usage.previews, last]
                    .map(u64::to_be_bytes)
                    .as_flattened(),
            );
            bytes.extend_from_slice(&day.0.to_be_bytes());
        }
        let sum = checksum::checksum(&[&bytes]);
        bytes.extend_from_slice(&sum);
        bytes
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, ClickError> {
        // First, so that a damaged message is not taken for a newer one: every version ends with it.
        let (content, sum) = bytes.split_last_chunk::<SEAL_BYTES>().ok_or(ClickError::Malformed)?;
        if checksum::checksum(&[content]) != *sum {
            return Err(ClickError::Malformed);
        }
        Self::split(bytes)
    }

    /// The parts of a message, whose checksum is not looked at.
    fn split(bytes: &'a [u8]) -> Result<Self, ClickError> {
        let mut rest = Parts(bytes);
        if rest.take::<2>().as_ref() != Some(MAGIC) {
            return Err(ClickError::Malformed);
        }
        match rest.take() {
            Some([VERSION]) => {}
            Some([version]) if version > VERSION => return Err(ClickError::Newer(version)),
            _ => return Err(ClickError::Malformed),
        }
        let mut read = || {
            let (cluster, epoch, sequence) = (rest.take()?, rest.take()?, rest.take()?);
            let (process, counter, [node_bytes]) = (rest.take()?, rest.take()?, rest.take()?);
            let (node, rest) = rest.0.split_at_checked(node_bytes.into())?;
            let (deltas, _) = rest.split_last_chunk::<SEAL_BYTES>()?;
            Some(Self {
                cluster,
                epoch: u32::from_be_bytes(epoch),
                sequence: u64::from_be_bytes(sequence),
                process,
                counter: u64::from_be_bytes(counter),
                node: std::str::from_utf8(node).ok()?,
                deltas,
            })
        };
        let message = read().ok_or(ClickError::Malformed)?;
        // A delta that is none is passed over, by every box alike.
        let (deltas, rest) = message.deltas.as_chunks::<DELTA_BYTES>();
        match rest.is_empty() && deltas.len() <= CLICK_MESSAGE_MAX_LINKS {
            true => Ok(message),
            false => Err(ClickError::Malformed),
        }
    }

    fn chunks(&self) -> impl Iterator<Item = &'a [u8; DELTA_BYTES]> + use<'a> {
        self.deltas.as_chunks().0.iter()
    }

    pub fn deltas(&self) -> impl Iterator<Item = ClickDelta> + use<'a> {
        self.chunks().filter_map(decode_delta)
    }

    fn find(&self, id: LinkId) -> Option<ClickDelta> {
        let deltas: &[[u8; DELTA_BYTES]] = self.deltas.as_chunks().0;
        let padded = id.padded();
        let at = deltas.binary_search_by(|delta| delta.get(..ID_MAX_BYTES).unwrap_or_default().cmp(&padded));
        deltas.get(at.ok()?).and_then(decode_delta)
    }

    /// What a message of this store's own has of a link. The checksum of a long message is verified only if it has
    /// something; verification of the store names a damaged one.
    pub fn find_in(bytes: &'a [u8], id: LinkId) -> Option<ClickDelta> {
        Self::split(bytes).ok()?.find(id)?;
        Self::decode(bytes).ok()?.find(id)
    }
}

fn decode_delta(delta: &[u8; DELTA_BYTES]) -> Option<ClickDelta> {
    let mut rest = Parts(delta);
    let padded: [u8; ID_MAX_BYTES] = rest.take()?;
    let length = padded.iter().position(|byte| *byte == 0).unwrap_or(ID_MAX_BYTES);
    let mut number = || rest.take().map(u64::from_be_bytes);
    let (clicks, previews, last) = (number()?, number()?, number()?);
    Some(ClickDelta {
        // With something behind its end it would be another one.
        id: LinkId::from_bytes(padded.get(..length)?)
            .ok()
            .filter(|id| id.padded() == padded)?,
        usage: Usage {
            clicks,
            previews,
            last_used_at: (clicks > 0).then(|| Timestamp::from_unix(last.cast_signed())),
        },
        day: Day(u32::from_be_bytes(rest.take()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::replication::{Chain, ClickPosition, ContentDigest};
    use proptest::prelude::*;

    fn position() -> Position {
        Position {
            cluster: *b"cluster of tests",
            epoch: 3,
            sequence: 41,
            chain: Chain::default(),
            digest: ContentDigest::default(),
        }
    }

    fn delta(id: &str, clicks: u64, previews: u64) -> ClickDelta {
        ClickDelta {
            id: id.parse().unwrap(),
            usage: Usage {
                clicks,
                previews,
                last_used_at: (clicks > 0).then(|| Timestamp::from_unix(7)),
            },
            day: Day(9),
        }
    }

    #[test]
    fn click_messages_are_read_back() {
        let deltas = [
            delta("abcd", 2, 0),
            delta("abcd1", 0, 3),
            delta("zzzzzzzzzzzzzzzzzzzz", 1, 1),
        ];
        let source = ClickSource {
            node: "edge-1".into(),
            process: [5; 16],
        };
        let bytes = ClickMessage::encode(&position(), &source, 8, deltas.into_iter());
        let message = ClickMessage::decode(&bytes).unwrap();
        assert_eq!(
            (message.cluster, message.epoch, message.sequence),
            (*b"cluster of tests", 3, 41)
        );
        assert_eq!((message.process, message.node, message.counter), ([5; 16], "edge-1", 8));
        assert_eq!(message.deltas().collect::<Vec<_>>(), deltas);
        for delta in deltas {
            assert_eq!(ClickMessage::find_in(&bytes, delta.id), Some(delta));
        }
        assert_eq!(ClickMessage::find_in(&bytes, "abce".parse().unwrap()), None);
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ClickMessage::decode(&flipped), Err(ClickError::Malformed), "bit {bit}");
            assert_eq!(ClickMessage::find_in(&flipped, deltas[1].id), None, "bit {bit}");
        }
        let mut newer = bytes;
        newer.truncate(newer.len() - SEAL_BYTES);
        newer[2] = VERSION + 1;
        newer.extend(checksum::checksum(&[&newer]));
        assert_eq!(ClickMessage::decode(&newer), Err(ClickError::Newer(VERSION + 1)));
        let position = ClickPosition {
            stream: 1,
            sequence: 2,
            seen: 3,
        };
        assert_eq!(ClickPosition::unseal(b"k", &position.seal(b"k")).unwrap(), position);
        assert!(ClickPosition::unseal(b"l", &position.seal(b"k")).is_err());
    }

    proptest! {
        #[test]
        fn decoding_a_click_message_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ClickMessage::decode(&bytes);
            let _ = ClickMessage::decode(&[b"TC\x02", bytes.as_slice()].concat());
            let sum = checksum::checksum(&[&b"TC\x02"[..], &bytes]);
            let _ = ClickMessage::decode(&[b"TC\x02", bytes.as_slice(), &sum].concat());
        }
    }
}
