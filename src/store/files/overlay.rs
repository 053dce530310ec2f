//! A file that is read but never written: what redb changes in it, such as a repair after a crash, stays in memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use parking_lot::RwLock;
use redb::StorageBackend;

/// Bytes that are kept together once one of them has been changed: redb's page.
const BLOCK_BYTES: usize = 4096;

pub trait Base: Debug + Send + Sync + 'static {
    /// Fills `out` from `offset`; there are as many bytes.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Gives up whatever keeps others from it.
    fn unlock(&self) -> io::Result<()>;
}

impl Base for File {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn unlock(&self) -> io::Result<()> {
        Self::unlock(self)
    }
}

/// A backend for redb that keeps its writes to itself.
#[derive(Debug)]
pub struct Overlay<B> {
    base: B,
    changes: RwLock<Changes>,
}

#[derive(Debug)]
struct Changes {
    length: u64,
    /// So much of the base still shows; beyond it, what was not written is zero.
    base_length: u64,
    blocks: HashMap<u64, Box<[u8; BLOCK_BYTES]>>,
}

impl<B: Base> Overlay<B> {
    /// Lays an overlay on the first `length` bytes of a base.
    pub fn new(base: B, length: u64) -> Self {
        let changes = RwLock::new(Changes {
            length,
            base_length: length,
            blocks: HashMap::new(),
        });
        Self { base, changes }
    }

    /// The part of a block that the base shows, zeros after it.
    fn of_base(&self, number: u64, base_length: u64) -> io::Result<[u8; BLOCK_BYTES]> {
        let mut block = [0; BLOCK_BYTES];
        let start = number * BLOCK_BYTES as u64;
        let shown = usize::try_from(base_length.saturating_sub(start)).unwrap_or(usize::MAX);
        let shown = shown.min(BLOCK_BYTES);
        if let Some(shown) = block.get_mut(..shown).filter(|shown| !shown.is_empty()) {
            self.base.read_at(start, shown)?;
        }
        Ok(block)
    }
}

/// The pieces of a range: number of the block, first byte in it, and how many bytes.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = length - done;
        if left == 0 {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or_default();
        let bytes = left.min(BLOCK_BYTES - start);
        done += bytes;
        Some((at / BLOCK_BYTES as u64, start, bytes))
    })
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "read beyond the end")
}

impl<B: Base> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes.read().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes.read();
        if offset + out.len() as u64 > changes.length {
            return Err(outside());
        }
        if changes.blocks.is_empty() && changes.base_length >= changes.length {
            return self.base.read_at(offset, out);
        }
        let mut rest = out;
        for (number, start, bytes) in pieces(offset, rest.len()) {
            let (piece, after) = rest.split_at_mut(bytes);
            let of_base;
            let block = match changes.blocks.get(&number) {
                Some(block) => block.as_ref(),
                None => {
                    of_base = self.of_base(number, changes.base_length)?;
                    &of_base
                }
            };
            piece.copy_from_slice(block.get(start..start + bytes).ok_or_else(outside)?);
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changes = self.changes.write();
        if length < changes.length {
            // What is cut off must read as zero if the storage grows again.
            changes.base_length = changes.base_length.min(length);
            changes.blocks.retain(|number, block| {
                let start = number * BLOCK_BYTES as u64;
                let kept = usize::try_from(length.saturating_sub(start)).unwrap_or(BLOCK_BYTES);
                if let Some(cut) = block.get_mut(kept.min(BLOCK_BYTES)..) {
                    cut.fill(0);
                }
                start < length
            });
        }
        changes.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    /// A remaining view must not keep the file from being opened for writing.
    fn close(&self) -> io::Result<()> {
        self.base.unlock()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes.write();
        let base_length = changes.base_length;
        let mut rest = data;
        for (number, start, bytes) in pieces(offset, data.len()) {
            let (piece, after) = rest.split_at(bytes);
            let block = match changes.blocks.entry(number) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Box::new(self.of_base(number, base_length)?)),
            };
            let changed = block.get_mut(start..start + bytes).ok_or_else(outside)?;
            changed.copy_from_slice(piece);
            rest = after;
        }
        changes.length = changes.length.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn overlay_reads_back_what_was_written(
            base in prop::collection::vec(any::<u8>(), 0..20_000),
            operations in prop::collection::vec((any::<bool>(), 0_usize..25_000,
                prop::collection::vec(any::<u8>(), 1..6_000)), 0..20),
        ) {
            let overlay = Overlay::new(base.clone(), base.len() as u64);
            let mut expected = base.clone();
            for (truncates, offset, data) in operations {
                if truncates {
                    overlay.set_len(offset as u64).unwrap();
                    expected.resize(offset, 0);
                } else {
                    overlay.write(offset as u64, &data).unwrap();
                    expected.resize(expected.len().max(offset + data.len()), 0);
                    expected[offset..offset + data.len()].copy_from_slice(&data);
                }
                let mut read = vec![0; expected.len()];
                prop_assert_eq!(overlay.len().unwrap(), expected.len() as u64);
                overlay.read(0, &mut read).unwrap();
                prop_assert!(read == expected);
                let middle = expected.len() / 3..expected.len() / 2;
                let mut part = vec![0; middle.len()];
                overlay.read(middle.start as u64, &mut part).unwrap();
                prop_assert!(part == expected[middle]);
            }
            prop_assert!(overlay.read(expected.len() as u64, &mut [0]).is_err());
            prop_assert!(overlay.base == base);
        }
    }
}
