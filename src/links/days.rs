//! How links have been used by day. A flush of clicks counts for the day on which a link was used last, so at midnight
//! the clicks of one flush may be a day late.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::links::{LinkError, Links, Loaded, Scope};
use crate::model::{DailyUsage, Day, LinkId, PartnerId};
use crate::store::{Health, Lane, Snapshot, StoreError, Transaction, WriteError};

/// Today and the days before it that are kept.
const DAYS_KEPT: u32 = 90;
/// Entries that a transaction drops, for which other writes wait some milliseconds.
const SWEEP_ENTRIES: usize = if cfg!(test) { 3 } else { 1_000 };
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// A sweep rests this many times as long as each transaction took, so that it takes a tenth of the writer at most.
const REST_FACTOR: u32 = 9;

impl Links {
    /// How a link has been used on each of the last 90 days on which it was, with what is not written yet.
    pub async fn clicks_by_day(&self, id: LinkId, scope: Scope) -> Result<Vec<DailyUsage>, LinkError> {
        let (first, today) = self.days_kept();
        let read = move |snapshot: &Snapshot| {
            let is_shown = snapshot.get(id)?.is_some_and(|link| scope.shows(&link));
            let days = is_shown.then(|| snapshot.usage_by_day(id, first..=today)).transpose()?;
            let days = days.map(|days| Ok::<_, StoreError>((days, snapshot.queued_by_day(id)?)));
            Ok((days.transpose()?, vec![id]))
        };
        let (days, pending) = self.read_with_pending(Lane::Shared, read).await?;
        let (mut days, queued) = days.ok_or(LinkError::NotFound)?;
        let pending = pending.into_iter().filter(|pending| pending.visits() > 0);
        let pending = pending.map(|pending| DailyUsage {
            day: pending.last_used_at.map_or(today, |at| at.day()),
            clicks: pending.clicks,
            previews: pending.previews,
        });
        for pending in queued.into_iter().chain(pending) {
            let day = pending.day;
            let at = match days.binary_search_by_key(&day, |used| used.day) {
                Ok(at) => at,
                Err(at) => {
                    let (clicks, previews) = (0, 0);
                    days.insert(at, DailyUsage { day, clicks, previews });
                    at
                }
            };
            if let Some(used) = days.get_mut(at) {
                used.clicks = used.clicks.saturating_add(pending.clicks);
                used.previews = used.previews.saturating_add(pending.previews);
            }
        }
        Ok(days)
    }

    /// The same for all links of a partner together, as of the last flush, in a cluster as far as the stream of clicks
    /// has been counted.
    pub async fn clicks_of_partner_by_day(&self, partner: PartnerId) -> Result<Vec<DailyUsage>, LinkError> {
        let (first, today) = self.days_kept();
        let read = move |snapshot: &Snapshot| snapshot.usage_of_partner_by_day(partner, first..=today);
        Ok(self.store.read(read).await?)
    }

    /// The days for which clicks of other boxes count, whose clocks may be ahead at midnight.
    pub(super) fn days_counted(&self) -> RangeInclusive<Day> {
        let (first, today) = self.days_kept();
        first..=Day(today.0.saturating_add(1))
    }

    fn days_kept(&self) -> (Day, Day) {
        let today = self.clock.now().day();
        (today.minus(DAYS_KEPT - 1), today)
    }

    /// Drops what is older, a little at a time. A fast clock must not drop what is not.
    pub async fn sweep_days(&self) -> Result<(), WriteError> {
        // A store that was empty has no days of before.
        let known = |loaded: &Loaded| if self.stored() == 0 { loaded.at } else { loaded.newest };
        let Some(now) = self.time_at_most(known) else {
            return Ok(());
        };
        let first = now.day().minus(DAYS_KEPT - 1);
        loop {
            let began = Instant::now();
            let job = move |transaction: &mut Transaction<'_>| transaction.drop_days_before(first, SWEEP_ENTRIES);
            let dropped = self.store.write_local(job).await?;
            if dropped > 0 {
                tracing::debug!(dropped, "dropped clicks of days long ago");
            }
            if dropped < SWEEP_ENTRIES || self.is_ending() {
                return Ok(());
            }
            tokio::time::sleep(began.elapsed() * REST_FACTOR).await;
        }
    }

    pub async fn keep_sweeping_days(&self) {
        while self.health() != Health::ReadOnly {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            if let Err(error) = self.sweep_days().await {
                tracing::warn!(%error, "cannot drop clicks of days long ago");
            }
        }
    }
}
