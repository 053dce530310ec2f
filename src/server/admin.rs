//! The connections of the admin listener, and of the console's own.

use std::io;
use std::net::{IpAddr, TcpStream as StdStream};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::http::connection::guard::Handover;
use crate::http::connection::listener::Listening;
use crate::http::connection::serve::{Service, Signals};
use crate::http::connection::set::{AcceptedConnection, ConnectionContext, ConnectionEntry, ConnectionSets, Gate};
use crate::http::connection::{Scheme, http2, serve};
use crate::server::incoming;
use crate::tls::{Protocol, Secure, TlsServer};

#[derive(Debug, Clone)]
pub(super) struct Admin<S> {
    service: S,
    gate: Gate,
    tls: Option<watch::Receiver<Arc<Secure>>>,
    pub(super) connections: ConnectionSets,
}

impl<S: Service> Admin<S> {
    /// The connections may be those of another listener, with which it shares its limits.
    pub(super) fn new(service: S, gate: Gate, tls: Option<&TlsServer>, connections: ConnectionSets) -> Self {
        Self {
            service,
            gate,
            tls: tls.map(TlsServer::subscribe),
            connections,
        }
    }

    pub(super) fn accept(&self, listeners: Vec<Listening>, signals: &Signals, accepting: &mut JoinSet<io::Result<()>>) {
        for listener in listeners {
            let admin = self.clone();
            let serve = move |stream, address, scheme, is_draining| admin.take(stream, address, scheme, is_draining);
            accepting.spawn(serve::accept(listener, signals.clone(), serve));
        }
    }

    fn take(&self, stream: StdStream, address: IpAddr, scheme: Scheme, is_draining: bool) {
        let connections = self.connections.of(is_draining);
        let Some(accepted) = self.gate.admit(&stream, address, scheme, connections) else {
            return;
        };
        let AcceptedConnection { peer, slot, policy, at } = accepted;
        let (service, context) = (self.service.clone(), self.gate.context(policy, scheme));
        let connection = Handover::new(stream, peer, slot);
        match &self.tls {
            Some(tls) if scheme == Scheme::Https => {
                let tls = tls.clone();
                let serve = |entry| serve_secured(connection, tls, service, context, entry);
                connections.spawn(at, serve);
            }
            _ => connections.spawn(at, |entry| serve_admin(connection, service, context, entry)),
        }
    }
}

async fn serve_secured(
    connection: Handover<StdStream>,
    tls: watch::Receiver<Arc<Secure>>,
    service: impl Service,
    context: ConnectionContext,
    entry: ConnectionEntry,
) {
    match incoming::secured(connection, &tls, &context, entry.activity()).await {
        Ok((connection, Protocol::Http1)) => serve::serve(connection, service, context, entry.activity()).await,
        Ok((connection, Protocol::Http2)) => http2::serve(connection, service, context, entry.activity()).await,
        Err(error) => tracing::trace!(%error, "connection ended"),
    }
}

async fn serve_admin(
    connection: Handover<StdStream>,
    service: impl Service,
    context: ConnectionContext,
    entry: ConnectionEntry,
) {
    match incoming::introduced(connection, Scheme::Http, &context).await {
        Ok(connection) => serve::serve(connection, service, context, entry.activity()).await,
        Err(error) => tracing::trace!(%error, "connection ended"),
    }
}
