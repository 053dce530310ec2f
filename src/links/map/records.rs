//! What the map keeps of each link, packed into chunks of memory: a few bytes of head, the id, the destination.
//!
//! One allocation for some hundred links instead of one or two for each: it is what keeps ten million links small, and
//! bringing them in fast. Knows nothing of hashes and locks.

use crate::model::{LinkId, Status, Timestamp};

/// Bytes of a chunk. Offsets in it have 16 bits.
const CHUNK_BYTES: usize = 1 << 16;

/// Status and length of the id (1), length of the location (4).
const HEAD_BYTES: usize = 5;
const TIME_BYTES: usize = 8;
/// Where the id is in the record of a link with a start.
const STARTING_ID: usize = HEAD_BYTES + 2 * TIME_BYTES;

/// First byte: id length (5 bits), status (2 bits), whether times follow the head (1 bit).
const ID_LENGTH_MASK: u8 = 0b0001_1111;
const STATUS_SHIFT: u32 = 5;
const STATUS_MASK: u8 = 0b11;
const HAS_TIMES: u8 = 0b1000_0000;
/// The highest bit of the location's length, which is never so long: whether the times are expiry and start, or the
/// expiry alone. A link without times costs no look at it.
const HAS_START: u32 = 1 << 31;
/// The expiry of a link that has a start and never expires.
const NEVER: i64 = i64::MAX;

#[derive(Debug, Clone, Copy)]
pub struct Record<'r> {
    bytes: &'r [u8],
    id_start: usize,
}

/// When a link redirects: `None` = without a limit on that side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validity {
    pub starts_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untimely {
    Expired,
    /// Starts then.
    NotYet(Timestamp),
}

/// Writes a record to `record`: head, expiry and start if any (8 bytes each, little-endian), id, location. No status
/// means damaged.
pub fn render(
    record: &mut Vec<u8>,
    id: LinkId,
    status: Option<Status>,
    validity: Validity,
    write_location: impl FnOnce(&mut Vec<u8>),
) {
    let id = id.as_bytes();
    // An id has at most 20 bytes and a status is 1, 2 or 3, so both fit.
    let id_length = u8::try_from(id.len()).unwrap_or_default() & ID_LENGTH_MASK;
    let Validity { starts_at, expires_at } = validity;
    let has_times = if validity == Validity::default() { 0 } else { HAS_TIMES };
    record.clear();
    let status = status.map_or(0, Status::number) & STATUS_MASK;
    record.push(id_length | status << STATUS_SHIFT | has_times);
    record.extend_from_slice(&[0; HEAD_BYTES - 1]);
    if has_times != 0 {
        let expires_at = expires_at.map_or(NEVER, Timestamp::as_unix);
        record.extend_from_slice(&expires_at.to_le_bytes());
    }
    if let Some(starts_at) = starts_at {
        record.extend_from_slice(&starts_at.as_unix().to_le_bytes());
    }
    record.extend_from_slice(id);
    let before = record.len();
    write_location(record);
    let length = u32::try_from(record.len() - before).unwrap_or(u32::MAX) & !HAS_START;
    let length = length | if starts_at.is_some() { HAS_START } else { 0 };
    if let Some(slot) = record.get_mut(1..HEAD_BYTES) {
        slot.copy_from_slice(&length.to_le_bytes());
    }
}

impl<'r> Record<'r> {
    /// The record at the start of `bytes`.
    pub fn from_bytes(bytes: &'r [u8]) -> Option<Self> {
        let (&[head, a, b, c, d], _) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let location = u32::from_le_bytes([a, b, c, d]);
        let location_bytes = usize::try_from(location & !HAS_START).ok()?;
        let id_start = match head & HAS_TIMES {
            0 => HEAD_BYTES,
            _ if location & HAS_START == 0 => HEAD_BYTES + TIME_BYTES,
            _ => STARTING_ID,
        };
        let length = id_start + usize::from(head & ID_LENGTH_MASK) + location_bytes;
        Some(Self {
            bytes: bytes.get(..length)?,
            id_start,
        })
    }

