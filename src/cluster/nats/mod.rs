//! The requests to NATS JetStream that a cluster needs. Alone names async-nats; their forms are those of its API.

mod replica;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Client, ConnectOptions, Event, Message, ReconnectToServer, Request, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::time::timeout;

use crate::cluster::ClusterSettings;
pub use crate::cluster::stream::{LogLimits, Server, ServerAnswer, StreamInfo};
use crate::cluster::stream::{Republish, StreamConfig};
use crate::tls;

/// For an answer of a server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// From one server's answer to the next one's.
const SERVERS_TIME: Duration = Duration::from_millis(500);
/// A server that hangs is noticed within two of them.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_MAX_MILLISECONDS: u64 = 2_000;
/// Of a subscription, each of half a megabyte at most; what is dropped is read later.
const WAITING_MAX_MESSAGES: usize = 1_024;

/// The last part of the subject of the log.
const LOG: &str = "log";
/// The same of copies: each has one of its own.
const COPIES: &str = "copy.*";

// Error codes of JetStream.
const WRONG_LAST_SEQUENCE: u32 = 10_071;
const NO_MESSAGE: u32 = 10_037;
const NO_STREAM: u32 = 10_059;

/// A connection to the cluster's servers, which is made again when it breaks.
#[derive(Debug, Clone)]
pub struct Nats {
    client: Client,
    pub stream: String,
    /// The last part of the subject of the stream.
    appends: &'static str,
    prefix: String,
    connections: Arc<AtomicU64>,
    /// From when a server is left until there is a connection.
    leaving: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatsError {
    #[error("no connection to a NATS server")]
    Disconnected,
    /// Whether the request was carried out is not known.
    #[error("no answer from NATS: {0}")]
    NoAnswer(String),
    /// The stream is not there, or no server has it at the moment.
    #[error("no NATS server answers for the stream")]
    NoResponders,
    #[error("NATS refused: {description}")]
    Refused { code: u32, description: String },
    #[error("NATS sent a malformed answer")]
    Malformed,
}

impl NatsError {
    pub const fn is_no_stream(&self) -> bool {
        matches!(self, Self::Refused { code: NO_STREAM, .. })
    }
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Stored,
    /// The last sequence is another one, which the server may say.
    WrongLast(Option<u64>),
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// An answer of JetStream: what was asked for, or an error.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Refused { error: Refusal },
    Given(T),
}

#[derive(Deserialize)]
struct Stored {
    seq: u64,
}

#[derive(Deserialize)]
struct Got {
    message: GotMessage,
}

#[derive(Deserialize)]
struct GotMessage {
    subject: String,
    data: Option<String>,
}

/// When a connection is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connecting {
    /// At once, or it fails with the reason.
    Now,
    /// As soon as there is a server.
    Patiently,
}

/// The server to connect to when one is left. In turn, because that one goes on taking connections.
fn next_server(pool: &[async_nats::Server], turn: &AtomicUsize) -> Option<ReconnectToServer> {
    let next = pool.get(turn.fetch_add(1, Ordering::Relaxed).checked_rem(pool.len())?)?;
    Some(ReconnectToServer {
        addr: next.addr.clone(),
        delay: None,
    })
}

