//! The loop of a thread that answers plain redirects over plain HTTP. It has no runtime, whose tasks, timers and
//! wake-ups take as much as a redirect itself: an epoll instance tells which connections have a request, and they are
//! answered at once. A connection that needs anything else, such as patience with a client that takes no answer, is
//! handed to a task, and so are all when the process drains.

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
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::http::connection::Scheme;
use crate::http::connection::closer::{Closer, Inbox};
use crate::http::connection::listener::Listening;
use crate::http::connection::serve::{
    ACCEPT_BACKOFF, ACCEPTED_TOGETHER, AcceptTrouble, accept_one, concerns_one_connection,
};
use crate::http::connection::set::{AcceptedConnection, ConnectionEntry, ConnectionPolicy, ConnectionSet, Gate};
use crate::links::PREFETCHED_LINKS;
use crate::redirect::FastPath;
use crate::server::exchange::INPUT_BYTES;
use crate::server::loop_connection::{LoopConnection, Turn};
use crate::server::systemd::Heartbeat;

/// Of connections that have a request at the same time, so much is read before the first is answered.
const AHEAD_BYTES: usize = 2 * INPUT_BYTES;
/// The loop asks the kernel for so many events at a time.
const EVENTS: usize = 256;
/// All connections are looked at for their deadlines once in so long,
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// so many at a time.
const SWEPT_TOGETHER: usize = 256;
/// Of so many times as many places as there are connections, those at the end are given back.
const SPARE_PLACES: usize = 4;
/// What epoll calls the first listener and those after it; connections have smaller numbers.
const FIRST_LISTENER: u64 = 1 << 63;
const INBOX: u64 = u64::MAX;
const TIMER: u64 = INBOX - 1;

/// A connection with its place in the set.
#[derive(Debug)]
struct Registered {
    connection: LoopConnection,
    policy: Arc<ConnectionPolicy>,
    entry: ConnectionEntry,
    /// Whether it is in `again`.
    has_more: bool,
}

/// Has a task serve a connection.
type Spawn = Box<dyn Fn(LoopConnection, Arc<ConnectionPolicy>, ConnectionEntry) + Send>;

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
    spawn: Spawn,
    epoll: OwnedFd,
    inbox: Arc<Inbox>,
    acceptors: Vec<Acceptor>,
    registered: Slab<Registered>,
    /// Those that have another turn without an event. One may have become another connection's.
    again: Vec<usize>,
    /// Which connections have their turn.
    current: SmallVec<[usize; PREFETCHED_LINKS]>,
    /// Of the last turn; the next one uses its memory.
    ready: Vec<usize>,
    /// The time, as it was read last.
    now: Instant,
    /// Where the next sweep begins.
    sweep_position: usize,
    /// So many sweeps go over all connections.
    sweeps: usize,
    /// Tells when it is time for the next; a timeout of epoll would have to be set for each wait.
    timer: OwnedFd,
}

impl EventLoop {
    pub(super) fn new(
        fast_path: Arc<FastPath>,
        gate: Gate,
        connections: ConnectionSet,
        listeners: Vec<Listening>,
        spawn: Spawn,
    ) -> io::Result<Self> {
        let (epoll, inbox) = (epoll::create(CreateFlags::CLOEXEC)?, Inbox::new()?);
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        set_timer(&timer, SWEEP_INTERVAL)?;
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
            spawn,
            epoll,
            inbox,
            acceptors,
            registered: Slab::new(),
            again: Vec::new(),
            current: SmallVec::new(),
            ready: Vec::new(),
            now: Instant::now(),
            sweep_position: 0,
            sweeps: 1,
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
        let mut input = vec![0; AHEAD_BYTES].into_boxed_slice();
        while !*self.gate.stopped.borrow() {
            heartbeat.answer();
            match panic::catch_unwind(AssertUnwindSafe(|| self.turn(&mut input))) {
                Ok(turn) => turn?,
                Err(_) => self.recover(),
            }
        }
        // First, because clients are waiting there.
        hand_over(self.acceptors.drain(..).map(|acceptor| acceptor.listening).collect());
        self.hand_all_to_tasks();
        Ok(())
    }

