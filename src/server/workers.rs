//! The threads that serve redirects, in pairs: one with an event loop for plain ones over plain HTTP, and one with a
//! runtime for those over TLS and those that wait for something. Each pair has its own listeners and its own
//! connections, so that none waits for another. A connection that asks for anything else is left to the general
//! threads.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::http::connection::closer::Inbox;
use crate::http::connection::guard::Handover;
use crate::http::connection::listener::Listening;
use crate::http::connection::serve::Signals;
use crate::http::connection::set::{
    AcceptedConnection, ConnectionContext, ConnectionEntry, ConnectionPolicy, ConnectionSet, ConnectionSets, Gate,
};
use crate::http::connection::{Scheme, serve};
use crate::links::ClickRecorder;
use crate::metrics::Metrics;
use crate::model::priority;
use crate::redirect::FastPath;
use crate::server::event_loop::EventLoop;
use crate::server::loop_connection::{LoopConnection, Turn};
use crate::server::routes::PublicService;
use crate::server::systemd::Heartbeat;
use crate::server::{general, incoming, redirect_task};
use crate::tls::{Protocol, Secure, TlsServer};

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) fast_path: Arc<FastPath>,
    /// Of HTTPS.
    pub(super) https: Option<Https>,
    /// The general threads.
    pub(super) general: Handle,
    pub(super) service: PublicService,
    pub(super) metrics: Arc<Metrics>,
    pub(super) gate: Gate,
    pub(super) ending: watch::Receiver<bool>,
    pub(super) heartbeat: Heartbeat,
}

#[derive(Debug, Clone)]
pub(super) struct Https {
    fast_path: Arc<FastPath>,
    tls: watch::Receiver<Arc<Secure>>,
    /// Serves plain HTTP where that redirects to HTTPS.
    redirecting: Option<PublicService>,
}

impl Https {
    pub(super) fn new(fast_path: FastPath, gate: &Gate, tls: &TlsServer, redirecting: Option<PublicService>) -> Self {
        Self {
            fast_path: Arc::new(fast_path.with_hsts(gate.hsts.as_ref())),
            tls: tls.subscribe(),
            redirecting,
        }
    }
}

#[derive(Debug)]
pub(super) struct Workers {
    ended: mpsc::UnboundedReceiver<()>,
    running: usize,
    /// Of each pair.
    connections: Vec<ConnectionSets>,
}

impl Workers {
    pub(super) fn connections(&self) -> &[ConnectionSets] {
        &self.connections
    }

    pub(super) async fn one_ended(&mut self) {
        if self.running > 0 {
            // Every thread holds a sender until it ends.
            let _ = self.ended.recv().await;
            self.running -= 1;
        }
    }

    pub(super) async fn all_ended(&mut self) {
        while self.running > 0 {
            self.one_ended().await;
        }
    }
}

/// Sends when it is dropped, also by a panic.
struct ThreadExitSignal(mpsc::UnboundedSender<()>);

