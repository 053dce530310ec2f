//! The open connections: their limits, in all and for each client, and the eviction of idle ones.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::http::connection::closer::Closer;
use crate::http::connection::listener::Scheme;
use crate::http::per_client::{Slot, Slots};
use crate::http::{self, HeadLimits, Limits, Peer, Proxies};
use crate::metrics::{Connections, OpenConnection, Refusal};
use crate::model::{Clock, Timestamp, client_network};

/// Least idle time before eviction. A connection used more recently is likely to be used again.
const IDLE_SECONDS: u32 = 2;
/// Connections examined for an eviction: enough to find one of the idlest tenth nearly always.
const LOOKED_AT: usize = 32;
/// A connection in its TLS handshake counts as idle for so many seconds longer: a client that never finishes it is
/// evicted before one that has sent requests.
const HANDSHAKE_SECONDS: u32 = 100_000;
/// The time of a connection with a request in flight.
const BUSY: u32 = u32::MAX;

/// How often to look whether connections have settled at the end of the process.
const SETTLING_INTERVAL: Duration = Duration::from_millis(5);
/// So often: a request in flight, or a handshake, has a second.
const SETTLING_LOOKS_MAX: u32 = 200;
/// A request that is on its way has 100 ms: it comes together with its connection, of TLS one round trip after its
/// handshake. New connections wait for the next process meanwhile.
const QUIET_LOOKS: u32 = 20;

/// In seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

/// The response to a client with too many connections.
pub fn full_for_address(now: Timestamp) -> Vec<u8> {
    http::turned_away(StatusCode::TOO_MANY_REQUESTS, RETRY_AFTER_SECONDS, now)
}

fn full(now: Timestamp) -> Vec<u8> {
    http::turned_away(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER_SECONDS, now)
}

/// How a listener serves new connections. A reload replaces it.
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
    /// Whether the connection begins with a PROXY protocol header.
    pub fn is_announced_by(&self, peer: &Peer) -> bool {
        self.limits.proxy_protocol && peer.is_proxy()
    }
}

#[derive(Debug, Clone)]
pub struct Gate {
    pub admission: Arc<Admission>,
    pub policy: watch::Receiver<Arc<ConnectionPolicy>>,
    pub clock: Clock,
    pub stopped: watch::Receiver<bool>,
    /// `Strict-Transport-Security` of HTTPS.
    pub hsts: Option<HeaderValue>,
}

#[derive(Debug)]
pub struct AcceptedConnection {
    pub peer: Peer,
    pub slot: ConnectionSlot,
    pub policy: Arc<ConnectionPolicy>,
    pub at: Instant,
}

#[cfg(test)]
impl Gate {
    pub fn test(stopped: watch::Receiver<bool>) -> Self {
        Self {
            admission: Admission::new(Arc::default()),
            policy: watch::channel(Arc::new(ConnectionPolicy::from(&Limits::test()))).1,
            clock: Clock::system(),
            stopped,
            hsts: None,
        }
    }
}

impl Gate {
    /// Admits a connection, or sends it an error response.
    pub fn admit(
        &self,
        stream: &TcpStream,
        address: IpAddr,
        scheme: Scheme,
        connections: &ConnectionSet,
    ) -> Option<AcceptedConnection> {
        let policy = Arc::clone(&self.policy.borrow());
        let (peer, now) = (Peer::new(address, &policy.proxies), self.clock.now());
        let slot = self.admission.admit(&peer, &policy.limits, connections);
        let slot = slot.inspect_err(|answer| {
            // Before a handshake, there is nothing that a client would understand.
            if scheme == Scheme::Http {
                refuse(stream, &answer(now));
            }
        });
        let slot = slot.ok()?;
        Some(AcceptedConnection {
            peer,
            slot,
            policy,
            at: Instant::now(),
        })
    }

    pub fn context(&self, policy: Arc<ConnectionPolicy>, scheme: Scheme) -> ConnectionContext {
        ConnectionContext {
            policy,
            scheme,
            counts: Arc::clone(&self.admission.counts),
            clock: self.clock.clone(),
            stopped: self.stopped.clone(),
            hsts: self.hsts.clone().filter(|_| scheme == Scheme::Https),
        }
    }
}

