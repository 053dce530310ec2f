//! How much of the machine there is.

use std::num::NonZero;
use std::thread;

/// How many threads can run at once in what the system gives this process; 1 where it does not say.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}
