//! Reading every link in several threads at once: how the map is loaded.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use redb::ReadableTable as _;

use crate::model::{LinkId, LinkRef, shown};
use crate::store::error::{StoreError, unless_corrupt};
use crate::store::format::keys::{self, Index};
use crate::store::format::record;
use crate::store::read::limit::{Meter, ReadLimit};
use crate::store::read::snapshot::{Snapshot, id_of};

/// The characters of ids, in their order.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What reading a record costs here, where one comes after the other, in steps through an index.
pub const RECORD_STEPS: u64 = 3;

pub trait Visitor: Send {
    /// A link, or why it cannot be read.
    fn visit(&mut self, id: LinkId, link: Result<LinkRef<'_>, StoreError>);
}

/// What a scan has come to.
#[derive(Debug)]
pub struct Scanned<V> {
    /// The visitors that have seen the links.
    pub visitors: Vec<V>,
    /// Pieces of the table that could not be read, or not to their end, because a page is damaged.
    pub unread: u64,
}

impl Snapshot {
    /// Reads every link of the store in several threads, each with a visitor of its own, and returns the visitors. A
    /// thread takes one piece of the table after the other, each in the order of the ids. A damaged page costs the
    /// links of its piece.
    pub fn scan<V: Visitor>(
        &self,
        threads: usize,
        limit: &ReadLimit,
        make_visitor: impl Fn() -> V + Sync,
    ) -> Result<Scanned<V>, StoreError> {
        let ends = unless_corrupt(|| Ok(self.links.first()?.zip(self.links.last()?)))?;
        let starts = match &ends {
            Some(Some((first, last))) => piece_starts(first.0.value(), last.0.value()),
            Some(None) => Vec::new(),
            None => piece_starts(b"0", b"z"),
        };
        let next = AtomicUsize::new(0);
        let unread = AtomicU64::new(0);
        let work = || {
            let (mut visitor, meter) = (make_visitor(), Meter::new(limit));
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                let Some(start) = starts.get(piece) else {
                    return Ok::<_, StoreError>(visitor);
                };
                if unless_corrupt(|| self.scan_piece(start, starts.get(piece + 1), &mut visitor, &meter))?.is_none() {
                    unread.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut visitors = vec![work()?];
            for other in others {
                visitors.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(Scanned {
                visitors,
                unread: unread.load(Ordering::Relaxed),
            })
        })
    }

    /// Calls `visit` with every id that the partners' indexes know. False if not all of them can be read.
    pub fn for_each_indexed(&self, mut visit: impl FnMut(LinkId)) -> Result<bool, StoreError> {
        let mut all = true;
        let walked = unless_corrupt(|| {
            for entry in self.index(Index::Created).iter()? {
                match keys::id_of(Index::Created, entry?.0.value()) {
                    Some(id) => visit(id),
                    None => all = false,
                }
            }
            Ok(())
        })?;
        Ok(all && walked.is_some())
    }

    fn scan_piece(
        &self,
        start: &[u8],
        end: Option<&Vec<u8>>,
        visitor: &mut impl Visitor,
        meter: &Meter<'_>,
    ) -> Result<(), StoreError> {
        let entries = match end {
            Some(end) => self.links.range(start..end.as_slice())?,
            None => self.links.range(start..)?,
        };
        for entry in entries {
            meter.step(RECORD_STEPS)?;
            let (id, bytes) = entry?;
            match id_of(id.value()) {
                Ok(id) => visitor.visit(id, record::read(id, bytes.value())),
                // The link cannot be identified.
                Err(error) => {
                    tracing::error!(%error, "a link has a damaged id: run {} verify on a copy", shown::command())
                }
            }
        }
        Ok(())
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
    use crate::model::ShortLink;
    use crate::store::Transaction;
    use crate::store::tests::{any_link, block_on, open};
    use proptest::prelude::*;

    impl Visitor for Vec<ShortLink> {
        fn visit(&mut self, id: LinkId, link: Result<LinkRef<'_>, StoreError>) {
            let link = link.unwrap();
            assert_eq!(link.id, id);
            self.push(link.into());
        }
    }

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
                    (id, ShortLink { id, ..link })
                })
                .collect();
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path());
            let stored: Vec<_> = links.values().cloned().collect();
            let put_all = move |transaction: &mut Transaction<'_>| {
                stored.into_iter().try_for_each(|link| transaction.put(None, link))
            };
            block_on(store.write(put_all)).unwrap();
            let visitors = store.snapshot().unwrap().scan(threads, &ReadLimit::default(), Vec::<ShortLink>::new)
                .unwrap();
            prop_assert_eq!(visitors.unread, 0);
            let mut visited = visitors.visitors.concat();
            visited.sort_by_key(|link| link.id);
            let expected: Vec<_> = links.into_values().collect();
            prop_assert_eq!(visited, expected);
        }
    }
}
