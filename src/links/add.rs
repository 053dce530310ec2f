//! Adding links.

use crate::kaltura::session::Kind;
use crate::links::{LinkError, Links, OnceSeed, Verdict, policy};
use crate::model::{Actor, AuditAction, Destination, PartnerId, ShortLink, Status, Timestamp, validate};
use crate::store::{StoreError, Transaction};

/// A link to add, which gets its id and times then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Who adds it: administrators have no limit of links per day.
    pub added_by: Kind,
    pub partner_id: PartnerId,
    pub user_id: Option<String>,
    pub name: Option<String>,
    pub system_name: String,
    pub full_url: Destination,
    pub unique_id: Option<String>,
    pub status: Status,
    pub starts_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

impl Links {
    pub async fn add(&self, draft: Draft, by: Actor) -> Result<ShortLink, LinkError> {
        self.add_or_find(draft, None, by).await
    }

    /// Adds a link, once however often this is called with this seed: later calls find the link that the first has
    /// added, as long as it is what it was.
    pub async fn add_once(&self, draft: Draft, seed: OnceSeed, by: Actor) -> Result<ShortLink, LinkError> {
        self.add_or_find(draft, Some(seed), by).await
    }

    async fn add_or_find(&self, draft: Draft, seed: Option<OnceSeed>, by: Actor) -> Result<ShortLink, LinkError> {
        let log = self.audit_log(by);
        validate::validity(draft.starts_at, draft.expires_at)?;
        let policy = self.policy(draft.partner_id);
        policy.check_destination(draft.full_url.as_str())?;
        let (clock, ids) = (self.clock.clone(), self.ids.clone());
        let seeded = seed.and_then(|seed| ids.of_seed(seed));
        let is_limited = draft.added_by == Kind::User;
        let is_new = seeded.is_none_or(|id| self.index.look_up(id, self.clock.now()) == Verdict::Unknown);
        if is_limited && is_new {
            let user = draft.user_id.as_deref();
            self.check_today(&policy, draft.partner_id, user).await?;
        }
        let job = move |transaction: &mut Transaction<'_>| {
            let now = clock.now();
            if let Some(id) = seeded
                && let Some(link) = transaction.get(id)?
                && draft.is_of(&link)
            {
                return Ok(Ok(link));
            }
            let count = |user: &str, today, most| transaction.count_links_of_user(draft.partner_id, user, today, most);
            if is_limited && let Some(refusal) = policy::refused_today(&policy, draft.user_id.as_deref(), now, count)? {
                return Ok(Err(refusal));
            }
            if let Some(taken) =
                taken_unique_id(transaction, draft.partner_id, draft.unique_id.as_deref(), draft.status)?
            {
                return Ok(Err(taken));
            }
            let link = ShortLink {
                id: ids.draw_or(transaction, seeded)?,
                created_at: now,
                updated_at: now,
                starts_at: draft.starts_at,
                expires_at: draft.expires_at,
                partner_id: draft.partner_id,
                user_id: draft.user_id,
                name: draft.name,
                system_name: draft.system_name,
                full_url: draft.full_url.into_string(),
                unique_id: draft.unique_id,
                status: draft.status,
            };
            transaction.put(None, link.clone())?;
            log.note(transaction, AuditAction::Add, now, |entry| entry.of_link(None, &link))?;
            Ok(Ok(link))
        };
        self.store.write(job).await?
    }
}

impl Draft {
    /// Whether a link is what this one becomes. An end counted from now is another one a second later.
    fn is_of(&self, link: &ShortLink) -> bool {
        link.status != Status::Deleted
            && link.partner_id == self.partner_id
            && link.user_id == self.user_id
            && link.name == self.name
            && link.system_name == self.system_name
            && link.full_url == self.full_url.as_str()
            && link.unique_id == self.unique_id
    }
}

fn taken_unique_id(
    transaction: &Transaction<'_>,
    partner: PartnerId,
    unique_id: Option<&str>,
    status: Status,
) -> Result<Option<LinkError>, StoreError> {
    match unique_id {
        Some(unique_id) if status != Status::Deleted => Ok(transaction
            .holder_of_unique_id(partner, unique_id)?
            .map(|_| LinkError::UniqueIdTaken(unique_id.to_owned()))),
        _ => Ok(None),
    }
}
