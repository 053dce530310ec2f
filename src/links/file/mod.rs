//! Links as lines of a file: JSON Lines and CSV, with the names of the API (docs/kaltura-api.md#kalturashortlink).
//!
//! Reads untrusted files: every line is a link that could be stored, or says what is wrong with it.

mod export;
mod import;
mod json;
mod log;
mod put;
mod read;
mod report;
mod staged;
mod write;

#[cfg(test)]
mod tests;

pub use export::export;
pub use import::{OnLines, import};
pub use json::{LinkJson, UsageJson, UsedLinkJson};
pub use log::ImportLog;
pub use put::{Conflict, ImportOptions};
pub use read::{Defaults, Line, read};
pub use report::{ImportError, ImportEvent, ImportReport, LineProblem};
pub use write::LinkWriter;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON object per line, with every field.
    JsonLines,
    /// A header line, then one line per link. An empty value means null.
    Csv,
}

impl FileFormat {
    /// By its name, which is also the file extension.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "jsonl" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
        }
    }
}

/// The columns: those of Kaltura's objects, then tinyd's own.
pub const FIELDS: [&str; 12] = [
    "id",
    "createdAt",
    "updatedAt",
    "expiresAt",
    "partnerId",
    "userId",
    "name",
    "systemName",
    "fullUrl",
    "uniqueId",
    "status",
    STARTS_AT,
];
/// A line without it keeps the start of a stored link; an empty one or null clears it.
const STARTS_AT: &str = "startsAt";
/// The start of a retired id in CSV. Spreadsheets round the number, and write it back so.
const NEVER: &str = "never";
