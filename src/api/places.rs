//! How many files of imports there are at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::model::PartnerId;

/// Files at a time that are being received, wait for their turn, or are imported.
const FILES_MAX: usize = 16;
/// The same of one partner, so that there are some for every other.
const FILES_OF_PARTNER_MAX: usize = 4;

/// The files that have been put aside.
#[derive(Debug, Default)]
pub(super) struct Places {
    of_partners: Mutex<HashMap<PartnerId, usize>>,
    bytes: AtomicU64,
}

impl Places {
    /// A place for a file of a partner whose session has been accepted, if there is one.
    pub(super) fn take(self: &Arc<Self>, partner: PartnerId) -> Option<FilePlace> {
        let mut of_partners = self.of_partners.lock();
        let all: usize = of_partners.values().sum();
        let own = of_partners.get(&partner).copied().unwrap_or_default();
        if all >= FILES_MAX || own >= FILES_OF_PARTNER_MAX {
            return None;
        }
        of_partners.insert(partner, own + 1);
        Some(FilePlace {
            places: Arc::clone(self),
            partner,
            bytes: 0,
        })
    }
}

/// The place of a file.
#[derive(Debug)]
pub(super) struct FilePlace {
    places: Arc<Places>,
    partner: PartnerId,
    bytes: u64,
}

impl FilePlace {
    /// Notes that the file has grown by so many bytes, and says how many all files have.
    pub(super) fn grow(&mut self, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.places.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for FilePlace {
    fn drop(&mut self) {
        self.places.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let mut of_partners = self.places.of_partners.lock();
        if let Some(own) = of_partners.get_mut(&self.partner) {
            *own -= 1;
            if *own == 0 {
                of_partners.remove(&self.partner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_partner_takes_all_places() {
        let places = Arc::<Places>::default();
        let mut taken: Vec<_> = (0..FILES_OF_PARTNER_MAX)
            .map(|_| places.take(PartnerId(1)).unwrap())
            .collect();
        assert!(places.take(PartnerId(1)).is_none());
        for partner in 2.. {
            match places.take(PartnerId(partner)) {
                Some(place) => taken.push(place),
                None => break,
            }
        }
        assert_eq!(taken.len(), FILES_MAX);
        drop(taken);
        assert!(places.of_partners.lock().is_empty());
    }

    #[test]
    fn the_bytes_of_all_files_are_counted() {
        let places = Arc::<Places>::default();
        let (mut one, mut other) = (places.take(PartnerId(1)).unwrap(), places.take(PartnerId(2)).unwrap());
        assert_eq!((one.grow(10), other.grow(5), one.grow(1)), (10, 15, 16));
        drop(one);
        assert_eq!(other.grow(0), 5);
    }
}
