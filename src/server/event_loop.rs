//! The loop of a thread that answers plain redirects over plain HTTP. It has no runtime, whose tasks, timers and
//! wake-ups take as much as a redirect itself: an epoll instance tells which connections have a request, and they are
//! answered at once. A connection that needs anything else, such as patience with a client that takes no answer, is
//! left to a task, and so are all when the process drains.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use slab::Slab;
use tokio::time::Instant;

use crate::http::connection::Scheme;
use crate::http::connection::closer::{Closer, Inbox};
use crate::http::connection::listener::Listening;
use crate::http::connection::serve::{ACCEPT_BACKOFF, AcceptTrouble, accept_one, concerns_one_connection};
use crate::http::connection::set::{AcceptedConnection, ConnectionEntry, ConnectionPolicy, ConnectionSet, Gate};
use crate::redirect::FastPath;
use crate::server::loop_connection::{LoopConnection, Turn};
use crate::server::systemd::Heartbeat;

/// Connections that have their turn before the next are asked for.
const EVENTS: usize = 256;
/// Connections accepted before others have their turn.
const ACCEPTED_TOGETHER: usize = 32;
/// All connections are looked at for their deadlines once in so long, and so is what else has no event,
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// so many at a time.
const LOOKED_AT: usize = 256;
/// What epoll calls the first listener and those after it; connections have smaller numbers.
const FIRST_LISTENER: u64 = 1 << 63;
const INBOX: u64 = u64::MAX;
const TIMER: u64 = INBOX - 1;

/// A connection with its place in the set.
#[derive(Debug)]
struct Kept {
    connection: LoopConnection,
    policy: Arc<ConnectionPolicy>,
    entry: ConnectionEntry,
}

/// Has a task serve a connection.
type Leave = Box<dyn Fn(LoopConnection, Arc<ConnectionPolicy>, ConnectionEntry) + Send>;

#[derive(Debug)]
struct Acceptor {
    listening: Listening,
    /// Whether there may be more to accept.
    is_ready: bool,
    trouble: AcceptTrouble,
    /// After an error.
    waits_until: Option<Instant>,
}

pub(super) struct EventLoop {
    fast_path: Arc<FastPath>,
    gate: Gate,
    connections: ConnectionSet,
    leave: Leave,
    epoll: OwnedFd,
    inbox: Arc<Inbox>,
    acceptors: Vec<Acceptor>,
    kept: Slab<Kept>,
    /// Those that have another turn without an event. One may have become another connection's.
    again: Vec<usize>,
    /// Where the next look at deadlines begins.
    hand: usize,
    /// So many looks go over all connections.
    looks: usize,
    /// Tells when it is time for the next; a timeout of epoll would have to be set for each wait.
    timer: OwnedFd,
}

impl EventLoop {
    pub(super) fn new(
        fast_path: Arc<FastPath>,
        gate: Gate,
        connections: ConnectionSet,
        listeners: Vec<Listening>,
        leave: Leave,
    ) -> io::Result<Self> {
        let (epoll, inbox) = (epoll::create(CreateFlags::CLOEXEC)?, Inbox::new()?);
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        set_timer(&timer, LOOK_INTERVAL)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        epoll::add(&epoll, &*inbox, EventData::new_u64(INBOX), EventFlags::IN)?;
        let mut acceptors = Vec::new();
        for (listening, number) in listeners.into_iter().zip(FIRST_LISTENER..) {
            let data = EventData::new_u64(number);
            epoll::add(&epoll, &listening.listener, data, EventFlags::IN | EventFlags::ET)?;
            acceptors.push(Acceptor {
                listening,
                is_ready: true,
                trouble: AcceptTrouble::default(),
                waits_until: None,
            });
        }
        Ok(Self {
            fast_path,
            gate,
            connections,
            leave,
            epoll,
            inbox,
            acceptors,
            kept: Slab::new(),
            again: Vec::new(),
            hand: 0,
            looks: 1,
            timer,
        })
    }

