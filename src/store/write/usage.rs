//! Counting how links are used: in all, and by day for each link and for each partner.

use std::ops::RangeInclusive;

use redb::{ReadableTable as _, Table};

use crate::model::{Day, LinkId, Timestamp, Usage};
use crate::store::error::StoreError;
use crate::store::format::checksum::seal;
use crate::store::format::clicks;
use crate::store::format::days::{self, Visits};
use crate::store::format::keys::Bytes;
use crate::store::format::tables::{CLICKS, DAYS};
use crate::store::journal::record;
use crate::store::replication::clicks::ClickDelta;
use crate::store::write::transaction::Transaction;

impl<'t> Transaction<'t> {
    /// As [`crate::store::Snapshot::usage`].
    pub fn usage(&mut self, id: LinkId) -> Result<Usage, StoreError> {
        clicks::usage_of(id, self.clicks()?)
    }

    /// Adds to the use of links, on the day of their last click, or of `now` if they had previews only; an id without a
    /// link is passed over. Returns the first total that was written, which tells later whether this transaction is in
    /// the store.
    pub fn add_usage(
        &mut self,
        counted: &[(LinkId, Usage)],
        now: Timestamp,
    ) -> Result<Option<(LinkId, Usage)>, StoreError> {
        let mut first = None;
        for (id, more) in counted {
            let day = more.last_used_at.unwrap_or(now).day();
            let change = |usage: &mut Usage| usage.add(more);
            match self.change_usage(*id, Some(day), change)? {
                Some(usage) => {
                    first.get_or_insert((*id, usage));
                }
                None => tracing::error!(%id, "dropping clicks of a link that is not in the store"),
            }
        }
        Ok(first)
    }

    /// Adds what another box, or this one, has counted: to the total, and to its day if that is one of these. With any
    /// day that a box can name, it could fill the store.
    pub fn add_delta(&mut self, delta: &ClickDelta, days: &RangeInclusive<Day>) -> Result<(), StoreError> {
        let ClickDelta { id, usage, day } = delta;
        let day = days.contains(day).then_some(*day);
        if self.change_usage(*id, day, |total| total.add(usage))?.is_none() {
            // One message may have thousands of them.
            tracing::debug!(%id, "dropping clicks of a link that is not in the store");
        }
        Ok(())
    }

    /// Writes down how a link has been used in all; by what that is more, its day has more too.
    pub fn set_usage(&mut self, id: LinkId, usage: &clicks::Stored, day: Option<Day>) -> Result<(), StoreError> {
        let total = clicks::decode_stored(usage);
        self.change_usage(id, day, |usage| *usage = total).map(drop)
    }

    /// Changes the total of a link and its day; `None`, and nothing is changed, if there is no such link.
    fn change_usage(
        &mut self,
        id: LinkId,
        day: Option<Day>,
        change: impl FnOnce(&mut Usage),
    ) -> Result<Option<Usage>, StoreError> {
        let seal_usage = |usage: &Usage| {
            let stored = clicks::encode(usage);
            (stored, seal(id.as_bytes(), &stored))
        };
        let (mut before, mut after) = (Usage::default(), Usage::default());
        let stored;
        // One way down the tree, where there is something to add to.
        if let Some(mut entry) = self.clicks()?.get_mut(id.as_bytes())? {
            before = clicks::decode_or_none(id, entry.value());
            after = before;
            change(&mut after);
            let sealed;
            (stored, sealed) = seal_usage(&after);
            entry.insert(sealed.as_slice())?;
        } else if self.has(id)? {
            // What has been counted before has a link.
            change(&mut after);
            let sealed;
            (stored, sealed) = seal_usage(&after);
            self.clicks()?.insert(id.as_bytes(), sealed.as_slice())?;
        } else {
            return Ok(None);
        }
        self.modifications += 1;
        self.clicked += 1;
        if let Some(day) = day {
            let clicks = after.clicks.saturating_sub(before.clicks);
            let previews = after.previews.saturating_sub(before.previews);
            self.add_to_day(id, day, clicks, previews)?;
            self.redo.used(id, &stored, day);
        } else {
            // Only what is kept in another form has none: a message of clicks, or a journal that is replayed.
            self.redo.give_up();
        }
        Ok(Some(after))
    }

