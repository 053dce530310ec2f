//! The context of a call: its request, and the client that waits for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;
use tokio::sync::watch;

use crate::kaltura;
use crate::links::ReadContext;

/// How long the calls of a request may take together: none begins later.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The request of a call.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) address: IpAddr,
    /// Path and query, as sent, but for empty segments.
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    /// For all its calls together.
    pub(super) reading: ReadContext,
}

/// The client of a request, as its calls see it. Dropping it means that the client has left, or has its answer.
pub(super) struct ClientPresence {
    left: watch::Sender<bool>,
    has_left: Arc<AtomicBool>,
}

impl Drop for ClientPresence {
    fn drop(&mut self) {
        self.has_left.store(true, Ordering::Relaxed);
        self.left.send_replace(true);
    }
}

pub(super) fn caller_of(
    head: &hyper::http::request::Parts,
    address: IpAddr,
    started: Instant,
) -> (Caller, ClientPresence) {
    let mut uri = kaltura::merge_slashes(head.uri.path()).into_owned();
    if let Some(query) = head.uri.query() {
        uri.extend(["?", query]);
    }
    let presence = ClientPresence {
        left: watch::Sender::new(false),
        has_left: Arc::default(),
    };
    let caller = Caller {
        address,
        uri,
        headers: head.headers.clone(),
        reading: ReadContext {
            deadline: started + REQUEST_TIMEOUT,
            left: presence.left.subscribe(),
            has_left: Arc::clone(&presence.has_left),
            is_awaited: watch::Sender::new(false),
        },
    };
    (caller, presence)
}
