//! Sessions that somebody has started or tried to, by the way in which.

use crate::metrics::labels::labels;
use crate::metrics::number::Counter;

labels! {
    pub enum StartMethod {
        /// `session.start`.
        Api = "api",
        // At the console.
        Secret = "secret",
        Link = "link",
        Oidc = "oidc",
        /// Which signs in at each request.
        Header = "header",
    }
}

labels! {
    pub enum StartOutcome {
        Started = "started",
        /// A wrong secret, say, or somebody who may not sign in.
        Refused = "refused",
        /// Too many have failed before: nothing was compared.
        Throttled = "throttled",
        /// Of others, such as an OpenID provider that does not answer.
        Unavailable = "unavailable",
    }
}

pub type StartCounts = [[u64; StartOutcome::ALL.len()]; StartMethod::ALL.len()];

#[derive(Debug, Default)]
pub struct SessionStartCounters([[Counter; StartOutcome::ALL.len()]; StartMethod::ALL.len()]);

impl SessionStartCounters {
    pub fn count(&self, method: StartMethod, outcome: StartOutcome) {
        let of_method = self.0.get(method as usize);
        if let Some(counter) = of_method.and_then(|outcomes| outcomes.get(outcome as usize)) {
            counter.increment();
        }
    }

    pub fn read(&self) -> StartCounts {
        self.0.each_ref().map(|outcomes| outcomes.each_ref().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_in_the_order_in_which_they_are_read() {
        for (method_number, method) in StartMethod::ALL.into_iter().enumerate() {
            for (number, outcome) in StartOutcome::ALL.into_iter().enumerate() {
                let counters = SessionStartCounters::default();
                counters.count(method, outcome);
                assert_eq!(counters.read()[method_number][number], 1, "{method:?} {outcome:?}");
            }
        }
    }
}
