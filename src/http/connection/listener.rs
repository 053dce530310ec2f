//! Binding the listeners.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted. Linux caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;
/// What the kernel may hold of answers that a client of the public listener has not taken, in bytes; it doubles that
/// for its own needs. Left to itself it takes megabytes from us for each client that asks for much and reads nothing.
const PUBLIC_SEND_BYTES: usize = 64 * 1024;

/// After about so long, the kernel hands over a connection that has sent nothing.
const DEFER_SECONDS: i32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where to listen.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pub public: Vec<(Scheme, SocketAddr)>,
    pub admin: Vec<(Scheme, SocketAddr)>,
    pub console: Vec<(Scheme, SocketAddr)>,
}

#[derive(Debug)]
pub struct Listening {
    pub scheme: Scheme,
    /// Non-blocking.
    pub listener: TcpListener,
    /// Whether a parent process owns the socket.
    pub is_inherited: bool,
}

#[derive(Debug)]
pub struct Bound {
    /// Per address, one for each redirect thread.
    pub public: Vec<Vec<Listening>>,
    pub admin: Vec<Listening>,
    pub console: Vec<Listening>,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {cause}")]
    Refused { address: SocketAddr, cause: io::Error },
    /// A socket was inherited, as from tinyd.socket, that is for none of the addresses in the settings.
    #[error(
        "the inherited socket {description} is in no listen of public, public.tls, admin, admin.tls or console: they \
         must name the same addresses as the socket unit"
    )]
    Unexpected {
        /// Its address or type.
        description: String,
    },
}

impl Bound {
    /// Each listener, `public`, `admin` or `console`, with its bound address.
    pub fn addresses(&self) -> io::Result<Vec<(&'static str, Scheme, SocketAddr)>> {
        let public = self.public.iter().filter_map(|of_address| of_address.first());
        let public = public.map(|bound| ("public", bound));
        let named = |name| move |bound| (name, bound);
        let all = public.chain(self.admin.iter().map(named("admin")));
        let all = all.chain(self.console.iter().map(named("console")));
        all.map(|(name, bound)| Ok((name, bound.scheme, bound.listener.local_addr()?)))
            .collect()
    }
}

/// The sockets that systemd passed (sd_listen_fds(3)).
pub fn inherited() -> Result<Vec<TcpListener>, BindError> {
    let mut sockets = ListenFd::from_env();
    let mut listeners = Vec::new();
    for number in 0..sockets.len() {
        match sockets.take_tcp_listener(number) {
            Ok(Some(listener)) => listeners.push(listener),
            Ok(None) => {}
            Err(error) => {
                let description = format!("number {number} ({error})");
                return Err(BindError::Unexpected { description });
            }
        }
    }
    Ok(listeners)
}

/// Binds all addresses, the public ones for each thread, except those of inherited sockets.
pub fn bind(addresses: &Addresses, threads: usize, inherited: Vec<TcpListener>) -> Result<Bound, BindError> {
    let Addresses { public, admin, console } = addresses;
    let is_named = |address: &SocketAddr| {
        public
            .iter()
            .chain(admin)
            .chain(console)
            .any(|(_, named)| named == address)
    };
    let mut of_address: HashMap<SocketAddr, Vec<TcpListener>> = HashMap::new();
    for listener in inherited {
        let local = listener.local_addr();
        let prepared = local.and_then(|address| prepare(&listener).map(|()| address));
        match prepared {
            Ok(address) if is_named(&address) => {
                of_address.entry(address).or_default().push(listener);
            }
            other => {
                let description = other.map_or_else(|error| error.to_string(), |address| address.to_string());
                return Err(BindError::Unexpected { description });
            }
        }
    }
    let refused = |address| move |cause| BindError::Refused { address, cause };
    let mut bound = Bound {
        public: Vec::new(),
        admin: Vec::new(),
        console: Vec::new(),
    };
    for &(scheme, address) in public {
        let of_threads = match of_address.remove(&address) {
            Some(sockets) => share(scheme, sockets, threads).map_err(refused(address))?,
            None => own(scheme, bind_for_threads(address, threads).map_err(refused(address))?),
        };
        for Listening { listener, .. } in &of_threads {
            // Linux applies it to accepted connections.
            let set = SockRef::from(listener).set_send_buffer_size(PUBLIC_SEND_BYTES);
            set.and_then(|()| defer_accept(listener)).map_err(refused(address))?;
        }
        bound.public.push(of_threads);
    }
    for (addresses, bound) in [(admin, &mut bound.admin), (console, &mut bound.console)] {
        for &(scheme, address) in addresses {
            bound.extend(match of_address.remove(&address) {
                Some(sockets) => share(scheme, sockets, 1).map_err(refused(address))?,
                None => own(scheme, vec![bind_one(address, false).map_err(refused(address))?]),
            });
        }
    }
    Ok(bound)
}

fn own(scheme: Scheme, listeners: Vec<TcpListener>) -> Vec<Listening> {
    let own = |listener| Listening {
        scheme,
        listener,
        is_inherited: false,
    };
    listeners.into_iter().map(own).collect()
}

fn prepare(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)
}

/// Has a connection accepted when its request is there: to wait for that takes more than to answer it.
fn defer_accept(listener: &TcpListener) -> io::Result<()> {
    // Not in the standard library yet (rust-lang/rust#119639).
    let (tcp, option) = (uapi::c::IPPROTO_TCP, uapi::c::TCP_DEFER_ACCEPT);
    Ok(uapi::setsockopt(listener.as_raw_fd(), tcp, option, &DEFER_SECONDS)?)
}

/// Gives each thread a socket of an address. Threads share sockets if there are fewer, and have several if there are
/// more.
fn share(scheme: Scheme, sockets: Vec<TcpListener>, threads: usize) -> io::Result<Vec<Listening>> {
    let mut listeners = Vec::new();
    for number in sockets.len()..threads {
        if let Some(socket) = sockets.get(number % sockets.len()) {
            listeners.push(socket.try_clone()?);
        }
    }
    let shared = sockets.into_iter().chain(listeners).map(|listener| Listening {
        scheme,
        listener,
        is_inherited: true,
    });
    Ok(shared.collect())
}

/// A listener for each thread, so that the kernel distributes connections.
fn bind_for_threads(address: SocketAddr, threads: usize) -> io::Result<Vec<TcpListener>> {
    if threads <= 1 {
        return Ok(vec![bind_one(address, false)?]);
    }
    if address.port() != 0 {
        // SO_REUSEPORT would share the port with another process of the same user. Binding without it first makes sure
        // that there is none.
        drop(bind_one(address, false)?);
    }
    let first = bind_one(address, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(bind_one(address, true)?);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // The previous process may have connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can both be configured.
        socket.set_only_v6(true)?;
    }
    // Without it, pipelined responses wait for each other. Linux applies it to accepted connections.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