/// How a request came, as an extension of it.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub scheme: Scheme,
    /// Whether a trusted proxy sent it, whose headers count.
    pub is_from_proxy: bool,
}

#[derive(Debug, Clone)]
pub struct ConnectionContext {
    pub policy: Arc<ConnectionPolicy>,
    pub scheme: Scheme,
    pub counts: Arc<Connections>,
    pub clock: Clock,
    pub stopped: watch::Receiver<bool>,
    /// A header of each response.
    pub hsts: Option<HeaderValue>,
}

impl ConnectionContext {
    pub const fn arrival(&self, peer: &Peer) -> Arrival {
        Arrival {
            scheme: self.scheme,
            is_from_proxy: peer.is_proxy(),
        }
    }
}

/// The limits of a listener, shared by its threads.
#[derive(Debug)]
pub struct Admission {
    counts: Arc<Connections>,
    /// Used only with a limit per address.
    slots: Arc<Slots<IpAddr>>,
}

impl Admission {
    pub fn new(counts: Arc<Connections>) -> Arc<Self> {
        Arc::new(Self {
            counts,
            slots: Arc::default(),
        })
    }

    pub const fn counts(&self) -> &Arc<Connections> {
        &self.counts
    }

    /// Takes a slot until the result is dropped. At the limit, evicts the idlest connection of the set. An error is
    /// the response to a connection that is refused.
    fn admit(
        self: &Arc<Self>,
        peer: &Peer,
        limits: &Limits,
        connections: &ConnectionSet,
    ) -> Result<ConnectionSlot, fn(Timestamp) -> Vec<u8>> {
        // A proxy has the connections of many clients.
        let network = (!peer.is_proxy()).then(|| peer.address());
        let mut slot = ConnectionSlot {
            admission: Arc::clone(self),
            of_client: None,
            _open: self.counts.accepted(),
        };
        if !network.is_none_or(|address| slot.belong_to(address, limits)) {
            return Err(full_for_address);
        }
        // The connection itself is counted already.
        if self.counts.open() > limits.connections as u64 {
            self.counts.refused(Refusal::Connections);
            if !connections.close_idlest(Instant::now()) {
                return Err(full);
            }
        }
        Ok(slot)
    }
}

/// Sends an error response without waiting. Reads first, because closing with unread bytes would reset the connection.
fn refuse(mut stream: &TcpStream, answer: &[u8]) {
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write(answer);
}

#[derive(Debug)]
pub struct ConnectionSlot {
    admission: Arc<Admission>,
    of_client: Option<Slot<IpAddr>>,
    _open: OpenConnection,
}

impl ConnectionSlot {
    /// Counts the connection for an address; false if that has too many.
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

/// The connections of a pair of redirect threads, or of one runtime.
#[derive(Debug, Clone, Default)]
pub struct ConnectionSet {
    entries: Arc<Mutex<Entries>>,
    /// Holds a token of each entry.
    tracker: TaskTracker,
}

#[derive(Debug, Default)]
struct Entries {
    list: Vec<Arc<LastUsed>>,
    /// Where the next search begins.
    hand: usize,
}

#[derive(Debug, Default)]
pub struct LastUsed {
    /// In [`seconds`], or [`BUSY`].
    last: AtomicU32,
    position: AtomicUsize,
    /// Whether the client has begun its TLS handshake.
    has_greeted: AtomicBool,
    closer: Mutex<Option<Closer>>,
    is_closed: AtomicBool,
}

impl LastUsed {
    /// Whether the connection was closed from outside, and must end.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Takes the connection from what it could be ended by; false if it must end.
    pub fn detach(&self) -> bool {
        *self.closer.lock() = None;
        !self.is_closed()
    }

    fn close(&self, closer: &Closer) {
        self.is_closed.store(true, Ordering::Relaxed);
        closer.close();
    }

