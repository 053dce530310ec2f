//! Clicks of a cluster: what this box has counted and others are to know, and what all have counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::links::Links;
use crate::store::replication::{ClickError, ClickPosition};
use crate::store::{CountedMessage, Snapshot, StoreError, Transaction, WriteError};

/// Bytes of messages that one transaction counts, for which other writes wait some milliseconds.
const TOGETHER_BYTES: usize = if cfg!(test) { 1024 } else { 64 * 1024 };

impl Links {
    /// Messages of the outbox after the one with this counter, oldest first, at most so many.
    pub async fn queued_clicks(&self, after: u64, most: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let read = move |snapshot: &Snapshot| snapshot.queued_after(after, most);
        self.store.read_ahead(read).await
    }

    /// Removes messages of the outbox that a box of another name has queued: this store is a copy of its store, or its
    /// name was changed, and none counts what comes under another name. Returns how many clicks and previews these had.
    pub async fn drop_clicks_of_others(&self) -> Result<u64, WriteError> {
        let node = self.node();
        let job = move |transaction: &mut Transaction<'_>| transaction.drop_queued_of_others(&node);
        self.store.write_local(job).await
    }

    /// How many clicks and previews the messages of the outbox after this one have, with these and the last message;
    /// none if both are still those that were given.
    pub async fn waiting_clicks(
        &self,
        after: u64,
        counted: Option<(u64, u64)>,
    ) -> Result<Option<((u64, u64), u64)>, StoreError> {
        let read = move |snapshot: &Snapshot| {
            let at = (after, snapshot.queued_counter());
            if counted == Some(at) {
                return Ok(None);
            }
            Ok(Some((at, snapshot.queued_visits(after)?)))
        };
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

    /// Counts the messages of the stream that follow a position, each once and each with the box that it came from, up
    /// to the first that is about a later entry of the log, which goes to `head`. The other messages that cannot be
    /// counted hold up their box alone. Returns the position after the messages, and why it is not that of the last.
    pub async fn count_messages(
        &self,
        mut at: ClickPosition,
        messages: Vec<(String, Vec<u8>)>,
        head: u64,
        senders: &mut ClickSenders,
    ) -> Result<(ClickPosition, Option<ClickError>), WriteError> {
        let messages = Arc::new(messages);
        // Decided once, and written down with each message, so that replaying the journal counts alike.
        let days = self.days_counted();
        let mut first = 0;
        while first < messages.len() {
            let (all, search) = (Arc::clone(&messages), Arc::clone(&self.search));
            let (mut senders_now, days) = (senders.clone(), days.clone());
            let job = move |transaction: &mut Transaction<'_>| {
                let (mut at, mut used, mut bytes) = (at, Vec::new(), 0);
                let mut error = None;
                for (node, message) in all.iter().skip(first) {
                    bytes += message.len();
                    if bytes > TOGETHER_BYTES && bytes > message.len() {
                        break;
                    }
                    let next = ClickPosition::after(at.stream, at.sequence + 1);
                    if !senders_now.is_held(node) {
                        // After a restart, what was held up comes again.
                        let kept = senders_now.kept(next);
                        match transaction.count_message(kept, &days, node, message)? {
                            Ok(mut counted) => {
                                used.append(&mut counted.used);
                                senders_now.note(node, counted);
                            }
                            Err(why @ ClickError::Early { sequence }) if sequence <= head => {
                                error = Some(why);
                                break;
                            }
                            Err(why) => senders_now.hold(node, next.sequence, why),
                        }
                    }
                    at = next;
                }
                // As of a flush.
                let used = if search.is_kept() { used } else { Vec::new() };
                let used = used.into_iter();
                let used = used.map(|id| Ok::<_, StoreError>((id, transaction.usage(id)?.clicks)));
                Ok((at, used.collect::<Result<Vec<_>, _>>()?, error, senders_now))
            };
            let (after, used, error, senders_after) = self.store.write_local(job).await?;
            *senders = senders_after;
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

/// What is known of the boxes that send clicks.
#[derive(Debug, Clone, Default)]
pub struct ClickSenders {
    /// Those whose messages cannot be counted yet, each with the number of the first of them, and why.
    held: BTreeMap<String, (u64, ClickError)>,
    /// What was wrong with messages since it was last taken.
    faults: BTreeMap<String, ClickFaults>,
}

/// What was wrong with the messages of a box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClickFaults {
    /// So many messages were passed over.
    pub passed_over: u64,
    /// Why the first of them was.
    pub reason: Option<ClickError>,
    /// So many have not come.
    pub missing: u64,
}

impl ClickSenders {
    fn is_held(&self, node: &str) -> bool {
        self.held.contains_key(node)
    }

    fn hold(&mut self, node: &str, message: u64, why: ClickError) {
        self.held.insert(node.to_owned(), (message, why));
    }

    /// Before what is held up is read again.
    pub fn release(&mut self) {
        self.held.clear();
    }

    fn note(&mut self, node: &str, counted: CountedMessage) {
        let CountedMessage {
            passed_over, missing, ..
        } = counted;
        if passed_over.is_some() || missing > 0 {
            let faults = self.faults.entry(node.to_owned()).or_default();
            faults.passed_over += u64::from(passed_over.is_some());
            faults.reason = faults.reason.take().or(passed_over);
            faults.missing = faults.missing.saturating_add(missing);
        }
    }

    /// What was wrong since this was last called, by the name of the box.
    pub fn take_faults(&mut self) -> BTreeMap<String, ClickFaults> {
        std::mem::take(&mut self.faults)
    }

    /// The position to go on from after a restart, once all messages up to one are counted that are not held up.
    fn kept(&self, at: ClickPosition) -> ClickPosition {
        let first = self.held.values().map(|(message, _)| message - 1).min();
        ClickPosition {
            sequence: first.unwrap_or(at.sequence).min(at.sequence),
            ..at
        }
    }

    pub fn holds_none(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether one can be counted by a store that has the log up to this entry.
    pub fn is_due(&self, entry: u64) -> bool {
        let mut held = self.held.values();
        held.any(|(_, why)| matches!(why, ClickError::Early { sequence } if *sequence <= entry))
    }

    /// For people: the first that is held up.
    pub fn reason(&self) -> Option<String> {
        let (node, (message, why)) = self.held.first_key_value()?;
        let others = match self.held.len() - 1 {
            0 => String::new(),
            others => format!(", and of {others} others"),
        };
        Some(format!(
            "clicks of {node}{others} are not counted: message {message} of the stream of clicks is {why}"
        ))
    }
}
