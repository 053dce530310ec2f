//! The verification of the store while it is used: after the start, and daily.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::links::Links;
use crate::store::{Inspected, Inspection, StoreError};

const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause while the store cannot be read or the map is loading.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// It rests this many times as long as each step took: it uses a tenth of one core.
const REST_FACTOR: u32 = 9;

pub(super) async fn run(links: Arc<Links>) {
    while links.load_time().is_none() {
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    loop {
        inspect(&links).await;
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn inspect(links: &Arc<Links>) {
    let before = links.store().inspected();
    let mut inspection = Inspection::default();
    let began = Instant::now();
    loop {
        let step_began = Instant::now();
        let (stepping, mut moved) = (Arc::clone(links), inspection);
        // An unreadable page counts as a problem; a panic ends the inspection.
        let stepped = tokio::task::spawn_blocking(move || (moved.step(stepping.store()), moved)).await;
        let Ok((stepped, moved)) = stepped else { return };
        inspection = moved;
        let problems = before.problems.max(inspection.problems);
        links.store().note_inspected(Inspected { problems, ..before });
        match stepped {
            Ok(true) => tokio::time::sleep(step_began.elapsed() * REST_FACTOR).await,
            Ok(false) => break,
            // The writer reopens it.
            Err(StoreError::Closed) => tokio::time::sleep(RETRY_INTERVAL).await,
            Err(error) => {
                tracing::warn!(%error, "cannot verify the store now");
                links.store().nudge();
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
    let (entries, problems, elapsed) = (inspection.entries, inspection.problems, began.elapsed());
    links.store().note_inspected(Inspected {
        at: Some(links.clock().now()),
        problems,
    });
    if problems > 0 {
        tracing::error!(
            entries,
            problems,
            ?elapsed,
            "the store is damaged: see docs/troubleshooting.md"
        );
    } else if entries == 0 {
        tracing::debug!("store is empty, nothing to verify");
    } else {
        tracing::info!(entries, ?elapsed, "store verified, no problems");
    }
}
