//! The limits of import files that are spooled at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::per_client::{Slot, Slots};
use crate::model::PartnerId;

/// Files that are being received, wait for their turn, or are imported.
const FILES_MAX: usize = 16;
/// The same for one partner, so that others have slots too.
const FILES_OF_PARTNER_MAX: usize = 4;

/// Files that somebody looks at before they import them.
const KEPT_MAX: usize = 8;
const KEPT_OF_PARTNER_MAX: usize = 4;

/// The spooled files.
#[derive(Debug, Default)]
pub(super) struct ImportSlots {
    slots: Arc<Slots<PartnerId>>,
    kept: Arc<Slots<PartnerId>>,
    bytes: Arc<AtomicU64>,
}

impl ImportSlots {
    /// A slot for the file of a partner whose session has been accepted, if one is free.
    pub(super) fn take(&self, partner: PartnerId) -> Option<ImportSlot> {
        self.slots
            .take(partner, FILES_OF_PARTNER_MAX, FILES_MAX)
            .map(ImportSlot)
    }

    /// Likewise for a file that is kept.
    pub(super) fn keep(&self, partner: PartnerId) -> Option<ImportSlot> {
        self.kept.take(partner, KEPT_OF_PARTNER_MAX, KEPT_MAX).map(ImportSlot)
    }

    /// The bytes of a new file.
    pub(super) fn bytes(&self) -> SpooledBytes {
        SpooledBytes {
            of_all: Arc::clone(&self.bytes),
            bytes: 0,
        }
    }
}

/// The right to spool, import or keep a file.
#[derive(Debug)]
pub struct ImportSlot(#[expect(dead_code, reason = "frees its place when dropped")] Slot<PartnerId>);

/// How large a spooled file is.
#[derive(Debug)]
pub(super) struct SpooledBytes {
    of_all: Arc<AtomicU64>,
    bytes: u64,
}

impl SpooledBytes {
    /// Notes that the file has grown by so many bytes, and returns how many all files have.
    pub(super) fn grow(&mut self, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.of_all.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub(super) const fn get(&self) -> u64 {
        self.bytes
    }
}

impl Drop for SpooledBytes {
    fn drop(&mut self) {
        self.of_all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_partner_takes_all_places() {
        let slots = ImportSlots::default();
        let mut taken: Vec<_> = (0..FILES_OF_PARTNER_MAX)
            .map(|_| slots.take(PartnerId(1)).unwrap())
            .collect();
        assert!(slots.take(PartnerId(1)).is_none());
        for partner in 2.. {
            match slots.take(PartnerId(partner)) {
                Some(slot) => taken.push(slot),
                None => break,
            }
        }
        assert_eq!(taken.len(), FILES_MAX);
        drop(taken);
        assert!(slots.take(PartnerId(1)).is_some());
    }

    #[test]
    fn kept_files_block_no_import() {
        let slots = ImportSlots::default();
        let kept: Vec<_> = (0..KEPT_OF_PARTNER_MAX)
            .map(|_| slots.keep(PartnerId(1)).unwrap())
            .collect();
        assert!(slots.keep(PartnerId(1)).is_none());
        assert!(slots.keep(PartnerId(2)).is_some() && slots.take(PartnerId(1)).is_some());
        drop(kept);
        assert!(slots.keep(PartnerId(1)).is_some());
    }

    #[test]
    fn the_bytes_of_all_files_are_counted() {
        let slots = ImportSlots::default();
        let (mut one, mut other) = (slots.bytes(), slots.bytes());
        assert_eq!((one.grow(10), other.grow(5), one.grow(1)), (10, 15, 16));
        drop(one);
        assert_eq!(other.grow(0), 5);
    }
}
