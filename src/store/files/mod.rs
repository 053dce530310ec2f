//! The files: opening and reopening them, copies, dumps, compaction, and the note of the last backup.

pub mod compact;
pub mod disk;
pub mod dump;
pub mod last_backup;
pub mod medium;
pub mod overlay;
pub mod unfinished;
