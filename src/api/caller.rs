//! The context of a call: its request, and the client that waits for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, USER_AGENT};
use tokio::sync::watch;

use crate::kaltura;
use crate::kaltura::session::Session;
use crate::links::ReadContext;
use crate::model::{Actor, Way};

/// How long the calls of a request may take together: none begins later.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How the user agent of the command line begins.
pub const COMMAND_LINE: &str = "tinyd/";

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

impl Caller {
    /// Who changes something with a session, for the audit log.
    pub(super) fn actor(&self, session: &Session) -> Actor {
        let client = self.headers.get(USER_AGENT);
        let is_command_line = client.is_some_and(|client| client.as_bytes().starts_with(COMMAND_LINE.as_bytes()));
        let way = if is_command_line { Way::CommandLine } else { Way::Api };
        Actor::of(session, way)
    }
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