    /// Waits for events, and has each connection that has one answer it.
    fn turn(&mut self, input: &mut [u8]) -> io::Result<()> {
        let mut room = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
        let events = match epoll::wait(&self.epoll, &mut room, self.wait_max().as_ref()) {
            Err(Errno::INTR) => return Ok(()),
            events => events?.0,
        };
        self.now = Instant::now();
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        let again = std::mem::take(&mut self.again);
        let (mut is_inbox_due, mut is_sweep_due) = (false, false);
        for event in events.iter() {
            let number = event.data.u64();
            if number == INBOX {
                is_inbox_due = true;
            } else if number == TIMER {
                is_sweep_due = true;
            } else if let Some(listener) = number.checked_sub(FIRST_LISTENER) {
                let acceptor = self.acceptors.get_mut(listener as usize);
                acceptor.into_iter().for_each(|acceptor| acceptor.is_ready = true);
            } else if let Some(registered) = self.registered.get_mut(number as usize) {
                let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                let flags = event.flags;
                registered.connection.note_arrival(flags.intersects(ends));
                // Else its turn comes below.
                if !registered.has_more {
                    ready.push(number as usize);
                }
            }
        }
        for number in again {
            let registered = self.registered.get_mut(number);
            // Twice, the second reading would overtake what the first left unread.
            if registered.is_some_and(|registered| std::mem::take(&mut registered.has_more)) {
                ready.push(number);
            }
        }
        for together in ready.chunks(PREFETCHED_LINKS) {
            self.answer_together(together, input);
        }
        self.ready = ready;
        // After the answers to them.
        if is_inbox_due {
            self.end_closed();
        }
        for number in 0..self.acceptors.len() {
            self.accept(number);
        }
        if is_sweep_due {
            self.end_overdue()?;
        }
        Ok(())
    }

