//! `/readyz`: whether the appliance does its work.

use hyper::StatusCode;
use serde_json::json;

use crate::http::{self, Response};
use crate::links::Links;
use crate::model::Timestamp;
use crate::store::Health;

/// Every link is in memory and the store takes writes; if not, which of them is missing and why.
pub fn respond(links: &Links) -> Response {
    let loaded = links.index().is_loaded();
    let (health, inspected) = (links.health(), links.store().inspected());
    // A read-only store needs no writes.
    let is_read_only = health == Health::ReadOnly;
    let (accepting, reason) = match health {
        Health::Accepting => (true, None),
        Health::Refusing(reason) => (false, Some(reason)),
        Health::ReadOnly => (false, Some("opened read-only".to_owned())),
    };
    let ready = loaded && (accepting || is_read_only);
    let mut body = json!({
        "ready": ready,
        "map": {
            "loaded": loaded,
            "links": links.index().links(),
            // What it had at the start; links that were added since are in the map already.
            "stored": links.stored(),
            "damaged": links.index().damaged(),
        },
        "store": {
            "acceptingWrites": accepting,
            "reason": reason,
            // Damage concerns some links, and is no reason to send the requests for all others elsewhere.
            "verified": inspected.at.map(Timestamp::as_unix),
            "problems": inspected.problems,
        },
    })
    .to_string();
    body.push('\n');
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    http::bytes(status, "application/json", body)
}
