//! Slow clients beside well-behaved ones.

use super::connections::{Redirecting, open_files, refused, wait_until_all_is_as_before};
use super::fixture::{Appliance, poll};
use super::scrape::Scrape;

pub const CLIENTS: usize = 1000;

/// Timeouts short enough for a test.
pub const IMPATIENT: &str = "[public]\nhead_timeout_seconds = 3\nidle_timeout_seconds = 3\nwrite_timeout_seconds = 3\n\
                         max_requests_per_connection = 0\n\
                         [admin]\nbody_timeout_seconds = 3\n";

/// Long enough that a few responses exceed the buffers of a connection.
pub const LONG_DESTINATION_BYTES: usize = 8000;

/// Runs slow clients beside well-behaved ones until the server has closed all slow connections; returns the refusals
/// for these reasons.
pub fn beside_redirects<C>(
    appliance: &Appliance,
    slow: impl FnOnce() -> C,
    is_over: impl FnMut(&mut C) -> bool,
    reasons: &[(&str, &str)],
) -> Vec<f64> {
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    let before = (open_files(appliance), Scrape::of(appliance));
    let redirecting = Redirecting::start(appliance, &id);
    redirecting.wait_for_more();
    let (mut clients, mut is_over) = (slow(), is_over);
    redirecting.wait_for_more();
    poll("the slow ones have ended", || is_over(&mut clients));
    redirecting.wait_for_more();
    redirecting.end();
    drop(clients);
    wait_until_all_is_as_before(appliance, before.0);
    let after = Scrape::of(appliance);
    let added =
        |&(listener, reason): &(&str, &str)| refused(&after, listener, reason) - refused(&before.1, listener, reason);
    reasons.iter().map(added).collect()
}
