//! The open connections: their limits, in all and for each client, and the eviction of idle ones.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::http::per_client::{Slot, Slots};
use crate::http::{self, HeadLimits, Limits, Peer, Proxies};
use crate::metrics::{Connections, OpenConnection, Refusal};
use crate::model::{Clock, Timestamp, client_network};

/// Least idle time of a connection that is evicted, in seconds. One that was used since then is likely to be used
/// again.
const IDLE_SECONDS: u32 = 2;
/// Connections that are looked at to find the idlest one: among so many, one of the idlest tenth is nearly always.
const LOOKED_AT: usize = 32;
/// Stands for the time of a connection that has a request in flight.
const BUSY: u32 = u32::MAX;

/// `Retry-After` of a refused connection, in seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

/// The reason given to a client with too many connections.
pub fn full_for_address(now: Timestamp) -> Vec<u8> {
    http::turned_away(StatusCode::TOO_MANY_REQUESTS, RETRY_AFTER_SECONDS, now)
}

fn full(now: Timestamp) -> Vec<u8> {
    http::turned_away(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER_SECONDS, now)
}

/// What the connections of a listener are served by. A reload makes another one, for those that come after it.
#[derive(Debug)]
pub struct ConnectionPolicy {
    pub limits: Limits,
    pub head: HeadLimits,
    pub proxies: Arc<Proxies>,
}

impl From<&Limits> for ConnectionPolicy {
    fn from(limits: &Limits) -> Self {
        Self {
            head: HeadLimits {
                head_bytes: limits.head_bytes,
                target_bytes: limits.target_bytes,
                headers: limits.headers,
            },
            proxies: Arc::new(Proxies::new(limits.trusted_proxies.clone())),
            limits: limits.clone(),
        }
    }
}

impl ConnectionPolicy {
    /// Whether a peer says whom its connection is for before anything else.
    pub fn is_announced_by(&self, peer: &Peer) -> bool {
        self.limits.proxy_protocol && peer.is_proxy()
    }
}

/// By what the connections of a listener come in.
#[derive(Debug, Clone)]
pub struct Gate {
    pub admission: Arc<Admission>,
    pub policy: watch::Receiver<Arc<ConnectionPolicy>>,
    pub clock: Clock,
    pub stopped: watch::Receiver<bool>,
}

/// A connection that has been let in.
#[derive(Debug)]
pub struct AcceptedConnection {
    pub peer: Peer,
    pub slot: ConnectionSlot,
    pub policy: Arc<ConnectionPolicy>,
    pub at: Instant,
}

impl Gate {
    /// Lets a connection in, or refuses it and tells it so.
    pub fn admit(
        &self,
        stream: &TcpStream,
        address: IpAddr,
        connections: &ConnectionSet,
    ) -> Option<AcceptedConnection> {
        let policy = Arc::clone(&self.policy.borrow());
        let (peer, now) = (Peer::new(address, &policy.proxies), self.clock.now());
        let slot = self.admission.admit(stream, &peer, &policy.limits, connections, now)?;
        Some(AcceptedConnection {
            peer,
            slot,
            policy,
            at: Instant::now(),
        })
    }

    /// What a connection lives under that stays for longer.
    pub fn context(&self, policy: Arc<ConnectionPolicy>) -> ConnectionContext {
        ConnectionContext {
            policy,
            counts: Arc::clone(&self.admission.counts),
            clock: self.clock.clone(),
            stopped: self.stopped.clone(),
        }
    }
}

/// What the server of a connection needs to know.
#[derive(Debug, Clone)]
pub struct ConnectionContext {
    pub policy: Arc<ConnectionPolicy>,
    pub counts: Arc<Connections>,
    pub clock: Clock,
    pub stopped: watch::Receiver<bool>,
}

/// The connections of a listener, of all its threads together.
#[derive(Debug)]
pub struct Admission {
    counts: Arc<Connections>,
    /// Only where there is a limit for each.
    slots: Arc<Slots<IpAddr>>,
}

impl Admission {
    pub fn new(counts: Arc<Connections>) -> Arc<Self> {
        Arc::new(Self {
            counts,
            slots: Arc::default(),
        })
    }

    /// Takes a slot for a connection until the result is dropped. At the limit, the idlest connection of the thread is
    /// evicted. `None`: the connection was refused and answered.
    fn admit(
        self: &Arc<Self>,
        stream: &TcpStream,
        peer: &Peer,
        limits: &Limits,
        connections: &ConnectionSet,
        now: Timestamp,
    ) -> Option<ConnectionSlot> {
        // Proxies come for many.
        let network = (!peer.is_proxy()).then(|| peer.address());
        let mut slot = ConnectionSlot {
            admission: Arc::clone(self),
            of_client: None,
            _open: self.counts.accepted(),
        };
        if !network.is_none_or(|address| slot.belong_to(address, limits)) {
            refuse(stream, &full_for_address(now));
            return None;
        }
        // The connection itself is counted already.
        if self.counts.open() > limits.connections as u64 {
            self.counts.refused(Refusal::Connections);
            if !connections.close_idlest(Instant::now()) {
                refuse(stream, &full(now));
                return None;
            }
        }
        Some(slot)
    }
}

