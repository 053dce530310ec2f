//! Leaving a cluster.

use std::path::Path;

use crate::store::error::{OpenError, StoreError};
use crate::store::files::medium::{Medium as _, StoreFile};
use crate::store::format::{outbox, tables};
use crate::store::journal::redo::Redo;
use crate::store::read::snapshot::Snapshot;
use crate::store::write::transaction::Transaction;

/// Takes a store that no process has open out of its cluster; false if it is in none.
pub fn leave_cluster(path: &Path) -> Result<bool, OpenError> {
    let database = StoreFile::new(path).open()?;
    let snapshot = Snapshot::new(&database)?;
    let (is_in_cluster, sequence) = (snapshot.position().is_some(), snapshot.sequence);
    drop(snapshot);
    if is_in_cluster {
        let mut transaction = database.begin_write().map_err(StoreError::from)?;
        transaction.set_quick_repair(true);
        // What this box has counted is its own again.
        let waiting = outbox::waiting(&transaction)?;
        let mut own = Transaction::open(&transaction, false, Redo::not_kept())?;
        for (id, usage, day) in waiting {
            own.add_usage(&[(id, usage)], day)?;
        }
        own.finish(sequence)?;
        outbox::forget(&transaction)?;
        tables::forget_replication(&transaction)?;
        transaction.commit().map_err(StoreError::from)?;
    }
    Ok(is_in_cluster)
}