    /// After a panic, which is logged: ends the connections that had their turn, and no other misses its event.
    fn recover(&mut self) {
        for number in std::mem::take(&mut self.current) {
            self.registered.try_remove(number);
        }
        self.hand_all_to_tasks();
        for acceptor in &mut self.acceptors {
            acceptor.is_ready = true;
        }
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

    /// Reads the requests of these connections, and then all their links, before it answers the first.
    fn answer_together(&mut self, numbers: &[usize], input: &mut [u8]) {
        self.current.extend_from_slice(numbers);
        if let [number] = numbers {
            self.answer(*number, &[]);
        } else {
            self.answer_read_ahead(numbers, input);
        }
        self.current.clear();
    }

    fn answer_read_ahead(&mut self, numbers: &[usize], mut room: &mut [u8]) {
        let mut arrived = SmallVec::<[&[u8]; PREFETCHED_LINKS]>::new();
        for number in numbers {
            let registered = self.registered.get_mut(*number);
            let length = (room.get_mut(..INPUT_BYTES).zip(registered))
                .map_or(0, |(room, registered)| registered.connection.read_ahead(room));
            let (read, rest) = std::mem::take(&mut room)
                .split_at_mut_checked(length)
                .unwrap_or_default();
            arrived.push(&*read);
            room = rest;
        }
        self.fast_path.prefetch(arrived.iter().copied());
        for (number, arrived) in numbers.iter().zip(arrived) {
            self.answer(*number, arrived);
        }
    }

    fn answer(&mut self, number: usize, arrived: &[u8]) {
        let Some(registered) = self.registered.get_mut(number) else {
            return;
        };
        let Registered {
            connection,
            policy,
            entry,
            has_more,
        } = registered;
        let turn = connection.answer(&self.fast_path, policy, Some(entry.activity()), &mut self.now, arrived);
        match turn {
            Turn::Idle => {}
            Turn::Over => drop(self.registered.remove(number)),
            Turn::Again => {
                *has_more = true;
                self.again.push(number);
            }
            Turn::NeedsTask => self.hand_to_task(number),
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
        self.now = at.into();
        let mut connection = LoopConnection::new(stream, peer, slot, false);
        let turn = connection.begin(&self.fast_path, &policy, &mut self.now);
        if turn == Turn::Over {
            return;
        }
        let registered = Registered {
            connection,
            policy,
            entry: self.connections.enter(at),
            has_more: turn == Turn::Again,
        };
        let place = self.registered.vacant_entry();
        let number = place.key();
        // Told once for each arrival: what is left unread then has another turn.
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(number as u64);
        if turn == Turn::NeedsTask || epoll::add(&self.epoll, &registered.connection, data, flags).is_err() {
            return self.spawn(registered);
        }
        if turn == Turn::Again {
            self.again.push(number);
        }
        let closer = Closer::Loop(Arc::clone(&self.inbox), number);
        registered.entry.activity().end_by(closer);
        place.insert(registered);
    }

    fn hand_to_task(&mut self, number: usize) {
        let Some(registered) = self.registered.try_remove(number) else {
            return;
        };
        // Cannot fail for a descriptor that was added.
        let _ = epoll::delete(&self.epoll, &registered.connection);
        if registered.entry.activity().detach() {
            self.spawn(registered);
        }
    }

    fn hand_all_to_tasks(&mut self) {
        for number in 0..self.registered.capacity() {
            self.hand_to_task(number);
        }
    }

    fn spawn(&self, registered: Registered) {
        let Registered {
            connection,
            policy,
            entry,
            ..
        } = registered;
        (self.spawn)(connection, policy, entry);
    }

    /// Ends connections that were closed from outside.
    fn end_closed(&mut self) {
        for number in self.inbox.take() {
            let registered = self.registered.get(number);
            if registered.is_some_and(|registered| registered.entry.activity().is_closed()) {
                self.registered.remove(number);
            }
        }
    }

    /// Ends connections that wait too long, among the next ones.
    fn end_overdue(&mut self) -> io::Result<()> {
        let _ = rustix::io::read(&self.timer, &mut [0; size_of::<u64>()]);
        if self.registered.capacity() / SPARE_PLACES > self.registered.len().max(SWEPT_TOGETHER) {
            self.registered.shrink_to_fit();
        }
        let places = self.registered.capacity();
        for number in (self.sweep_position..places).take(SWEPT_TOGETHER) {
            let Some(Registered { connection, policy, .. }) = self.registered.get(number) else {
                continue;
            };
            if let Some(reason) = connection.overdue(&policy.limits, self.now) {
                self.gate.admission.counts().refused(reason);
                self.registered.remove(number);
            }
        }
        self.sweep_position = (self.sweep_position + SWEPT_TOGETHER).min(places) % places.max(1);
        let sweeps = places.div_ceil(SWEPT_TOGETHER).max(1);
        if sweeps != self.sweeps {
            self.sweeps = sweeps;
            set_timer(&self.timer, SWEEP_INTERVAL / u32::try_from(sweeps).unwrap_or(u32::MAX))?;
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, SocketAddr, TcpListener};

    use tokio::sync::watch;

    use super::*;
    use crate::links::Links;
    use crate::model::Clock;

    const CLIENTS: usize = 2 * PREFETCHED_LINKS + 1;

    /// A loop without links on a port, and the input of its turns.
    struct Served {
        event_loop: EventLoop,
        address: SocketAddr,
        input: Vec<u8>,
        _stop: watch::Sender<bool>,
        _folder: tempfile::TempDir,
    }

    fn served() -> Served {
        let folder = tempfile::tempdir().unwrap();
        let links = Arc::new(Links::open(folder.path(), Clock::system(), 8).unwrap());
        let (stop, stopped) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listening = Listening {
            scheme: Scheme::Http,
            listener,
            is_inherited: false,
        };
        let event_loop = EventLoop::new(
            Arc::new(FastPath::test(links)),
            Gate::test(stopped),
            ConnectionSet::default(),
            vec![listening],
            Box::new(|_, _, _| panic!("a connection needs a task")),
        );
        Served {
            event_loop: event_loop.unwrap(),
            address,
            input: vec![0; AHEAD_BYTES],
            _stop: stop,
            _folder: folder,
        }
    }

    fn request(id: usize, padding: usize) -> String {
        format!(
            "GET /tiny/link{id} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(padding)
        )
    }

    impl Served {
        fn turn(&mut self) {
            self.event_loop.turn(&mut self.input).unwrap();
        }

        fn clients(&mut self) -> Vec<TcpStream> {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| TcpStream::connect(self.address).unwrap())
                .collect();
            while self.event_loop.registered.len() < CLIENTS {
                self.turn();
            }
            clients
        }
    }

    /// What is in the answers to a client that has ended its side.
    fn answers_to(mut client: TcpStream) -> usize {
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        answers.matches("HTTP/1.1 ").count()
    }

    #[test]
    fn requests_of_many_connections_are_answered_in_one_turn() {
        let mut served = served();
        let mut clients = served.clients();
        for (number, client) in clients.iter_mut().enumerate() {
            // Together, they do not fit into what is read ahead.
            let requests = request(number, INPUT_BYTES / 8).repeat(1 + number % 3);
            client.write_all(requests.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        served.turn();
        assert_eq!(served.event_loop.registered.len(), 0);
        for (number, client) in clients.into_iter().enumerate() {
            assert_eq!(answers_to(client), 1 + number % 3, "client {number}");
        }
    }

    #[test]
    fn parts_of_requests_of_many_connections_are_put_together() {
        let mut served = served();
        let mut clients = served.clients();
        let requests: Vec<_> = (0..CLIENTS).map(|number| request(number, 0).repeat(2)).collect();
        let parts: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(number, text)| text.split_at(text.len() * number / CLIENTS))
            .collect();
        for (client, (first, _)) in clients.iter_mut().zip(&parts) {
            client.write_all(first.as_bytes()).unwrap();
        }
        served.turn();
        for (client, (_, second)) in clients.iter_mut().zip(&parts) {
            client.write_all(second.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        served.turn();
        let answered: Vec<_> = clients.into_iter().map(answers_to).collect();
        assert_eq!(answered, [2; CLIENTS]);
    }
}