/// Says why, as far as that costs nothing. What the client has sent is taken from the socket, because the kernel would
/// otherwise break the connection, and the answer with it.
fn refuse(mut stream: &TcpStream, answer: &[u8]) {
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write(answer);
}

/// The slot of an accepted connection.
#[derive(Debug)]
pub struct ConnectionSlot {
    admission: Arc<Admission>,
    of_client: Option<Slot<IpAddr>>,
    _open: OpenConnection,
}

impl ConnectionSlot {
    /// Counts the connection for an address; false if that has too many already.
    pub fn belong_to(&mut self, address: IpAddr, limits: &Limits) -> bool {
        let Some(most) = limits.connections_per_address else {
            return true;
        };
        self.of_client = self.admission.slots.take(client_network(address), most, usize::MAX);
        if self.of_client.is_none() {
            self.admission.counts.refused(Refusal::AddressConnections);
        }
        self.of_client.is_some()
    }
}

/// The connections of a thread, or of several that share one runtime, which wait for requests.
#[derive(Debug, Clone, Default)]
pub struct ConnectionSet {
    entries: Arc<Mutex<Entries>>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Entries {
    list: Vec<Arc<LastUsed>>,
    /// Where to look next for one that is idle.
    hand: usize,
}

/// When a connection was last used.
#[derive(Debug, Default)]
pub struct LastUsed {
    /// As [`seconds`] has it, or [`BUSY`].
    last: AtomicU32,
    position: AtomicUsize,
    task: OnceLock<AbortHandle>,
}

impl LastUsed {
    /// The connection waits for its next request from now on.
    pub fn rest(&self, now: Instant) {
        self.last.store(seconds(now), Ordering::Relaxed);
    }

    /// It has a request in flight, and must not be closed.
    pub fn work(&self) {
        self.last.store(BUSY, Ordering::Relaxed);
    }
}

/// Seconds since a little before the first connection came. Not those of the day: a clock that is set must make
/// nobody idle.
fn seconds(time: Instant) -> u32 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = time.saturating_duration_since(*FIRST) + Duration::from_secs(u64::from(IDLE_SECONDS) + 1);
    u32::try_from(since.as_secs()).unwrap_or(BUSY).min(BUSY - 1)
}

impl ConnectionSet {
    /// Serves a connection in a task of its own, which may be ended when it has to give way.
    pub fn spawn<F>(&self, now: Instant, serve: impl FnOnce(ConnectionEntry) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let entry = self.enter(now);
        let activity = Arc::clone(entry.activity());
        let task = self.tasks.spawn(serve(entry));
        // There is one only.
        let _ = activity.task.set(task.abort_handle());
    }

    /// Waits until all connections have ended; no more may come.
    pub async fn all_ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn enter(&self, now: Instant) -> ConnectionEntry {
        let mut entries = self.entries.lock();
        let activity = Arc::new(LastUsed {
            last: AtomicU32::new(seconds(now)),
            position: AtomicUsize::new(entries.list.len()),
            task: OnceLock::new(),
        });
        entries.list.push(Arc::clone(&activity));
        ConnectionEntry {
            entries: Arc::clone(&self.entries),
            activity,
        }
    }

    /// Closes one of the connections that have been idle for longest; false if there is none.
    fn close_idlest(&self, now: Instant) -> bool {
        let mut entries = self.entries.lock();
        let count = entries.list.len();
        let before = seconds(now).saturating_sub(IDLE_SECONDS);
        let mut idlest: Option<(u32, &LastUsed, &AbortHandle)> = None;
        for offset in 0..count.min(LOOKED_AT) {
            let Some(activity) = entries.list.get((entries.hand + offset) % count) else {
                continue;
            };
            let last = activity.last.load(Ordering::Relaxed);
            let is_idler = last <= before && idlest.is_none_or(|(idlest, ..)| last < idlest);
            if let Some(task) = activity.task.get()
                && is_idler
                && !task.is_finished()
            {
                idlest = Some((last, activity, task));
            }
        }
        let is_closed = idlest.is_some_and(|(last, activity, task)| {
            // The general threads go on meanwhile, and one that is asked something stays. If it is not, it counts as
            // busy from now on, because it gives way to one only.
            let taken = activity
                .last
                .compare_exchange(last, BUSY, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                task.abort();
            }
            taken.is_ok()
        });
        entries.hand = (entries.hand + LOOKED_AT).checked_rem(count).unwrap_or_default();
        is_closed
    }
}

#[derive(Debug)]
pub struct ConnectionEntry {
    entries: Arc<Mutex<Entries>>,
    activity: Arc<LastUsed>,
}

impl ConnectionEntry {
    pub const fn activity(&self) -> &Arc<LastUsed> {
        &self.activity
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        let mut entries = self.entries.lock();
        let position = self.activity.position.load(Ordering::Relaxed);
        if position < entries.list.len() {
            entries.list.swap_remove(position);
        }
        if let Some(moved) = entries.list.get(position) {
            moved.position.store(position, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_follows_the_steady_clock() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _in_runtime = runtime.enter();
        let (connections, began) = (ConnectionSet::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        connections.spawn(began, |entry| async move {
            let _member = entry;
            std::future::pending::<()>().await;
        });
        assert!(!connections.close_idlest(at(1)));
        assert!(connections.close_idlest(at(3)));
    }
}
