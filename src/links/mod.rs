//! The domain: what happens to links and sessions, written through from the store to the map.
//!
//! Owns the sharded index from which redirects are answered, and decides inside write transactions who may change what.
//! Alone names parking_lot. Knows no parameters, no formats and no HTTP beyond the value of a `Location` header.

mod index;
mod sessions;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

pub use index::{Index, Verdict};
pub use sessions::{Sessions, StartThrottle};

use crate::ks::{Digest, InvalidKs, SESSION_MAX_SECONDS, Session};
use crate::model::{Clock, Destination, ID_MAX_BYTES, LinkId, PartnerId, ShortLink, Status, Timestamp};
use crate::store::{
    Change, CommitObserver, Health, Listing, OpenError, Query, Store, StoreError, Transaction, WriteError,
};

/// The alphabet of ids (contract, section 5).
const ID_ALPHABET: [char; 36] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm',
    'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z',
];

/// Draws of one length that may all be taken before a longer id is drawn: only a crowded id space gets there.
const ID_DRAWS_MAX: usize = 32;

/// Why a request about links was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no such link, or it is deleted, or the asker may not know of it.
    #[error("no such link")]
    NotFound,
    /// Another link of the partner that is not deleted has this unique id.
    #[error("unique id {0:?} is taken")]
    UniqueIdTaken(String),
    /// The write was not acknowledged.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] StoreError),
}

/// Whose links a request may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The partner.
    pub partner: PartnerId,
    /// `Some`: only the links that this user owns. `None`: all of the partner's.
    pub owner: Option<String>,
}

impl Scope {
    fn covers(&self, link: &ShortLink) -> bool {
        link.partner_id == self.partner && (self.owner.is_none() || self.owner == link.user_id)
    }
}

/// A link that is to be made; the id and the times are chosen when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The tenant to whom it will belong.
    pub partner_id: PartnerId,
    /// The user who will own it.
    pub user_id: Option<String>,
    /// A name for people.
    pub name: Option<String>,
    /// A name for programs.
    pub system_name: String,
    /// Where it leads.
    pub full_url: Destination,
    /// A key chosen by the client.
    pub unique_id: Option<String>,
    /// Whether it redirects.
    pub status: Status,
    /// The last second in which it redirects.
    pub expires_at: Option<Timestamp>,
}

/// The links and sessions of the appliance. Dropping them waits until what is queued has been written.
#[derive(Debug)]
pub struct Links {
    store: Store,
    index: Arc<Index>,
    sessions: Arc<Sessions>,
    clock: Clock,
    id_length: usize,
}

/// Publishes what the store has committed.
struct Publisher {
    index: Arc<Index>,
    sessions: Arc<Sessions>,
}

impl CommitObserver for Publisher {
    fn committed(&self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Link(link) => self.index.publish(&link),
                Change::Revoked(digest, until) => self.sessions.publish_revocation(digest, until),
                Change::RevocationsDropped(now) => self.sessions.drop_expired(now),
            }
        }
    }
}

impl Links {
    /// Opens the store in a data folder. The index is empty until [`Links::load`] has been called. New ids have
    /// `id_length` characters, 4 to 20.
    ///
    /// # Errors
    /// When the store cannot be opened or read.
    pub fn open(folder: &Path, clock: Clock, id_length: usize) -> Result<Self, OpenError> {
        let index = Arc::new(Index::default());
        let sessions = Arc::new(Sessions::default());
        let publisher = Publisher {
            index: Arc::clone(&index),
            sessions: Arc::clone(&sessions),
        };
        let store = Store::open(folder, Arc::new(publisher))?;
        for (digest, until) in store.revocations()? {
            sessions.publish_revocation(digest, until);
        }
        Ok(Self {
            store,
            index,
            sessions,
            clock,
            id_length,
        })
    }

