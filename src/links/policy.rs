//! What partners allow: the hosts of destinations, and how many links a user adds in a day.

use std::sync::Arc;

use tokio::sync::watch;

use crate::kaltura::session::Partners;
use crate::links::{LinkError, Links};
use crate::model::{Destination, ForbiddenHost, LinkPolicy, PartnerId, Timestamp};
use crate::store::{Snapshot, StoreError};

impl Links {
    /// From now on, new links and new destinations obey what these partners allow. The first call counts.
    pub fn follow(&self, partners: watch::Receiver<Arc<Partners>>) {
        let _ = self.partners.set(partners);
    }

    /// Whether the partner allows a new destination. To show a person what is wrong: `add` and `update` check it too.
    pub fn check_destination(&self, partner: PartnerId, destination: &Destination) -> Result<(), ForbiddenHost> {
        self.policy(partner).check_destination(destination.as_str())
    }

    pub(super) fn policy(&self, partner: PartnerId) -> LinkPolicy {
        let partners = self.partners.get().map(|partners| Arc::clone(&partners.borrow()));
        let policy = partners.and_then(|partners| Some(partners.get(partner)?.policy.clone()));
        policy.unwrap_or_default()
    }

    /// As [`refused_today`], before the writer is taken: a flood of refused adds delays no other write.
    pub(super) async fn check_today(
        &self,
        policy: &LinkPolicy,
        partner: PartnerId,
        user: Option<&str>,
    ) -> Result<(), LinkError> {
        if policy.links_per_user_and_day == 0 {
            return Ok(());
        }
        let (policy, user, now) = (policy.clone(), user.map(str::to_owned), self.clock.now());
        let read = move |snapshot: &Snapshot| {
            refused_today(&policy, user.as_deref(), now, |user, today, most| {
                snapshot.count_links_of_user(partner, user, today, most)
            })
        };
        match self.store.read(read).await {
            Ok(Some(refusal)) => Err(refusal),
            // The writer decides, or says why it cannot.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// Why a user may add no link now. The links of the day are also counted in the transaction that adds the next one, so
/// that neither concurrent adds nor a restart allow more.
pub(super) fn refused_today(
    policy: &LinkPolicy,
    user: Option<&str>,
    now: Timestamp,
    count: impl FnOnce(&str, (Timestamp, Timestamp), usize) -> Result<usize, StoreError>,
) -> Result<Option<LinkError>, StoreError> {
    let limit = policy.links_per_user_and_day;
    if limit == 0 {
        return Ok(None);
    }
    // Links without an owner are in no count.
    let Some(user) = user.filter(|user| !user.is_empty()) else {
        return Ok(Some(LinkError::NoUser));
    };
    let today = (now.day().start(), now.day().end());
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let added = count(user, today, most)?;
    Ok((added >= most).then(|| LinkError::TooManyToday {
        user: user.to_owned(),
        limit,
    }))
}
