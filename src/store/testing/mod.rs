//! A simulated disk that fails, loses power and lies.

pub mod simulated;

use crate::store::Progress;

impl Progress for () {
    fn begin(&mut self, _: &'static str, _: u64) {}

    fn advance(&mut self, _: u64) {}
}