impl Drop for ThreadExitSignal {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Starts the threads. Each takes one listener of each address, or more if there are more.
pub(super) fn start(worker: &Worker, threads: usize, addresses: Vec<Vec<Listening>>) -> io::Result<Workers> {
    let (sender, ended) = mpsc::unbounded_channel();
    let mut of_threads: Vec<Vec<Listening>> = Vec::new();
    of_threads.resize_with(threads, Vec::new);
    for (number, listener) in addresses
        .into_iter()
        .flat_map(|of_address| of_address.into_iter().enumerate())
    {
        if let Some(of_thread) = of_threads.get_mut(number % threads.max(1)) {
            of_thread.push(listener);
        }
    }
    let running = of_threads.len();
    let connections: Vec<_> = (0..running).map(|_| ConnectionSets::default()).collect();
    for (number, (listeners, connections)) in of_threads.into_iter().zip(connections.clone()).enumerate() {
        start_pair(worker, number, listeners, connections, ThreadExitSignal(sender.clone()))?;
    }
    Ok(Workers {
        ended,
        running,
        connections,
    })
}

fn start_pair(
    worker: &Worker,
    number: usize,
    listeners: Vec<Listening>,
    connections: ConnectionSets,
    ending: ThreadExitSignal,
) -> io::Result<()> {
    let (plain, others): (Vec<_>, Vec<_>) = listeners
        .into_iter()
        .partition(|listening| listening.scheme == Scheme::Http && !worker.redirects_to_https());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (handle, ending) = (runtime.handle().clone(), Arc::new(ending));
    let (tasks, connections_before) = (Arc::new(worker.for_thread()), connections.before.clone());
    let (hand_over, handed_over) = oneshot::channel();
    let run = {
        let (tasks, ending) = (Arc::clone(&tasks), Arc::clone(&ending));
        move || {
            // Dropped last: the runtime holds connections, and these the links.
            let _ending = ending;
            priority::shorten_slice();
            if let Err(error) = runtime.block_on(tasks.run(others, handed_over, connections)) {
                tracing::error!(%error, "redirect thread ended");
            }
            drop(runtime);
        }
    };
    thread::Builder::new()
        .name(format!("tinyd-async-{number}"))
        .spawn(run)?;
    if plain.is_empty() {
        // Nor is there anything to wait for.
        let _ = hand_over.send(Vec::new());
        return Ok(());
    }
    let spawn = {
        let handle = handle.clone();
        move |connection, policy, entry| tasks.spawn(&handle, connection, policy, entry)
    };
    let fast_path = worker.fast_path_for_thread(worker.fast_path.new_recorder());
    let event_loop = EventLoop::new(
        fast_path,
        worker.gate.clone(),
        connections_before,
        plain,
        Box::new(spawn),
    )?;
    handle.spawn(wake_when_stopped(
        worker.gate.stopped.clone(),
        Arc::clone(event_loop.inbox()),
    ));
    let heartbeat = worker.heartbeat.clone();
    let run = move || {
        let _ending = ending;
        priority::shorten_slice();
        if let Err(error) = event_loop.run(heartbeat, |listeners| drop(hand_over.send(listeners))) {
            tracing::error!(%error, "redirect thread ended");
        }
    };
    thread::Builder::new()
        .name(format!("tinyd-public-{number}"))
        .spawn(run)?;
    Ok(())
}

async fn wake_when_stopped(mut stopped: watch::Receiver<bool>, inbox: Arc<Inbox>) {
    // Without a sender, the program ends too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    inbox.wake();
}

impl Worker {
    /// With counts and clicks of its own.
    fn for_thread(&self) -> Self {
        let recorder = self.fast_path.new_recorder();
        Self {
            https: self.https.as_ref().map(|https| {
                let counters = self.metrics.redirects.for_thread();
                Https {
                    fast_path: Arc::new(https.fast_path.for_thread(counters, recorder.clone())),
                    ..https.clone()
                }
            }),
            fast_path: self.fast_path_for_thread(recorder),
            ..self.clone()
        }
    }

    fn fast_path_for_thread(&self, recorder: ClickRecorder) -> Arc<FastPath> {
        let counters = self.metrics.redirects.for_thread();
        Arc::new(self.fast_path.for_thread(counters, recorder))
    }

    fn redirects_to_https(&self) -> bool {
        self.https.as_ref().is_some_and(|https| https.redirecting.is_some())
    }

    /// Accepts connections of these listeners, and of those that the event loop hands over when the process drains.
    async fn run(
        self: Arc<Self>,
        listeners: Vec<Listening>,
        handed_over: oneshot::Receiver<Vec<Listening>>,
        connections: ConnectionSets,
    ) -> io::Result<()> {
        tokio::spawn(self.heartbeat.clone().run());
        let accepting_plain = async {
            let listeners = handed_over.await.map_err(io::Error::other)?;
            self.accept(listeners, &connections).await
        };
        tokio::try_join!(self.accept(listeners, &connections), accepting_plain)?;
        connections.settled().await;
        Ok(())
    }

