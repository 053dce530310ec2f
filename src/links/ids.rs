//! Drawing ids for new links.

use std::fmt;
use std::sync::Arc;

use crate::model::{ID_MAX_BYTES, LinkId};
use crate::store::{StoreError, Transaction};

/// The alphabet of ids (docs/kaltura-api.md#ids).
const ALPHABET: [char; 36] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm',
    'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z',
];

/// Draws of one length before a longer id is drawn.
const DRAWS_MAX: usize = 32;

#[derive(Clone)]
pub(super) struct IdSource {
    length: usize,
    random: Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync>,
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdSource")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl IdSource {
    pub(super) fn unguessable(length: usize) -> Self {
        Self {
            length,
            random: Arc::new(nanoid::rngs::default),
        }
    }

    /// The same ids each time, for reproducible tests.
    #[cfg(test)]
    pub(super) fn repeatable(length: usize, seed: u64) -> Self {
        use rand::{Rng as _, SeedableRng as _};
        let rng = parking_lot::Mutex::new(rand::rngs::StdRng::seed_from_u64(seed));
        let random = move |bytes| {
            let mut drawn = vec![0; bytes];
            rng.lock().fill_bytes(&mut drawn);
            drawn
        };
        Self {
            length,
            random: Arc::new(random),
        }
    }

    /// Draws an unused id; a longer one if ids of the wanted length are nearly used up.
    pub(super) fn draw(&self, transaction: &Transaction<'_>) -> Result<LinkId, StoreError> {
        let random = |bytes| (self.random)(bytes);
        for length in self.length..=ID_MAX_BYTES {
            for _ in 0..DRAWS_MAX {
                let text = nanoid::nanoid!(length, &ALPHABET, random);
                if let Ok(id) = text.parse()
                    && transaction.get(id)?.is_none()
                {
                    return Ok(id);
                }
            }
            tracing::warn!(
                length,
                "IDs of this length are nearly used up; using longer ones (raise links.id_length)"
            );
        }
        Err(StoreError::Interrupted)
    }
}