    fn add_to_day(&mut self, id: LinkId, day: Day, clicks: u64, previews: u64) -> Result<(), StoreError> {
        if clicks == 0 && previews == 0 {
            return Ok(());
        }
        let key = days::key_of_link(day, id);
        let mut partner = None;
        if let Some(mut entry) = self.days()?.get_mut(key.as_slice())?
            && let Some(visits) = days::decode_or_none(&key, entry.value())
        {
            let visits = visits.and(clicks, previews);
            entry.insert(days::encode(&key, &visits).as_slice())?;
            partner = Some(visits.partner);
        }
        if partner.is_none() {
            // Its first visits of the day.
            partner = match self.get(id) {
                Ok(link) => link.map(|link| link.partner_id),
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::error!(%error, "not counting clicks by day");
                    None
                }
                Err(error) => return Err(error),
            };
            if let Some(partner) = partner {
                let visits = Visits::none_of(partner).and(clicks, previews);
                let sealed = days::encode(&key, &visits);
                self.days()?.insert(key.as_slice(), sealed.as_slice())?;
            }
        }
        if let Some(partner) = partner {
            let visits = self.counting.partners.entry((day, partner));
            let visits = visits.or_insert(Visits::none_of(partner));
            *visits = visits.and(clicks, previews);
        }
        Ok(())
    }

    /// Writes what the days of partners have come to.
    pub fn write_partners_days(&mut self) -> Result<(), StoreError> {
        for ((day, partner), more) in std::mem::take(&mut self.counting.partners) {
            let key = days::key_of_partner(day, partner);
            let table = self.days()?;
            let stored = table.get(key.as_slice())?;
            let before = stored.and_then(|sealed| days::decode_or_none(&key, sealed.value()));
            let visits = before
                .unwrap_or(Visits::none_of(partner))
                .and(more.clicks, more.previews);
            table.insert(key.as_slice(), days::encode(&key, &visits).as_slice())?;
        }
        Ok(())
    }

    /// Drops the oldest entries of days before this one, at most so many, and returns how many.
    pub fn drop_days_before(&mut self, day: Day, most: usize) -> Result<usize, StoreError> {
        // Days that this transaction has counted are among them.
        self.write_partners_days()?;
        let first = days::first_key(day);
        let mut dropped = 0;
        let mut last = Vec::new();
        for entry in self
            .days()?
            .extract_from_if(..first.as_slice(), |_, _| true)?
            .take(most)
        {
            last = entry?.0.value().to_vec();
            dropped += 1;
        }
        if dropped > 0 {
            self.modifications += 1;
            self.clicked += 1;
            self.redo.days_dropped(&last);
        }
        Ok(dropped)
    }

    /// Drops the entries of days up to this key.
    pub fn drop_days_until(&mut self, last: &[u8]) -> Result<(), StoreError> {
        self.write_partners_days()?;
        self.days()?.retain_in(..=last, |_, _| false)?;
        self.modifications += 1;
        self.clicked += 1;
        self.redo.days_dropped(last);
        Ok(())
    }

    /// Moves what has been counted of a link, in all and by day, to another one of the same partner. It looks at each
    /// day that the store has, which are those that are kept: no box can make up others.
    pub fn move_usage(&mut self, from: LinkId, to: LinkId) -> Result<(), StoreError> {
        // In a cluster also where nothing has been counted here: what has been elsewhere moves too.
        let is_noted = self.is_in_cluster();
        if is_noted {
            // An id that is retired comes back no more, and moves could lead in a circle if it did.
            if from == to || self.is_moved(to)? {
                let reason = format!("clicks of {from} moved to the retired id {to}");
                return Err(StoreError::damaged(record::NAME, reason));
            }
            self.modifications += 1;
            self.note_moved(from, to)?;
            self.redo.usage_moved(from, to);
        }
        let usage = self.usage(from)?;
        if usage.visits() == 0 {
            return Ok(());
        }
        if !is_noted {
            self.modifications += 1;
            // Earlier versions of the program know no word for it in a journal.
            self.redo.give_up();
        }
        let sealed = seal(to.as_bytes(), &clicks::encode(&usage));
        self.clicks()?.insert(to.as_bytes(), sealed.as_slice())?;
        self.clicks()?.remove(from.as_bytes())?;
        let mut next = Some(Day(0));
        while let Some(first) = next {
            let Some(day) = self.first_day_from(first)? else {
                break;
            };
            let (old, new) = (days::key_of_link(day, from), days::key_of_link(day, to));
            let removed = self.days()?.remove(old.as_slice())?;
            let visits = removed.and_then(|sealed| days::decode_or_none(&old, sealed.value()));
            if let Some(visits) = visits {
                let sealed = days::encode(&new, &visits);
                self.days()?.insert(new.as_slice(), sealed.as_slice())?;
            }
            next = day.0.checked_add(1).map(Day);
        }
        Ok(())
    }

    /// The first day from this one on of which anything has been counted.
    fn first_day_from(&mut self, day: Day) -> Result<Option<Day>, StoreError> {
        let first = days::first_key(day);
        let entry = self.days()?.range(first.as_slice()..)?.next().transpose()?;
        Ok(entry.and_then(|(key, _)| days::day_of(key.value())))
    }

    // Tables that a store need not have yet.

    fn clicks(&mut self) -> Result<&mut Table<'t, Bytes, Bytes>, StoreError> {
        let table = match self.counting.clicks.take() {
            Some(table) => table,
            None => self.inner.open_table(CLICKS)?,
        };
        Ok(self.counting.clicks.insert(table))
    }

    fn days(&mut self) -> Result<&mut Table<'t, Bytes, Bytes>, StoreError> {
        let table = match self.counting.days.take() {
            Some(table) => table,
            None => self.inner.open_table(DAYS)?,
        };
        Ok(self.counting.days.insert(table))
    }
}
