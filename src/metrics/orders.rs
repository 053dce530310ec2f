//! Orders of certificates (ACME).

use parking_lot::Mutex;

use crate::metrics::Counter;
use crate::metrics::labels::labels;

labels! {
    pub enum OrderOutcome {
        Issued = "issued",
        Failed = "failed",
    }
}

#[derive(Debug, Default)]
pub struct Orders {
    ended: [Counter; OrderOutcome::ALL.len()],
    problem: Mutex<Option<String>>,
    next: Mutex<Option<i64>>,
}

/// What is known of orders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcmeReport {
    /// Why the last order failed; `None`: it did not.
    pub problem: Option<String>,
    pub issued: u64,
    pub failed: u64,
    /// When the next order is due, in seconds since 1970.
    pub next: Option<i64>,
}

impl AcmeReport {
    /// In the order of [`OrderOutcome::ALL`].
    pub const fn ended(&self) -> [u64; OrderOutcome::ALL.len()] {
        [self.issued, self.failed]
    }
}

impl Orders {
    pub fn count(&self, outcome: OrderOutcome) {
        if let Some(counter) = self.ended.get(outcome as usize) {
            counter.increment();
        }
    }

    /// Says why no certificate could be had, or that this is over. Returns whether it says anything new.
    pub fn set_problem(&self, problem: Option<&str>) -> bool {
        let mut known = self.problem.lock();
        let is_new = known.as_deref() != problem;
        *known = problem.map(str::to_owned);
        is_new
    }

    pub fn set_next(&self, next: Option<i64>) {
        *self.next.lock() = next;
    }

    pub fn read(&self) -> AcmeReport {
        let [issued, failed] = self.ended.each_ref().map(Counter::get);
        AcmeReport {
            problem: self.problem.lock().clone(),
            issued,
            failed,
            next: *self.next.lock(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_has_what_was_said_last() {
        let orders = Orders::default();
        assert_eq!(orders.read(), AcmeReport::default());
        orders.count(OrderOutcome::Failed);
        assert!(orders.set_problem(Some("down")) && !orders.set_problem(Some("down")));
        orders.set_next(Some(7));
        let report = orders.read();
        assert_eq!((report.ended(), report.problem.as_deref()), ([0, 1], Some("down")));
        assert_eq!(report.next, Some(7));
        orders.count(OrderOutcome::Issued);
        assert!(orders.set_problem(None));
        assert_eq!((orders.read().ended(), orders.read().problem), ([1, 1], None));
    }
}
