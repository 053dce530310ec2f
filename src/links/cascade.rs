//! Deleting all links of a user.

use std::time::Duration;

use crate::links::{BULK_COMMIT_LINKS, LinkError, Links};
use crate::model::{Actor, PartnerId, ShortLink, Status, Timestamp};
use crate::store::{Health, Snapshot, StoreError, Transaction, WriteError};

/// Pause before a deletion goes on after the store failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl Links {
    /// Soft-deletes every link that a user owns and returns how many. Up to `BULK_COMMIT_LINKS` go in one commit. More
    /// take several, between other writes: the store notes the deletion first and finishes it after a crash. If a
    /// record cannot be read, nothing is deleted. In a cluster, each store deletes all in one commit, however many.
    pub async fn delete_user(&self, partner: PartnerId, user: String, by: Actor) -> Result<usize, LinkError> {
        let (now, log) = (self.clock.now(), self.audit_log(by));
        let (of_user, is_in_cluster) = (user.clone(), self.store.is_in_cluster());
        let count = move |snapshot: &Snapshot| {
            let ids = snapshot.links_of_user(partner, &of_user)?;
            if ids.len() > BULK_COMMIT_LINKS || is_in_cluster {
                // All are read before one is changed, so that a damaged record leaves the others as they were.
                ids.iter().try_for_each(|id| snapshot.get(*id).map(drop))?;
            }
            Ok(ids.len())
        };
        let counted = self.store.read(count).await.map_err(|error| match error {
            error if error.is_of_the_file() => LinkError::Write(WriteError::Unavailable),
            error => error.into(),
        });
        let counted = counted?;
        if is_in_cluster {
            if counted == 0 {
                return Ok(0);
            }
            let note = log.note_deleted_user_ahead(now, partner, &user);
            let deleted = self.store.delete_links_of_user(partner, &user, now, note.as_ref());
            return Ok(deleted.await?);
        }
        if counted > BULK_COMMIT_LINKS {
            if self.is_ending() {
                return Err(WriteError::Unavailable.into());
            }
            let of_user = user.clone();
            let begin = move |transaction: &mut Transaction<'_>| {
                transaction.begin_deletion(partner, &of_user, now)?;
                // Now, because the rest may be left to the next start.
                log.note_deleted_user(transaction, now, partner, &of_user, counted)
            };
            self.store.write(begin).await?;
            return Ok(self.go_on_deleting(partner, &user, now).await?);
        }
        let job = move |transaction: &mut Transaction<'_>| {
            // All are read before one is changed, so that a damaged record leaves the others as they were.
            for id in transaction.links_of_user(partner, &user, Some(now), usize::MAX)? {
                transaction.get(id)?;
            }
            let deleted = delete_some(transaction, partner, &user, now, usize::MAX)?.deleted;
            log.note_deleted_user(transaction, now, partner, &user, deleted)?;
            Ok(deleted)
        };
        Ok(self.store.write(job).await?)
    }

    /// Finishes deletions that a crash interrupted. One that fails is left for the next start.
    pub async fn finish_deletions(&self) -> Result<(), StoreError> {
        if !self.store.takes_writes() || self.store.is_in_cluster() {
            return Ok(());
        }
        for (partner, user, at) in self.store.read(Snapshot::deletions).await? {
            self.wait_until_accepting().await;
            match self.delete_rest(partner, &user, at, &mut 0).await {
                Ok(()) => tracing::info!(%partner, "finished deleting a user, which a crash had interrupted"),
                Err(error) => tracing::error!(%partner, %error, "cannot finish deleting a user before the next start"),
            }
        }
        Ok(())
    }

    /// Waits for a store that was opened on a disk that takes no writes.
    async fn wait_until_accepting(&self) {
        while matches!(self.health(), Health::Refusing(_)) && !self.is_ending() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Deletes the rest of a user's links, through failures of the store, and returns how many.
    async fn go_on_deleting(&self, partner: PartnerId, user: &str, at: Timestamp) -> Result<usize, WriteError> {
        let mut links = 0;
        loop {
            match self.delete_rest(partner, user, at, &mut links).await {
                Ok(()) => return Ok(links),
                Err(error) if self.is_ending() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "deletion of a user interrupted; retrying");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Deletes the rest of a user's links, then the note of the deletion.
    async fn delete_rest(
        &self,
        partner: PartnerId,
        user: &str,
        at: Timestamp,
        links: &mut usize,
    ) -> Result<(), WriteError> {
        let mut passed_over = 0;
        loop {
            if self.is_ending() {
                return Err(WriteError::Unavailable);
            }
            let of_user = user.to_owned();
            let job = move |transaction: &mut Transaction<'_>| {
                let part = delete_some(transaction, partner, &of_user, at, passed_over + BULK_COMMIT_LINKS)?;
                if part.seen < passed_over + BULK_COMMIT_LINKS {
                    transaction.end_deletion(partner, &of_user)?;
                }
                Ok(part)
            };
            let Part { deleted, seen } = self.store.write(job).await?;
            *links += deleted;
            if seen < passed_over + BULK_COMMIT_LINKS {
                return Ok(());
            }
            // Unreadable links stay, before those that come next.
            passed_over = seen - deleted;
        }
    }
}

struct Part {
    deleted: usize,
    seen: usize,
}

/// Deletes at most `most` links of a user made up to `at`. Passes over damaged records.
fn delete_some(
    transaction: &mut Transaction<'_>,
    partner: PartnerId,
    user: &str,
    at: Timestamp,
    most: usize,
) -> Result<Part, StoreError> {
    let ids = transaction.links_of_user(partner, user, Some(at), most)?;
    let seen = ids.len();
    let mut owned = Vec::new();
    for id in ids {
        match transaction.get(id) {
            Ok(link) => owned.extend(link),
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(%error, "cannot delete a link of a deleted user")
            }
            Err(error) => return Err(error),
        }
    }
    for old in &owned {
        let new = ShortLink {
            status: Status::Deleted,
            updated_at: at,
            ..old.clone()
        };
        transaction.put(Some(old), new)?;
    }
    Ok(Part {
        deleted: owned.len(),
        seen,
    })
}