    pub const fn bytes(self) -> &'r [u8] {
        self.bytes
    }

    fn head(self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    fn location_start(self) -> usize {
        self.id_start + usize::from(self.head() & ID_LENGTH_MASK)
    }

    pub fn id_bytes(self) -> &'r [u8] {
        self.bytes.get(self.id_start..self.location_start()).unwrap_or(&[])
    }

    pub fn id(self) -> Option<LinkId> {
        LinkId::from_bytes(self.id_bytes()).ok()
    }

    pub fn status(self) -> Option<Status> {
        Status::from_number((self.head() >> STATUS_SHIFT & STATUS_MASK).into())
    }

    /// Why an enabled link does not redirect now, if it does not.
    #[inline]
    pub fn untimely_at(self, now: Timestamp) -> Option<Untimely> {
        if self.head() & HAS_TIMES == 0 {
            return None;
        }
        let Validity { starts_at, expires_at } = self.validity();
        // The link works in the very seconds of its start and of its expiry.
        if expires_at.is_some_and(|expires_at| now > expires_at) {
            return Some(Untimely::Expired);
        }
        let starts_at = starts_at.filter(|starts_at| now < *starts_at)?;
        // A link that ends before its start never works.
        let is_over = expires_at.is_some_and(|expires_at| expires_at < starts_at);
        Some(if is_over {
            Untimely::Expired
        } else {
            Untimely::NotYet(starts_at)
        })
    }

    pub fn validity(self) -> Validity {
        if self.head() & HAS_TIMES == 0 {
            return Validity::default();
        }
        let expires_at = self.seconds_at(HEAD_BYTES).filter(|seconds| *seconds != NEVER);
        let has_start = self.id_start == STARTING_ID;
        let starts_at = has_start.then(|| self.seconds_at(HEAD_BYTES + TIME_BYTES));
        Validity {
            starts_at: starts_at.flatten().map(Timestamp::from_unix),
            expires_at: expires_at.map(Timestamp::from_unix),
        }
    }

    fn seconds_at(self, offset: usize) -> Option<i64> {
        let seconds = self.bytes.get(offset..)?.first_chunk::<TIME_BYTES>()?;
        Some(i64::from_le_bytes(*seconds))
    }

    pub fn location(self) -> &'r [u8] {
        self.bytes.get(self.location_start()..).unwrap_or(&[])
    }
}

/// The number of a chunk and the offset in it, 16 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkOffset(u32);

impl ChunkOffset {
    /// `None` beyond 65,536 chunks.
    fn new(chunk: usize, offset: usize) -> Option<Self> {
        let (chunk, offset) = (u16::try_from(chunk).ok()?, u16::try_from(offset).ok()?);
        Some(Self(u32::from(chunk) << 16 | u32::from(offset)))
    }

    const fn chunk(self) -> usize {
        (self.0 >> 16) as usize
    }

    const fn offset(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    dead_bytes: usize,
}

#[derive(Debug, Default)]
pub struct Records {
    chunks: Vec<Chunk>,
    // Numbers of freed chunks.
    empty: Vec<usize>,
    // The chunk that is being filled.
    current: Option<usize>,
    // Mostly dead chunks.
    sparse: Vec<usize>,
}

impl Records {
    pub fn get(&self, position: ChunkOffset) -> Option<Record<'_>> {
        Record::from_bytes(self.chunks.get(position.chunk())?.bytes.get(position.offset()..)?)
    }

    /// `None`: a shard holds at most four gigabytes.
    pub fn push(&mut self, record: &[u8]) -> Option<ChunkOffset> {
        if let Some(number) = self.current
            && let Some(chunk) = self.chunks.get_mut(number)
            && chunk.bytes.len() + record.len() <= chunk.bytes.capacity()
            && let Some(position) = ChunkOffset::new(number, chunk.bytes.len())
        {
            chunk.bytes.extend_from_slice(record);
            return Some(position);
        }
        let number = self.empty.pop().unwrap_or(self.chunks.len());
        let position = ChunkOffset::new(number, 0)?;
        // A record that is longer than a chunk has one of its own.
        let mut bytes = Vec::with_capacity(record.len().max(CHUNK_BYTES));
        bytes.extend_from_slice(record);
        let chunk = Chunk { bytes, dead_bytes: 0 };
        if let Some(full) = self.current {
            self.note_if_sparse(full);
        }
        match self.chunks.get_mut(number) {
            Some(slot) => *slot = chunk,
            None => self.chunks.push(chunk),
        }
        self.current = Some(number);
        Some(position)
    }

