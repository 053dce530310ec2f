//! The threads that serve redirects: each has a runtime, its own listeners and its own connections, so that none waits
//! for another.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::public::FastPath;
use crate::server::notify::RollCall;
use crate::server::redirects::Newcomer;
use crate::server::service::PublicService;
use crate::server::{DRAIN_DEADLINE, connection, redirects};

/// Buffer of a public connection that hyper serves, in bytes: no request there needs a longer head.
const BUFFER_BYTES: usize = 16 * 1024;

/// What a thread serves redirects with.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) fast_path: Arc<FastPath>,
    pub(super) service: PublicService,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) roll_call: RollCall,
}

/// The threads that have been started.
#[derive(Debug)]
pub(super) struct Workers {
    ended: mpsc::UnboundedReceiver<()>,
    running: usize,
}

impl Workers {
    /// Waits until a thread has ended.
    pub(super) async fn one_ended(&mut self) {
        if self.running > 0 {
            // Every thread says so, and holds a sender until then.
            let _ = self.ended.recv().await;
            self.running -= 1;
        }
    }

    /// Waits until all threads have ended.
    pub(super) async fn all_ended(&mut self) {
        while self.running > 0 {
            self.one_ended().await;
        }
    }
}

/// Says that a thread has ended, however it did.
struct Ending(mpsc::UnboundedSender<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody may be waiting for it any more.
        let _ = self.0.send(());
    }
}

/// Starts a thread for each listener of an address, which takes one of each address.
///
/// # Errors
/// When the operating system gives no more threads or descriptors.
pub(super) fn start(worker: &Worker, addresses: Vec<Vec<TcpListener>>) -> io::Result<Workers> {
    let (sender, ended) = mpsc::unbounded_channel();
    let mut of_threads: Vec<Vec<TcpListener>> = Vec::new();
    for of_address in addresses {
        of_threads.resize_with(of_threads.len().max(of_address.len()), Vec::new);
        for (of_thread, listener) in of_threads.iter_mut().zip(of_address) {
            of_thread.push(listener);
        }
    }
    let running = of_threads.len();
    for (number, listeners) in of_threads.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (worker, ending) = (worker.clone(), Ending(sender.clone()));
        let run = move || {
            // The last that is dropped: the runtime holds connections, and these the links.
            let _ending = ending;
            if let Err(error) = runtime.block_on(worker.run(listeners)) {
                tracing::error!(%error, "a thread that serves redirects has ended");
            }
            drop(runtime);
        };
        thread::Builder::new()
            .name(format!("tinyd-public-{number}"))
            .spawn(run)?;
    }
    Ok(Workers { ended, running })
}

impl Worker {
    async fn run(self, listeners: Vec<TcpListener>) -> io::Result<()> {
        tokio::spawn(self.roll_call.clone().answer());
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let (worker, stopped) = (self.clone(), self.stopped.clone());
            let serve = move |stream, address, graceful: &GracefulShutdown| {
                // Often all that there is to do is done at once.
                let mut newcomer = Newcomer::new(stream);
                if !newcomer.answer(&worker.fast_path) {
                    tokio::spawn(worker.clone().serve(newcomer, address, graceful.watcher()));
                }
            };
            accepting.spawn(connection::accept(listener, stopped, serve));
        }
        let mut stopped = self.stopped;
        let deadline = async {
            // An error means that the sender is gone, which also means the end.
            let _ = stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(DRAIN_DEADLINE).await;
        };
        let finish = async {
            while let Some(ended) = accepting.join_next().await {
                ended??;
            }
            Ok(())
        };
        tokio::select! {
            finished = finish => finished,
            () = deadline => Ok(()),
        }
    }

    async fn serve(mut self, newcomer: Newcomer, address: IpAddr, watcher: Watcher) {
        match redirects::serve(newcomer, &self.fast_path, &mut self.stopped).await {
            Ok(Some((stream, received))) => {
                let (reader, writer) = stream.into_split();
                let stream = tokio::io::join(io::Cursor::new(received).chain(reader), writer);
                // Boxed, because few connections come here and all would have to hold the room for it.
                Box::pin(connection::serve(stream, address, self.service, BUFFER_BYTES, watcher)).await;
            }
            Ok(None) => {}
            // How a client ends its connection is its own business.
            Err(error) => tracing::trace!(%error, "connection ended"),
        }
    }
}
