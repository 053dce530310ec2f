//! The tables of clicks in a cluster.

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::model::{LinkId, Timestamp, Usage};
use crate::store::error::StoreError;
use crate::store::format::checksum::{seal, unseal, unseal_text};
use crate::store::format::keys::Bytes;
use crate::store::format::tables::{REPLICATION, open_if_there};
use crate::store::format::values;
use crate::store::replication::{ClickMessage, ClickPosition};

/// Counter → a message that the stream of clicks may not have yet. No part of what a copy holds.
pub const OUTBOX: TableDefinition<'_, u64, Bytes> = TableDefinition::new("clicks_outbox");

/// A source, as [`source_key`] → the counter of its last message that was counted, and its number among those of its
/// box.
pub const SOURCES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("clicks_sources");

/// An id that is retired → the id that its link has now.
pub const MOVED: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("links_moved");

/// Keys of the table `replication`.
pub const CLICK_POSITION: &str = "clicks";
const QUEUED: &str = "clicks queued";

/// Sources of one box that are known: its last starts. A message of an earlier one that came again would count again.
pub const SOURCES_MAX: usize = 256;

/// New ids of one link that are followed; more than anybody makes.
const MOVES_MAX: usize = 10_000;

pub fn seal_counter(key: &[u8], counter: u64) -> Vec<u8> {
    seal(key, &counter.to_be_bytes())
}

pub fn unseal_counter(table: &'static str, key: &[u8], sealed: &[u8]) -> Result<u64, StoreError> {
    Ok(u64::from_be_bytes(unseal(table, key, sealed)?))
}

pub fn seal_moved(from: LinkId, to: LinkId) -> Vec<u8> {
    seal(from.as_bytes(), to.as_bytes())
}

pub fn unseal_moved(from: &[u8], sealed: &[u8]) -> Result<LinkId, StoreError> {
    let to = unseal_text("links_moved", from, sealed)?;
    LinkId::from_bytes(to).map_err(|error| StoreError::damaged("links_moved", error))
}

/// The counter of the last message that was put into the outbox.
pub fn counter(transaction: &WriteTransaction) -> Result<u64, StoreError> {
    let table = transaction.open_table(REPLICATION)?;
    let stored = table.get(QUEUED)?;
    let counter = stored.map(|sealed| unseal_counter("replication", QUEUED.as_bytes(), sealed.value()));
    // A store that was compacted has only what waits.
    let waiting = transaction
        .open_table(OUTBOX)?
        .last()?
        .map_or(0, |(counter, _)| counter.value());
    Ok(counter.transpose()?.unwrap_or(0).max(waiting))
}

pub fn set_counter(transaction: &WriteTransaction, counter: u64) -> Result<(), StoreError> {
    let sealed = seal_counter(QUEUED.as_bytes(), counter);
    transaction.open_table(REPLICATION)?.insert(QUEUED, sealed.as_slice())?;
    Ok(())
}

/// The same as [`counter`], for a reader.
pub fn counter_of(table: &impl ReadableTable<&'static str, Bytes>) -> Result<u64, StoreError> {
    let stored = table.get(QUEUED)?;
    let counter = stored.map(|sealed| unseal_counter("replication", QUEUED.as_bytes(), sealed.value()));
    Ok(counter.transpose()?.unwrap_or(0))
}

pub fn click_position_of(table: &impl ReadableTable<&'static str, Bytes>) -> Result<Option<ClickPosition>, StoreError> {
    let sealed = table.get(CLICK_POSITION)?;
    sealed
        .map(|sealed| ClickPosition::unseal(CLICK_POSITION.as_bytes(), sealed.value()))
        .transpose()
}

pub fn set_click_position(transaction: &WriteTransaction, position: ClickPosition) -> Result<(), StoreError> {
    let sealed = position.seal(CLICK_POSITION.as_bytes());
    transaction
        .open_table(REPLICATION)?
        .insert(CLICK_POSITION, sealed.as_slice())?;
    Ok(())
}

/// What one box says is no other's, so its name is part of the key. A box's own are neighbours.
pub fn source_key(node: &str, process: &[u8; 16]) -> Vec<u8> {
    let length = u8::try_from(node.len()).unwrap_or(u8::MAX);
    [&[length], node.as_bytes(), process].concat()
}

/// What has been counted of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedSource {
    pub counter: u64,
    /// Grows with each new source of the box.
    pub number: u64,
}

impl CountedSource {
    pub fn seal(self, key: &[u8]) -> Vec<u8> {
        let numbers = [self.counter, self.number].map(u64::to_be_bytes);
        seal(key, numbers.as_flattened())
    }

