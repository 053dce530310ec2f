//! The audit log as a stream of lines.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::http::{self, Response};
use crate::store::AuditQuery;
use crate::transfer::{TransferError, Transfers, stream};

/// How long a client may take nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

impl Transfers {
    /// The entries that a query wants as JSON Lines, the newest first: `left` of them at most.
    pub async fn audit(&self, mut query: AuditQuery, mut left: u64) -> Result<Response, TransferError> {
        let permit = stream::permit(&self.exports, &self.budget)?;
        let links = Arc::clone(&self.links);
        // The first page before the answer begins, so that it can be an error.
        query.limit = usize::try_from(left).unwrap_or(usize::MAX);
        let mut page = links.audit(query.clone()).await?;
        let (sender, response) = http::stream("application/x-ndjson");
        tokio::spawn(async move {
            let _permit = permit;
            loop {
                left = left.saturating_sub(page.entries.len() as u64);
                let mut lines = Vec::new();
                for entry in &page.entries {
                    // Writing to memory does not fail.
                    let _ = serde_json::to_writer(&mut lines, entry);
                    lines.push(b'\n');
                }
                // A stream that is not ended tells the client that something is missing.
                if !lines.is_empty() && !matches!(timeout(WRITE_TIMEOUT, sender.send(lines)).await, Ok(Ok(()))) {
                    return;
                }
                let Some(next) = page.next.filter(|_| left > 0) else {
                    return sender.end().await;
                };
                query.before = Some(next);
                query.limit = usize::try_from(left).unwrap_or(usize::MAX);
                page = match links.audit(query.clone()).await {
                    Ok(page) => page,
                    Err(error) => return tracing::error!(%error, "cannot read the audit log"),
                };
            }
        });
        Ok(response)
    }
}