    /// Wakes the loop.
    pub(super) const fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Serves until the process drains. Then gives the listeners to `hand_over`, and all connections to tasks.
    pub(super) fn run(mut self, heartbeat: Heartbeat, hand_over: impl FnOnce(Vec<Listening>)) -> io::Result<()> {
        let mut heartbeat = heartbeat.join();
        while !*self.gate.stopped.borrow() {
            heartbeat.answer();
            match panic::catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(turn) => turn?,
                // It is logged. What panics again ends one task only, and no other connection misses its event.
                Err(_) => self.leave_all(),
            }
        }
        // First, because clients are waiting there.
        hand_over(self.acceptors.drain(..).map(|acceptor| acceptor.listening).collect());
        self.leave_all();
        Ok(())
    }

    /// Waits for events, and has each connection that has one answer it.
    fn turn(&mut self) -> io::Result<()> {
        let mut room = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
        let events = match epoll::wait(&self.epoll, &mut room, self.wait_max().as_ref()) {
            Err(Errno::INTR) => return Ok(()),
            events => events?.0,
        };
        let again = std::mem::take(&mut self.again);
        for event in events.iter() {
            let number = event.data.u64();
            if number == INBOX {
                self.evict();
            } else if number == TIMER {
                self.end_overdue()?;
            } else if let Some(listener) = number.checked_sub(FIRST_LISTENER) {
                let acceptor = self.acceptors.get_mut(listener as usize);
                acceptor.into_iter().for_each(|acceptor| acceptor.is_ready = true);
            } else {
                self.answer(number as usize, Some(event.flags));
            }
        }
        for number in again {
            self.answer(number, None);
        }
        for number in 0..self.acceptors.len() {
            self.accept(number);
        }
        Ok(())
    }

    /// How long to wait for an event: where no connection is left over, and accepting goes well, until there is one.
    fn wait_max(&self) -> Option<Timespec> {
        if !self.again.is_empty() {
            return Some(Timespec::default());
        }
        let ready = self.acceptors.iter().filter(|acceptor| acceptor.is_ready);
        let wait = |acceptor: &Acceptor| acceptor.waits_until.map(|until| until - Instant::now());
        ready.map(|acceptor| timespec(wait(acceptor).unwrap_or_default())).min()
    }

    fn answer(&mut self, number: usize, event: Option<EventFlags>) {
        let Some(kept) = self.kept.get_mut(number) else {
            return;
        };
        let Kept {
            connection,
            policy,
            entry,
        } = kept;
        if let Some(flags) = event {
            let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
            connection.note_arrival(flags.intersects(ends));
        }
        match connection.answer(&self.fast_path, policy, Some(entry.activity())) {
            Turn::Idle => {}
            Turn::Over => drop(self.kept.remove(number)),
            Turn::Again => self.again.push(number),
            Turn::Unfinished => self.leave(number),
        }
    }

    fn accept(&mut self, number: usize) {
        for _ in 0..ACCEPTED_TOGETHER {
            let Some(acceptor) = self.acceptors.get_mut(number).filter(|acceptor| acceptor.is_ready) else {
                return;
            };
            if acceptor.waits_until.is_some_and(|until| Instant::now() < until) {
                return;
            }
            acceptor.waits_until = None;
            match accept_one(&acceptor.listening.listener) {
                Ok((stream, address)) => self.begin(stream, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => acceptor.is_ready = false,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    acceptor.trouble.log(&error);
                    acceptor.waits_until = Some(Instant::now() + ACCEPT_BACKOFF);
                }
            }
        }
    }

    /// Often answers the only request at once.
    fn begin(&mut self, stream: TcpStream, address: IpAddr) {
        let accepted = self.gate.admit(&stream, address, Scheme::Http, &self.connections);
        let Some(AcceptedConnection { peer, slot, policy, at }) = accepted else {
            return;
        };
        let is_announced = policy.is_announced_by(&peer);
        let mut connection = LoopConnection::new(stream, peer, slot, false);
        let turn = if is_announced {
            Turn::Unfinished
        } else {
            connection.answer(&self.fast_path, &policy, None)
        };
        if turn == Turn::Over {
            return;
        }
        let kept = Kept {
            connection,
            policy,
            entry: self.connections.enter(at),
        };
        let place = self.kept.vacant_entry();
        let number = place.key();
        // Told once for each arrival: what is left unread then has another turn.
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(number as u64);
        if turn == Turn::Unfinished || epoll::add(&self.epoll, &kept.connection, data, flags).is_err() {
            return self.leave_kept(kept);
        }
        if turn == Turn::Again {
            self.again.push(number);
        }
        let closer = Closer::Loop(Arc::clone(&self.inbox), number);
        kept.entry.activity().end_by(closer);
        place.insert(kept);
    }

    /// Leaves a connection to a task.
    fn leave(&mut self, number: usize) {
        let Some(kept) = self.kept.try_remove(number) else {
            return;
        };
        // Cannot fail for a descriptor that was added.
        let _ = epoll::delete(&self.epoll, &kept.connection);
        self.leave_kept(kept);
    }

    fn leave_all(&mut self) {
        for number in 0..self.kept.capacity() {
            self.leave(number);
        }
    }

    fn leave_kept(&self, kept: Kept) {
        let Kept {
            connection,
            policy,
            entry,
        } = kept;
        (self.leave)(connection, policy, entry);
    }

    fn evict(&mut self) {
        for number in self.inbox.take() {
            let kept = self.kept.get(number);
            if kept.is_some_and(|kept| kept.entry.activity().is_evicted()) {
                self.kept.remove(number);
            }
        }
    }

    /// Ends connections that wait too long, among the next ones.
    fn end_overdue(&mut self) -> io::Result<()> {
        let _ = rustix::io::read(&self.timer, &mut [0; size_of::<u64>()]);
        let (places, now) = (self.kept.capacity(), Instant::now());
        for number in (self.hand..places).take(LOOKED_AT) {
            let Some(Kept { connection, policy, .. }) = self.kept.get(number) else {
                continue;
            };
            if let Some(reason) = connection.overdue(&policy.limits, now) {
                self.gate.admission.counts().refused(reason);
                self.kept.remove(number);
            }
        }
        self.hand = (self.hand + LOOKED_AT).min(places) % places.max(1);
        let looks = places.div_ceil(LOOKED_AT).max(1);
        if looks != self.looks {
            self.looks = looks;
            set_timer(&self.timer, LOOK_INTERVAL / u32::try_from(looks).unwrap_or(u32::MAX))?;
        }
        Ok(())
    }
}

fn set_timer(timer: &OwnedFd, interval: Duration) -> io::Result<()> {
    let interval = timespec(interval);
    let times = Itimerspec {
        it_interval: interval,
        it_value: interval,
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &times)?;
    Ok(())
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().cast_signed(),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