    pub fn memory_bytes(&self) -> usize {
        let content: usize = self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum();
        content + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// Marks a record as dead.
    pub fn release(&mut self, position: ChunkOffset) {
        let length = self.get(position).map_or(0, |record| record.bytes().len());
        if let Some(chunk) = self.chunks.get_mut(position.chunk()) {
            chunk.dead_bytes += length;
        }
        if self.current != Some(position.chunk()) {
            self.note_if_sparse(position.chunk());
        }
    }

    fn note_if_sparse(&mut self, number: usize) {
        if let Some(chunk) = self.chunks.get(number)
            && chunk.dead_bytes * 2 > chunk.bytes.len()
            && !self.sparse.contains(&number)
        {
            self.sparse.push(number);
        }
    }

    /// Takes a chunk that is more than half dead. The caller pushes its live records again, and calls this until
    /// `None`.
    pub fn take_sparse(&mut self) -> Option<TakenChunk> {
        let number = self.sparse.pop()?;
        let chunk = std::mem::take(self.chunks.get_mut(number)?);
        self.empty.push(number);
        Some(TakenChunk {
            bytes: chunk.bytes,
            number,
        })
    }
}

#[derive(Debug)]
pub struct TakenChunk {
    bytes: Vec<u8>,
    number: usize,
}

impl TakenChunk {
    /// All its records, dead or alive, and where they were.
    pub fn records(&self) -> impl Iterator<Item = (ChunkOffset, Record<'_>)> {
        let mut offset = 0;
        std::iter::from_fn(move || {
            let record = Record::from_bytes(self.bytes.get(offset..)?)?;
            let position = ChunkOffset::new(self.number, offset)?;
            offset += record.bytes().len();
            Some((position, record))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rendered(id: &str, status: Status, validity: [Option<i64>; 2], location: &[u8]) -> Vec<u8> {
        let mut record = vec![0xff];
        let [starts_at, expires_at] = validity.map(|time| time.map(Timestamp::from_unix));
        let validity = Validity { starts_at, expires_at };
        render(&mut record, id.parse().unwrap(), Some(status), validity, |out| {
            out.extend_from_slice(location);
        });
        record
    }

    proptest! {
        #[test]
        fn a_record_says_what_was_written(
            id in "[0-9a-z]{4,20}",
            status in proptest::sample::select(Status::ALL.to_vec()),
            validity in any::<[Option<i64>; 2]>(),
            location in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = rendered(&id, status, validity, &location);
            let length = bytes.len();
            bytes.extend_from_slice(b"what follows");
            let record = Record::from_bytes(&bytes).unwrap();
            prop_assert_eq!(record.bytes().len(), length);
            prop_assert_eq!(record.id_bytes(), id.as_bytes());
            prop_assert_eq!(record.status(), Some(status));
            let Validity { starts_at, expires_at } = record.validity();
            prop_assert_eq!([starts_at, expires_at].map(|time| time.map(Timestamp::as_unix)), validity);
            prop_assert_eq!(record.location(), location);
        }

        #[test]
        fn reading_a_record_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(record) = Record::from_bytes(&bytes) {
                let _ = (record.id(), record.status(), record.validity(), record.location());
            }
        }
    }

    #[test]
    fn record_without_start_takes_no_byte_for_it() {
        let of = |validity| rendered("abcd", Status::Enabled, validity, b"https://e.example/");
        assert_eq!(of([None; 2]), b"\x44\x12\0\0\0abcdhttps://e.example/");
        let expiring = b"\xc4\x12\0\0\0\x07\0\0\0\0\0\0\0abcdhttps://e.example/";
        assert_eq!(of([None, Some(7)]), expiring);
        assert_eq!(of([Some(3), None]).len(), of([None; 2]).len() + 16);
    }

    #[test]
    fn memory_of_records_that_are_no_longer_in_use_is_used_again() {
        let mut records = Records::default();
        let record = rendered("abcd", Status::Enabled, [None; 2], &[b'x'; 1_000]);
        let mut positions: Vec<ChunkOffset> = (0..200).map(|_| records.push(&record).unwrap()).collect();
        let chunks = records.chunks.len();
        for _ in 0..20 {
            for changed in 0..positions.len() {
                records.release(positions[changed]);
                positions[changed] = records.push(&record).unwrap();
                // As the map does it: what is in use moves out of a chunk that is mostly unused.
                while let Some(taken) = records.take_sparse() {
                    for (from, moving) in taken.records() {
                        if let Some(position) = positions.iter_mut().find(|position| **position == from) {
                            *position = records.push(moving.bytes()).unwrap();
                        }
                    }
                }
            }
        }
        let used = records.chunks.len() - records.empty.len();
        assert!(used <= 2 * chunks + 1, "{used} chunks where {chunks} would do");
    }

    #[test]
    fn a_record_longer_than_a_chunk_is_kept() {
        let mut records = Records::default();
        let long = rendered("long", Status::Enabled, [None; 2], &[b'x'; 3 * CHUNK_BYTES]);
        let short = rendered("shrt", Status::Deleted, [Some(3), Some(7)], b"y");
        let positions = [&short, &long, &short].map(|record| records.push(record).unwrap());
        for (position, expected) in positions.into_iter().zip([&short, &long, &short]) {
            assert_eq!(records.get(position).unwrap().bytes(), expected);
        }
    }
}