    pub fn unseal(key: &[u8], sealed: &[u8]) -> Result<Self, StoreError> {
        let numbers: [u8; 16] = unseal("clicks_sources", key, sealed)?;
        let [counter, number] = values::numbers(&numbers);
        Ok(Self { counter, number })
    }
}

pub fn counted_source(
    transaction: &WriteTransaction,
    message: &ClickMessage<'_>,
) -> Result<Option<CountedSource>, StoreError> {
    let key = source_key(message.node, &message.process);
    let table = transaction.open_table(SOURCES)?;
    let stored = table.get(key.as_slice())?;
    stored
        .map(|sealed| CountedSource::unseal(&key, sealed.value()))
        .transpose()
}

/// Notes the counter of a message of a source that is counted now; `before` is what was counted of the source before. A
/// new one replaces the oldest of its box, so that no box can make up any number of them.
pub fn note_source(
    transaction: &WriteTransaction,
    message: &ClickMessage<'_>,
    before: Option<CountedSource>,
) -> Result<(), StoreError> {
    let key = source_key(message.node, &message.process);
    let mut table = transaction.open_table(SOURCES)?;
    let number = match before {
        Some(before) => before.number,
        None => {
            let (first, last) = (
                source_key(message.node, &[0; 16]),
                source_key(message.node, &[0xff; 16]),
            );
            let mut numbers = Vec::new();
            for entry in table.range(first.as_slice()..=last.as_slice())? {
                let (key, sealed) = entry?;
                // A damaged one goes first.
                let source = CountedSource::unseal(key.value(), sealed.value());
                numbers.push((source.map_or(0, |source| source.number), key.value().to_vec()));
            }
            numbers.sort_unstable();
            for (_, oldest) in numbers.iter().rev().skip(SOURCES_MAX - 1) {
                table.remove(oldest.as_slice())?;
            }
            numbers.last().map_or(0, |(number, _)| number.saturating_add(1))
        }
    };
    let counter = message.counter;
    let sealed = CountedSource { counter, number }.seal(&key);
    table.insert(key.as_slice(), sealed.as_slice())?;
    Ok(())
}

/// What a snapshot has of clicks in a cluster: the tables, where they are there, and what the table of the log has.
#[derive(Debug)]
pub struct FleetClicks {
    pub outbox: Option<ReadOnlyTable<u64, Bytes>>,
    pub sources: Option<ReadOnlyTable<Bytes, Bytes>>,
    pub moved: Option<ReadOnlyTable<Bytes, Bytes>>,
    pub position: Option<ClickPosition>,
    pub counter: u64,
}

impl FleetClicks {
    pub fn open(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        let log = open_if_there(transaction, REPLICATION)?;
        let position = log.as_ref().map(click_position_of).transpose()?;
        Ok(Self {
            outbox: open_if_there(transaction, OUTBOX)?,
            sources: open_if_there(transaction, SOURCES)?,
            moved: open_if_there(transaction, MOVED)?,
            position: position.flatten(),
            counter: log.as_ref().map(counter_of).transpose()?.unwrap_or(0),
        })
    }
}

/// The id under which a link is counted now.
pub fn resolve(transaction: &WriteTransaction, id: LinkId) -> Result<LinkId, StoreError> {
    let table = transaction.open_table(MOVED)?;
    let mut at = id;
    for _ in 0..MOVES_MAX {
        let Some(sealed) = table.get(at.as_bytes())? else { break };
        match unseal_moved(at.as_bytes(), sealed.value()) {
            Ok(to) => at = to,
            Err(error) => {
                tracing::error!(%error, "counting clicks for a retired id");
                break;
            }
        }
    }
    Ok(at)
}

/// Forgets all of it.
pub fn forget(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.delete_table(OUTBOX)?;
    transaction.delete_table(SOURCES)?;
    transaction.delete_table(MOVED)?;
    Ok(())
}

/// What waits in the outbox, with the moment of a day for previews.
pub fn waiting(transaction: &WriteTransaction) -> Result<Vec<(LinkId, Usage, Timestamp)>, StoreError> {
    let table = transaction.open_table(OUTBOX)?;
    let mut waiting = Vec::new();
    for entry in table.iter()? {
        let message = entry?.1;
        let Ok(message) = ClickMessage::decode(message.value()) else {
            continue;
        };
        for delta in message.deltas() {
            let id = resolve(transaction, delta.id)?;
            waiting.push((id, delta.usage, delta.day.start()));
        }
    }
    Ok(waiting)
}
