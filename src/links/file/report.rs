//! What an import comes to.

use std::io;

use serde::{Deserialize, Serialize};

use crate::links::file::ImportLog;
use crate::model::{PROBLEMS_LISTED_MAX, PartnerId};
use crate::store::{StoreError, Transaction, WriteError};

/// What an import did, or a dry run would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportReport {
    pub added: u64,
    pub updated: u64,
    /// Stored links that equal their lines.
    pub unchanged: u64,
    /// Lines whose id is taken.
    pub skipped: u64,
    pub refused: u64,
    pub problems: Vec<LineProblem>,
    /// Imported lines that the API's `add` would refuse.
    #[serde(default)]
    pub warned: u64,
    #[serde(default)]
    pub warnings: Vec<LineProblem>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_ids: Vec<String>,
    /// Whether links were written: not by a dry run, and not if a line was invalid without `keep_going`.
    pub applied: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LineProblem {
    pub line: u64,
    pub reason: String,
}

/// A line of the API's response to an import. The report comes last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImportEvent {
    Progress {
        lines: u64,
    },
    #[serde(rename_all = "camelCase")]
    Failed {
        error: String,
        #[serde(default)]
        is_of_the_store: bool,
    },
    Report(ImportReport),
}

impl ImportReport {
    /// Notes it in the audit log, if anything was changed.
    pub(super) fn note(
        &self,
        transaction: &mut Transaction<'_>,
        log: &ImportLog,
        partner: Option<PartnerId>,
        noted: Option<u64>,
    ) -> Result<Option<u64>, StoreError> {
        if self.added + self.updated == 0 {
            return Ok(noted);
        }
        log.note(transaction, &self.counts(), partner, noted)
    }

    pub const fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("added", self.added),
            ("updated", self.updated),
            ("unchanged", self.unchanged),
            ("skipped", self.skipped),
            ("refused", self.refused),
        ]
    }

    pub(super) fn refuse(&mut self, line: u64, reason: String) {
        self.refused += 1;
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(LineProblem { line, reason });
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read; without `keep_going`, nothing was written.
    #[error("cannot read the file")]
    File(#[source] io::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why an import could not be worked out.
pub(super) fn unread(error: StoreError) -> ImportError {
    match error {
        StoreError::Log(_) => ImportError::Write(WriteError::Unavailable),
        error if error.is_of_the_file() => ImportError::Write(WriteError::Unavailable),
        error => ImportError::File(io::Error::other(error)),
    }
}
