//! Reading links together with how they have been used, what is not written yet included.

use std::sync::Arc;

use crate::links::{LinkError, Links, ReadContext, Scope, Turn};
use crate::model::{LinkId, ShortLink, Status, Usage};
use crate::store::{Lane, Listing, Query, ReadLimit, Snapshot, StoreError};

impl Links {
    pub async fn get_with_usage(&self, id: LinkId, scope: Scope) -> Result<(ShortLink, Usage), LinkError> {
        let found = self.find_with_usage(id, scope).await;
        found.and_then(|found| match found.0.status {
            Status::Deleted => Err(LinkError::NotFound),
            Status::Disabled | Status::Enabled => Ok(found),
        })
    }

    /// As [`Self::get_with_usage`], deleted or not.
    pub async fn find_with_usage(&self, id: LinkId, scope: Scope) -> Result<(ShortLink, Usage), LinkError> {
        let read = move |snapshot: &Snapshot| {
            let link = snapshot.get(id)?.filter(|link| scope.covers(link));
            let ids = link.iter().map(|link| link.id).collect();
            Ok((link, ids))
        };
        let (link, usages) = self.read_with_usage(Lane::Shared, read).await?;
        let usage = usages.first().copied().unwrap_or_default();
        link.map(|link| (link, usage)).ok_or(LinkError::NotFound)
    }

    pub async fn list_with_usage(
        &self,
        query: Query,
        context: &ReadContext,
    ) -> Result<((Listing, Vec<Usage>), Turn), LinkError> {
        let (partner, query) = (query.partner, Arc::new(query));
        let read = |limit: ReadLimit, lane| {
            let (query, search) = (Arc::clone(&query), Arc::clone(&self.search));
            let read = move |snapshot: &Snapshot| {
                let listing = search.list_or_read(&query, snapshot, &limit, lane)?;
                let ids = listing.links.iter().map(|link| link.id).collect();
                Ok((listing, ids))
            };
            self.read_with_usage(lane, read)
        };
        Ok(self.read_in_turn(partner, context, read).await?)
    }

    /// Reads something, and the usage of the links whose ids come with it, without waiting for a flush.
    pub(super) async fn read_with_usage<R, F>(&self, lane: Lane, read: F) -> Result<(R, Vec<Usage>), StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<(R, Vec<LinkId>), StoreError> + Send + 'static,
    {
        let read = |snapshot: &Snapshot| {
            let (result, ids) = read(snapshot)?;
            let usages = snapshot.usages_with_queued(&ids)?;
            Ok(((result, usages), ids))
        };
        let ((result, mut usages), pending) = self.read_with_pending(lane, read).await?;
        for (usage, pending) in usages.iter_mut().zip(&pending) {
            usage.add(pending);
        }
        Ok((result, usages))
    }

    /// Reads something, and what is counted of the links whose ids come with it and is not in what was read.
    pub(super) async fn read_with_pending<R, F>(&self, lane: Lane, read: F) -> Result<(R, Vec<Usage>), StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<(R, Vec<LinkId>), StoreError> + Send + 'static,
    {
        let clicks = Arc::clone(&self.clicks);
        let job = move |snapshot: &Snapshot| {
            let (result, ids) = read(snapshot)?;
            Ok((result, clicks.missing(&ids, snapshot)?))
        };
        self.store.read_on(lane, job).await
    }
}
