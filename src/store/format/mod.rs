//! What stands on disk: tables, keys, values and records, the checksum of each, and the upgrade of older formats.
//!
//! Alone names bincode. The byte layouts are in docs/store-format.md.

pub mod audit;
pub mod checksum;
pub mod clicks;
pub mod days;
pub mod format_1;
pub mod keys;
pub mod outbox;
pub mod record;
pub mod staged;
pub mod tables;
pub mod upgrade;
pub mod values;