    /// Closes the connection if it is still idle since then.
    fn evict(&self, idle_since: u32) -> bool {
        let closer = self.closer.lock();
        let Some(closer) = &*closer else { return false };
        // Other threads run meanwhile: a connection that just became busy stays. An evicted one counts as busy, so that
        // it is not evicted twice.
        let taken = self
            .last
            .compare_exchange(idle_since, BUSY, Ordering::Relaxed, Ordering::Relaxed);
        if taken.is_ok() {
            self.close(closer);
        }
        taken.is_ok()
    }

    /// How the connection can be ended from now on.
    pub fn end_by(&self, closer: Closer) {
        *self.closer.lock() = Some(closer);
    }

    /// The connection is idle from now on.
    pub fn rest(&self, now: Instant) {
        self.last.store(seconds(now), Ordering::Relaxed);
    }

    pub fn begin_handshake(&self, now: Instant) {
        self.last.store(seconds(now) - HANDSHAKE_SECONDS, Ordering::Relaxed);
    }

    /// The client has begun its handshake.
    pub fn greet(&self) {
        self.has_greeted.store(true, Ordering::Relaxed);
    }

    /// A request is in flight.
    pub fn work(&self) {
        self.last.store(BUSY, Ordering::Relaxed);
    }

    /// Whether a request is in flight, or a handshake after which one follows.
    fn is_at_work(&self, now: u32) -> bool {
        match self.last.load(Ordering::Relaxed) {
            BUSY => true,
            last => self.has_greeted.load(Ordering::Relaxed) && now - last.min(now) >= HANDSHAKE_SECONDS,
        }
    }
}

/// Monotonic seconds. With the wall clock, setting it would make connections idle.
fn seconds(time: Instant) -> u32 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    const START: u64 = HANDSHAKE_SECONDS as u64 + IDLE_SECONDS as u64 + 1;
    let since = time.saturating_duration_since(*FIRST) + Duration::from_secs(START);
    u32::try_from(since.as_secs()).unwrap_or(BUSY).min(BUSY - 1)
}

impl ConnectionSet {
    /// Serves a connection in a task, which an eviction aborts.
    pub fn spawn<F>(&self, now: Instant, serve: impl FnOnce(ConnectionEntry) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.enter(now).spawn_on(&Handle::current(), serve);
    }

    /// Waits until all connections have ended. No more may be added.
    pub async fn all_ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Waits for the requests and handshakes in flight, and a moment for those on their way. A client that sends
    /// nothing holds up the end of the process no longer than that moment.
    pub async fn settled(&self) {
        // Counted, because connections must have their turns in between on a busy machine.
        let mut quiet = 0;
        for _ in 0..SETTLING_LOOKS_MAX {
            if tokio::time::timeout(SETTLING_INTERVAL, self.all_ended()).await.is_ok() {
                return;
            }
            quiet = if self.is_any_at_work(Instant::now()) {
                0
            } else {
                quiet + 1
            };
            if quiet >= QUIET_LOOKS {
                return;
            }
        }
    }

    fn is_any_at_work(&self, now: Instant) -> bool {
        let (entries, now) = (self.entries.lock(), seconds(now));
        entries.list.iter().any(|activity| activity.is_at_work(now))
    }

    /// Aborts the connections that are open.
    pub fn abort_all(&self) {
        let entries = self.entries.lock();
        for activity in &entries.list {
            if let Some(closer) = &*activity.closer.lock() {
                activity.close(closer);
            }
        }
    }

    pub fn enter(&self, now: Instant) -> ConnectionEntry {
        let mut entries = self.entries.lock();
        let activity = Arc::new(LastUsed {
            last: AtomicU32::new(seconds(now)),
            position: AtomicUsize::new(entries.list.len()),
            has_greeted: AtomicBool::new(false),
            closer: Mutex::default(),
            is_closed: AtomicBool::new(false),
        });
        entries.list.push(Arc::clone(&activity));
        ConnectionEntry {
            entries: Arc::clone(&self.entries),
            activity,
            _open: self.tracker.token(),
        }
    }

