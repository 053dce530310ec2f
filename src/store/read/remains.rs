//! What the indexes say of a link whose record is damaged.

use redb::ReadableTable;

use crate::model::{LinkId, PartnerId, Status};
use crate::store::error::StoreError;
use crate::store::format::keys::{self, Bytes, Index};

pub struct Remains {
    pub keys: Vec<(Index, Vec<u8>)>,
}

impl Remains {
    /// Looks at every entry of every index: for repairs only.
    pub fn of<'i, T: ReadableTable<Bytes, ()> + 'i>(
        id: LinkId,
        indexes: impl Fn(Index) -> &'i T,
    ) -> Result<Self, StoreError> {
        let mut remaining = Vec::new();
        for index in Index::ALL {
            for entry in indexes(index).iter()? {
                let (key, _) = entry?;
                if keys::id_of(index, key.value()) == Some(id) {
                    remaining.push((index, key.value().to_vec()));
                }
            }
        }
        Ok(Self { keys: remaining })
    }

    pub fn are_of(&self, partner: PartnerId) -> bool {
        let own = keys::partner_scope(partner);
        self.keys.iter().all(|(_, key)| key.starts_with(&own))
    }

    /// False only if the link was certainly not retired: it was not deleted, or had an expiry, or was changed after it
    /// was made. A retired id has one time for both, and never expires.
    pub fn may_be_retired(&self) -> bool {
        let parts = self.keys.iter().filter_map(|(index, key)| {
            let (scope, status) = keys::split_scope(*index, key)?;
            let (time, _) = keys::decode_tail(*index, scope.len(), key).ok()?;
            Some((*index, status, time))
        });
        let parts: Vec<_> = parts.collect();
        let is_deleted = parts.iter().any(|(_, status, _)| *status == Status::Deleted.number());
        let time = |of: Index| parts.iter().find(|(index, ..)| *index == of).map(|(.., time)| *time);
        match (time(Index::Created), time(Index::Updated), time(Index::Expires)) {
            // Not all of them are left, so the others may be those of an earlier state.
            (None, ..) | (_, None, _) | (.., None) => true,
            (Some(created), Some(updated), Some(expires)) => is_deleted && created == updated && expires.is_none(),
        }
    }
}
