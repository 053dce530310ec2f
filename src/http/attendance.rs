//! Whether a client has to be there until it has its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the client of a request has to be there until it has its answer, as when a destination is fetched for it. Who serves
/// the connection puts it into the request, and ends it when a client leaves that is needed. Other clients may close their
/// side of a connection and still get what they have asked for.
#[derive(Debug, Clone, Default)]
pub struct Attendance(Arc<AtomicBool>);

impl Attendance {
    /// From now on the client is needed.
    pub fn require(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// The request has been answered.
    pub fn release(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether the client is needed.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
