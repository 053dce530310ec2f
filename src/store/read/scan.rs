//! Reading every link in several threads at once: how the map is loaded.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use redb::{AccessGuard, ReadableTable as _};

use crate::model::{LinkId, LinkRef, shown};
use crate::store::error::{StoreError, unless_corrupt};
use crate::store::format::keys::{self, Bytes, Index};
use crate::store::format::record;
use crate::store::read::limit::{Meter, ReadLimit};
use crate::store::read::snapshot::{Snapshot, id_of};

/// The characters of ids, in their order.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What reading a record costs here, where one comes after the other, in steps through an index.
pub const RECORD_STEPS: u64 = 3;

type Entry<'e> = Result<(AccessGuard<'e, Bytes>, AccessGuard<'e, Bytes>), redb::StorageError>;

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
                let end = starts.get(piece + 1).map(Vec::as_slice);
                let visit = || visit_piece(self.piece(start, end)?, start, end, &mut visitor, &meter);
                if unless_corrupt(visit)? != Some(true) {
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

    fn piece(&self, start: &[u8], end: Option<&[u8]>) -> Result<redb::Range<'static, Bytes, Bytes>, StoreError> {
        Ok(match end {
            Some(end) => self.links.range(start..end)?,
            None => self.links.range(start..)?,
        })
    }
}

/// False if not all of a piece can be read. Ends at an id that is not in its place: a damaged pointer leads to a page
/// of other links, which may be as many as those that it hides.
fn visit_piece<'e>(
    entries: impl Iterator<Item = Entry<'e>>,
    start: &[u8],
    end: Option<&[u8]>,
    visitor: &mut impl Visitor,
    meter: &Meter<'_>,
) -> Result<bool, StoreError> {
    let (mut all, mut last) = (true, None);
    for entry in entries {
        meter.step(RECORD_STEPS)?;
        let (id, bytes) = entry?;
        let id = match id_of(id.value()) {
            Ok(id) => id,
            // The link cannot be identified.
            Err(error) => {
                tracing::error!(%error, "a link has a damaged id: run {} verify on a copy", shown::command());
                all = false;
                continue;
            }
        };
        let is_within = start <= id.as_bytes() && end.is_none_or(|end| id.as_bytes() < end);
        if !is_within || last.is_some_and(|last| id <= last) {
            return Ok(false);
        }
        last = Some(id);
        visitor.visit(id, record::read(id, bytes.value()));
    }
    Ok(all)
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
    use crate::store::format::tables::LINKS;
    use crate::store::tests::copies::{tamper, with_something_of_everything};
    use crate::store::tests::{any_link, block_on, golden_link, open, put};
    use proptest::prelude::*;

    impl Visitor for Vec<ShortLink> {
        fn visit(&mut self, id: LinkId, link: Result<LinkRef<'_>, StoreError>) {
            let link = link.unwrap();
            assert_eq!(link.id, id);
            self.push(link.into());
        }
    }

    /// Ranges of ids, one after the other, as pages follow each other.
    #[test]
    fn pages_of_other_links_end_a_piece() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        for id in ["aazz", "ab00", "ab01", "ab02", "ab03", "ac00"] {
            let link = ShortLink {
                id: id.parse().unwrap(),
                unique_id: None,
                ..golden_link()
            };
            block_on(put(&store, link));
        }
        let (snapshot, limit) = (store.snapshot().unwrap(), ReadLimit::default());
        for (pages, expected, is_whole) in [
            (["ab00 ab02", "ab02 ac00"], "ab00 ab01 ab02 ab03", true),
            (["ab00 ab02", "ab03 ac00"], "ab00 ab01 ab03", true),
            (["ab00 ab02", "ab00 ab02"], "ab00 ab01", false),
            (["ab02 ac00", "ab00 ab02"], "ab02 ab03", false),
            (["ab00 ab02", "ac00 az00"], "ab00 ab01", false),
            (["aazz ab00", "ab02 ac00"], "", false),
        ] {
            let pages = pages.iter().flat_map(|page| {
                let (start, end) = page.split_once(' ').unwrap();
                snapshot.piece(start.as_bytes(), Some(end.as_bytes())).unwrap()
            });
            let mut visited = Vec::<ShortLink>::new();
            let found = visit_piece(pages, b"ab", Some(b"ac"), &mut visited, &Meter::new(&limit)).unwrap();
            let ids: Vec<_> = visited.iter().map(|link| link.id.to_string()).collect();
            assert_eq!((ids.join(" ").as_str(), found), (expected, is_whole));
        }
    }

    #[test]
    fn piece_with_a_damaged_id_is_not_whole() {
        let folder = with_something_of_everything();
        tamper(&folder, |transaction| {
            let record = record::encode(&golden_link()).unwrap();
            let mut table = transaction.open_table(LINKS).unwrap();
            table.insert(b"No id".as_slice(), record.as_slice()).unwrap();
        });
        let store = open(folder.path());
        let found = store
            .snapshot()
            .unwrap()
            .scan(1, &ReadLimit::default(), Vec::<ShortLink>::new)
            .unwrap();
        assert_eq!((found.visitors.concat(), found.unread), (vec![golden_link()], 1));
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
