//! The threads that serve everything but plain redirects, so that what takes long, such as a download from a
//! destination, delays no redirect.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::http::connection::guard::{Depart, Handover, Migrate};
use crate::http::connection::set::{ConnectionContext, LastUsed};
use crate::http::connection::{http2, serve};
use crate::model::priority;
use crate::server::routes::PublicService;
use crate::tls::TlsStream;

#[derive(Debug)]
pub(super) struct General {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl General {
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("tinyd-general")
            .on_thread_start(|| priority::lower(priority::GENERAL_NICE))
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Aborts the remaining tasks and waits until they are dropped, at most for `patience`.
    pub(super) async fn end(mut self, patience: Duration) {
        if let Some(runtime) = self.runtime.take() {
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(patience)).await;
        }
    }
}

impl Drop for General {
    fn drop(&mut self) {
        // A runtime must not block on another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Serves a connection on these threads. It ends with the returned handle.
pub(super) fn serve<S>(
    general: &Handle,
    connection: Handover<S>,
    service: PublicService,
    context: ConnectionContext,
    activity: &Arc<LastUsed>,
) -> io::Result<AbortOnDropHandle<()>>
where
    S: AsyncRead + AsyncWrite + Depart + Migrate + Send + Unpin + 'static,
{
    let activity = Arc::clone(activity);
    move_to(general, connection, |connection| async move {
        serve::serve(connection, service, context, &activity).await;
    })
}

/// The same for HTTP/2.
pub(super) fn serve_http2(
    general: &Handle,
    connection: Handover<TlsStream>,
    service: PublicService,
    context: ConnectionContext,
    activity: &Arc<LastUsed>,
) -> io::Result<AbortOnDropHandle<()>> {
    let activity = Arc::clone(activity);
    move_to(general, connection, |connection| async move {
        http2::serve(connection, service, context, &activity).await;
    })
}

fn move_to<S: Migrate + Send, F: Future<Output = ()> + Send>(
    general: &Handle,
    connection: Handover<S>,
    serve: impl FnOnce(Handover<S>) -> F + Send + 'static,
) -> io::Result<AbortOnDropHandle<()>> {
    let connection = connection.try_map(Migrate::detach)?;
    let serving = async move {
        match connection.try_map(S::attach) {
            Ok(connection) => serve(connection).await,
            Err(error) => tracing::warn!(%error, "cannot serve a connection"),
        }
    };
    Ok(AbortOnDropHandle::new(general.spawn(serving)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_releases_everything() {
        let general = General::start(2).unwrap();
        let held = Arc::new(());
        for _ in 0..1_000 {
            let held = Arc::clone(&held);
            general.handle().spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
        }
        general.end(Duration::from_secs(60)).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
