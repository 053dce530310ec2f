//! Reading every link in several threads at once: how the map is loaded.

use std::sync::atomic::{AtomicUsize, Ordering};

use redb::ReadableTable as _;

use crate::model::LinkId;
use crate::store::error::StoreError;
use crate::store::record::{self, Target};
use crate::store::snapshot::Snapshot;

/// The characters of ids, in their order.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl Snapshot {
    /// Reads every link in several threads, each with a visitor of its own, and returns how many links there are. What
    /// cannot be decoded is given as such. A thread takes one piece of the table after the other, each in the order of the
    /// ids.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn scan<V>(&self, threads: usize, visitor: impl Fn() -> V + Sync) -> Result<u64, StoreError>
    where
        V: FnMut(LinkId, Result<Target<'_>, StoreError>),
    {
        let Some((first, last)) = self.links.first()?.zip(self.links.last()?) else {
            return Ok(0);
        };
        let starts = piece_starts(first.0.value(), last.0.value());
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut visit, mut links) = (visitor(), 0);
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                let Some(start) = starts.get(piece) else {
                    return Ok::<_, StoreError>(links);
                };
                links += self.scan_piece(start, starts.get(piece + 1), &mut visit)?;
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut links = work()?;
            for other in others {
                links += other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(links)
        })
    }

    fn scan_piece(
        &self,
        start: &Vec<u8>,
        end: Option<&Vec<u8>>,
        visit: &mut impl FnMut(LinkId, Result<Target<'_>, StoreError>),
    ) -> Result<u64, StoreError> {
        let entries = match end {
            Some(end) => self.links.range(start.as_slice()..end.as_slice())?,
            None => self.links.range(start.as_slice()..)?,
        };
        let mut links = 0;
        for entry in entries {
            let (id, bytes) = entry?;
            let id = LinkId::from_bytes(id.value()).map_err(|error| StoreError::damaged("links", error))?;
            visit(id, record::decode_target(id, bytes.value()));
            links += 1;
        }
        Ok(links)
    }
}

/// Where the pieces of the table begin: what all ids have in common, followed by each pair of characters. The first one
/// begins with what they have in common alone.
fn piece_starts(first: &[u8], last: &[u8]) -> Vec<Vec<u8>> {
    let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let common = first.get(..common).unwrap_or(&[]);
    let pairs = ALPHABET
        .iter()
        .flat_map(|one| ALPHABET.iter().map(move |other| [common, &[*one, *other]].concat()));
    let mut starts: Vec<Vec<u8>> = pairs.collect();
    if let Some(start) = starts.first_mut() {
        *start = common.to_vec();
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Transaction;
    use crate::store::tests::{any_link, block_on, open};
    use parking_lot::Mutex;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn every_link_is_visited_once(
            links in proptest::collection::vec(any_link(), 0..60),
            prefix in "[0-9a-z]{0,16}",
            threads in 1..4_usize,
        ) {
            let links: std::collections::BTreeMap<_, _> = links
                .into_iter()
                .map(|link| {
                    let id: LinkId = format!("{prefix}{}", &link.id.as_str()[..4]).parse().unwrap();
                    (id, crate::model::ShortLink { id, ..link })
                })
                .collect();
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path());
            let stored: Vec<_> = links.values().cloned().collect();
            let put_all = move |transaction: &mut Transaction<'_>| {
                stored.into_iter().try_for_each(|link| transaction.put(None, link))
            };
            block_on(store.write(put_all)).unwrap();
            let visited = Mutex::new(Vec::new());
            let visitor = || |id, target: Result<Target<'_>, StoreError>| {
                let Target { status, expires_at, full_url } = target.unwrap();
                visited.lock().push((id, status, expires_at, full_url.to_owned()));
            };
            let count = store.snapshot().unwrap().scan(threads, visitor).unwrap();
            let mut visited = visited.into_inner();
            visited.sort();
            let expected: Vec<_> = links
                .into_iter()
                .map(|(id, link)| (id, link.status, link.expires_at, link.full_url))
                .collect();
            prop_assert_eq!(count, expected.len() as u64);
            prop_assert_eq!(visited, expected);
        }
    }
}
