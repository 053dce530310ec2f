//! How far long work is.

/// Follows the progress of long work.
pub trait Progress {
    /// Something of `total` parts begins.
    fn begin(&mut self, what: &'static str, total: u64);

    /// So many more parts are done.
    fn advance(&mut self, parts: u64);
}

impl Progress for () {
    fn begin(&mut self, _: &'static str, _: u64) {}

    fn advance(&mut self, _: u64) {}
}