    async fn accept(self: &Arc<Self>, listeners: Vec<Listening>, connections: &ConnectionSets) -> io::Result<()> {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let (worker, connections) = (Arc::clone(self), connections.clone());
            let serve = move |stream, address, scheme, is_draining| {
                worker.take(stream, address, scheme, is_draining, connections.of(is_draining));
            };
            let signals = Signals {
                stopped: self.gate.stopped.clone(),
                ending: self.ending.clone(),
            };
            accepting.spawn(serve::accept(listener, signals, serve));
        }
        while let Some(ended) = accepting.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Often answers the only request at once.
    fn take(
        self: &Arc<Self>,
        stream: TcpStream,
        address: IpAddr,
        scheme: Scheme,
        is_draining: bool,
        connections: &ConnectionSet,
    ) {
        let Some(accepted) = self.gate.admit(&stream, address, scheme, connections) else {
            return;
        };
        let AcceptedConnection { peer, slot, policy, at } = accepted;
        if scheme == Scheme::Https {
            let (connection, context) = (Handover::new(stream, peer, slot), self.gate.context(policy, scheme));
            connections.spawn(at, |entry| Arc::clone(self).serve_secured(connection, context, entry));
            return;
        }
        if let Some(service) = self.https.as_ref().and_then(|https| https.redirecting.clone()) {
            let (connection, context) = (Handover::new(stream, peer, slot), self.gate.context(policy, scheme));
            connections.spawn(at, |entry| {
                Arc::clone(self).serve_https_redirect(connection, service, context, entry)
            });
            return;
        }
        let mut connection = LoopConnection::new(stream, peer, slot, is_draining);
        if connection.begin(&self.fast_path, &policy, &mut Instant::now()) != Turn::Over {
            self.spawn(&Handle::current(), connection, policy, connections.enter(at));
        }
    }

    /// Serves a connection over plain HTTP in a task of this runtime, the worker's.
    pub(super) fn spawn(
        self: &Arc<Self>,
        runtime: &Handle,
        connection: LoopConnection,
        policy: Arc<ConnectionPolicy>,
        entry: ConnectionEntry,
    ) {
        let context = self.gate.context(policy, Scheme::Http);
        entry.spawn_on(runtime, |entry| Arc::clone(self).serve(connection, context, entry));
    }

    async fn serve(self: Arc<Self>, connection: LoopConnection, context: ConnectionContext, entry: ConnectionEntry) {
        let activity = entry.activity();
        let served = match redirect_task::serve(connection, &self.fast_path, &context, activity).await {
            Ok(Some(handover)) => general::serve(&self.general, handover, self.service.clone(), context, activity),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        finish(served).await;
    }

    async fn serve_https_redirect(
        self: Arc<Self>,
        connection: Handover<TcpStream>,
        service: PublicService,
        context: ConnectionContext,
        entry: ConnectionEntry,
    ) {
        let served = match incoming::introduced(connection, Scheme::Http, &context).await {
            Ok(connection) => general::serve(&self.general, connection, service, context, entry.activity()),
            Err(error) => Err(error),
        };
        finish(served).await;
    }

    async fn serve_secured(
        self: Arc<Self>,
        connection: Handover<TcpStream>,
        context: ConnectionContext,
        entry: ConnectionEntry,
    ) {
        let Some(https) = &self.https else { return };
        let activity = entry.activity();
        let served = async {
            let (connection, protocol) = incoming::secured(connection, &https.tls, &context, activity).await?;
            Ok(match protocol {
                Protocol::Http1 => {
                    let served = redirect_task::serve_secured(connection, &https.fast_path, &context, activity);
                    served.await?.map(|connection| (connection, protocol))
                }
                Protocol::Http2 => Some((connection, protocol)),
            })
        };
        let served = match served.await {
            Ok(Some((handover, Protocol::Http2))) => {
                general::serve_http2(&self.general, handover, self.service.clone(), context, activity)
            }
            Ok(Some((handover, Protocol::Http1))) => {
                general::serve(&self.general, handover, self.service.clone(), context, activity)
            }
            Ok(None) => return,
            Err(error) => Err(error),
        };
        finish(served).await;
    }
}

async fn finish(served: io::Result<AbortOnDropHandle<()>>) {
    match served {
        // The connection keeps its entry in this thread's set and ends with it. A panic is logged.
        Ok(connection) => drop(connection.await),
        Err(error) => tracing::trace!(%error, "connection ended"),
    }
}
