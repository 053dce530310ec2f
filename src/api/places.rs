//! How many files of imports there are at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::per_client::{Slot, Slots};
use crate::model::PartnerId;

/// Files at a time that are being received, wait for their turn, or are imported.
const FILES_MAX: usize = 16;
/// The same of one partner, so that there are some for every other.
const FILES_OF_PARTNER_MAX: usize = 4;

/// The files that have been put aside.
#[derive(Debug, Default)]
pub(super) struct Places {
    slots: Arc<Slots<PartnerId>>,
    bytes: Arc<AtomicU64>,
}

impl Places {
    /// A place for a file of a partner whose session has been accepted, if one is free.
    pub(super) fn take(&self, partner: PartnerId) -> Option<FilePlace> {
        Some(FilePlace {
            _slot: self.slots.take(partner, FILES_OF_PARTNER_MAX, FILES_MAX)?,
            of_all: Arc::clone(&self.bytes),
            bytes: 0,
        })
    }
}

#[derive(Debug)]
pub(super) struct FilePlace {
    _slot: Slot<PartnerId>,
    of_all: Arc<AtomicU64>,
    bytes: u64,
}

impl FilePlace {
    /// Notes that the file has grown by so many bytes, and returns how many all files have.
    pub(super) fn grow(&mut self, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.of_all.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for FilePlace {
    fn drop(&mut self) {
        self.of_all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_partner_takes_all_places() {
        let places = Places::default();
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
        assert!(places.take(PartnerId(1)).is_some());
    }

    #[test]
    fn the_bytes_of_all_files_are_counted() {
        let places = Places::default();
        let (mut one, mut other) = (places.take(PartnerId(1)).unwrap(), places.take(PartnerId(2)).unwrap());
        assert_eq!((one.grow(10), other.grow(5), one.grow(1)), (10, 15, 16));
        drop(one);
        assert_eq!(other.grow(0), 5);
    }
}
