//! Binding the listeners.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted. Linux caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The listeners, bound.
#[derive(Debug)]
pub struct Bound {
    /// Those for redirects.
    pub public: Vec<TcpListener>,
    /// Those for the API.
    pub admin: Vec<TcpListener>,
}

impl Bound {
    /// What each listens on: `public` or `admin`, and the address with the port that was really bound.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn addresses(&self) -> io::Result<Vec<(&'static str, SocketAddr)>> {
        let named = |name, listeners: &'_ [TcpListener]| -> io::Result<Vec<_>> {
            listeners
                .iter()
                .map(|listener| Ok((name, listener.local_addr()?)))
                .collect()
        };
        Ok([named("public", &self.public)?, named("admin", &self.admin)?].concat())
    }
}

/// Binds all addresses. Must be called within a runtime.
///
/// # Errors
/// The address that could not be bound, and why.
pub fn bind(public: &[SocketAddr], admin: &[SocketAddr]) -> Result<Bound, (SocketAddr, io::Error)> {
    let bind_all = |addresses: &[SocketAddr]| {
        let bound = addresses
            .iter()
            .map(|&address| bind_one(address).map_err(|error| (address, error)));
        bound.collect::<Result<Vec<_>, _>>()
    };
    Ok(Bound {
        public: bind_all(public)?,
        admin: bind_all(admin)?,
    })
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the process before this one may still be winding down.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can both be named.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(StdListener::from(socket))
}
