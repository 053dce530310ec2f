//! A budget in bytes over all that is held in memory for requests and answers at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};

use crate::http::response::{Body, Response};

/// Responses up to this size are sent even when the budget is used up: the reason, and the metrics that show it.
const SMALL_BYTES: usize = 64 * 1024;

/// A budget of memory. Holders reserve bytes; a request that would exceed it is refused.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    most: usize,
}

impl Budget {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            most,
        })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation {
            budget: Arc::clone(self),
            bytes: 0,
        };
        reservation.grow(bytes).then_some(reservation)
    }

    /// Counts the body of a response until it is sent. A response may bring its reservation as an extension. `None`: no
    /// room.
    pub fn hold(self: &Arc<Self>, mut response: Response) -> Option<Response> {
        let reserved = response.extensions_mut().remove::<Arc<Reservation>>();
        let (head, body) = response.into_parts();
        let body = match body {
            Either::Left(body) => Either::Left(self.hold_body(body, reserved)?),
            stream @ Either::Right(_) => stream,
        };
        Some(Response::from_parts(head, body))
    }

    fn reserve_answer(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut reservation = self.reserve(0)?;
        if !reservation.grow(bytes) {
            if bytes > SMALL_BYTES {
                return None;
            }
            reservation.grow_anyway(bytes);
        }
        Some(reservation)
    }

    fn hold_body(self: &Arc<Self>, body: Full<Bytes>, reserved: Option<Arc<Reservation>>) -> Option<Full<Bytes>> {
        // A whole body is ready at once.
        let frame = futures_util::FutureExt::now_or_never(body.collect());
        let bytes = frame.and_then(Result::ok).map(http_body_util::Collected::to_bytes)?;
        if bytes.is_empty() {
            return Some(Full::new(bytes));
        }
        let reservation = match reserved {
            Some(reservation) => reservation,
            None => Arc::new(self.reserve_answer(bytes.len())?),
        };
        Some(Full::new(Bytes::from_owner(Held {
            bytes,
            _reservation: reservation,
        })))
    }
}

/// Bytes and their reservation.
struct Held {
    bytes: Bytes,
    _reservation: Arc<Reservation>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Reserves more, or nothing and returns false.
    pub fn grow(&mut self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.budget.most);
        let reserved = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if reserved.is_ok() {
            self.bytes += bytes;
        }
        reserved.is_ok()
    }

    /// Reserves more even beyond the budget, for small responses that must be sent, such as that a link was added.
    pub fn grow_anyway(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    pub fn is_exhausted(&self) -> bool {
        self.budget.used() >= self.budget.most
    }

    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.budget.used.fetch_sub(surplus, Ordering::Relaxed);
        self.bytes -= surplus;
    }

    /// Passes the reservation on to a response.
    pub fn leave_to(self, response: &mut hyper::Response<Body>) {
        response.extensions_mut().insert(Arc::new(self));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::response;
    use hyper::StatusCode;

    #[test]
    fn reserved_bytes_are_bounded_and_released() {
        let budget = Budget::new(100);
        let mut one = budget.reserve(60).unwrap();
        assert!(budget.reserve(41).is_none());
        assert!(one.grow(40) && !one.grow(1));
        one.grow_anyway(5);
        assert_eq!(budget.used(), 105);
        one.shrink_to(70);
        assert_eq!(budget.used(), 70);
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_answer_counts_until_its_last_byte_is_dropped() {
        let budget = Budget::new(100);
        let answer = |bytes: usize| response::text(StatusCode::OK, "x".repeat(bytes));
        assert!(budget.hold(answer(SMALL_BYTES + 1)).is_none());
        let small = budget.hold(answer(101)).unwrap();
        assert_eq!(budget.used(), 101);
        drop(small);
        let held = budget.hold(answer(80)).unwrap();
        assert_eq!(budget.used(), 80);
        let body = futures_util::FutureExt::now_or_never(held.into_body().collect());
        let bytes = body.unwrap().unwrap().to_bytes();
        let last = bytes.slice(79..);
        drop(bytes);
        assert_eq!((budget.used(), last.as_ref()), (80, b"x".as_slice()));
        drop(last);
        assert_eq!(budget.used(), 0);

        let mut reserved = answer(10);
        budget.reserve(10).unwrap().leave_to(&mut reserved);
        let held = budget.hold(reserved).unwrap();
        assert_eq!(budget.used(), 10);
        drop(held);
        assert_eq!(budget.used(), 0);
    }
}
