//! What keeps the map and the sessions in memory equal to the store.

use std::collections::HashSet;
use std::sync::Arc;

use crate::links::search::SearchIndex;
use crate::links::{LinkMap, Sessions};
use crate::model::Destination;
use crate::store::{Change, CommitObserver, Snapshot, StoreError};

#[derive(Debug, Clone, Default)]
pub struct Publisher {
    pub index: Arc<LinkMap>,
    pub search: Arc<SearchIndex>,
    pub sessions: Arc<Sessions>,
}

impl CommitObserver for Publisher {
    fn committed(&self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Link(link) => {
                    self.index.publish(&(&*link).into());
                    self.search.note(&link);
                }
                Change::Revoked(digest, until) => self.sessions.publish_revocation(digest, until),
                Change::RevocationsDropped(now) => self.sessions.drop_expired(now),
            }
        }
    }

    fn catch_up(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.search.clear();
        let was_loaded = self.index.is_loaded();
        let (mut differing, mut damaged) = (0_u64, HashSet::new());
        let links = snapshot.for_each(|id, record| match record {
            Ok(link) if !Destination::was_ever_accepted(&link.full_url) => {
                tracing::error!(error = %StoreError::never_accepted(id), "cannot read a link");
                damaged.insert(id);
            }
            Ok(link) => differing += u64::from(self.index.publish(&(&link).into())),
            Err(error) => {
                tracing::error!(%error, "cannot read a link");
                damaged.insert(id);
            }
        })?;
        // The map has only committed links, so more than the store has means that the disk lost some.
        if self.index.links() as u64 > links - damaged.len() as u64 {
            let mut gone = HashSet::new();
            for id in self.index.ids() {
                if !damaged.contains(&id) && snapshot.get(id)?.is_none() {
                    gone.insert(id);
                }
            }
            // Links that an index still has are damaged, and right in the map.
            let is_all_known = snapshot.for_each_indexed(|id| _ = gone.remove(&id))?;
            for id in gone.into_iter().filter(|_| is_all_known) {
                self.index.remove(id);
                differing += 1;
            }
        }
        self.index.set_loaded(damaged);
        self.sessions.replace_revocations(snapshot.revocations()?);
        if was_loaded {
            tracing::info!(links, corrected = differing, "map compared with the store");
        }
        Ok(())
    }
}
