//! Clicks in a cluster, for readers: what waits in the outbox, and how far the stream of clicks has been counted.

use redb::{ReadOnlyTable, ReadableTable as _};

use crate::model::{DailyUsage, LinkId, Usage};
use crate::store::error::StoreError;
use crate::store::format::keys::Bytes;
use crate::store::format::outbox::{self, CountedSource};
use crate::store::read::snapshot::Snapshot;
use crate::store::read::verify::Verification;
use crate::store::replication::{ClickMessage, ClickPosition};

impl Snapshot {
    /// Up to where the stream of clicks has been counted.
    pub fn click_position(&self) -> Option<ClickPosition> {
        self.fleet.as_ref()?.position
    }

    /// The counter of the last message that was put into the outbox.
    pub fn queued_counter(&self) -> u64 {
        self.fleet.as_ref().map_or(0, |fleet| fleet.counter)
    }

    fn outbox(&self) -> Option<&ReadOnlyTable<u64, Bytes>> {
        self.fleet.as_ref()?.outbox.as_ref()
    }

    /// As [`Self::usage`], with what waits in the outbox.
    pub fn usage_with_queued(&self, id: LinkId) -> Result<Usage, StoreError> {
        let usages = self.usages_with_queued(&[id])?;
        Ok(usages.into_iter().next().unwrap_or_default())
    }

    /// The same of several links.
    pub fn usages_with_queued(&self, ids: &[LinkId]) -> Result<Vec<Usage>, StoreError> {
        let usages = ids.iter().map(|id| self.usage(*id));
        let mut usages = usages.collect::<Result<Vec<_>, _>>()?;
        let Some(table) = self.outbox() else { return Ok(usages) };
        for entry in table.iter()? {
            let message = entry?.1;
            for (usage, id) in usages.iter_mut().zip(ids) {
                if let Some(delta) = ClickMessage::find_in(message.value(), *id) {
                    usage.add(&delta.usage);
                }
            }
        }
        Ok(usages)
    }

    /// Calls `visit` with every link that has clicks in the outbox, and its clicks with those of a message.
    pub fn for_each_queued_click(&self, visit: &mut impl FnMut(LinkId, u64)) -> Result<(), StoreError> {
        let Some(table) = self.outbox() else { return Ok(()) };
        for entry in table.iter()? {
            let message = entry?.1;
            let message = ClickMessage::decode(message.value()).ok();
            let deltas = message.iter().flat_map(ClickMessage::deltas);
            for delta in deltas.filter(|delta| delta.usage.clicks > 0) {
                visit(
                    delta.id,
                    self.usage(delta.id)?.clicks.saturating_add(delta.usage.clicks),
                );
            }
        }
        Ok(())
    }

    /// What the outbox has of a link, by day.
    pub fn queued_by_day(&self, id: LinkId) -> Result<Vec<DailyUsage>, StoreError> {
        let mut days = Vec::new();
        let Some(table) = self.outbox() else { return Ok(days) };
        for entry in table.iter()? {
            let message = entry?.1;
            let delta = ClickMessage::find_in(message.value(), id);
            days.extend(delta.map(|delta| DailyUsage {
                day: delta.day,
                clicks: delta.usage.clicks,
                previews: delta.usage.previews,
            }));
        }
        Ok(days)
    }

    /// Messages of the outbox after this one, oldest first, at most so many.
    pub fn queued_after(&self, counter: u64, most: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let Some(table) = self.outbox() else {
            return Ok(Vec::new());
        };
        let messages = table.range(counter.saturating_add(1)..)?.take(most);
        messages
            .map(|entry| {
                let (counter, message) = entry?;
                Ok((counter.value(), message.value().to_vec()))
            })
            .collect()
    }

    /// Clicks and previews in the messages of the outbox after this one.
    pub fn queued_visits(&self, counter: u64) -> Result<u64, StoreError> {
        let mut visits = 0;
        let Some(table) = self.outbox() else { return Ok(visits) };
        for entry in table.range(counter.saturating_add(1)..)? {
            let message = entry?.1;
            let message = ClickMessage::decode(message.value()).ok();
            let deltas = message.iter().flat_map(ClickMessage::deltas);
            visits += deltas.map(|delta| delta.usage.visits()).sum::<u64>();
        }
        Ok(visits)
    }

    pub fn verify_fleet_clicks(&self, found: &mut Verification) -> Result<(), StoreError> {
        let Some(fleet) = &self.fleet else { return Ok(()) };
        if let Some(table) = &fleet.outbox {
            for entry in table.iter()? {
                let (counter, message) = entry?;
                if let Err(error) = ClickMessage::decode(message.value()) {
                    found.problem(|| format!("message {} of the outbox of clicks: {error}", counter.value()));
                }
            }
        }
        type Decode = fn(&[u8], &[u8]) -> Result<(), StoreError>;
        let source: Decode = |key, sealed| CountedSource::unseal(key, sealed).map(drop);
        let moved: Decode = |key, sealed| outbox::unseal_moved(key, sealed).map(drop);
        for (table, decode) in [(&fleet.sources, source), (&fleet.moved, moved)] {
            let Some(table) = table else { continue };
            for entry in table.iter()? {
                let (key, sealed) = entry?;
                if let Err(error) = decode(key.value(), sealed.value()) {
                    found.problem(|| error.to_string());
                }
            }
        }
        Ok(())
    }
}
