//! Revoked sessions.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::model::{Digest, Timestamp};

/// A copy of the store's revocations: digests of sessions and of session ids.
#[derive(Debug, Default)]
pub struct Sessions {
    revoked: RwLock<HashMap<Digest, Timestamp>>,
}

impl Sessions {
    pub fn is_revoked(&self, digest: &Digest) -> bool {
        self.revoked.read().contains_key(digest)
    }

    pub(super) fn publish_revocation(&self, digest: Digest, until: Timestamp) {
        self.revoked.write().insert(digest, until);
    }

    pub(super) fn replace_revocations(&self, revocations: Vec<(Digest, Timestamp)>) {
        *self.revoked.write() = revocations.into_iter().collect();
    }

    pub(super) fn drop_expired(&self, now: Timestamp) {
        self.revoked.write().retain(|_, until| *until > now);
    }
}
