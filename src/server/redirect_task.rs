//! Connections of the fast path that a task serves: those over TLS, and those that have to wait for something. Plain
//! requests for redirects are answered from the fast path; from the first request that is anything else, the connection
//! is hyper's.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use crate::http::connection::guard::{Depart, Handover, linger};
use crate::http::connection::set::{ConnectionContext, LastUsed};
use crate::http::connection::{Scheme, proxy_protocol};
use crate::metrics::Refusal;
use crate::redirect::{FastPath, Now, Waiting};
use crate::server::exchange::{FastExchange, Next, Progress};
use crate::server::loop_connection::LoopConnection;
use crate::tls::TlsStream;

struct Connection<'c, S> {
    exchange: FastExchange<'c, S>,
    context: &'c ConnectionContext,
    activity: &'c LastUsed,
    alarm: Pin<&'c mut Sleep>,
}

/// Serves a connection in a task. Returns it, with what is unread, when its next request is not for the fast path.
pub(super) async fn serve(
    connection: LoopConnection,
    fast_path: &FastPath,
    context: &ConnectionContext,
    activity: &Arc<LastUsed>,
) -> io::Result<Option<Handover<TcpStream>>> {
    let LoopConnection {
        stream,
        peer,
        slot,
        mut progress,
        unsent,
    } = connection;
    let mut handover = Handover::new(TcpStream::from_std(stream.socket)?, peer, slot);
    if context.policy.is_announced_by(&handover.peer) {
        proxy_protocol::introduce(&mut handover, Scheme::Http, context).await?;
        progress.held = std::mem::take(&mut handover.unread);
        progress.wants_more = progress.held.is_empty();
    }
    go_on(handover, progress, unsent, fast_path, context, activity).await
}

/// The same for a connection that is secured.
pub(super) async fn serve_secured(
    connection: Handover<TlsStream>,
    fast_path: &FastPath,
    context: &ConnectionContext,
    activity: &LastUsed,
) -> io::Result<Option<Handover<TlsStream>>> {
    go_on(connection, Progress::new(), Vec::new(), fast_path, context, activity).await
}

async fn go_on<S: AsyncRead + AsyncWrite + Depart + Unpin>(
    mut handover: Handover<S>,
    mut progress: Progress,
    unsent: Vec<u8>,
    fast_path: &FastPath,
    context: &ConnectionContext,
    activity: &LastUsed,
) -> io::Result<Option<Handover<S>>> {
    let policy = &context.policy;
    // A busy connection may have used up the task's budget when it gets here.
    let mut stopped = context.stopped.clone();
    let mut stop = pin!(unconstrained(stopped.wait_for(|stopped| *stopped)));
    if *context.stopped.borrow() && !progress.deadlines.is_draining() {
        progress.deadlines.drain();
    }
    let alarm = progress.deadlines.alarm(&policy.limits);
    let mut connection = Connection {
        exchange: FastExchange {
            stream: &mut handover.stream,
            fast_path,
            peer: &handover.peer,
            policy,
            activity: Some(activity),
            progress: &mut progress,
            arrived: &[],
        },
        context,
        activity,
        alarm: pin!(tokio::time::sleep_until(alarm)),
    };
    if !unsent.is_empty() {
        connection.send(&unsent).await?;
    }
    loop {
        let next = std::future::poll_fn(|cx| {
            let polled = connection.exchange.poll(cx, &mut Instant::now());
            if !connection.exchange.progress.deadlines.is_draining() && stop.as_mut().poll(cx).is_ready() {
                let ends = connection.exchange.progress.deadlines.drain();
                connection.alarm.as_mut().reset(ends);
            }
            match polled {
                Poll::Pending => connection.poll_alarm(cx).map(|()| Ok(Next::Close)),
                polled => polled,
            }
        });
        match next.await? {
            Next::Send(rest) => connection.send(&rest).await?,
            Next::Wait(waiting) => connection.wait(waiting).await?,
            Next::Other => {
                let Progress { held, deadlines, .. } = progress;
                (handover.unread, handover.deadlines) = (held, deadlines);
                return Ok(Some(handover));
            }
            Next::Close => {
                if connection.exchange.progress.is_cut {
                    let reason = connection.exchange.progress.last_because(policy);
                    reason.inspect(|reason| context.counts.refused(*reason));
                    Box::pin(linger(&mut handover.stream)).await?;
                } else if S::SAYS_GOODBYE {
                    connection.shut_down().await?;
                }
                return Ok(None);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn wait(&mut self, waiting: Waiting) -> io::Result<()> {
        let (mut now, since) = (Now::default(), Instant::now());
        now.refresh(self.exchange.fast_path.clock(), since.into_std());
        let mut answer = Vec::new();
        self.activity.work();
        self.exchange.fast_path.wait(waiting, &now, &mut answer).await;
        self.activity.rest(Instant::now().into_std());
        self.exchange.progress.held.drain(..waiting.consumed());
        self.exchange.progress.note_answer(waiting.close());
        self.send(&answer).await?;
        self.exchange.fast_path.took(since.elapsed(), 1);
        Ok(())
    }

    async fn shut_down(&mut self) -> io::Result<()> {
        let shutting_down = tokio::time::timeout(
            self.context.policy.limits.write_timeout,
            self.exchange.stream.shutdown(),
        );
        shutting_down.await?
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sending = async {
            self.exchange.stream.write_all(bytes).await?;
            self.exchange.stream.flush().await
        };
        let sending = tokio::time::timeout(self.context.policy.limits.write_timeout, sending);
        sending.await.unwrap_or_else(|elapsed| {
            self.context.counts.refused(Refusal::WriteTimeout);
            Err(elapsed.into())
        })
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (deadlines, limits) = (&self.exchange.progress.deadlines, &self.context.policy.limits);
        if let Some(reason) = ready!(deadlines.poll(self.alarm.as_mut(), limits, cx)) {
            self.context.counts.refused(reason);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::connection::set::{ConnectionSet, Gate};
    use crate::links::Links;
    use crate::model::Clock;
    use crate::model::work::assert_is_linear;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream as StdStream};
    use tokio::sync::watch;
    use tokio::task::yield_now;

    /// Serves a client that sends these bytes one by one.
    fn serve_in_pieces(fast_path: &FastPath, bytes: &[u8]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (_stop, stopped) = watch::channel(false);
        let gate = Gate::test(stopped);
        runtime.unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_nodelay(true).unwrap();
            let (stream, address) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let accepted = gate
                .admit(&stream, address.ip(), Scheme::Http, &ConnectionSet::default())
                .unwrap();
            let connection = LoopConnection::new(stream, accepted.peer, accepted.slot, false);
            let context = gate.context(accepted.policy, Scheme::Http);
            let activity = Arc::new(LastUsed::default());
            let serving = serve(connection, fast_path, &context, &activity);
            let sending = async {
                for byte in bytes {
                    client.write_all(&[*byte]).unwrap();
                    yield_now().await;
                }
                drop(client);
            };
            let (served, ()) = tokio::join!(serving, sending);
            assert!(served.unwrap().is_none());
        });
    }

    #[test]
    fn a_head_in_pieces_is_not_parsed_for_each() {
        let folder = tempfile::tempdir().unwrap();
        let links = Arc::new(Links::open(folder.path(), Clock::system(), 8).unwrap());
        let fast_path = FastPath::test(links);
        let make = |size| format!("GET /tiny/67mk41xj HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(size));
        assert_is_linear(1_000, make, |head| serve_in_pieces(&fast_path, head.as_bytes()));
    }
}