impl Nats {
    pub async fn connect(settings: &ClusterSettings, when: Connecting) -> Result<Self, String> {
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        let leaving = Arc::new(AtomicBool::new(false));
        let (left, has_left) = (Arc::clone(&leaving), Arc::clone(&leaving));
        // At random, so that a thousand boxes do not all go to the same one.
        let turn = AtomicUsize::new(rand::random_range(0..usize::from(u16::MAX)));
        let mut options = ConnectOptions::new()
            .name(format!("tinyd {}", settings.node))
            .custom_inbox_prefix(format!("_INBOX_{}", settings.node))
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(WAITING_MAX_MESSAGES)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            // Servers tell of each other by addresses without a scheme.
            .require_tls(settings.servers.iter().any(|server| server.starts_with("tls:")))
            .reconnect_delay_callback(|attempts| {
                // At random, so that a thousand boxes do not come back at once.
                let most = RECONNECT_MAX_MILLISECONDS.min(50 << attempts.min(6));
                Duration::from_millis(rand::random_range(0..=most))
            })
            .reconnect_to_server_callback(move |pool, _| {
                let is_left = left.load(Ordering::SeqCst);
                std::future::ready(is_left.then(|| next_server(&pool, &turn)).flatten())
            })
            .event_callback(move |event| {
                if matches!(event, Event::Connected) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    has_left.store(false, Ordering::SeqCst);
                }
                tracing::info!("NATS: {event}");
                std::future::ready(())
            })
            .tls_client_config(tls::client_config(&settings.authorities)?);
        if let Some(seed) = &settings.seed {
            options = options.nkey(seed.clone());
        }
        if when == Connecting::Patiently {
            options = options.retry_on_initial_connect();
        }
        let client = options.connect(settings.servers.as_slice()).await;
        Ok(Self {
            client: client.map_err(|error| with_causes(&error))?,
            stream: settings.stream(),
            appends: LOG,
            prefix: settings.subject(""),
            connections,
            leaving,
        })
    }

    /// The stream of copies of the store, by the same connection.
    pub fn copies(&self) -> Self {
        Self {
            stream: format!("{}_COPY", self.stream),
            appends: COPIES,
            ..self.clone()
        }
    }

    /// The stream of clicks, by the same connection.
    pub fn clicks(&self) -> Self {
        Self {
            stream: format!("{}_CLICKS", self.stream),
            appends: "clicks.*",
            ..self.clone()
        }
    }

    /// How many connections have been made: another number means that something may have been missed.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Tries another server: this one is there, but cut off from the others.
    pub async fn leave_server(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        // A connection that is being made is another one already.
        let _ = self.client.force_reconnect().await;
    }

    fn subject(&self, of: &str) -> String {
        format!("{}{of}", self.prefix)
    }

    async fn request(&self, subject: String, request: Request) -> Result<Message, NatsError> {
        if !self.is_connected() {
            return Err(NatsError::Disconnected);
        }
        let answer = self.client.send_request(subject, request).await;
        answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => NatsError::NoResponders,
            _ => NatsError::NoAnswer(error.to_string()),
        })
    }

    /// Sends a request to which several answers may come.
    async fn request_several(&self, subject: String, body: Bytes) -> Result<Subscriber, NatsError> {
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let answers = answers.map_err(|error| NatsError::NoAnswer(error.to_string()))?;
        let sent = self.client.publish_with_reply(subject, inbox, body).await;
        sent.map_err(|error| NatsError::NoAnswer(error.to_string()))?;
        Ok(answers)
    }

    async fn ask<T: for<'d> Deserialize<'d>>(&self, subject: String, request: Request) -> Result<T, NatsError> {
        let answer = self.request(subject, request).await?;
        match serde_json::from_slice(&answer.payload).map_err(|_| NatsError::Malformed)? {
            Answer::Given(given) => Ok(given),
            Answer::Refused { error } => Err(NatsError::Refused {
                code: error.err_code,
                description: error.description,
            }),
        }
    }

    /// Appends an entry behind the one with the number `after`.
    pub async fn append(&self, after: u64, entry: Bytes) -> Result<Published, NatsError> {
        self.append_as(self.appends, after, entry).await
    }

    /// The same for a part of a copy.
    pub async fn append_to_copy(&self, copy: &str, after: u64, part: Bytes) -> Result<Published, NatsError> {
        self.append_as(&format!("copy.{copy}"), after, part).await
    }

    async fn append_as(&self, of: &str, after: u64, entry: Bytes) -> Result<Published, NatsError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Sequence", after.to_string());
        headers.insert("Nats-Expected-Stream", self.stream.as_str());
        let request = Request::new().payload(entry).headers(headers);
        match self.ask::<Stored>(self.subject(of), request).await {
            Ok(stored) if stored.seq == after + 1 => Ok(Published::Stored),
            Ok(_) => Err(NatsError::Malformed),
            Err(NatsError::Refused {
                code: WRONG_LAST_SEQUENCE,
                description,
            }) => {
                let last = description.rsplit(' ').next().and_then(|last| last.parse().ok());
                Ok(Published::WrongLast(last))
            }
            Err(error) => Err(error),
        }
    }

    /// Has the stream of clicks store a message of a box.
    pub async fn publish_clicks(&self, node: &str, message: Bytes) -> Result<(), NatsError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", self.stream.as_str());
        let request = Request::new().payload(message).headers(headers);
        self.ask::<Stored>(self.subject(&format!("clicks.{node}")), request)
            .await
            .map(drop)
    }

    pub async fn info(&self) -> Result<StreamInfo, NatsError> {
        self.ask(format!("$JS.API.STREAM.INFO.{}", self.stream), Request::new())
            .await
    }

    /// Makes the stream.
    pub async fn create(&self, limits: LogLimits, first: u64, metadata: &[(&str, String)]) -> Result<(), NatsError> {
        self.configure("CREATE", limits, first, metadata).await
    }

    /// Gives a stream without metadata other limits.
    pub async fn limit(&self, limits: LogLimits) -> Result<(), NatsError> {
        self.configure("UPDATE", limits, 0, &[]).await
    }

    async fn configure(
        &self,
        how: &str,
        limits: LogLimits,
        first: u64,
        metadata: &[(&str, String)],
    ) -> Result<(), NatsError> {
        let config = StreamConfig {
            name: self.stream.clone(),
            subjects: vec![self.subject(self.appends)],
            storage: "file".into(),
            retention: "limits".into(),
            // A new copy must not push a part of the one before out.
            discard: if self.appends == COPIES { "new" } else { "old" }.into(),
            num_replicas: limits.replicas,
            max_bytes: i64::try_from(limits.bytes).unwrap_or(i64::MAX),
            max_age: i64::try_from(limits.age.as_nanos()).unwrap_or(i64::MAX),
            allow_direct: true,
            deny_delete: true,
            // Old copies are purged.
            deny_purge: self.appends != COPIES,
            first_seq: first,
            republish: (self.appends == LOG).then(|| Republish {
                src: self.subject(LOG),
                dest: self.subject("live"),
            }),
            metadata: metadata
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        };
        let body = serde_json::to_vec(&config).map_err(|_| NatsError::Malformed)?;
        let subject = format!("$JS.API.STREAM.{how}.{}", self.stream);
        let made: StreamInfo = self.ask(subject, Request::new().payload(body.into())).await?;
        drop(made);
        Ok(())
    }

    /// Removes the stream with all that it has.
    pub async fn delete(&self) -> Result<(), NatsError> {
        self.change("DELETE", String::new()).await
    }

    /// Drops what is before this number.
    pub async fn purge_before(&self, sequence: u64) -> Result<(), NatsError> {
        self.change("PURGE", format!("{{\"seq\":{sequence}}}")).await
    }

    /// Drops a copy.
    pub async fn purge_copy(&self, copy: &str) -> Result<(), NatsError> {
        let subject = self.subject(&format!("copy.{copy}"));
        self.change("PURGE", format!("{{\"filter\":\"{subject}\"}}")).await
    }

    async fn change(&self, how: &str, body: String) -> Result<(), NatsError> {
        let subject = format!("$JS.API.STREAM.{how}.{}", self.stream);
        let changed: serde_json::Value = self.ask(subject, Request::new().payload(body.into())).await?;
        drop(changed);
        Ok(())
    }

    /// The entry with this number as the leader has it; none if there is none.
    pub async fn get(&self, sequence: u64) -> Result<Option<Vec<u8>>, NatsError> {
        Ok(self.get_of(sequence).await?.map(|(_, data)| data))
    }

    /// The same with the last part of its subject, which the servers grant to its sender alone.
    pub async fn get_of(&self, sequence: u64) -> Result<Option<(String, Vec<u8>)>, NatsError> {
        use base64::Engine as _;
        let body = format!("{{\"seq\":{sequence}}}");
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.stream);
        match self.ask::<Got>(subject, Request::new().payload(body.into())).await {
            Ok(got) => {
                let data = got.message.data.unwrap_or_default();
                let decoded = base64::engine::general_purpose::STANDARD.decode(data);
                let decoded = decoded.map_err(|_| NatsError::Malformed)?;
                Ok(Some((last_part(&got.message.subject), decoded)))
            }
            Err(NatsError::Refused { code: NO_MESSAGE, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the admin boxes for an entry that no replica has.
    pub async fn ask_boxes(&self, sequence: u64, node: &str) -> Option<Vec<u8>> {
        let mut given = self.subscribe(&format!("given.{node}")).await.ok()?;
        self.publish("entry", format!("{sequence} {node}").into_bytes())
            .await
            .ok()?;
        let entry = timeout(REQUEST_TIMEOUT, given.next()).await.ok()??;
        Some(entry.to_vec())
    }

    /// What each server says of its JetStream, if it has one that works.
    pub async fn servers(&self) -> Result<Vec<Server>, NatsError> {
        let body = Bytes::from_static(b"{\"config\":true}");
        let mut answers = self.request_several(self.subject("servers"), body).await?;
        let mut servers = Vec::new();
        while let Ok(Some(answer)) = timeout(SERVERS_TIME, answers.next()).await {
            if answer.status.is_some() {
                break;
            }
            let server: ServerAnswer = serde_json::from_slice(&answer.payload).map_err(|_| NatsError::Malformed)?;
            servers.extend(server.running());
        }
        Ok(servers)
    }

    pub async fn publish(&self, of: &str, payload: Vec<u8>) -> Result<(), NatsError> {
        let published = self.client.publish(self.subject(of), payload.into()).await;
        published.map_err(|error| NatsError::NoAnswer(error.to_string()))
    }

    pub async fn subscribe(&self, of: &str) -> Result<Subscription, NatsError> {
        let subscribed = self.client.subscribe(self.subject(of)).await;
        subscribed
            .map(|messages| Subscription(Some(messages)))
            .map_err(|error| NatsError::NoAnswer(error.to_string()))
    }
}

fn last_part(subject: &str) -> String {
    subject.rsplit('.').next().unwrap_or_default().to_owned()
}

/// An error with what it came of, where it does not say that itself.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let of_cause = error.to_string();
        if !text.contains(&of_cause) {
            text = format!("{text}: {of_cause}");
        }
        cause = error.source();
    }
    text
}

/// Messages of a subject.
#[derive(Debug)]
pub struct Subscription(Option<Subscriber>);

impl Subscription {
    /// One without messages, of a box that may not have them.
    pub const fn silent() -> Self {
        Self(None)
    }

    pub async fn next(&mut self) -> Option<Bytes> {
        self.next_of().await.map(|(_, payload)| payload)
    }

    /// The next message with its subject, of which the servers grant some to one box alone.
    pub async fn next_of(&mut self) -> Option<(String, Bytes)> {
        match &mut self.0 {
            Some(messages) => messages
                .next()
                .await
                .map(|message| (message.subject.to_string(), message.payload)),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_next_in_turn_after_one_was_left() {
        // Of one that takes connections, no attempt fails.
        let server = |name: &str, failed_attempts| async_nats::Server {
            addr: name.parse().unwrap(),
            failed_attempts,
            did_connect: true,
            is_discovered: false,
            last_error: None,
        };
        let turn = AtomicUsize::new(7);
        let pool = [server("a", 0), server("b", 2), server("c", 1)];
        let next = || next_server(&pool, &turn).unwrap().addr.host().to_owned();
        assert_eq!([next(), next(), next()], ["b", "c", "a"]);
        assert!(next_server(&[], &turn).is_none());
    }
}
