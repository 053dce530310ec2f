//! Links as lines of a file: JSON Lines and CSV, with the names of the API (docs/kaltura-api.md#kalturashortlink).
//!
//! Reads untrusted files: every line is a link that could be stored, or says what is wrong with it.

mod export;
mod import;
mod json;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use export::export;
pub use import::{Conflict, ImportError, ImportEvent, ImportOptions, ImportReport, LineProblem, import};
pub use json::{LinkJson, UsageJson, UsedLinkJson};
pub use read::{Defaults, Line, read};
pub use write::LinkWriter;

/// How a link is written on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// A JSON object a line, with every field.
    JsonLines,
    /// A line of names, then a line of values a link. Null and an empty text are the same.
    Csv,
}

impl FileFormat {
    /// The format with this name, which is also the ending of its files.
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

/// The fields, in the order of the columns.
const FIELDS: [&str; 11] = [
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
];
