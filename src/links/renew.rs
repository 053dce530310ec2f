//! A new id for a link: what leaked is revoked, and the rest stays.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::links::update::visible;
use crate::links::{LinkError, Links, OnceSeed, Scope, Verdict, policy};
use crate::model::{Actor, AuditAction, LinkId, ShortLink, Status, Timestamp};
use crate::store::{Transaction, WriteError};

impl Links {
    /// Moves a link to a new id, with all its fields and what was counted. The old id is retired: it stays deleted for
    /// ever, and is never drawn again. Clicks of the moment of the move may stay with the old id.
    pub async fn renew_id(&self, id: LinkId, scope: Scope, by: Actor) -> Result<ShortLink, LinkError> {
        self.renew_or_find(id, None, scope, by).await
    }

    /// The same, once however often this is called with this seed: later calls find what the first has made.
    pub async fn renew_id_once(
        &self,
        id: LinkId,
        seed: OnceSeed,
        scope: Scope,
        by: Actor,
    ) -> Result<ShortLink, LinkError> {
        self.renew_or_find(id, Some(seed), scope, by).await
    }

    async fn renew_or_find(
        &self,
        id: LinkId,
        seed: Option<OnceSeed>,
        scope: Scope,
        by: Actor,
    ) -> Result<ShortLink, LinkError> {
        let (clock, ids, log) = (self.clock.clone(), self.ids.clone(), self.audit_log(by));
        let policy = self.policy(scope.partner);
        // Nothing is flushed for an id that is none.
        if self.index.look_up(id, self.clock.now()) == Verdict::Unknown {
            return Err(LinkError::NotFound);
        }
        let seeded = seed.and_then(|seed| ids.of_seed(seed));
        if let Some(user) = &scope.owner {
            self.check_today(&policy, scope.partner, Some(user)).await?;
        }
        let drawn = Arc::new(Mutex::new(None));
        let tried = Arc::clone(&drawn);
        let job = move |transaction: &mut Transaction<'_>| {
            let old = match visible(transaction, id, &scope)? {
                Ok(old) => old,
                Err(error) => {
                    let is_retired = matches!(error, LinkError::Retired);
                    let made = seeded
                        .filter(|_| is_retired)
                        .map(|made| transaction.get(made))
                        .transpose()?;
                    let made = made.flatten().filter(|link| scope.shows(link));
                    return Ok(made.map(|link| (link, 0)).ok_or(error));
                }
            };
            let now = clock.now();
            // An administrator's scope has no owner. The old record counts as one of today's.
            if let Some(user) = &scope.owner
                && let Some(refusal) = policy::refused_today(&policy, Some(user), now, |user, today, most| {
                    transaction.count_links_of_user(scope.partner, user, today, most)
                })?
            {
                return Ok(Err(refusal));
            }
            let drawn = ids.draw_or(transaction, seeded)?;
            *tried.lock() = Some(drawn);
            let new = ShortLink {
                id: drawn,
                updated_at: now,
                ..old.clone()
            };
            // First, so that the unique id is free for the new one.
            transaction.put(Some(&old), retired(&old, now))?;
            transaction.put(None, new.clone())?;
            transaction.move_usage(id, new.id)?;
            // One for each id, so that the log of either tells of it.
            for of in [id, new.id] {
                log.note(transaction, AuditAction::RenewId, now, |mut entry| {
                    (entry.partner, entry.id) = (Some(new.partner_id), Some(of));
                    entry.note("id", Some(id.to_string()), Some(new.id.to_string()));
                    entry
                })?;
            }
            let clicks = transaction.usage(new.id)?.clicks;
            Ok(Ok((new, clicks)))
        };
        // Of a flush that is under way, nobody could tell afterwards whether it was written.
        let flushed = self.hold_flushed_clicks().await;
        // Nothing of the renewal has been tried yet.
        let _flushed = flushed.map_err(|_| WriteError::Unavailable)?;
        let (new, clicks) = self.store.write(job).await.map_err(|error| match *drawn.lock() {
            // Nothing else would tell who has the old id alone.
            Some(new) if error == WriteError::OutcomeUnknown => LinkError::RenewalUnknown(new),
            _ => error.into(),
        })??;
        if clicks > 0 {
            self.search.note_used(vec![(new.id, clicks)]);
        }
        Ok(new)
    }
}

/// What stays at the id that a link had.
pub(super) fn retired(link: &ShortLink, now: Timestamp) -> ShortLink {
    ShortLink {
        status: Status::Deleted,
        // So that it counts once, today, among the links of a user.
        created_at: now,
        starts_at: Some(Timestamp::NEVER),
        expires_at: None,
        updated_at: now,
        ..link.clone()
    }
}
