//! Binding the listeners.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted. Linux caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The listeners, bound.
#[derive(Debug)]
pub struct Bound {
    /// Those for redirects: for each address, one for each thread.
    pub public: Vec<Vec<TcpListener>>,
    /// Those for the API.
    pub admin: Vec<TcpListener>,
}

impl Bound {
    /// What each listens on: `public` or `admin`, and the address with the port that was really bound.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn addresses(&self) -> io::Result<Vec<(&'static str, SocketAddr)>> {
        let public = self.public.iter().filter_map(|of_address| of_address.first());
        let public = public.map(|listener| Ok(("public", listener.local_addr()?)));
        let admin = self.admin.iter();
        let admin = admin.map(|listener| Ok(("admin", listener.local_addr()?)));
        public.chain(admin).collect()
    }
}

/// Binds all addresses, the public ones for so many threads.
///
/// # Errors
/// The address that could not be bound, and why.
pub fn bind(public: &[SocketAddr], threads: usize, admin: &[SocketAddr]) -> Result<Bound, (SocketAddr, io::Error)> {
    let public = public
        .iter()
        .map(|&address| bind_for_threads(address, threads).map_err(|error| (address, error)));
    let admin = admin
        .iter()
        .map(|&address| bind_one(address, false).map_err(|error| (address, error)));
    Ok(Bound {
        public: public.collect::<Result<_, _>>()?,
        admin: admin.collect::<Result<_, _>>()?,
    })
}

/// A listener for each thread, so that the kernel spreads connections over them and no thread waits for another.
fn bind_for_threads(address: SocketAddr, threads: usize) -> io::Result<Vec<TcpListener>> {
    if threads <= 1 {
        return Ok(vec![bind_one(address, false)?]);
    }
    if address.port() != 0 {
        // Sockets that share a port would share it with another process of the same user as well, which is never what
        // was meant. So it is made sure first that nobody has it.
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
    // Connections of the process before this one may still be winding down.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can both be named.
        socket.set_only_v6(true)?;
    }
    // Without it, answers on one connection wait for each other. Linux gives it on to the connections.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
