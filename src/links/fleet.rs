//! Clicks of a cluster: what this box has counted and others are to know, and what all have counted.

use std::sync::Arc;

use crate::links::Links;
use crate::store::replication::{ClickError, ClickPosition};
use crate::store::{Snapshot, StoreError, Transaction, WriteError};

/// Bytes of messages that one transaction counts, for which other writes wait some milliseconds.
const TOGETHER_BYTES: usize = if cfg!(test) { 1024 } else { 64 * 1024 };

impl Links {
    /// Messages of the outbox after the one with this counter, oldest first, at most so many.
    pub async fn queued_clicks(&self, after: u64, most: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let read = move |snapshot: &Snapshot| snapshot.queued_after(after, most);
        self.store.read_ahead(read).await
    }

    /// Removes messages of the outbox up to this one, which the stream has: on a box that does not count the stream.
    pub async fn drop_queued_clicks(&self, until: u64) -> Result<(), WriteError> {
        let job = move |transaction: &mut Transaction<'_>| transaction.drop_queued_until(until);
        self.store.write_local(job).await
    }

    /// Up to where the stream of clicks has been counted.
    pub async fn click_position(&self) -> Result<Option<ClickPosition>, StoreError> {
        self.store.read_ahead(|snapshot| Ok(snapshot.click_position())).await
    }

    /// Counts the messages of the stream that follow a position, each once, up to the first that cannot be counted yet;
    /// returns the position after them, and why it is not that of the last.
    pub async fn count_messages(
        &self,
        mut at: ClickPosition,
        messages: Vec<Vec<u8>>,
    ) -> Result<(ClickPosition, Option<ClickError>), WriteError> {
        let messages = Arc::new(messages);
        let mut first = 0;
        while first < messages.len() {
            let all = Arc::clone(&messages);
            let search = Arc::clone(&self.search);
            let job = move |transaction: &mut Transaction<'_>| {
                let (mut at, mut used, mut bytes) = (at, Vec::new(), 0);
                let mut error = None;
                for message in all.iter().skip(first) {
                    bytes += message.len();
                    if bytes > TOGETHER_BYTES && bytes > message.len() {
                        break;
                    }
                    let next = ClickPosition {
                        sequence: at.sequence + 1,
                        ..at
                    };
                    match transaction.count_message(next, message)? {
                        Ok(more) => used.extend(more),
                        Err(why) => {
                            error = Some(why);
                            break;
                        }
                    }
                    at = next;
                }
                // As of a flush.
                let used = if search.is_kept() { used } else { Vec::new() };
                let used = used.into_iter();
                let used = used.map(|id| Ok::<_, StoreError>((id, transaction.usage(id)?.clicks)));
                Ok((at, used.collect::<Result<Vec<_>, _>>()?, error))
            };
            let (after, used, error) = self.store.write_local(job).await?;
            self.search.note_used(used);
            let counted = usize::try_from(after.sequence - at.sequence).unwrap_or(usize::MAX);
            (first, at) = (first.saturating_add(counted), after);
            if error.is_some() {
                return Ok((at, error));
            }
        }
        Ok((at, None))
    }
}