    /// Evicts one of the idlest connections; false if none is idle.
    fn close_idlest(&self, now: Instant) -> bool {
        let mut entries = self.entries.lock();
        let count = entries.list.len();
        let before = seconds(now).saturating_sub(IDLE_SECONDS);
        let mut idlest: Option<(u32, &LastUsed)> = None;
        for offset in 0..count.min(LOOKED_AT) {
            let Some(activity) = entries.list.get((entries.hand + offset) % count) else {
                continue;
            };
            let last = activity.last.load(Ordering::Relaxed);
            let is_idler = last <= before && idlest.is_none_or(|(idlest, ..)| last < idlest);
            if is_idler && activity.closer.lock().as_ref().is_some_and(|closer| !closer.is_over()) {
                idlest = Some((last, activity));
            }
        }
        let is_closed = idlest.is_some_and(|(last, activity)| activity.evict(last));
        entries.hand = (entries.hand + LOOKED_AT).checked_rem(count).unwrap_or_default();
        is_closed
    }
}

/// The connections from before the drain, which it waits for, and those that were made during it, which it does not.
#[derive(Debug, Clone, Default)]
pub struct ConnectionSets {
    pub before: ConnectionSet,
    pub during: ConnectionSet,
}

impl ConnectionSets {
    pub const fn of(&self, is_draining: bool) -> &ConnectionSet {
        if is_draining { &self.during } else { &self.before }
    }

    pub async fn settled(&self) {
        tokio::join!(self.before.settled(), self.during.settled());
    }
}

#[derive(Debug)]
pub struct ConnectionEntry {
    entries: Arc<Mutex<Entries>>,
    activity: Arc<LastUsed>,
    /// Of the set's tracker.
    _open: TaskTrackerToken,
}

impl ConnectionEntry {
    pub const fn activity(&self) -> &Arc<LastUsed> {
        &self.activity
    }

    /// Serves the connection in a task of this runtime, which an eviction aborts.
    pub fn spawn_on<F>(self, runtime: &Handle, serve: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let activity = Arc::clone(&self.activity);
        let task = runtime.spawn(serve(self));
        activity.end_by(Closer::Task(task.abort_handle()));
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

    #[tokio::test]
    async fn silent_clients_do_not_hold_up_the_end() {
        let connections = ConnectionSet::default();
        let open = |act: fn(&LastUsed)| {
            connections.spawn(Instant::now(), |entry| async move {
                act(entry.activity());
                std::future::pending::<()>().await;
            });
        };
        let is_at_work = || connections.is_any_at_work(Instant::now());
        open(|_| {});
        open(|activity| activity.begin_handshake(Instant::now()));
        open(|activity| activity.rest(Instant::now()));
        tokio::task::yield_now().await;
        assert!(!is_at_work());
        connections.settled().await;
        let in_handshake = |activity: &LastUsed| {
            activity.begin_handshake(Instant::now());
            activity.greet();
        };
        for act in [LastUsed::work as fn(&_), in_handshake] {
            open(act);
            tokio::task::yield_now().await;
            assert!(is_at_work());
            connections.abort_all();
            connections.all_ended().await;
            assert!(!is_at_work());
        }
    }

    #[test]
    fn handshakes_give_way_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _in_runtime = runtime.enter();
        let (connections, began) = (ConnectionSet::default(), Instant::now());
        let mut entries = Vec::new();
        for is_in_handshake in [false, true, true, false] {
            connections.spawn(began, |entry| {
                let activity = Arc::clone(entry.activity());
                if is_in_handshake {
                    activity.begin_handshake(began);
                }
                entries.push((is_in_handshake, activity));
                async move {
                    let _member = entry;
                    std::future::pending::<()>().await;
                }
            });
        }
        let is_open = |entries: &[(bool, Arc<LastUsed>)]| {
            let is_open = |activity: &LastUsed| activity.last.load(Ordering::Relaxed) != BUSY;
            entries
                .iter()
                .map(|(_, activity)| is_open(activity))
                .collect::<Vec<_>>()
        };
        assert!(connections.close_idlest(began) && connections.close_idlest(began));
        assert_eq!(is_open(&entries), [true, false, false, true]);
        assert!(!connections.close_idlest(began));
    }
}
