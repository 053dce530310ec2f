//! `/readyz`: whether the appliance does its work.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::links::Links;
use crate::metrics::ClusterReport;
use crate::model::Timestamp;
use crate::store::Health;

/// Every link is in memory and the store takes writes; if not, which of them is missing and why.
///
/// What is wrong with a cluster is said, and no reason to send redirects elsewhere: all boxes have it at once.
pub fn respond(links: &Links, cluster: Option<ClusterReport>) -> Response {
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
    });
    if let (Some(cluster), Some(members)) = (cluster, body.as_object_mut()) {
        members.insert("cluster".to_owned(), described(&cluster));
    }
    let mut body = body.to_string();
    body.push('\n');
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    http::bytes(status, "application/json", body)
}

fn described(cluster: &ClusterReport) -> Value {
    json!({
        "role": cluster.role,
        "node": cluster.node,
        "epoch": cluster.epoch,
        "position": cluster.position,
        "head": cluster.head,
        "behindSeconds": cluster.behind.as_secs(),
        "silentSeconds": cluster.silent.as_secs(),
        "halted": cluster.halted,
        // An edge takes none.
        "acceptingWrites": cluster.admin.as_ref().is_some_and(|admin| admin.refused.is_none()),
        "reason": cluster.admin.as_ref().and_then(|admin| admin.refused.as_ref()),
    })
}
