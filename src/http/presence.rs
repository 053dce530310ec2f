//! Whether a client has to be there until it has its answer, and how long that may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whether the client of a request must stay until it has its response, as during a fetch, and for how long. The
/// connection loop puts it into the request, and closes the connection of a client that must stay and leaves or takes
/// too long. Other clients may close their side of a connection and still get their response.
#[derive(Debug, Clone)]
pub struct ClientPresence {
    origin: Instant,
    /// Milliseconds since `origin`, or [`NOT_REQUIRED`].
    until: Arc<AtomicU64>,
}

const NOT_REQUIRED: u64 = u64::MAX;

impl Default for ClientPresence {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            until: Arc::new(AtomicU64::new(NOT_REQUIRED)),
        }
    }
}

impl ClientPresence {
    pub fn require_until(&self, deadline: Instant) {
        let time = deadline.saturating_duration_since(self.origin).as_millis();
        let time = u64::try_from(time).unwrap_or(NOT_REQUIRED).min(NOT_REQUIRED - 1);
        self.until.store(time, Ordering::Release);
    }

    pub fn release(&self) {
        self.until.store(NOT_REQUIRED, Ordering::Release);
    }

    pub fn required_until(&self) -> Option<Instant> {
        match self.until.load(Ordering::Acquire) {
            NOT_REQUIRED => None,
            time => self.origin.checked_add(Duration::from_millis(time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_must_stay_until_deadline_or_release() {
        let presence = ClientPresence::default();
        assert_eq!(presence.required_until(), None);
        let deadline = Instant::now() + Duration::from_secs(10);
        presence.clone().require_until(deadline);
        let until = presence.required_until().unwrap();
        assert!(until <= deadline && until > deadline - Duration::from_millis(2));
        presence.release();
        assert_eq!(presence.required_until(), None);
    }
}
