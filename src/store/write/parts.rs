//! Changes that are too long for one entry of the replication log: their parts are sent first, and stay out of sight
//! until an entry puts them together.
//!
//! Another writer may come between the parts, as often as it likes: over the attempts, each part is sent once, unless
//! it comes to something else. Only the last entry has to be the next one, as that of any other change.

use sha2::{Digest as _, Sha256};

use crate::store::format::staged;
use crate::store::journal::redo::Redo;
use crate::store::replication::{ImportId, PAYLOAD_MAX_BYTES};

/// Bytes of a change that is too long for one entry, in each of its entries.
const PART_BYTES: usize = PAYLOAD_MAX_BYTES / 2;

/// The parts of a change that the log has.
#[derive(Debug, Default)]
pub struct SentParts {
    id: Option<ImportId>,
    /// The hash of each.
    hashes: Vec<[u8; 32]>,
}

impl SentParts {
    /// Those under which they are staged, if any may have been sent.
    pub const fn id(&self) -> Option<&ImportId> {
        self.id.as_ref()
    }

    /// Sends the parts of a payload that the log does not have, and returns the payload of the last entry; none as soon
    /// as `send` returns false.
    pub fn send<E>(
        &mut self,
        payload: &[u8],
        began_at: i64,
        mut send: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<Option<Redo>, E> {
        let id = *self.id.get_or_insert_with(|| staged::import_id(began_at));
        let mut parts = 0;
        for (number, part) in payload.chunks(PART_BYTES).enumerate() {
            let hash = Sha256::digest(part).into();
            if self.hashes.get(number) != Some(&hash) {
                let mut redo = Redo::kept_for_entries();
                redo.staged(&id, parts, part);
                // What is behind it, if anything, is of other attempts.
                self.hashes.truncate(number);
                if !send(&redo.into_bytes().unwrap_or_default())? {
                    return Ok(None);
                }
                self.hashes.push(hash);
            }
            parts += 1;
        }
        let mut last = Redo::kept_for_entries();
        last.assembled(&id, parts);
        Ok(Some(last))
    }
}
