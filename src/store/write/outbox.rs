//! Clicks in a cluster: what this box has counted waits in the outbox until the stream of clicks has it, and totals
//! grow by what the stream has.

use std::mem;
use std::ops::RangeInclusive;
use std::path::Path;

use redb::{Builder, Database, ReadableTable as _, ReadableTableMetadata as _};

use crate::model::{Day, LinkId, Timestamp, Usage};
use crate::store::error::StoreError;
use crate::store::files::medium;
use crate::store::format::outbox::{self, MOVED, OUTBOX};
use crate::store::format::tables::{self, META, META_SEQUENCE};
use crate::store::journal::redo::Redo;
use crate::store::read::snapshot::Snapshot;
use crate::store::replication::ClickPosition;
use crate::store::replication::clicks::{ClickDelta, ClickError, ClickMessage, ClickSource, OUTBOX_MAX_MESSAGES};
use crate::store::write::transaction::Transaction;

/// What became of a message of the stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CountedMessage {
    /// The links that people have opened.
    pub used: Vec<LinkId>,
    /// Why it counts nothing.
    pub passed_over: Option<ClickError>,
    /// So many messages before it have not come.
    pub missing: u64,
}

impl Transaction<'_> {
    pub const fn is_in_cluster(&self) -> bool {
        self.digest.is_some()
    }

    /// The counter of the last message that was put into the outbox.
    pub fn queued_counter(&self) -> Result<u64, StoreError> {
        outbox::counter(self.inner)
    }

    /// Puts what was counted into the outbox, and returns the counter of the message; none, and nothing is put there,
    /// if it is full. The counts are in the order of the ids.
    pub fn queue_clicks(
        &mut self,
        source: &ClickSource,
        counted: &[(LinkId, Usage)],
        now: Timestamp,
        may_overfill: bool,
    ) -> Result<Option<u64>, StoreError> {
        let is_full = self.inner.open_table(OUTBOX)?.len()? >= OUTBOX_MAX_MESSAGES;
        if is_full && !may_overfill {
            return Ok(None);
        }
        let position = tables::position_in(self.inner)?;
        let position = position.ok_or_else(|| StoreError::damaged("replication", "the position is missing"))?;
        let counter = outbox::counter(self.inner)?.saturating_add(1);
        let deltas = counted.iter().map(|(id, usage)| ClickDelta {
            id: *id,
            usage: *usage,
            day: usage.last_used_at.unwrap_or(now).day(),
        });
        let message = ClickMessage::encode(&position, source, counter, deltas);
        self.put_queued(counter, &message)?;
        Ok(Some(counter))
    }

    /// Puts a message into the outbox.
    pub fn put_queued(&mut self, counter: u64, message: &[u8]) -> Result<(), StoreError> {
        self.note_clicked();
        self.inner.open_table(OUTBOX)?.insert(counter, message)?;
        outbox::set_counter(self.inner, counter)?;
        self.redo.clicks_queued(counter, message);
        Ok(())
    }

    /// Removes the messages of the outbox up to this one, which the stream has.
    pub fn drop_queued_until(&mut self, counter: u64) -> Result<(), StoreError> {
        self.inner.open_table(OUTBOX)?.retain_in(..=counter, |_, _| false)?;
        self.note_clicked();
        self.redo.clicks_sent(counter);
        Ok(())
    }

    /// Removes the messages of the outbox up to the last one that is not of this box, and returns how many clicks and
    /// previews they have.
    pub fn drop_queued_of_others(&mut self, node: &str) -> Result<u64, StoreError> {
        let (mut last, mut visits, mut until) = (None, 0, 0);
        for entry in self.inner.open_table(OUTBOX)?.iter()? {
            let (counter, message) = entry?;
            // Verification names a damaged one.
            let Ok(message) = ClickMessage::decode(message.value()) else {
                continue;
            };
            until += message.deltas().map(|delta| delta.usage.visits()).sum::<u64>();
            if message.node != node {
                (last, visits) = (Some(counter.value()), until);
            }
        }
        if let Some(last) = last {
            self.drop_queued_until(last)?;
        }
        Ok(visits)
    }

    /// Counts a message of the stream that came from this box, unless it has been counted, by day only for these days,
    /// and notes the position after it. What is no message of this cluster and box is passed over. After an error
    /// nothing has changed.
    pub fn count_message(
        &mut self,
        at: ClickPosition,
        days: &RangeInclusive<Day>,
        node: &str,
        bytes: &[u8],
    ) -> Result<Result<CountedMessage, ClickError>, StoreError> {
        let Some(position) = tables::position_in(self.inner)? else {
            return Ok(Err(ClickError::Foreign));
        };
        let message = ClickMessage::decode(bytes).and_then(|message| match message.sequence {
            _ if message.cluster != position.cluster => Err(ClickError::Foreign),
            _ if message.node != node => Err(ClickError::Forged(message.node.to_owned())),
            sequence if sequence > position.sequence => Err(ClickError::Early { sequence }),
            _ => Ok(message),
        });
        let mut counted = CountedMessage::default();
        match message {
            Ok(message) => {
                let opened = message.deltas().filter(|delta| delta.usage.clicks > 0);
                counted.used.extend(opened.map(|delta| delta.id));
                counted.missing = self.add_message(at, days, bytes)?;
            }
            Err(error @ (ClickError::Newer(_) | ClickError::Early { .. })) => return Ok(Err(error)),
            Err(error) => {
                counted.passed_over = Some(error);
                self.add_message(at, days, &[])?;
            }
        }
        for id in &mut counted.used {
            *id = outbox::resolve(self.inner, *id)?;
        }
        Ok(Ok(counted))
    }

    /// As [`Self::count_message`], of a message that may be counted now, or none. Returns how many messages of its
    /// source are missing before it.
    pub fn add_message(
        &mut self,
        at: ClickPosition,
        days: &RangeInclusive<Day>,
        bytes: &[u8],
    ) -> Result<u64, StoreError> {
        // The message says it all.
        let mut redo = mem::replace(&mut self.redo, Redo::not_kept());
        let added = self.add_deltas(at, days, bytes);
        redo.clicks_counted(at, days, bytes);
        self.redo = redo;
        self.note_clicked();
        added
    }

    fn add_deltas(&mut self, at: ClickPosition, days: &RangeInclusive<Day>, bytes: &[u8]) -> Result<u64, StoreError> {
        outbox::set_click_position(self.inner, at)?;
        let Ok(message) = ClickMessage::decode(bytes) else {
            return Ok(0);
        };
        self.drop_own(&message, bytes)?;
        let before = outbox::counted_source(self.inner, &message)?;
        if before.is_some_and(|before| message.counter <= before.counter) {
            return Ok(0);
        }
        outbox::note_source(self.inner, &message, before)?;
        for delta in message.deltas() {
            let id = outbox::resolve(self.inner, delta.id)?;
            self.add_delta(&ClickDelta { id, ..delta }, days)?;
        }
        Ok(before.map_or(0, |before| message.counter - before.counter - 1))
    }

    /// Removes a message that this box has sent.
    fn drop_own(&self, message: &ClickMessage<'_>, bytes: &[u8]) -> Result<(), StoreError> {
        let mut table = self.inner.open_table(OUTBOX)?;
        let is_own = table
            .get(message.counter)?
            .is_some_and(|queued| queued.value() == bytes);
        if is_own {
            table.remove(message.counter)?;
        }
        Ok(())
    }

    /// Whether what is counted of a link is that of another one.
    pub fn is_moved(&self, id: LinkId) -> Result<bool, StoreError> {
        Ok(self.inner.open_table(MOVED)?.get(id.as_bytes())?.is_some())
    }

    /// Notes that what is counted of a link is that of another one, also what comes later.
    pub fn note_moved(&self, from: LinkId, to: LinkId) -> Result<(), StoreError> {
        let sealed = outbox::seal_moved(from, to);
        self.inner
            .open_table(MOVED)?
            .insert(from.as_bytes(), sealed.as_slice())?;
        Ok(())
    }

    const fn note_clicked(&mut self) {
        self.modifications += 1;
        self.clicked += 1;
    }
}

/// Moves what waits in a store to a copy that takes its place, unless that has counted it already.
pub fn carry_over(from: &Database, to: &Path) -> Result<(), StoreError> {
    let snapshot = Snapshot::new(from)?;
    let (counter, queued) = (snapshot.queued_counter(), snapshot.queued_after(0, usize::MAX)?);
    let database = Builder::new()
        .set_cache_size(medium::CACHE_BYTES)
        .open(to)
        .map_err(redb::Error::from)?;
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    for (counter, bytes) in queued {
        let Ok(message) = ClickMessage::decode(&bytes) else {
            continue;
        };
        if outbox::counted_source(&transaction, &message)?.is_none_or(|counted| counted.counter < counter) {
            transaction.open_table(OUTBOX)?.insert(counter, bytes.as_slice())?;
        }
    }
    outbox::set_counter(&transaction, counter)?;
    // The numbers of commits go on, for those who read meanwhile.
    let mut meta = transaction.open_table(META)?;
    let sequence = meta.get(META_SEQUENCE)?.map_or(0, |entry| entry.value());
    meta.insert(META_SEQUENCE, sequence.max(snapshot.sequence))?;
    drop(meta);
    transaction.commit()?;
    Ok(())
}