    /// Brings every link from the store into the index, and returns how many there are. Writes may go on meanwhile:
    /// what they publish is newer than what is loaded, and stays. A link whose record is damaged is logged and answers
    /// as such; it does not keep the others from being served.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn load(&self) -> Result<u64, StoreError> {
        let mut damaged = HashSet::new();
        let links = self.store.for_each(|id, record| match record {
            Ok(link) => self.index.load(&link),
            Err(error) => {
                tracing::error!(%error, "a link cannot be served: restore it from a backup");
                damaged.insert(id);
            }
        })?;
        self.index.set_loaded(damaged);
        Ok(links)
    }

    /// The map from which redirects are answered.
    #[must_use]
    pub const fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Whether writes are accepted.
    #[must_use]
    pub fn health(&self) -> Health {
        self.store.health()
    }

    /// How many links are disabled, enabled and deleted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn totals(&self) -> Result<[u64; Status::ALL.len()], StoreError> {
        self.store.totals()
    }

    /// The clock by which links are dated.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Makes a link.
    ///
    /// # Errors
    /// [`LinkError::UniqueIdTaken`], or the write was not acknowledged.
    pub async fn add(&self, draft: Draft) -> Result<ShortLink, LinkError> {
        let (clock, id_length) = (self.clock.clone(), self.id_length);
        let job = move |transaction: &mut Transaction<'_>| {
            if let Some(taken) =
                taken_unique_id(transaction, draft.partner_id, draft.unique_id.as_deref(), draft.status)?
            {
                return Ok(Err(taken));
            }
            let now = clock.now();
            let link = ShortLink {
                id: draw_id(transaction, id_length)?,
                created_at: now,
                updated_at: now,
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
            Ok(Ok(link))
        };
        self.store.write(job).await?
    }

    /// The link with this id, unless it is deleted or outside the scope.
    ///
    /// # Errors
    /// [`LinkError::NotFound`], or the store cannot be read.
    pub async fn get(&self, id: LinkId, scope: &Scope) -> Result<ShortLink, LinkError> {
        let link = self.store.read(move |snapshot| snapshot.get(id)).await?;
        link.filter(|link| scope.covers(link) && link.status != Status::Deleted)
            .ok_or(LinkError::NotFound)
    }

    /// The links that a query asks for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, query: Query) -> Result<Listing, LinkError> {
        Ok(self.store.read(move |snapshot| snapshot.list(&query)).await?)
    }

    /// Puts in a link's place what `edit` makes of it; when that is no different, nothing is written. `edit` may
    /// change neither the id, the partner, the unique id nor the times of creation and change.
    ///
    /// # Errors
    /// [`LinkError::NotFound`] for a link that is deleted or outside the scope; inside `Ok`, what `edit` refused with.
    pub async fn update<E, F>(&self, id: LinkId, scope: Scope, edit: F) -> Result<Result<ShortLink, E>, LinkError>
    where
        E: Send + 'static,
        F: FnOnce(&ShortLink) -> Result<ShortLink, E> + Send + 'static,
    {
        let clock = self.clock.clone();
        let job = move |transaction: &mut Transaction<'_>| {
            let Some(old) = visible(transaction, id, &scope)? else {
                return Ok(Err(LinkError::NotFound));
            };
            let new = match edit(&old) {
                Ok(new) if new == old => return Ok(Ok(Ok(old))),
                Ok(new) => ShortLink {
                    updated_at: clock.now(),
                    ..new
                },
                Err(refusal) => return Ok(Ok(Err(refusal))),
            };
            transaction.put(Some(&old), new.clone())?;
            Ok(Ok(Ok(new)))
        };
        self.store.write(job).await?
    }

    /// Soft-deletes a link.
    ///
    /// # Errors
    /// [`LinkError::NotFound`], or the write was not acknowledged.
    pub async fn delete(&self, id: LinkId, scope: Scope) -> Result<ShortLink, LinkError> {
        let edit = |old: &ShortLink| {
            Ok::<_, LinkError>(ShortLink {
                status: Status::Deleted,
                ..old.clone()
            })
        };
        self.update(id, scope, edit).await?
    }

    /// Makes a deleted link of the partner redirect again.
    ///
    /// # Errors
    /// [`LinkError::NotFound`] if it is not there or not deleted, [`LinkError::UniqueIdTaken`] if its unique id has
    /// been given to another link since, or the write was not acknowledged.
    pub async fn restore(&self, id: LinkId, partner: PartnerId) -> Result<ShortLink, LinkError> {
        let clock = self.clock.clone();
        let job = move |transaction: &mut Transaction<'_>| {
            let deleted = |link: &ShortLink| link.partner_id == partner && link.status == Status::Deleted;
            let Some(old) = transaction.get(id)?.filter(deleted) else {
                return Ok(Err(LinkError::NotFound));
            };
            let unique_id = old.unique_id.as_deref();
            if let Some(taken) = taken_unique_id(transaction, partner, unique_id, Status::Enabled)? {
                return Ok(Err(taken));
            }
            let new = ShortLink {
                status: Status::Enabled,
                updated_at: clock.now(),
                ..old.clone()
            };
            transaction.put(Some(&old), new.clone())?;
            Ok(Ok(new))
        };
        self.store.write(job).await?
    }

    /// Soft-deletes every link that a user owns, in one transaction, and returns how many there were.
    ///
    /// # Errors
    /// When the write was not acknowledged.
    pub async fn delete_user(&self, partner: PartnerId, user: String) -> Result<usize, LinkError> {
        let clock = self.clock.clone();
        let job = move |transaction: &mut Transaction<'_>| {
            let (now, ids) = (clock.now(), transaction.links_of_user(partner, &user)?);
            // All are read before one is changed, so that a damaged record leaves the others as they were.
            let owned = ids.into_iter().filter_map(|id| transaction.get(id).transpose());
            let owned = owned.collect::<Result<Vec<_>, _>>()?;
            for old in &owned {
                let new = ShortLink {
                    status: Status::Deleted,
                    updated_at: now,
                    ..old.clone()
                };
                transaction.put(Some(old), new)?;
            }
            Ok(owned.len())
        };
        Ok(self.store.write(job).await?)
    }

    /// Checks that a session has not been ended.
    ///
    /// # Errors
    /// [`InvalidKs::Revoked`].
    pub fn check_not_revoked(&self, session: &Session) -> Result<(), InvalidKs> {
        let by_id = session.session_id_digest();
        if self.sessions.is_revoked(&session.digest) || by_id.is_some_and(|digest| self.sessions.is_revoked(&digest)) {
            return Err(InvalidKs::Revoked);
        }
        Ok(())
    }

    /// Counts a call of a session that allows only `limit` of them. The count is on disk before the call is made, so
    /// that a restart gives none back.
    ///
    /// # Errors
    /// When the write was not acknowledged; inside `Ok`, [`InvalidKs::ActionsLimit`].
    pub async fn count_action(&self, session: &Session, limit: u64) -> Result<Result<(), InvalidKs>, WriteError> {
        let (digest, expiry) = (session.digest, session.expiry);
        let job = move |transaction: &mut Transaction<'_>| transaction.count_action(digest, limit, expiry);
        let counted = self.store.write(job).await?;
        Ok(if counted { Ok(()) } else { Err(InvalidKs::ActionsLimit) })
    }

    /// Ends a session, and with it every session of the partner that carries the same session id.
    ///
    /// # Errors
    /// When the write was not acknowledged.
    pub async fn revoke(&self, session: &Session) -> Result<(), WriteError> {
        let (digest, expiry): (Digest, Timestamp) = (session.digest, session.expiry);
        let (by_id, now) = (session.session_id_digest(), self.clock.now());
        let job = move |transaction: &mut Transaction<'_>| {
            transaction.revoke(digest, expiry)?;
            if let Some(by_id) = by_id {
                transaction.revoke(by_id, expiry.max(now.plus(SESSION_MAX_SECONDS)))?;
            }
            Ok(())
        };
        self.store.write(job).await
    }

    /// Forgets revocations and counts of sessions that have expired.
    ///
    /// # Errors
    /// When the write was not acknowledged.
    pub async fn drop_expired_sessions(&self) -> Result<(), WriteError> {
        let now = self.clock.now();
        let job = move |transaction: &mut Transaction<'_>| transaction.drop_expired_sessions(now);
        self.store.write(job).await
    }
}

fn visible(transaction: &Transaction<'_>, id: LinkId, scope: &Scope) -> Result<Option<ShortLink>, StoreError> {
    let link = transaction.get(id)?;
    Ok(link.filter(|link| scope.covers(link) && link.status != Status::Deleted))
}

/// The error to give if a link with this status may not have this unique id.
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

/// Draws an id that no link has. Where ids of the wanted length are nearly used up, a longer one is drawn.
fn draw_id(transaction: &Transaction<'_>, length: usize) -> Result<LinkId, StoreError> {
    for length in length..=ID_MAX_BYTES {
        for _ in 0..ID_DRAWS_MAX {
            let text = nanoid::nanoid!(length, &ID_ALPHABET);
            if let Ok(id) = text.parse()
                && transaction.get(id)?.is_none()
            {
                return Ok(id);
            }
        }
        tracing::warn!(
            length,
            "ids of this length are nearly used up; drawing a longer one: raise links.id_length"
        );
    }
    Err(StoreError::Interrupted)
}
