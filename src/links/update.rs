//! Changing a link.

use crate::links::{LinkError, Links, Scope, UpdateError};
use crate::model::{Actor, LinkId, ShortLink, validate};
use crate::store::{StoreError, Transaction};

impl Links {
    /// Replaces a link by what `edit` makes of it; an equal link is not written. `edit` must not change the id, the
    /// partner, the unique id or the times.
    pub async fn update<E, F>(&self, id: LinkId, scope: Scope, by: Actor, edit: F) -> Result<ShortLink, UpdateError<E>>
    where
        E: Send + 'static,
        F: FnOnce(&ShortLink) -> Result<ShortLink, E> + Clone + Send + 'static,
    {
        let (clock, log, policy) = (self.clock.clone(), self.audit_log(by), self.policy(scope.partner));
        let job = move |transaction: &mut Transaction<'_>| {
            let old = match visible(transaction, id, &scope)? {
                Ok(old) => old,
                Err(error) => return Ok(Err(UpdateError::Link(error))),
            };
            let new = match edit(&old) {
                Ok(new) if new == old => return Ok(Ok(old)),
                Ok(new) => ShortLink {
                    updated_at: clock.now(),
                    ..new
                },
                Err(refusal) => return Ok(Err(UpdateError::Refused(refusal))),
            };
            // A client may not see the start, and end a link before it: such a link never works.
            if new.starts_at != old.starts_at
                && let Err(why) = validate::validity(new.starts_at, new.expires_at)
            {
                return Ok(Err(UpdateError::Link(why.into())));
            }
            // A destination stays what it is, also if the policy has changed.
            if new.full_url != old.full_url
                && let Err(why) = policy.check_destination(&new.full_url)
            {
                return Ok(Err(UpdateError::Link(why.into())));
            }
            transaction.put(Some(&old), new.clone())?;
            log.note_link(transaction, &old, &new)?;
            Ok(Ok(new))
        };
        let written = self.store.write(job).await;
        written.map_err(|error| UpdateError::Link(error.into()))?
    }
}

/// A link that may be changed, else why not.
pub(super) fn visible(
    transaction: &Transaction<'_>,
    id: LinkId,
    scope: &Scope,
) -> Result<Result<ShortLink, LinkError>, StoreError> {
    Ok(match transaction.get(id)? {
        Some(link) if scope.shows(&link) => Ok(link),
        Some(link) if scope.covers(&link) && link.is_retired() => Err(LinkError::Retired),
        _ => Err(LinkError::NotFound),
    })
}
