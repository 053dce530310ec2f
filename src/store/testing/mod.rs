//! A simulated disk that fails, loses power and lies, and a replication log and a stream of clicks that do too.

pub mod clicks;
pub mod log;
pub mod simulated;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

/// What holds a job up, whose copies share it, until something is sent.
pub fn gate() -> (Sender<()>, Arc<Mutex<Receiver<()>>>) {
    let (open_gate, gate) = channel();
    (open_gate, Arc::new(Mutex::new(gate)))
}

/// As messages and stored values end with.
pub fn checksum_of(bytes: &[u8]) -> [u8; 4] {
    crate::store::format::checksum::checksum(&[bytes])
}
