//! Drawing ids for new links.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::model::{ID_MAX_BYTES, LinkId};
use crate::store::{StoreError, Transaction};

/// The alphabet of ids (docs/kaltura-api.md#ids).
const ALPHABET: [char; 36] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm',
    'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z',
];

/// Draws of one length before a longer id is drawn.
const DRAWS_MAX: usize = 32;

/// What stands for one id, without anybody knowing which: the caller gives the same for the same request.
pub type OnceSeed = [u8; 32];

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
        let rng = parking_lot::Mutex::new(StdRng::seed_from_u64(seed));
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

    /// The id that a seed stands for.
    pub(super) fn of_seed(&self, seed: OnceSeed) -> Option<LinkId> {
        let rng = RefCell::new(StdRng::from_seed(seed));
        let random = |bytes| {
            let mut drawn = vec![0; bytes];
            rng.borrow_mut().fill_bytes(&mut drawn);
            drawn
        };
        nanoid::nanoid!(self.length, &ALPHABET, random).parse().ok()
    }

    /// This id, if it is unused; another one otherwise.
    pub(super) fn draw_or(&self, transaction: &Transaction<'_>, wanted: Option<LinkId>) -> Result<LinkId, StoreError> {
        match wanted {
            Some(id) if transaction.get(id)?.is_none() => Ok(id),
            _ => self.draw(transaction),
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
